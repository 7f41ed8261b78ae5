/** `npm run bench -- NAME [--json] [--pairs N] [--mib N]`: ratios measured in one run against public tools, never a test. */
import { parseArgs } from 'node:util';
import { full } from './full.ts';
import { incremental } from './incremental.ts';
import { overhead } from './overhead.ts';

export interface BenchOptions {
  pairs: number;
  mib: number;
}

const BENCHMARKS: Record<string, (options: BenchOptions) => Promise<Record<string, unknown>>> = {
  full,
  incremental,
  overhead,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'boolean' }, pairs: { type: 'string' }, mib: { type: 'string' } },
});
const [name] = positionals;
const bench = BENCHMARKS[name ?? ''];
if (!bench || positionals.length > 1) {
  process.stderr.write(`usage: npm run bench -- ${Object.keys(BENCHMARKS).join('|')} [--json] [--pairs N] [--mib N]\n`);
  process.exit(2);
}
const result = await bench({ pairs: Number(values.pairs ?? 7), mib: Number(values.mib ?? 1024) });
if (values.json) process.stdout.write(`${JSON.stringify({ bench: name, ...result }, undefined, 2)}\n`);
else for (const [key, value] of Object.entries(result)) process.stdout.write(`${key}: ${JSON.stringify(value)}\n`);
process.exit(0);
