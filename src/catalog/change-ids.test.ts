import assert from 'node:assert/strict';
import { onBothDatabases } from './both-databases.ts';
import type { Catalog } from './catalog.ts';
import { commitRestorePoint, failRestorePoint } from './commit.ts';
import { commitOf, makeSample, seenVm, startBackup } from './sample.ts';

/** Classes with a part in a backup; CbtHistory is replication's and settings belong to nobody. */
const BACKUP_SIDE = [
  'sources',
  'agents',
  'vms',
  'vmDisks',
  'repositories',
  'restorePoints',
  'backupJobs',
  'backupChains',
  'jobs',
  'jobLog',
  'snapshots',
] as const;

/** Replication's columns by name, or a `*` that would bring them along. */
const FORBIDDEN = /disk_change_id|cbt_history|"vm_disks"\.\*|(select|returning)\s+\*/i;

/** Notes the name of every method that is called, also inside transactions. */
function watched(catalog: Catalog, called: Set<string>): Catalog {
  return new Proxy(catalog, {
    get(target, property) {
      if (property === 'transaction') {
        return async (work: (inside: Catalog) => Promise<unknown>) =>
          target.transaction(async (inside) => work(watched(inside, called)));
      }
      const value: unknown = Reflect.get(target, property, target);
      const noun = BACKUP_SIDE.find((one) => one === property);
      if (noun === undefined) return value;
      return new Proxy(target[noun], {
        get(records, method) {
          const member: unknown = Reflect.get(records, method, records);
          if (typeof member !== 'function') return member;
          called.add(`${noun}.${String(method)}`);
          return member.bind(records) as unknown;
        },
      });
    },
  });
}

async function everythingABackupDoes(catalog: Catalog, turnClock: (ms: number) => void): Promise<void> {
  const sample = await makeSample(catalog);
  const { source, vm, disks, repository } = sample;
  await catalog.sources.update(source.id, { instanceUuid: 'x' });
  await Promise.all([catalog.sources.get('vc'), catalog.sources.list(), catalog.sources.find('none')]);
  await catalog.sources.remove('none');
  const agent = await catalog.agents.create({ name: 'a', url: 'https://a', certificateSha256: 'c' });
  await catalog.agents.register({ name: 'a', url: 'https://b', certificateSha256: 'c' });
  await catalog.agents.seen(agent.id, '1');
  await Promise.all([catalog.agents.get('a'), catalog.agents.list(), catalog.agents.findByCertificate('c')]);
  await catalog.agents.find('a');
  await catalog.agents.remove(agent.id);
  await catalog.vms.record({ ...seenVm(source.id), name: 'web' });
  await Promise.all([catalog.vms.get('web'), catalog.vms.find('web'), catalog.vms.byIds([vm.id]), catalog.vms.list()]);
  const disk = disks[0]?.id ?? '';
  await Promise.all([
    catalog.vmDisks.get(disk),
    catalog.vmDisks.list(vm.id),
    catalog.vmDisks.findByUuid(vm.id, 'disk-a'),
  ]);
  await catalog.repositories.update(repository.id, { freeBytes: 1 });
  await Promise.all([catalog.repositories.find('main'), catalog.repositories.list(), catalog.repositories.get('main')]);
  await catalog.repositories.remove('none');

  for (const round of [1, 2]) {
    const started = await startBackup(catalog, sample);
    const { lease, point, backups } = started;
    await catalog.jobs.heartbeat(lease, 60_000);
    const intended = await catalog.snapshots.intend({
      jobId: lease.jobId,
      sourceId: source.id,
      vmMoref: 'vm',
      name: `${round}`,
    });
    await catalog.jobs.setStatus(lease, 'copying');
    await catalog.snapshots.markLive(intended.id, 's');
    await catalog.jobLog.append({ jobId: lease.jobId, step: 's', message: 'm' });
    await catalog.restorePoints.update(point.id, { status: 'copying' });
    await catalog.backupJobs.update(backups[0]?.id ?? '', { status: 'copying' });
    await catalog.restorePoints.openForJob(lease.jobId);
    await commitRestorePoint(catalog, commitOf(started));
    await catalog.snapshots.markRemoved(intended.id);
    await Promise.all([
      catalog.snapshots.get(intended.id),
      catalog.snapshots.listOpen(),
      catalog.jobLog.list(lease.jobId),
    ]);
    await Promise.all([catalog.jobs.resources(lease.jobId), catalog.jobs.listOpen(), catalog.jobs.list()]);
    await catalog.jobs.get(lease.jobId);
    const id = backups[0]?.id ?? '';
    await Promise.all([
      catalog.backupJobs.parentsToFull(id),
      catalog.backupJobs.children(id),
      catalog.backupJobs.get(id),
    ]);
  }
  await catalog.restorePoints.latestCompleted(vm.id, repository.id);
  await catalog.restorePoints.lastCompletedAt([vm.id]);
  await catalog.restorePoints.list();
  await catalog.backupChains.activeFor(disk, repository.id);
  const [chain] = await catalog.backupChains.list();
  await catalog.backupChains.backups(chain?.id ?? '');
  await catalog.backupChains.get(chain?.id ?? '');
  await catalog.backupChains.statistics({ vmId: vm.id, repositoryId: repository.id });
  const failing = await startBackup(catalog, sample);
  const error = { code: 'STALLED' as const, message: 'm' };
  await failRestorePoint(catalog, { restorePointId: failing.point.id, lease: failing.lease, status: 'failed', error });
  const retired = await catalog.backupChains.retire(chain?.id ?? '', 'quarantined');
  const full = retired.fullBackupId;
  await catalog.backupJobs.get(full);

  await startBackup(catalog, sample);
  turnClock(61_000);
  await catalog.jobs.reapExpired();
  const last = await startBackup(catalog, sample);
  await catalog.jobs.requestCancel(last.lease.jobId, 'r');
  await catalog.jobs.takeOver(last.lease.jobId, { owner: 'hub-2', leaseMs: 1000, from: 'hub-1' });
  await catalog.jobs
    .release({ ...last.lease, attempt: 2, owner: 'hub-2' }, last.point.startedAt)
    .catch(() => undefined);
}

onBothDatabases(
  'nothing a backup does reads or writes the change ids of replication',
  async ({ catalog, statements, turnClock }) => {
    const called = new Set<string>();
    statements.length = 0;
    await everythingABackupDoes(watched(catalog, called), turnClock);
    assert.ok(
      statements.some((statement) => statement.includes('"vm_disks"')),
      'disks were read and written',
    );
    assert.deepEqual(
      statements.filter((statement) => FORBIDDEN.test(statement)),
      [],
    );

    const methods = BACKUP_SIDE.flatMap((noun) =>
      Object.getOwnPropertyNames(Object.getPrototypeOf(catalog[noun]))
        .filter((name) => name !== 'constructor')
        .map((name) => `${noun}.${name}`),
    );
    assert.deepEqual(
      methods.filter((method) => !called.has(method)),
      [],
      'every method took part',
    );
  },
);

onBothDatabases(
  'replication keeps its own change ids, and a backup leaves them as they are',
  async ({ catalog, turnClock }) => {
    const sample = await makeSample(catalog);
    const disk = sample.disks[0]?.id ?? '';
    assert.equal(await catalog.cbtHistory.current(disk), null);
    await catalog.cbtHistory.record(disk, 'replica/1', 'replication');
    turnClock(5);
    await catalog.cbtHistory.record(disk, 'replica/2', 'replication');
    const history = await catalog.cbtHistory.list(disk);
    assert.deepEqual(
      history.map(({ changeId }) => changeId),
      ['replica/2', 'replica/1'],
    );

    const started = await startBackup(catalog, sample);
    await commitRestorePoint(catalog, commitOf(started));
    await catalog.vms.record(seenVm(sample.source.id));
    assert.equal(await catalog.cbtHistory.current(disk), 'replica/2');
    assert.deepEqual(await catalog.cbtHistory.list(disk), history);
    const latest = await catalog.backupJobs.latestForDisk(sample.vm.id, 'disk-a', sample.repository.id);
    assert.equal(latest?.changeId, `52 de c0/${latest?.id}`);
  },
);
