/** Runs test files with Node's runner, shows its report as it comes and counts what happened. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ended, start } from '#/lib/run.ts';

/** No single test may hang the whole run for longer. */
const TEST_TIMEOUT_MS = 20 * 60_000;

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

export interface TestRun {
  /** One file after the other. */
  inSequence?: boolean;
  /** Counts without showing the report. */
  quiet?: boolean;
}

export async function runTests(files: readonly string[], options: TestRun = {}): Promise<Counts> {
  const dir = await mkdtemp(path.join(tmpdir(), 'sendense-tests-'));
  try {
    const tap = path.join(dir, 'tap');
    const reporters = ['--test-reporter=spec', '--test-reporter-destination=stdout'];
    reporters.push('--test-reporter=tap', `--test-reporter-destination=${tap}`);
    const flags = options.inSequence ? ['--test-concurrency=1'] : [];
    const args = ['--test', `--test-timeout=${TEST_TIMEOUT_MS}`, ...flags, ...reporters, ...files];
    const stdio = options.quiet ? 'ignore' : 'inherit';
    const { code } = await ended('node', start(process.execPath, args, { stdio }));
    const counts = readCounts(await readFile(tap, 'utf8').catch(() => ''));
    // The runner's own verdict holds when it found fault with something that it did not count.
    return code !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts;
  } finally {
    await rm(dir, { recursive: true });
  }
}

/** From the closing lines of a TAP report: `# pass 3` and so on. */
export function readCounts(tap: string): Counts {
  const lines = tap.split('\n').filter((line) => line.startsWith('# '));
  const count = (word: string): number => {
    const line = lines.findLast((candidate) => candidate.startsWith(`# ${word} `));
    return line === undefined ? 0 : Number(line.slice(word.length + 3));
  };
  return {
    passed: count('pass'),
    failed: count('fail') + count('cancelled'),
    skipped: count('skipped') + count('todo'),
  };
}

export function add(a: Counts, b: Counts): Counts {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped };
}

/** Something ran and nothing failed. */
export function isGood(counts: Counts): boolean {
  return counts.failed === 0 && counts.passed > 0;
}

export function summary(counts: Counts): string {
  return `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`;
}
