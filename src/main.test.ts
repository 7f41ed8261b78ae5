/** The program as a process: what a shell sees of it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text as readAll } from 'node:stream/consumers';
import { test } from 'node:test';
import type { ChildProcess } from 'node:child_process';
import { waitFor } from './lib/retry.ts';
import { ended, run, start } from './lib/run.ts';

const MAIN = join(import.meta.dirname, 'main.ts');

function sendense(args: readonly string[]): ChildProcess {
  return start(process.execPath, [MAIN, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
}

test('a failure reaches the shell as exit code, a line on standard error and with --json a document', async () => {
  const args = [MAIN, 'status', '--state', '/nonexistent', '--json'];
  const { stdout, stderr } = await run(process.execPath, args, { okCodes: [1] });
  assert.equal((JSON.parse(stdout) as { error: { code: string } }).error.code, 'HUB_UNREACHABLE');
  assert.match(stderr, /^sendense: HUB_UNREACHABLE: /);
});

test('a reader that closes the pipe early is no failure', async () => {
  const child = sendense(['--help']);
  child.stdout?.destroy();
  const stderr = readAll(child.stderr as NodeJS.ReadableStream);
  const [code] = (await once(child, 'close')) as [number];
  assert.equal(code, 0);
  assert.equal(await stderr, '');
});

for (const how of ['closing its standard input', 'SIGTERM', 'SIGINT twice at once'] as const) {
  test(`a part started with --exit-with-parent stops in order on ${how}`, async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'sendense-main-'));
    t.after(async () => rm(dir, { recursive: true, force: true }));
    await mkdir(join(dir, 'config.d'));
    const folders = ['--config', join(dir, 'config.d'), '--run', join(dir, 'run')];
    const child = sendense(['exportd', ...folders, '--exit-with-parent']);
    t.after(() => child.kill('SIGKILL'));
    let log = '';
    child.stderr?.on('data', (chunk: Buffer) => (log += chunk.toString()));
    const end = ended('sendense', child);
    await waitFor('the start', () => (log.includes('configuration read') ? true : undefined), { timeoutMs: 20_000 });
    if (how === 'closing its standard input') child.stdin?.end();
    else if (how === 'SIGTERM') child.kill('SIGTERM');
    else for (let times = 0; times < 2; times++) child.kill('SIGINT');
    assert.deepEqual(await end, { code: 0, signal: null });
    assert.match(log, /export daemon stopped/);
  });
}
