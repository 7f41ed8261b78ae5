/** One VM all the way: full, incremental, several disks, restored and compared; and what is refused. */
import assert from 'node:assert/strict';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Stack } from './harness.ts';
import { hasCode } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';

let stack: Stack;
before(async () => {
  stack = await Stack.start();
});
after(() => stack?.[Symbol.asyncDispose]());

const refusal =
  (code: ErrorCode) =>
  (error: unknown): boolean => {
    assert.ok(hasCode(error, code), `${code} expected, got ${String(error)}`);
    return true;
  };

test('a two-disk VM is backed up in full, then only where it changed, and every point restores identically', async () => {
  const full = await stack.backup('web01');
  assert.deepEqual(
    full.disks.map((disk) => disk.type),
    ['full', 'full'],
  );
  assert.ok(full.disks.every((disk) => disk.changeId !== null && disk.typeReason.startsWith('first')));
  assert.ok(full.transferredBytes < full.virtualBytes / 2, 'holes and zeroes are not transferred');

  const { bytes } = await stack.guestWrite('web01', { disk: 0, percent: 1, seed: 'one' });
  const incremental = await stack.backup('web01');
  const [first, second] = incremental.disks;
  assert.equal(first?.type, 'incremental');
  assert.equal(first?.previousChangeId, full.disks[0]?.changeId);
  assert.ok(first.transferredBytes <= bytes * 1.05, `${first.transferredBytes} of ${bytes} changed bytes`);
  assert.ok(first.transferredBytes >= bytes, 'every changed byte was transferred');
  assert.equal(second?.type, 'incremental');
  assert.equal(second?.transferredBytes, 0);

  await stack.guestWrite('web01', { disk: 1, percent: 2, seed: 'two' });
  await stack.guestWrite('web01', { disk: 0, percent: 1, seed: 'one', zero: true });
  const zeroed = await stack.backup('web01');
  assert.equal(zeroed.disks[0]?.transferredBytes, 0, 'zeroes cross the wire as zeroes');
  assert.ok((zeroed.disks[0]?.zeroBytes ?? 0) >= bytes);

  for (const point of [full, incremental, zeroed]) await stack.restoreAndCompare(point);
  await stack.restoreAndCompare(incremental, 'qcow2');
  assert.deepEqual(await stack.leftovers(), []);
});

test('a restore point is QCOW2 files with relative names, its description and a way back without sendense', async () => {
  const { items } = await stack.hub.listRestorePoints({ query: { vm: 'web01', limit: 1 } });
  const folder = join(stack.repositoryDir, items[0]?.folder ?? '');
  const files = (await readdir(folder)).toSorted();
  assert.deepEqual(files, ['RESTORE.txt', 'disk-0.qcow2', 'disk-1.qcow2', 'point.json', 'vm-config.xml']);
  const header = (await readFile(join(folder, 'disk-0.qcow2'))).subarray(0, 1024).toString('latin1');
  assert.match(header, /\.\.\/\d{8}T\d{6}Z-[0-9a-z]+\/disk-0\.qcow2/);
  assert.equal((await stat(join(folder, 'disk-0.qcow2'))).mode & 0o222, 0, 'nobody may write a finished image');
  assert.match(await readFile(join(folder, 'vm-config.xml'), 'utf8'), /<changeTrackingEnabled>true/);
});

test('the chain names every backup from the full to the latest, and the figures add up', async () => {
  const { items } = await stack.hub.listChains({ query: { vm: 'web01' } });
  assert.equal(items.length, 2);
  for (const chain of items) {
    assert.equal(chain.backups[0]?.type, 'full');
    assert.equal(chain.backups.at(-1)?.id, chain.latestBackupId);
    assert.equal(chain.totalBackups, chain.backups.length);
    for (const [index, backup] of chain.backups.entries()) {
      assert.equal(backup.parentBackupId, chain.backups[index - 1]?.id ?? null);
    }
  }
  const statistics = await stack.hub.getStatistics({ query: { vm: 'web01' } });
  assert.equal(statistics.fulls, 2);
  assert.equal(statistics.incrementals, 4);
});

test('a disk whose size is not a multiple of 64 KiB comes back whole', async () => {
  const full = await stack.backup('db01');
  const end = full.virtualBytes - 512;
  await stack.guestWrite('db01', { extents: [{ offset: end, length: 512 }] });
  const incremental = await stack.backup('db01');
  assert.equal(incremental.disks[0]?.type, 'incremental');
  await stack.restoreAndCompare(full);
  await stack.restoreAndCompare(incremental);
});

test('a base id that the source no longer takes leads to a full with the reason, or to an error when none is wanted', async () => {
  await stack.settings({ faults: [{ method: 'QueryChangedDiskAreas', fault: 'FileFault', count: 1 }] });
  const point = await stack.backup('db01');
  assert.equal(point.disks[0]?.type, 'full');
  assert.match(point.disks[0]?.typeReason ?? '', /^query-fault/);
  assert.equal(point.disks[0]?.parentBackupId, null);
  await stack.restoreAndCompare(point);

  await stack.settings({ faults: [{ method: 'QueryChangedDiskAreas', fault: 'FileFault', count: 1 }] });
  const job = await stack.finished((await stack.startBackup('db01', 'incremental')).id);
  assert.equal(job.status, 'failed');
  assert.equal(job.error?.code, 'CHANGE_ID_EXPIRED');
  await stack.nothingIsLeft();
});

test('a cancel in mid-copy leaves nothing behind and the chain as it was', async () => {
  await stack.settings({ folderBytesPerSecond: 2_000_000 });
  const job = await stack.startBackup('web01', 'full');
  await stack.copying(job.id);
  const before = await stack.hub.listRestorePoints({ query: { vm: 'web01', status: 'completed' } });
  await stack.hub.cancelJob({ params: { job: job.id } });
  await stack.settings({ folderBytesPerSecond: 0 });
  const done = await stack.finished(job.id);
  assert.equal(done.status, 'cancelled');
  await stack.nothingIsLeft();
  const afterwards = await stack.hub.listRestorePoints({ query: { vm: 'web01', status: 'completed' } });
  assert.equal(afterwards.items.length, before.items.length);
  assert.equal((await stack.backup('web01')).disks[0]?.type, 'incremental');
});

test('a second backup of a VM that is being backed up is refused with the first one named', async () => {
  await stack.settings({ folderBytesPerSecond: 2_000_000 });
  const job = await stack.startBackup('web01', 'full');
  await assert.rejects(stack.startBackup('web01'), (error: unknown) => {
    assert.ok(hasCode(error, 'BUSY'));
    return (error as { details: { jobId: string } }).details.jobId === job.id;
  });
  await stack.hub.cancelJob({ params: { job: job.id } });
  await stack.settings({ folderBytesPerSecond: 0 });
  await stack.finished(job.id);
  await stack.nothingIsLeft();
});

test('bad input is refused with its code and leaves nothing', async () => {
  const { hub } = stack;
  await assert.rejects(stack.startBackup('no-such-vm'), refusal('VM_NOT_FOUND'));
  await assert.rejects(stack.startBackup('web01', 'auto', 'nowhere'), refusal('REPOSITORY_NOT_FOUND'));
  await assert.rejects(hub.runBackup({ body: { vm: '' } }), refusal('INVALID_REQUEST'));
  await assert.rejects(hub.runBackup({ body: { vm: 'web01', bogus: 1 } as never }), refusal('INVALID_REQUEST'));
  await assert.rejects(hub.getJob({ params: { job: 'nope' } }), refusal('NOT_FOUND'));
  await assert.rejects(hub.addRepository({ body: { name: 'again', root: '/' } }), refusal('REPOSITORY_INVALID'));
  const { simulator } = stack;
  const source = {
    name: 'wrong',
    address: simulator.url,
    username: simulator.username,
    thumbprint: simulator.thumbprint,
  };
  await assert.rejects(hub.addSource({ body: { ...source, password: 'guess' } }), refusal('SOURCE_LOGIN_FAILED'));
  const otherPrint = `00${simulator.thumbprint.slice(2)}`;
  const pinned = { ...source, password: simulator.password, thumbprint: otherPrint };
  await assert.rejects(hub.addSource({ body: pinned }), refusal('THUMBPRINT_MISMATCH'));
  assert.equal((await hub.listSources({})).items.length, 1);

  const { items } = await hub.listRestorePoints({ query: { vm: 'db01', status: 'completed', limit: 1 } });
  const existing = join(stack.dir, 'existing');
  await writeFile(existing, 'keep me');
  const restorePoint = items[0]?.id ?? '';
  await assert.rejects(hub.restoreDisk({ body: { restorePoint, path: existing } }), refusal('ALREADY_EXISTS'));
  assert.equal(await readFile(existing, 'utf8'), 'keep me');
  const disk = 'SCSI (9:9)';
  await assert.rejects(
    hub.restoreDisk({ body: { restorePoint, disk, path: `${existing}2` } }),
    refusal('DISK_NOT_FOUND'),
  );

  const template = await stack.finished((await stack.startBackup('golden-image')).id);
  assert.equal(template.error?.code, 'WRONG_STATE');
  const noBase = await stack.finished((await stack.startBackup('legacy01', 'incremental')).id);
  assert.equal(noBase.error?.code, 'WRONG_STATE');
  assert.deepEqual(await stack.leftovers(), []);
});

test('nobody gets in without the token, and the password of the source is nowhere to be read', async () => {
  const { url } = JSON.parse(await readFile(join(stack.stateDir, 'hub.json'), 'utf8')) as { url: string };
  for (const [method, path] of [
    ['GET', 'jobs'],
    ['POST', 'backups'],
    ['POST', 'callbacks/replications/x'],
  ] as const) {
    const response = await fetch(`${url}/api/v1/${path}`, { method });
    assert.equal(response.status, 401, path);
  }
  const files = await readdir(stack.stateDir, { recursive: true, withFileTypes: true });
  for (const file of files.filter((entry) => entry.isFile())) {
    const content = await readFile(join(file.parentPath, file.name));
    assert.ok(!content.includes(stack.simulator.password), `${file.name} holds the password`);
  }
});
