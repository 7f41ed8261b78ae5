/** What a newcomer and an operator start: `sendense demo` and `sendense up`, as processes, to the very end. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { requireTools } from './requires.ts';
import { waitFor } from '#/lib/retry.ts';
import { ended, run, start } from '#/lib/run.ts';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));

interface DemoDocument {
  identical: boolean;
  changedBytes: number;
  points: {
    disks: { type: string; identical: boolean; transferredBytes: number; virtualBytes: number; restored: string }[];
  }[];
}

async function temporary(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sd-'));
  t.after(async () => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** Processes that name the folder on their command line. */
async function processesIn(dir: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const words = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (words.includes(dir)) found.push(`${pid}: ${words.replaceAll('\0', ' ')}`);
  }
  return found;
}

test('the demo restores every disk of every point identically, prints one document and leaves nothing behind', async (t) => {
  if (!requireTools(t, 'qemu-img', 'qemu-storage-daemon', 'mke2fs')) return;
  const dir = join(await temporary(t), 'demo');
  const args = [MAIN, 'demo', '--once', '--json', '--dir', dir];
  const { stdout } = await run(process.execPath, args, { timeoutMs: 180_000 });
  const document = JSON.parse(stdout) as DemoDocument;
  assert.equal(document.identical, true);
  assert.deepEqual(
    document.points.map((point) => point.disks.map((disk) => `${disk.type} ${disk.identical}`)),
    [
      ['full true', 'full true'],
      ['incremental true', 'incremental true'],
    ],
  );
  const [, second] = document.points;
  const transferred = second?.disks.reduce((sum, disk) => sum + disk.transferredBytes, 0) ?? 0;
  assert.ok(document.changedBytes > 0 && transferred >= document.changedBytes);
  assert.ok(transferred <= document.changedBytes * 1.05, `${transferred} for ${document.changedBytes} changed bytes`);
  assert.equal(existsSync(dir), false);
  assert.deepEqual(await processesIn(dir), []);
});

async function up(state: string): Promise<ChildProcess> {
  const args = [MAIN, 'up', '--state', state, '--listen', '127.0.0.1:0', '--json'];
  const child = start(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
  await waitFor('sendense up', () => (output.endsWith('}\n') || child.exitCode !== null ? true : undefined), {
    timeoutMs: 60_000,
  });
  assert.equal(child.exitCode, null, output);
  return child;
}

test('up stops all its parts on SIGTERM, exits with 0 and can be started again on the same folder', async (t) => {
  const state = join(await temporary(t), 'state');
  for (let round = 0; round < 2; round++) {
    const child = await up(state);
    const end = ended('sendense up', child);
    assert.equal((await processesIn(state)).length, 4);
    child.kill('SIGTERM');
    assert.deepEqual(await end, { code: 0, signal: null });
    assert.deepEqual(await processesIn(state), []);
  }
});

test('when up is killed its parts end by themselves, and the next up waits for them', async (t) => {
  const state = join(await temporary(t), 'state');
  const first = await up(state);
  const killed = ended('sendense up', first);
  first.kill('SIGKILL');
  await killed;
  const second = await up(state);
  const end = ended('sendense up', second);
  assert.equal((await processesIn(state)).length, 4);
  second.kill('SIGTERM');
  assert.deepEqual(await end, { code: 0, signal: null });
  const third = await up(state);
  const last = ended('sendense up', third);
  third.kill('SIGKILL');
  await last;
  await waitFor('the parts to end', async () => ((await processesIn(state)).length === 0 ? true : undefined), {
    timeoutMs: 30_000,
  });
});

test('a second up on the same folder is refused and does not disturb the first', async (t) => {
  const state = join(await temporary(t), 'state');
  const child = await up(state);
  const end = ended('sendense up', child);
  const { stderr } = await run(process.execPath, [MAIN, 'up', '--state', state], { okCodes: [11] });
  assert.match(stderr, /^sendense: BUSY: /);
  const status = await run(process.execPath, [MAIN, 'status', '--state', state, '--json']);
  assert.equal((JSON.parse(status.stdout) as { openJobs: number }).openJobs, 0);
  child.kill('SIGTERM');
  assert.deepEqual(await end, { code: 0, signal: null });
});
