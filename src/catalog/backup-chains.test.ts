import assert from 'node:assert/strict';
import { sql } from 'kysely';
import { onBothDatabases } from './both-databases.ts';
import type { Catalog } from './catalog.ts';
import { commitRestorePoint } from './commit.ts';
import type { CommittedDisk } from './commit.ts';
import { commitOf, GIB, makeSample, startBackup } from './sample.ts';
import type { Sample } from './sample.ts';

/** Returns the ids of the first disk's backup and of its point. */
async function backUp(
  catalog: Catalog,
  sample: Sample,
  changes: Partial<CommittedDisk> = {},
): Promise<[string, string]> {
  const started = await startBackup(catalog, sample);
  await commitRestorePoint(catalog, commitOf(started, changes));
  return [started.backups[0]?.id ?? '', started.point.id];
}

const FULL = { type: 'full', typeReason: 'requested', parentBackupId: null } as const;

/** Does to the catalog what only damage could do: the constraints are off for this one statement. */
async function damage(catalog: Catalog, statement: string): Promise<void> {
  const { db, kind } = catalog.database;
  const [off, on] =
    kind === 'sqlite'
      ? ['PRAGMA foreign_keys = off', 'PRAGMA foreign_keys = on']
      : ['SET session_replication_role = replica', 'SET session_replication_role = origin'];
  await db.connection().execute(async (one) => {
    for (const text of [off, statement, on]) await sql.raw(text).execute(one);
  });
}

onBothDatabases('the parents of a backup lead to its full, the full first', async ({ catalog }) => {
  const sample = await makeSample(catalog);
  const ids: string[] = [];
  for (let i = 0; i < 4; i++) ids.push((await backUp(catalog, sample))[0]);
  const idsOf = async (id = ''): Promise<string[]> =>
    (await catalog.backupJobs.parentsToFull(id)).map((link) => link.id);
  assert.deepEqual(await idsOf(ids[3]), ids);
  assert.deepEqual(await idsOf(ids[1]), ids.slice(0, 2));
  assert.deepEqual(await idsOf(ids[0]), ids.slice(0, 1));
  const [chain] = await catalog.backupChains.list({ diskUuid: 'disk-a' });
  assert.deepEqual(
    (await catalog.backupChains.backups(chain?.id ?? '')).map(({ id }) => id),
    ids,
  );
  assert.deepEqual(
    (await catalog.backupJobs.children(ids[1] ?? '')).map(({ id }) => id),
    [ids[2]],
  );
  assert.deepEqual(await catalog.backupJobs.children(ids[3] ?? ''), []);
  await assert.rejects(catalog.backupJobs.parentsToFull('nobody'), { code: 'NOT_FOUND' });
});

onBothDatabases('a chain with a missing link is reported as broken, not cut short', async ({ catalog }) => {
  const sample = await makeSample(catalog);
  const ids: string[] = [];
  for (let i = 0; i < 4; i++) ids.push((await backUp(catalog, sample))[0]);
  await damage(catalog, `DELETE FROM backup_jobs WHERE id = '${ids[1]}'`);
  await assert.rejects(catalog.backupJobs.parentsToFull(ids[3] ?? ''), {
    code: 'CHAIN_BROKEN',
    details: { backup: ids[2] },
  });
  assert.equal((await catalog.backupJobs.parentsToFull(ids[0] ?? '')).length, 1);
});

onBothDatabases('a chain with an unfinished link or without a full is reported as broken', async ({ catalog }) => {
  const sample = await makeSample(catalog);
  const [full] = await backUp(catalog, sample);
  const [incremental] = await backUp(catalog, sample);
  const running = await startBackup(catalog, sample);
  const unfinished = running.backups[0]?.id ?? '';
  await assert.rejects(catalog.backupJobs.parentsToFull(unfinished), {
    code: 'CHAIN_BROKEN',
    details: { backup: unfinished },
  });
  await damage(catalog, `UPDATE backup_jobs SET status = 'failed', error_code = 'X' WHERE id = '${full}'`);
  await assert.rejects(catalog.backupJobs.parentsToFull(incremental), {
    code: 'CHAIN_BROKEN',
    details: { backup: full },
  });
  await damage(catalog, `UPDATE backup_jobs SET type = 'incremental', parent_backup_id = id WHERE id = '${full}'`);
  await assert.rejects(catalog.backupJobs.parentsToFull(incremental), { code: 'CHAIN_BROKEN' });
});

onBothDatabases(
  'the database itself refuses a completed backup without image, chain or change id',
  async ({ catalog }) => {
    const sample = await makeSample(catalog);
    const [id] = await backUp(catalog, sample);
    for (const change of [
      'image_path = NULL',
      'chain_id = NULL',
      'change_id = NULL',
      `change_id = ''`,
      `type = 'incremental'`,
    ]) {
      const statement = sql.raw(`UPDATE backup_jobs SET ${change} WHERE id = '${id}'`);
      await assert.rejects(statement.execute(catalog.database.db), {
        code: 'INTERNAL',
        message: /backup_jobs_completed/,
      });
    }
    await sql
      .raw(`UPDATE backup_jobs SET change_tracking = 0, change_id = NULL WHERE id = '${id}'`)
      .execute(catalog.database.db);
  },
);

onBothDatabases('a retired chain is no base for an incremental, and a broken one stays broken', async ({ catalog }) => {
  const sample = await makeSample(catalog);
  await backUp(catalog, sample);
  const [chain] = await catalog.backupChains.list({ diskUuid: 'disk-a', state: 'active' });
  const id = chain?.id ?? '';
  assert.equal((await catalog.backupChains.retire(id, 'quarantined')).state, 'quarantined');
  assert.equal(await catalog.backupChains.activeFor(chain?.vmDiskId ?? '', sample.repository.id), undefined);
  assert.equal((await catalog.backupChains.retire(id, 'broken')).state, 'broken');
  await assert.rejects(catalog.backupChains.retire(id, 'closed'), { code: 'WRONG_STATE' });
  await assert.rejects(catalog.backupChains.retire('nobody', 'closed'), { code: 'NOT_FOUND' });
  await backUp(catalog, sample);
  const states = (await catalog.backupChains.list({ diskUuid: 'disk-a' })).map(({ state }) => state);
  assert.deepEqual(states.toSorted(), ['active', 'broken']);
});

onBothDatabases('statistics count completed backups per chain, VM and repository', async ({ catalog }) => {
  const sample = await makeSample(catalog);
  const empty = await catalog.backupChains.statistics();
  assert.deepEqual([empty.restorePoints, empty.longestChain, empty.reductionRatio, empty.newestAt], [0, 0, null, null]);
  await backUp(catalog, sample);
  await backUp(catalog, sample);
  await backUp(catalog, sample);
  const [, lastPoint] = await backUp(catalog, sample, FULL);
  await startBackup(catalog, sample);

  const all = await catalog.backupChains.statistics();
  assert.deepEqual([all.restorePoints, all.fulls, all.incrementals, all.chains, all.longestChain], [4, 4, 4, 4, 3]);
  assert.equal(all.virtualBytes, 8 * 40 * GIB);
  assert.equal(all.changedBytes, (2 * 8 + 6) * GIB);
  assert.equal(all.storedBytes, (2 * 7 + 6 * 2) * GIB);
  assert.equal(all.transferredBytes, (2 * 6 + 6) * GIB);
  assert.equal(all.reductionRatio, all.virtualBytes / all.transferredBytes);
  const last = await catalog.restorePoints.get(lastPoint);
  assert.ok(last.completedAt && all.newestAt?.equals(last.completedAt));

  const other = await catalog.repositories.create({
    name: 'second',
    kind: 'local',
    root: '/x',
    settings: {},
    identity: 'i2',
  });
  assert.deepEqual(
    await catalog.backupChains.statistics({ vmId: sample.vm.id, repositoryId: sample.repository.id }),
    all,
  );
  assert.equal((await catalog.backupChains.statistics({ repositoryId: other.id })).restorePoints, 0);
  assert.equal((await catalog.backupChains.statistics({ vmId: 'nobody' })).chains, 0);
  const chain = (await catalog.backupChains.list({ diskUuid: 'disk-a', state: 'closed' }))[0];
  const one = await catalog.backupChains.statistics({ chainId: chain?.id ?? '' });
  assert.deepEqual(
    [one.fulls, one.incrementals, one.chains, one.longestChain, one.storedBytes],
    [1, 2, 1, 3, 11 * GIB],
  );
  assert.equal(one.storedBytes, chain?.totalBytes);
});

onBothDatabases('a disk too large for 32 bits, 64 TiB, is counted to the byte', async ({ catalog }) => {
  const sample = await makeSample(catalog);
  const huge = 64 * 1024 ** 4 + 512;
  await backUp(catalog, sample, { virtualBytes: huge, storedBytes: huge });
  await backUp(catalog, sample, { virtualBytes: huge, storedBytes: huge });
  const all = await catalog.backupChains.statistics();
  assert.equal(all.virtualBytes, 4 * huge);
  const [chain] = await catalog.backupChains.list();
  assert.equal(chain?.totalBytes, 2 * huge);
});

onBothDatabases(
  'restore points are listed newest first with their filters, and the last per VM is known',
  async ({ catalog }) => {
    const sample = await makeSample(catalog);
    const points: string[] = [];
    for (let i = 0; i < 3; i++) points.push((await backUp(catalog, sample))[1]);
    const running = await startBackup(catalog, sample);
    const idsOf = async (filter: Parameters<typeof catalog.restorePoints.list>[0]): Promise<string[]> =>
      (await catalog.restorePoints.list(filter)).items.map(({ id }) => id);
    assert.deepEqual(await idsOf({ status: 'completed' }), points.toSorted().toReversed());
    assert.deepEqual(await idsOf({ jobId: running.lease.jobId }), [running.point.id]);
    assert.deepEqual(await idsOf({ vmId: sample.vm.id, repositoryId: 'nowhere' }), []);
    const page = await catalog.restorePoints.list({ vmId: sample.vm.id, limit: 3 });
    assert.deepEqual((await idsOf({ vmId: sample.vm.id, cursor: page.nextCursor ?? '' })).length, 1);
    assert.equal((await catalog.restorePoints.openForJob(running.lease.jobId))?.id, running.point.id);
    const last = await catalog.restorePoints.latestCompleted(sample.vm.id, sample.repository.id);
    assert.equal(last?.id, points[2]);
    const perVm = await catalog.restorePoints.lastCompletedAt([sample.vm.id, 'nobody']);
    assert.equal(perVm.size, 1);
    assert.ok(last?.completedAt && perVm.get(sample.vm.id)?.equals(last.completedAt));
  },
);
