/**
 * The end of a backup in the catalog. Everything that makes a restore point whole becomes visible in one transaction or
 * not at all: change ids, chains, disks, point and job. It is fenced by the lease, so a hub that has lost the job
 * commits nothing. The repository's rename comes before, its clean-up after; neither is known here.
 */
import { SendenseError } from '#/lib/errors.ts';
import type { Catalog } from './catalog.ts';
import type { Failure, Lease } from './job-states.ts';
import type { BackupJob, JsonObject, RestorePoint } from './records.ts';

export type CommittedDisk = Pick<
  BackupJob,
  | 'type'
  | 'typeReason'
  | 'parentBackupId'
  | 'previousChangeId'
  | 'changeTracking'
  | 'changeId'
  | 'virtualBytes'
  | 'changedBytes'
  | 'readBytes'
  | 'transferredBytes'
  | 'zeroBytes'
  | 'skippedBytes'
  | 'storedBytes'
  | 'transport'
  | 'transportReason'
> & {
  backupId: string;
  /** Relative to the repository's root. */
  imagePath: string;
};

export interface RestorePointCommit {
  restorePointId: string;
  lease: Lease;
  completedAt: Temporal.Instant;
  snapshotAt?: Temporal.Instant;
  consistency: 'application' | 'crash';
  folder: string;
  /** Every disk of the restore point, each once. */
  disks: readonly CommittedDisk[];
  /** Kept as the job's result. */
  result?: JsonObject;
}

/**
 * LEASE_LOST when the job is no longer ours, WRONG_STATE when the point has ended, the disks are not exactly its disks
 * or an incremental does not build on the latest of its active chain, CHANGE_ID_MISSING for a tracked disk without one.
 * After any of them nothing has changed.
 */
export async function commitRestorePoint(catalog: Catalog, commit: RestorePointCommit): Promise<RestorePoint> {
  return catalog.transaction(async (inside) => {
    await inside.jobs.fence(commit.lease);
    const point = await pointOf(inside, commit.restorePointId, commit.lease.jobId);
    const backups = await inside.backupJobs.listFor(point.id);
    for (const [backup, disk] of pairs(point, backups, commit.disks))
      await commitDisk(inside, { commit, point, backup, disk });
    const sum = (of: (disk: CommittedDisk) => number): number =>
      commit.disks.reduce((total, disk) => total + of(disk), 0);
    const done = await inside.restorePoints.complete(point.id, {
      consistency: commit.consistency,
      folder: commit.folder,
      completedAt: commit.completedAt,
      ...(commit.snapshotAt && { snapshotAt: commit.snapshotAt }),
      diskCount: commit.disks.length,
      virtualBytes: sum((disk) => disk.virtualBytes),
      transferredBytes: sum((disk) => disk.transferredBytes),
      storedBytes: sum((disk) => disk.storedBytes),
    });
    await inside.jobs.finish(commit.lease, {
      status: 'completed',
      ...(commit.result && { result: commit.result }),
    });
    return done;
  });
}

export interface RestorePointFailure {
  restorePointId: string;
  lease: Lease;
  status: 'failed' | 'cancelled';
  error: Failure;
  /** Disks with words of their own; the others get those of the whole. */
  disks?: readonly { backupId: string; error: Failure }[];
}

/** Ends point, disks and job together. LEASE_LOST and WRONG_STATE as above. */
export async function failRestorePoint(catalog: Catalog, failure: RestorePointFailure): Promise<RestorePoint> {
  return catalog.transaction(async (inside) => {
    await inside.jobs.fence(failure.lease);
    const point = await pointOf(inside, failure.restorePointId, failure.lease.jobId);
    for (const { backupId, error } of failure.disks ?? []) {
      await inside.backupJobs.update(backupId, { errorCode: error.code, errorMessage: error.message });
    }
    await inside.jobs.finish(failure.lease, { status: failure.status, error: failure.error });
    return inside.restorePoints.get(point.id);
  });
}

async function pointOf(inside: Catalog, id: string, jobId: string): Promise<RestorePoint> {
  const point = await inside.restorePoints.get(id);
  if (point.jobId !== jobId || point.completedAt !== null) {
    throw new SendenseError('WRONG_STATE', `restore point ${id} is ${point.status}, of job ${point.jobId}`, {
      details: { restorePoint: id, status: point.status, jobId: point.jobId },
    });
  }
  return point;
}

function pairs(
  point: RestorePoint,
  backups: readonly BackupJob[],
  disks: readonly CommittedDisk[],
): [BackupJob, CommittedDisk][] {
  const byId = new Map(disks.map((disk) => [disk.backupId, disk]));
  const found = backups.flatMap((backup): [BackupJob, CommittedDisk][] => {
    const disk = byId.get(backup.id);
    return disk ? [[backup, disk]] : [];
  });
  if (found.length !== backups.length || byId.size !== backups.length || disks.length !== byId.size) {
    throw new SendenseError('WRONG_STATE', `the disks to commit are not those of restore point ${point.id}`, {
      details: { restorePoint: point.id, disks: backups.length, committed: disks.length },
    });
  }
  return found;
}

interface DiskCommit {
  commit: RestorePointCommit;
  point: RestorePoint;
  backup: BackupJob;
  disk: CommittedDisk;
}

async function commitDisk(inside: Catalog, { commit, point, backup, disk }: DiskCommit): Promise<void> {
  const { id, diskUuid, vmDiskId, label } = backup;
  if (disk.changeTracking && !disk.changeId) {
    throw new SendenseError('CHANGE_ID_MISSING', `${label} came back without a change id`, { details: { diskUuid } });
  }
  if (!disk.imagePath.startsWith(`${commit.folder}/`)) {
    throw new SendenseError('WRONG_STATE', `the image of ${label} lies outside of ${commit.folder}`, {
      details: { diskUuid },
    });
  }
  const place = { vmId: point.vmId, diskUuid, vmDiskId, repositoryId: point.repositoryId };
  const { storedBytes, parentBackupId } = disk;
  if ((disk.type === 'full') !== (parentBackupId === null)) {
    throw new SendenseError('WRONG_STATE', `${label}: an incremental has a parent and a full has none`, {
      details: { diskUuid },
    });
  }
  const chain =
    parentBackupId === null
      ? await inside.backupChains.open(place, { backupId: id, storedBytes })
      : await inside.backupChains.extend(place, { backupId: id, parentBackupId, storedBytes });
  const { backupId: _, ...facts } = disk;
  await inside.backupJobs.complete(id, { ...facts, chainId: chain.id, completedAt: commit.completedAt });
}
