/** docs/errors.md, from the table of error codes. */
import { ERRORS } from '#/lib/errors.ts';

const EXITS: Record<number, string> = {
  1: 'failed',
  2: 'usage',
  3: 'incomplete',
  10: 'not found',
  11: 'busy',
  12: 'not allowed',
  130: 'stopped',
};

export function errorsPage(): string {
  const rows = Object.entries(ERRORS).map(
    ([code, { status, exit, retryable, hint }]) =>
      `| \`${code}\` | ${hint} | ${retryable ? 'yes' : 'no'} | ${status} | ${exit} ${EXITS[exit] ?? ''} |`,
  );
  return `# Errors

Every error carries one of these codes: in the log, in the answer of the API (\`code\`, \`message\`, \`details\`,
\`requestId\`) and in \`--json\` output. "Retry" says whether the same request may succeed later without anybody changing
anything. The client ends with the exit code in the last column; 0 means done.

Made from \`src/lib/errors.ts\` by \`npm run generate\`.

| code | what it means and what to do | retry | HTTP | exit |
|---|---|---|---|---|
${rows.join('\n')}
`;
}
