/** A small world for tests of the catalog: a source, a VM with two disks, a repository, and backups of it. */
import type { Catalog } from './catalog.ts';
import type { CommittedDisk, RestorePointCommit } from './commit.ts';
import { leaseOf } from './job-states.ts';
import type { Lease } from './job-states.ts';
import type { BackupJob, Repository, RestorePoint, Source, Vm, VmDisk } from './records.ts';

export interface Sample {
  source: Source;
  vm: Vm;
  disks: VmDisk[];
  repository: Repository;
}

export interface StartedBackup {
  lease: Lease;
  point: RestorePoint;
  backups: BackupJob[];
}

export const GIB = 1024 ** 3;

const NEW_SOURCE = {
  name: 'vc',
  kind: 'vcenter' as const,
  address: 'https://vc.example',
  username: 'backup',
  sealedPassword: Uint8Array.of(0, 1, 255),
  thumbprint: 'AA:BB',
  instanceUuid: null,
};

export function seenVm(sourceId: string, name = 'web', uuids = ['disk-a', 'disk-b']) {
  return {
    sourceId,
    moref: `vm-${name}`,
    instanceUuid: `instance-${name}`,
    biosUuid: `bios-${name}`,
    name,
    path: `/dc/vm/${name}`,
    powerState: 'poweredOn',
    guestName: 'Debian',
    facts: { toolsRunning: true, disks: [] },
    disks: uuids.map((diskUuid, i) => ({
      diskUuid,
      key: 2000 + i,
      label: `Hard disk ${i + 1}`,
      capacityBytes: 40 * GIB,
    })),
  };
}

export async function makeSample(catalog: Catalog): Promise<Sample> {
  const source = await catalog.sources.create(NEW_SOURCE);
  const vm = await catalog.vms.record(seenVm(source.id));
  const repository = await catalog.repositories.create({
    name: 'main',
    kind: 'local',
    root: '/srv/backups',
    settings: { compress: true },
    identity: 'repository-identity',
  });
  return { source, vm, disks: await catalog.vmDisks.list(vm.id), repository };
}

/** A claimed job with its restore point and disks, incremental wherever a chain allows it. */
export async function startBackup(catalog: Catalog, sample: Sample): Promise<StartedBackup> {
  const { vm, repository, disks } = sample;
  const queued = await catalog.jobs.enqueue({
    kind: 'backup',
    payload: { vmId: vm.id },
    createdBy: 'test',
    subjectKey: vm.id,
    vmId: vm.id,
  });
  const given = { vmId: vm.id, repositoryId: repository.id, jobId: queued.id, requestedType: 'auto' as const };
  const point = await catalog.restorePoints.create({ ...given, diskCount: disks.length });
  const backups: BackupJob[] = [];
  for (const [diskIndex, disk] of disks.entries()) {
    const latest = await catalog.backupJobs.latestForDisk(vm.id, disk.diskUuid, repository.id);
    backups.push(
      await catalog.backupJobs.create({
        restorePointId: point.id,
        vmDiskId: disk.id,
        diskUuid: disk.diskUuid,
        diskIndex,
        diskKey: disk.key,
        label: disk.label,
        type: latest ? 'incremental' : 'full',
        typeReason: latest ? 'chain-continues' : 'no-chain',
        virtualBytes: disk.capacityBytes,
        parentBackupId: latest?.id ?? null,
        previousChangeId: latest?.changeId ?? null,
      }),
    );
  }
  const job = await catalog.jobs.claim('hub-1', 60_000, ['backup']);
  if (job?.id !== queued.id) throw new Error(`claimed ${job?.id} instead of ${queued.id}`);
  return { lease: leaseOf(job), point, backups };
}

/** What commitRestorePoint is given when all went well. */
export function commitOf(started: StartedBackup, changes: Partial<CommittedDisk> = {}): RestorePointCommit {
  const folder = `vms/web/${started.point.id}`;
  return {
    restorePointId: started.point.id,
    lease: started.lease,
    completedAt: started.point.startedAt.add({ seconds: 30 }),
    snapshotAt: started.point.startedAt.add({ seconds: 2 }),
    consistency: 'application',
    folder,
    disks: started.backups.map((backup) => ({
      backupId: backup.id,
      type: backup.type,
      typeReason: backup.typeReason,
      parentBackupId: backup.parentBackupId,
      previousChangeId: backup.previousChangeId,
      changeTracking: true,
      changeId: `52 de c0/${backup.id}`,
      imagePath: `${folder}/disk-${backup.diskIndex}.qcow2`,
      virtualBytes: backup.virtualBytes,
      changedBytes: backup.type === 'full' ? 8 * GIB : GIB,
      readBytes: backup.type === 'full' ? 8 * GIB : GIB,
      transferredBytes: backup.type === 'full' ? 6 * GIB : GIB,
      zeroBytes: backup.type === 'full' ? 2 * GIB : 0,
      skippedBytes: 32 * GIB,
      storedBytes: backup.type === 'full' ? 7 * GIB : 2 * GIB,
      transport: 'datastore',
      transportReason: 'powered off',
      ...changes,
    })),
  };
}
