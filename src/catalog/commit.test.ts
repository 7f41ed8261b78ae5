import assert from 'node:assert/strict';
import { onBothDatabases } from './both-databases.ts';
import type { Catalog } from './catalog.ts';
import { commitRestorePoint, failRestorePoint } from './commit.ts';
import { commitOf, GIB, makeSample, startBackup } from './sample.ts';
import type { Sample, StartedBackup } from './sample.ts';

async function backUp(catalog: Catalog, sample: Sample): Promise<StartedBackup> {
  const started = await startBackup(catalog, sample);
  await commitRestorePoint(catalog, commitOf(started));
  return started;
}

/** Everything a commit could have touched, to prove that it touched nothing. */
async function everything(catalog: Catalog): Promise<string> {
  const { items: points } = await catalog.restorePoints.list();
  const backups = await catalog.backupJobs.listFor(points.map(({ id }) => id));
  const { items: jobs } = await catalog.jobs.list();
  return JSON.stringify([points, backups, jobs, await catalog.backupChains.list()]);
}

onBothDatabases(
  'a committed restore point stores each disk with its change id and opens a chain per disk',
  async ({ catalog }) => {
    const sample = await makeSample(catalog);
    const started = await startBackup(catalog, sample);
    const commit = commitOf(started);
    const point = await commitRestorePoint(catalog, { ...commit, result: { verdict: 'identical' } });

    assert.equal(point.status, 'completed');
    assert.equal(point.folder, commit.folder);
    assert.equal(point.consistency, 'application');
    assert.equal(point.virtualBytes, 80 * GIB);
    assert.equal(point.transferredBytes, 12 * GIB);
    assert.equal(point.storedBytes, 14 * GIB);
    assert.ok(point.completedAt?.equals(commit.completedAt));
    assert.deepEqual(point, await catalog.restorePoints.latestCompleted(sample.vm.id, sample.repository.id));
    const job = await catalog.jobs.get(started.lease.jobId);
    assert.equal(job.status, 'completed');
    assert.deepEqual(job.result, { verdict: 'identical' });
    assert.equal(job.leaseOwner, null);

    const backups = await catalog.backupJobs.listFor(point.id);
    assert.deepEqual(
      backups.map(({ changeId }) => changeId),
      commit.disks.map(({ changeId }) => changeId),
    );
    for (const backup of backups) {
      const chain = await catalog.backupChains.activeFor(backup.vmDiskId, sample.repository.id);
      assert.equal(chain?.id, backup.chainId);
      assert.equal(chain?.fullBackupId, backup.id);
      assert.equal(chain?.latestBackupId, backup.id);
      assert.equal(chain?.totalBackups, 1);
      assert.equal(chain?.totalBytes, 7 * GIB);
      assert.deepEqual(
        await catalog.backupJobs.latestForDisk(sample.vm.id, backup.diskUuid, sample.repository.id),
        backup,
      );
    }
  },
);

onBothDatabases('an incremental moves its chain on and a full closes it and opens another', async ({ catalog }) => {
  const sample = await makeSample(catalog);
  const first = await backUp(catalog, sample);
  const second = await backUp(catalog, sample);
  const disk = sample.disks[0];
  assert.ok(disk);
  const chain = await catalog.backupChains.activeFor(disk.id, sample.repository.id);
  assert.equal(chain?.fullBackupId, first.backups[0]?.id);
  assert.equal(chain?.latestBackupId, second.backups[0]?.id);
  assert.equal(chain?.totalBackups, 2);
  assert.equal(chain?.totalBytes, 9 * GIB);
  assert.equal(second.backups[0]?.previousChangeId, `52 de c0/${first.backups[0]?.id}`);

  const third = await startBackup(catalog, sample);
  await commitRestorePoint(
    catalog,
    commitOf(third, { type: 'full', typeReason: 'change-id-expired', parentBackupId: null }),
  );
  assert.equal((await catalog.backupChains.get(chain?.id ?? '')).state, 'closed');
  const fresh = await catalog.backupChains.activeFor(disk.id, sample.repository.id);
  assert.equal(fresh?.fullBackupId, third.backups[0]?.id);
  assert.equal(fresh?.totalBackups, 1);
  assert.equal((await catalog.backupChains.list({ diskUuid: disk.diskUuid })).length, 2);
});

onBothDatabases('a tracked disk without a change id rolls the whole commit back', async ({ catalog }) => {
  const sample = await makeSample(catalog);
  await backUp(catalog, sample);
  const started = await startBackup(catalog, sample);
  const before = await everything(catalog);
  const [good, bad] = commitOf(started).disks;
  assert.ok(good && bad);
  for (const changeId of [null, '']) {
    const commit = { ...commitOf(started), disks: [good, { ...bad, changeId }] };
    await assert.rejects(commitRestorePoint(catalog, commit), {
      code: 'CHANGE_ID_MISSING',
      details: { diskUuid: 'disk-b' },
    });
    assert.equal(await everything(catalog), before);
  }
});

onBothDatabases('a disk that cannot be tracked is committed without a change id', async ({ catalog }) => {
  const started = await startBackup(catalog, await makeSample(catalog));
  const untracked = { changeTracking: false, changeId: null, typeReason: 'tracking-unsupported' };
  const point = await commitRestorePoint(catalog, commitOf(started, untracked));
  const [backup] = await catalog.backupJobs.listFor(point.id);
  assert.equal(backup?.status, 'completed');
  assert.equal(backup?.changeId, null);
});

onBothDatabases(
  'an incremental whose parent is not the latest of its chain is refused and nothing moves',
  async ({ catalog }) => {
    const sample = await makeSample(catalog);
    const first = await backUp(catalog, sample);
    await backUp(catalog, sample);
    const started = await startBackup(catalog, sample);
    const before = await everything(catalog);
    const commit = commitOf(started);
    const disks = commit.disks.map((disk, i) => ({ ...disk, parentBackupId: first.backups[i]?.id ?? null }));
    await assert.rejects(commitRestorePoint(catalog, { ...commit, disks }), { code: 'WRONG_STATE' });
    assert.equal(await everything(catalog), before);
  },
);

onBothDatabases('an incremental on a chain that was quarantined meanwhile is refused', async ({ catalog }) => {
  const sample = await makeSample(catalog);
  await backUp(catalog, sample);
  const started = await startBackup(catalog, sample);
  const [chain] = await catalog.backupChains.list({ diskUuid: 'disk-b' });
  await catalog.backupChains.retire(chain?.id ?? '', 'quarantined');
  await assert.rejects(commitRestorePoint(catalog, commitOf(started)), { code: 'WRONG_STATE' });
  assert.equal(await catalog.backupJobs.latestForDisk(sample.vm.id, 'disk-b', sample.repository.id), undefined);
});

onBothDatabases('a commit must name exactly the disks of its restore point', async ({ catalog }) => {
  const sample = await makeSample(catalog);
  const started = await startBackup(catalog, sample);
  const before = await everything(catalog);
  const commit = commitOf(started);
  const [one, two] = commit.disks;
  assert.ok(one && two);
  for (const disks of [
    [one],
    [],
    [one, one],
    [one, { ...two, backupId: 'another' }],
    [one, two, { ...two, backupId: 'x' }],
  ]) {
    await assert.rejects(commitRestorePoint(catalog, { ...commit, disks }), { code: 'WRONG_STATE' });
  }
  const outside = [one, { ...two, imagePath: 'elsewhere/disk-1.qcow2' }];
  await assert.rejects(commitRestorePoint(catalog, { ...commit, disks: outside }), { code: 'WRONG_STATE' });
  assert.equal(await everything(catalog), before);
});

onBothDatabases('whoever lost the lease commits nothing and fails nothing', async ({ catalog, turnClock }) => {
  const sample = await makeSample(catalog);
  const started = await startBackup(catalog, sample);
  turnClock(61_000);
  const taken = await catalog.jobs.takeOver(started.lease.jobId, { owner: 'hub-2', leaseMs: 60_000 });
  assert.equal(taken?.attempt, 2);
  const before = await everything(catalog);
  await assert.rejects(commitRestorePoint(catalog, commitOf(started)), { code: 'LEASE_LOST' });
  const error = { code: 'STALLED' as const, message: 'no byte' };
  const failure = { restorePointId: started.point.id, lease: started.lease, status: 'failed' as const, error };
  await assert.rejects(failRestorePoint(catalog, failure), { code: 'LEASE_LOST' });
  assert.equal(await everything(catalog), before);
});

onBothDatabases('a restore point is committed once', async ({ catalog }) => {
  const started = await startBackup(catalog, await makeSample(catalog));
  await commitRestorePoint(catalog, commitOf(started));
  const before = await everything(catalog);
  await assert.rejects(commitRestorePoint(catalog, commitOf(started)), { code: 'LEASE_LOST' });
  await assert.rejects(catalog.restorePoints.update(started.point.id, { folder: 'x' }), { code: 'WRONG_STATE' });
  await assert.rejects(catalog.backupJobs.update(started.backups[0]?.id ?? '', { label: 'x' }), {
    code: 'WRONG_STATE',
  });
  assert.equal(await everything(catalog), before);
});

onBothDatabases('a failed restore point ends with its disks and its job, each with its reason', async ({ catalog }) => {
  const sample = await makeSample(catalog);
  await backUp(catalog, sample);
  const chains = JSON.stringify(await catalog.backupChains.list());
  const started = await startBackup(catalog, sample);
  const [one, two] = started.backups;
  assert.ok(one && two);
  const point = await failRestorePoint(catalog, {
    restorePointId: started.point.id,
    lease: started.lease,
    status: 'failed',
    error: { code: 'READ_FAILED', message: 'disk 1 could not be read', details: { offset: 4096 } },
    disks: [{ backupId: one.id, error: { code: 'SOURCE_FAULT', message: 'refused' } }],
  });
  assert.equal(point.status, 'failed');
  assert.equal(point.errorCode, 'READ_FAILED');
  assert.ok(point.completedAt);
  const ends = (await catalog.backupJobs.listFor(point.id)).map(({ status, errorCode }) => [status, errorCode]);
  assert.deepEqual(ends, [
    ['failed', 'SOURCE_FAULT'],
    ['failed', 'READ_FAILED'],
  ]);
  const job = await catalog.jobs.get(started.lease.jobId);
  assert.deepEqual([job.status, job.errorCode, job.errorDetails], ['failed', 'READ_FAILED', { offset: 4096 }]);
  assert.equal(JSON.stringify(await catalog.backupChains.list()), chains);
  await backUp(catalog, sample);
});
