/**
 * Step 1: everything that can be known before anything is made, and the rows of the restore point and of each disk's
 * backup. What is refused here has left no trace but the job and its reason.
 */
import { access } from 'node:fs/promises';
import { constants } from 'node:fs';
import { resolve } from 'node:path';
import { refreshVm } from '../inventory.ts';
import type { JobRun } from '../jobs.ts';
import { exportName } from '../export/names.ts';
import type { BackupContext } from './engine.ts';
import { planDisk } from './plan-disk.ts';
import { BackupPayload } from '#/api/payload.ts';
import type { DiskFacts } from '#/api/vm.ts';
import type { NewBackupJob } from '#/catalog/backup-jobs.ts';
import type { Agent, BackupJob, Repository, RestorePoint, Source, Vm } from '#/catalog/records.ts';
import type { NewRestorePoint } from '#/catalog/restore-points.ts';
import { SendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';

export interface PlannedDisk {
  backup: BackupJob;
  /** The backup an incremental stands on; null for a full. */
  parent: BackupJob | null;
}

export interface BackupPlan {
  request: BackupPayload;
  vm: Vm;
  source: Source;
  repository: Repository;
  agent: Agent;
  point: RestorePoint;
  disks: PlannedDisk[];
  snapshotName: string;
}

export async function validate(job: JobRun, ctx: BackupContext): Promise<BackupPlan> {
  const request = BackupPayload.parse(job.job.payload);
  const { catalog } = ctx;
  const [known, repository, agent] = await Promise.all([
    catalog.vms.get(request.vmId),
    catalog.repositories.get(request.repositoryId),
    catalog.agents.get(request.agentId),
  ]);
  const source = await catalog.sources.get(known.sourceId);
  const base = { request, source, repository, agent, snapshotName: `sendense-${job.job.id}` };
  if (job.resumed) {
    const rows = await recorded(job, ctx);
    await job.log('validate', 'taken up again after a restart of the hub');
    return { ...base, vm: known, ...rows };
  }
  const { vm, facts } = await refreshVm(ctx, agent, source, known);
  refuse(facts);
  const eligible = await chooseDisks(job, facts.disks);
  const newPoint = pointFor(job, request, vm, eligible);
  const news: { row: NewBackupJob; parent: BackupJob | null }[] = [];
  for (const [index, disk] of eligible.entries()) {
    news.push(await backupFor(ctx, { request, vm, repository, restorePointId: newPoint.id, disk, index }));
  }
  const { point, disks } = await catalog.transaction(async (trx) => {
    const point = await trx.restorePoints.create(newPoint);
    const disks: PlannedDisk[] = [];
    for (const { row, parent } of news) disks.push({ backup: await trx.backupJobs.create(row), parent });
    return { point, disks };
  });
  for (const { backup } of disks)
    await job.log('validate', `${backup.label}: ${backup.type}`, { reason: backup.typeReason });
  return { ...base, vm, point, disks };
}

function refuse(facts: { name: string; template: boolean; connectionState: string }): void {
  if (facts.template) {
    throw new SendenseError(
      'WRONG_STATE',
      `${facts.name} is a template: no snapshot can be made of it; convert it to a VM first`,
    );
  }
  if (facts.connectionState !== 'connected') {
    throw new SendenseError(
      'WRONG_STATE',
      `${facts.name} is ${facts.connectionState} in the vCenter; only a connected VM can be backed up`,
    );
  }
}

/** Disks that snapshots contain; the others are named in the job's log and never silently left out. */
async function chooseDisks(job: JobRun, disks: readonly DiskFacts[]): Promise<(DiskFacts & { uuid: string })[]> {
  const chosen: (DiskFacts & { uuid: string })[] = [];
  const seen = new Set<string>();
  for (const disk of disks) {
    const { uuid } = disk;
    let why: string | undefined;
    if (uuid === null) why = 'it has no identity (physical raw device mapping?)';
    else if (disk.diskMode !== 'persistent') why = `its mode ${disk.diskMode} keeps it out of snapshots`;
    else if (seen.has(uuid)) why = `another disk of this VM has the same identity ${uuid}`;
    if (why !== undefined || uuid === null) {
      await job.log('validate', `${disk.label} is not backed up: ${why ?? ''}`, { disk: disk.label }, 'warn');
      continue;
    }
    seen.add(uuid);
    chosen.push({ ...disk, uuid });
  }
  if (chosen.length === 0) throw new SendenseError('WRONG_STATE', 'the VM has no disk that can be backed up');
  return chosen;
}

function pointFor(
  job: JobRun,
  request: BackupPayload,
  vm: Vm,
  disks: readonly DiskFacts[],
): NewRestorePoint & { id: string } {
  return {
    id: newId(),
    vmId: vm.id,
    repositoryId: request.repositoryId,
    jobId: job.job.id,
    status: 'preparing',
    requestedType: request.type,
    diskCount: disks.length,
    virtualBytes: disks.reduce((sum, disk) => sum + disk.capacityBytes, 0),
  };
}

interface BackupInput {
  request: BackupPayload;
  vm: Vm;
  repository: Repository;
  restorePointId: string;
  disk: DiskFacts & { uuid: string };
  index: number;
}

async function backupFor(
  ctx: BackupContext,
  input: BackupInput,
): Promise<{ row: NewBackupJob; parent: BackupJob | null }> {
  const { request, vm, repository, disk, index } = input;
  const vmDisk = await ctx.catalog.vmDisks.findByUuid(vm.id, disk.uuid);
  if (!vmDisk) throw new SendenseError('INTERNAL', `no row for disk ${disk.uuid}`);
  const chain = await ctx.catalog.backupChains.activeFor(vmDisk.id, repository.id);
  const latest = await ctx.catalog.backupJobs.latestForDisk(vm.id, disk.uuid, repository.id);
  const baseProblem = latest ? await problemOfBase(repository, latest) : undefined;
  const plan = planDisk({ requested: request.type, disk, chain, latest, baseProblem, maxChain: ctx.limits.maxChain });
  const id = newId();
  const row: NewBackupJob = {
    id,
    restorePointId: input.restorePointId,
    vmDiskId: vmDisk.id,
    diskUuid: disk.uuid,
    diskIndex: index,
    diskKey: disk.key,
    label: disk.label,
    type: plan.type,
    typeReason: plan.reason,
    status: 'preparing',
    parentBackupId: plan.parent?.id ?? null,
    previousChangeId: plan.parent?.changeId ?? null,
    exportName: exportName(vm.name, index, id),
    virtualBytes: disk.capacityBytes,
  };
  return { row, parent: plan.parent };
}

/** An incremental on a missing base would be worthless; images deeper down are checked when the export opens the chain. */
async function problemOfBase(repository: Repository, latest: BackupJob): Promise<string | undefined> {
  if (latest.imagePath === null) return 'the latest backup has no image';
  const path = resolve(repository.root, latest.imagePath);
  try {
    await access(path, constants.R_OK);
    return undefined;
  } catch {
    return `${latest.imagePath} is missing or unreadable`;
  }
}

async function recorded(job: JobRun, ctx: BackupContext): Promise<{ point: RestorePoint; disks: PlannedDisk[] }> {
  const point = await ctx.catalog.restorePoints.openForJob(job.job.id);
  const [snapshot] = await ctx.catalog.snapshots.listOpen({ jobId: job.job.id });
  if (!point || !snapshot) {
    throw new SendenseError('HUB_RESTARTED', 'the hub stopped before the agent had been asked for anything');
  }
  const disks: PlannedDisk[] = [];
  for (const backup of await ctx.catalog.backupJobs.listFor(point.id)) {
    const parent = backup.parentBackupId === null ? null : await ctx.catalog.backupJobs.get(backup.parentBackupId);
    disks.push({ backup, parent });
  }
  return { point, disks };
}
