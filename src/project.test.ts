/** The scripts that run everything else. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readCounts, isGood, runTests, summary } from '../scripts/run-tests.ts';
import { run } from './lib/run.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

test('an unknown suite ends with exit code 2 and the list of suites', async () => {
  const script = path.join(ROOT, 'scripts/e2e.ts');
  const { stderr } = await run(process.execPath, [script, 'no-such-suite'], { okCodes: [2] });
  assert.match(stderr, /no suite no-such-suite; there are: /);
});

test('a report is counted, and only one with something passed and nothing failed is good', () => {
  const tap = '# Subtest: # pass 99\nok 1\n# tests 9\n# pass 3\n# fail 1\n# cancelled 1\n# skipped 2\n# todo 2\n';
  assert.deepEqual(readCounts(tap), { passed: 3, failed: 2, skipped: 4 });
  assert.equal(summary(readCounts(tap)), '3 passed, 2 failed, 4 skipped');
  assert.deepEqual(readCounts(''), { passed: 0, failed: 0, skipped: 0 });
  assert.equal(isGood({ passed: 1, failed: 0, skipped: 5 }), true);
  assert.equal(isGood({ passed: 0, failed: 0, skipped: 5 }), false);
  assert.equal(isGood({ passed: 9, failed: 1, skipped: 0 }), false);
});

test('passed, failed, skipped and crashed files are told apart by a real run', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'sendense-runner-'));
  try {
    const file = async (name: string, body: string): Promise<string> => {
      const target = path.join(dir, name);
      await writeFile(target, `const { test } = require('node:test');\n${body}`);
      return target;
    };
    const mixed = await file('mixed.test.cjs', `test('a', () => {}); test('b', { skip: true }, () => {});`);
    const broken = await file('broken.test.cjs', `test('a', () => { throw new Error('no'); });`);
    const crashed = await file('crashed.test.cjs', `throw new Error('at load');`);
    assert.deepEqual(await quietly([mixed]), { passed: 1, failed: 0, skipped: 1 });
    assert.deepEqual(await quietly([broken]), { passed: 0, failed: 1, skipped: 0 });
    assert.equal((await quietly([crashed])).failed, 1);
  } finally {
    await rm(dir, { recursive: true });
  }
});

/** The runner refuses to run inside a test of its own unless it is told that it is not. */
async function quietly(files: string[]): Promise<Awaited<ReturnType<typeof runTests>>> {
  const context = process.env['NODE_TEST_CONTEXT'];
  delete process.env['NODE_TEST_CONTEXT'];
  try {
    return await runTests(files, { quiet: true });
  } finally {
    if (context !== undefined) process.env['NODE_TEST_CONTEXT'] = context;
  }
}

test('the command runs from any folder and through links', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'sendense-bin-'));
  try {
    await mkdir(path.join(dir, 'a b'));
    await symlink(path.join(ROOT, 'bin/sendense'), path.join(dir, 'a b', 'first'));
    await symlink('first', path.join(dir, 'a b', 'second'));
    const { stdout } = await run(path.join(dir, 'a b', 'second'), ['--version'], { cwd: dir });
    assert.match(stdout, /\d+\.\d+\.\d+/);
  } finally {
    await rm(dir, { recursive: true });
  }
});

test('shell scripts have no syntax error', async () => {
  for (const script of ['scripts/setup.sh', 'scripts/check.sh', 'scripts/test.sh', '.ci/run', 'bin/sendense']) {
    await run('bash', ['-n', path.join(ROOT, script)]);
  }
});
