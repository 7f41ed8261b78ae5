/** The unit tests: `node scripts/unit.ts [file …]`, all of src when none is named. */
import { globSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { isGood, runTests, summary } from './run-tests.ts';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const named = process.argv.slice(2);
const files = named.length > 0 ? named : globSync('src/**/*.test.ts').sort();
const counts = files.length === 0 ? { passed: 0, failed: 0, skipped: 0 } : await runTests(files);
console.log(`unit: ${summary(counts)}`);
process.exitCode = isGood(counts) ? 0 : 1;
