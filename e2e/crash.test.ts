/** Each part killed with -9 in the middle of a copy, and a repository that runs full: what is left, and what still works. */
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { TestContext } from 'node:test';
import { Stack } from './harness.ts';
import type { Job } from '#/api/job.ts';
import type { RestorePoint } from '#/api/restore-point.ts';
import { hasCode } from '#/lib/errors.ts';
import { waitFor } from '#/lib/retry.ts';
import { run } from '#/lib/run.ts';

const SLOW_BYTES_PER_SECOND = 4_000_000;

let stack: Stack;
let base: RestorePoint;
before(async () => {
  stack = await Stack.start();
  base = await stack.backup('web01');
});
after(() => stack?.[Symbol.asyncDispose]());

/** Starts a slow full backup, kills in the middle of it, and returns the job once it has ended. */
async function killDuringCopy(kill: () => Promise<void>): Promise<Job> {
  await stack.settings({ folderBytesPerSecond: SLOW_BYTES_PER_SECOND });
  const job = await stack.startBackup('web01', 'full');
  await stack.copying(job.id);
  await kill();
  await stack.settings({ folderBytesPerSecond: 0 });
  return stack.finished(job.id);
}

/** After whatever happened: nothing is left, old and new points restore, and incrementals go on. */
async function allIsWell(): Promise<void> {
  await stack.nothingIsLeft();
  const { items } = await stack.hub.listRestorePoints({ query: { vm: 'web01', status: 'completed' } });
  assert.ok(items.some((point) => point.id === base.id));
  await stack.restoreAndCompare(base);
  await stack.guestWrite('web01', { disk: 0, percent: 0.5 });
  const next = await stack.backup('web01');
  assert.equal(next.disks[0]?.type, 'incremental');
  await stack.restoreAndCompare(next);
}

function failedWith(job: Job, ...codes: string[]): void {
  assert.equal(job.status, 'failed');
  assert.ok(codes.includes(job.error?.code ?? ''), `${JSON.stringify(job.error)} is none of ${codes.join(', ')}`);
}

const killPart = (part: 'hub' | 'agent' | 'exportd') => async (): Promise<void> => {
  const pid = await stack.pid(part);
  process.kill(pid, 'SIGKILL');
  await waitFor(`a new ${part}`, async () => ((await stack.pid(part).catch(() => pid)) === pid ? undefined : true), {
    timeoutMs: 30_000,
    everyMs: 50,
  });
};

test('a hub killed in mid-copy takes the job up again and completes it', async () => {
  const job = await killDuringCopy(killPart('hub'));
  assert.equal(job.status, 'completed', JSON.stringify(job.error));
  const point = await stack.hub.getRestorePoint({ params: { point: job.restorePointId ?? '' } });
  await stack.restoreAndCompare(point);
  await allIsWell();
});

test('an agent killed in mid-copy fails the job, and its snapshot is removed', async () => {
  failedWith(await killDuringCopy(killPart('agent')), 'AGENT_LOST', 'AGENT_UNREACHABLE');
  await allIsWell();
});

test('an export daemon killed in mid-copy finds its storage daemons again, and the copy goes on', async () => {
  const job = await killDuringCopy(killPart('exportd'));
  assert.equal(job.status, 'completed', JSON.stringify(job.error));
  await allIsWell();
});

test('a storage daemon killed in mid-copy fails the job with the reason', async () => {
  const job = await killDuringCopy(async () => {
    const [daemon] = await stack.storageDaemons();
    assert.ok(daemon, 'a storage daemon runs');
    process.kill(daemon.identity.pid, 'SIGKILL');
  });
  failedWith(job, 'NBD_CLOSED', 'EXPORT_FAILED', 'NBD_IO');
  await allIsWell();
});

test('sendense up killed altogether leaves no process, and the next start clears up', async () => {
  await stack.settings({ folderBytesPerSecond: SLOW_BYTES_PER_SECOND });
  const job = await stack.startBackup('web01', 'full');
  await stack.copying(job.id);
  await stack.down('SIGKILL');
  await stack.settings({ folderBytesPerSecond: 0 });
  await stack.up();
  const done = await stack.finished(job.id);
  assert.notEqual(done.status, 'completed');
  assert.ok(done.error, 'the reason is recorded');
  await allIsWell();
});

test('a repository that runs full fails the job before it is completed and keeps the chain', async (t) => {
  const root = join(stack.dir, 'small');
  await mkdir(root);
  if (!(await mountSmall(t, root))) return;
  try {
    await stack.hub.addRepository({ body: { name: 'small', root } });
    const first = await stack.finished((await stack.startBackup('db01', 'auto', 'small')).id);
    assert.equal(first.status, 'completed', JSON.stringify(first.error));
    const point = await stack.hub.getRestorePoint({ params: { point: first.restorePointId ?? '' } });
    await stack.guestWrite('db01', { percent: 60 });
    const job = await stack.finished((await stack.startBackup('db01', 'auto', 'small')).id);
    failedWith(job, 'REPOSITORY_FULL');
    await stack.nothingIsLeft();
    const left = await run('find', [root, '-name', '*.unfinished']);
    assert.equal(left.stdout, '');
    await stack.restoreAndCompare(point);
    const { items } = await stack.hub.listChains({ query: { vm: 'db01', repository: 'small' } });
    assert.equal(items[0]?.totalBackups, 1);
    await run('mount', ['-o', 'remount,size=400m', root]);
    const next = await stack.finished((await stack.startBackup('db01', 'auto', 'small')).id);
    assert.equal(next.status, 'completed', JSON.stringify(next.error));
    const after = await stack.hub.getRestorePoint({ params: { point: next.restorePointId ?? '' } });
    assert.equal(after.disks[0]?.type, 'incremental');
    await stack.restoreAndCompare(after);
  } finally {
    await run('umount', ['-l', root]);
  }
});

/** A tmpfs of 80 MiB; only root can make one. */
async function mountSmall(t: TestContext, root: string): Promise<boolean> {
  try {
    await run('mount', ['-t', 'tmpfs', '-o', 'size=80m,mode=700', 'tmpfs', root]);
    return true;
  } catch (error) {
    if (process.env['CI'] || !hasCode(error, 'TOOL_FAILED', 'TOOL_MISSING')) throw error;
    t.skip('only root can mount the small file system');
    return false;
  }
}
