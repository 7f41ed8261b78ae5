/**
 * End-to-end suites, one after the other: `node scripts/e2e.ts [suite …]`; a suite is e2e/<name>.test.ts, none means
 * all. The last line is `N passed, N failed, N skipped`. Exit 0 good, 1 something failed or nothing ran, 2 unknown name.
 */
import { globSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { add, isGood, runTests, summary } from './run-tests.ts';
import type { Counts } from './run-tests.ts';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));

function suites(): string[] {
  return globSync('e2e/*.test.ts')
    .map((file) => path.basename(file, '.test.ts'))
    .sort();
}

async function main(names: string[]): Promise<number> {
  const known = suites();
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    console.error(`no suite ${unknown.join(', ')}; there are: ${known.join(' ')}`);
    return 2;
  }
  let total: Counts = { passed: 0, failed: 0, skipped: 0 };
  const bad: string[] = [];
  for (const name of names.length > 0 ? [...new Set(names)] : known) {
    console.log(`== ${name}`);
    const counts = await runTests([`e2e/${name}.test.ts`], { inSequence: true });
    total = add(total, counts);
    if (!isGood(counts)) bad.push(`${name} (${summary(counts)})`);
  }
  if (bad.length > 0) console.log(`not good: ${bad.join(', ')}`);
  console.log(summary(total));
  return isGood(total) && bad.length === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
