/** Writes the files that are made from the sources; `--check` writes nothing and fails when one differs. */
import { readFile, writeFile } from 'node:fs/promises';
import { renderManPages, renderReference } from '#/cli/man.ts';
import { errorsPage } from './errors-page.ts';

const ROOT = new URL('..', import.meta.url);

/** Every generated file: its path from the root, and what belongs into it. */
function generated(): { file: string; text: string }[] {
  const pages = [...renderManPages(), renderReference()].map(({ file, text }) => ({ file: `docs/${file}`, text }));
  return [{ file: 'docs/errors.md', text: errorsPage() }, ...pages];
}

async function main(args: string[]): Promise<number> {
  const check = args.includes('--check');
  const stale: string[] = [];
  for (const { file, text } of generated()) {
    const present = await readFile(new URL(file, ROOT), 'utf8').catch(() => undefined);
    if (text === present) continue;
    stale.push(file);
    if (!check) await writeFile(new URL(file, ROOT), text);
  }
  if (stale.length > 0) console.log(`${check ? 'out of date, run npm run generate' : 'written'}: ${stale.join(', ')}`);
  return check && stale.length > 0 ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
