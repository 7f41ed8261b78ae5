/**
 * Step 8: from flushed data to a restore point. The order is what makes it safe: exports closed, images checked, every
 * figure in the catalog's unfinished rows, sidecars written, folder renamed, and only then one transaction that makes
 * all of it visible. Killed before the rename the folder is unfinished; killed after it, `finishRenamed` ends the job.
 */
import { relative } from 'node:path';
import type { JobRun } from '../jobs.ts';
import type { BackupContext } from './engine.ts';
import type { WatchContext } from './watch.ts';
import type { PlannedDisk } from './validate.ts';
import type { PointFile } from '#/api/point.ts';
import type { Replication } from '#/api/replication.ts';
import { commitRestorePoint } from '#/catalog/commit.ts';
import type { BackupJob, RestorePoint } from '#/catalog/records.ts';
import { now } from '#/lib/clock.ts';
import { hasCode, SendenseError } from '#/lib/errors.ts';
import { checkImage, imageInfo } from '#/qemu/img.ts';
import { backingReference } from '#/repository/layout.ts';
import { pointFileText } from '#/repository/point-file.ts';
import { restoreText } from '#/repository/restore-text.ts';

export type CompleteContext = WatchContext & { replication: Replication };

export async function complete(job: JobRun, ctx: BackupContext, parts: CompleteContext): Promise<void> {
  const { plan, images, exports } = parts;
  await job.status('committing');
  await exports.close();
  for (const disk of plan.disks) await settleDisk(job, ctx, parts, disk);
  const configXml = await parts.capture.vmConfig();
  if (configXml !== null) await images.point.writeFile('vm-config.xml', configXml);
  const point = describe(parts);
  await images.point.writeFile('point.json', pointFileText(point));
  await images.point.writeFile('RESTORE.txt', restoreText(point, await chainsOf(ctx, parts)));
  job.signal.throwIfAborted(); // the last chance to cancel: from here on the restore point exists
  const folder = await images.commit();
  await commitRecorded(job, ctx, plan.point, folder);
  await job.log('complete', 'restore point committed', { folder });
}

/** True when the folder of the job's restore point already has its final name: then only the catalog is missing. */
export async function finishRenamed(job: JobRun, ctx: BackupContext): Promise<boolean> {
  const point = await ctx.catalog.restorePoints.openForJob(job.job.id);
  if (point?.folder === undefined || point.folder === null) return false;
  const record = await ctx.catalog.repositories.get(point.repositoryId);
  await using repository = await ctx.repositories.open(record);
  try {
    await repository.pointFolder(point.folder);
  } catch (error) {
    if (hasCode(error, 'NOT_FOUND')) return false;
    throw error;
  }
  await commitRecorded(job, ctx, point, point.folder);
  await job.log('complete', 'restore point committed after a restart of the hub', { folder: point.folder });
  return true;
}

/** One transaction: every disk's change id, the chains, the disks, the point and the job. */
async function commitRecorded(job: JobRun, ctx: BackupContext, point: RestorePoint, folder: string): Promise<void> {
  const backups = await ctx.catalog.backupJobs.listFor(point.id);
  const result = {
    restorePointId: point.id,
    transferredBytes: backups.reduce((sum, backup) => sum + backup.transferredBytes, 0),
  };
  await commitRestorePoint(ctx.catalog, {
    restorePointId: point.id,
    lease: job.lease,
    completedAt: now(),
    consistency: point.consistency ?? 'crash',
    folder,
    disks: backups.map((backup) => ({
      ...backup,
      backupId: backup.id,
      imagePath: `${folder}/disk-${backup.diskIndex}.qcow2`,
    })),
    result,
  });
}

/** Checks the image and puts all that is known of the disk into its row. */
async function settleDisk(
  job: JobRun,
  ctx: BackupContext,
  parts: CompleteContext,
  planned: PlannedDisk,
): Promise<void> {
  const { backup, parent } = planned;
  const { images, replication } = parts;
  const path = images.point.imagePath(backup.diskIndex);
  const check = await checkImage(path, { signal: job.signal });
  if (!check.clean) throw new SendenseError('IMAGE_DAMAGED', `the image of ${backup.label} did not pass its check`);
  const info = await imageInfo(path, { signal: job.signal });
  const backing = parent?.imagePath ? backingReference(images.point.finalFolder, parent.imagePath) : undefined;
  if (info.virtualBytes !== backup.virtualBytes || info.backing?.name !== backing) {
    throw new SendenseError('IMAGE_DAMAGED', `the image of ${backup.label} has another size or base than it was given`);
  }
  const disk = replication.disks.find((one) => one.diskUuid === backup.diskUuid);
  if (!disk) throw new SendenseError('AGENT_LOST', `the agent says nothing of ${backup.label}`);
  if (disk.changeTracking && disk.changeId === null) {
    throw new SendenseError('CHANGE_ID_MISSING', `${backup.label} came back without a change id`);
  }
  planned.backup = await ctx.catalog.backupJobs.update(backup.id, {
    status: 'committing',
    changeId: disk.changeId,
    storedBytes: info.allocatedBytes,
    imagePath: `${images.point.finalFolder}/disk-${backup.diskIndex}.qcow2`,
  });
}

function describe({ plan, images }: CompleteContext): PointFile {
  const { vm, source, point, repository } = plan;
  const { finalFolder } = images.point;
  return {
    version: 1,
    id: point.id,
    repositoryId: repository.identity,
    jobId: point.jobId,
    vm: {
      id: vm.id,
      name: vm.name,
      moref: vm.moref,
      instanceUuid: vm.instanceUuid,
      source: { id: source.id, name: source.name, address: source.address },
    },
    requestedType: point.requestedType,
    consistency: point.consistency ?? 'crash',
    startedAt: point.startedAt.toString(),
    snapshotAt: (point.snapshotAt ?? point.startedAt).toString(),
    completedAt: now().toString(),
    disks: plan.disks.map(({ backup, parent }) => ({
      index: backup.diskIndex,
      backupId: backup.id,
      key: backup.diskKey,
      uuid: backup.diskUuid,
      label: backup.label,
      virtualBytes: backup.virtualBytes,
      type: backup.type,
      typeReason: backup.typeReason,
      previousChangeId: backup.previousChangeId,
      changeId: backup.changeId,
      parent: parent && parentOf(parent, finalFolder),
      image: `disk-${backup.diskIndex}.qcow2`,
      transferredBytes: backup.transferredBytes,
      storedBytes: backup.storedBytes,
    })),
  };
}

function parentOf(parent: BackupJob, folder: string): PointFile['disks'][number]['parent'] {
  return {
    pointId: parent.restorePointId,
    backupId: parent.id,
    image: backingReference(folder, parent.imagePath ?? ''),
  };
}

/** The files that each disk needs, its own first, as paths from the point's folder. */
async function chainsOf(ctx: BackupContext, { plan, images }: CompleteContext): Promise<Map<number, string[]>> {
  const chains = new Map<number, string[]>();
  for (const { backup, parent } of plan.disks) {
    const below = parent ? await ctx.catalog.backupJobs.parentsToFull(parent.id) : [];
    const files = below.toReversed().map((link) => relative(images.point.finalFolder, link.imagePath ?? ''));
    chains.set(backup.diskIndex, [`disk-${backup.diskIndex}.qcow2`, ...files]);
  }
  return chains;
}
