/** Catalog records as the API shows them. Names are looked up once per page, never once per row. */
import type { ProgressBoard } from './progress.ts';
import type { Agent } from '#/api/agent.ts';
import type { Job } from '#/api/job.ts';
import type { Repository } from '#/api/repository.ts';
import type { Chain, DiskBackup, RestorePoint } from '#/api/restore-point.ts';
import type { Source } from '#/api/source.ts';
import type { DiskFacts, Vm } from '#/api/vm.ts';
import type { Catalog } from '#/catalog/catalog.ts';
import type * as rows from '#/catalog/records.ts';
import { now } from '#/lib/clock.ts';

/** An agent that has not answered for this long is shown as offline. */
const ONLINE_MS = 120_000;

type Failure = { code: string; message: string; details?: Record<string, unknown> };

export function sourceView(source: rows.Source): Source {
  const { id, name, kind, address, username, thumbprint } = source;
  return {
    id,
    name,
    kind,
    address,
    username,
    thumbprint,
    createdAt: text(source.createdAt),
    checkedAt: textOrNull(source.checkedAt),
  };
}

export function agentView(agent: rows.Agent): Agent {
  const { id, name, url, version, lastSeenAt } = agent;
  const silentMs = lastSeenAt === null ? Number.POSITIVE_INFINITY : now().since(lastSeenAt).total('milliseconds');
  return {
    id,
    name,
    url,
    version,
    state: silentMs < ONLINE_MS ? 'online' : 'offline',
    registeredAt: text(agent.registeredAt),
    lastSeenAt: textOrNull(lastSeenAt),
  };
}

export async function repositoryView(catalog: Catalog, repository: rows.Repository): Promise<Repository> {
  const { id, name, root, state, problem, capacityBytes, freeBytes } = repository;
  const { restorePoints, storedBytes } = await catalog.backupChains.statistics({ repositoryId: id });
  const createdAt = text(repository.createdAt);
  return {
    id,
    name,
    kind: 'local',
    root,
    state,
    problem,
    capacityBytes,
    freeBytes,
    restorePoints,
    storedBytes,
    createdAt,
  };
}

export async function vmViews(catalog: Catalog, vms: readonly rows.Vm[]): Promise<Vm[]> {
  const sources = new Map((await catalog.sources.list()).map((source) => [source.id, source.name]));
  const last = await catalog.restorePoints.lastCompletedAt(vms.map((vm) => vm.id));
  return vms.map((vm) => {
    const { id, sourceId, moref, instanceUuid, name, path, powerState, guestName, facts } = vm;
    const disks = (facts['disks'] ?? []) as DiskFacts[];
    return {
      id,
      sourceId,
      source: sources.get(sourceId) ?? sourceId,
      moref,
      instanceUuid,
      name,
      path,
      powerState,
      guestName,
      changeTrackingEnabled: facts['changeTrackingEnabled'] === true,
      capacityBytes: disks.reduce((sum, disk) => sum + disk.capacityBytes, 0),
      disks,
      lastSeenAt: text(vm.lastSeenAt),
      lastRestorePointAt: textOrNull(last.get(id) ?? null),
    };
  });
}

export async function restorePointViews(
  catalog: Catalog,
  points: readonly rows.RestorePoint[],
): Promise<RestorePoint[]> {
  const vms = await catalog.vms.byIds([...new Set(points.map((point) => point.vmId))]);
  const repositories = new Map((await catalog.repositories.list()).map((one) => [one.id, one.name]));
  const disks = Map.groupBy(
    await catalog.backupJobs.listFor(points.map((point) => point.id)),
    (one) => one.restorePointId,
  );
  return points.map((point) => {
    const { errorCode, errorMessage, diskCount: _, snapshotAt, startedAt, completedAt, ...facts } = point;
    return {
      ...facts,
      vm: vms.get(point.vmId)?.name ?? point.vmId,
      repository: repositories.get(point.repositoryId) ?? point.repositoryId,
      snapshotAt: textOrNull(snapshotAt),
      startedAt: text(startedAt),
      completedAt: textOrNull(completedAt),
      error: errorView(errorCode, errorMessage),
      disks: (disks.get(point.id) ?? []).map(diskBackupView),
    };
  });
}

export function diskBackupView(backup: rows.BackupJob): DiskBackup {
  const { errorCode, errorMessage, ...facts } = backup;
  return { ...facts, error: errorView(errorCode, errorMessage) };
}

export async function chainView(catalog: Catalog, chain: rows.BackupChain): Promise<Chain> {
  const [vm, repository, backups] = await Promise.all([
    catalog.vms.get(chain.vmId),
    catalog.repositories.get(chain.repositoryId),
    catalog.backupChains.backups(chain.id),
  ]);
  const latest = backups.at(-1);
  const { createdAt, updatedAt, ...facts } = chain;
  return {
    ...facts,
    vm: vm.name,
    repository: repository.name,
    label: latest?.label ?? '',
    virtualBytes: latest?.virtualBytes ?? 0,
    createdAt: text(createdAt),
    updatedAt: text(updatedAt),
    backups: backups.map((backup) => ({
      ...diskBackupView(backup),
      restorePointId: backup.restorePointId,
      completedAt: textOrNull(backup.completedAt),
    })),
  };
}

export async function jobViews(catalog: Catalog, board: ProgressBoard, jobs: readonly rows.Job[]): Promise<Job[]> {
  const vms = await catalog.vms.byIds(jobs.flatMap((job) => (job.vmId === null ? [] : [job.vmId])));
  return Promise.all(
    jobs.map(async (job) => {
      const { id, kind, status, vmId, attempt, cancelRequested, result } = job;
      const points = kind === 'backup' ? await catalog.restorePoints.list({ jobId: id, limit: 1 }) : undefined;
      const vm = vmId === null ? undefined : vms.get(vmId);
      return {
        id,
        kind,
        status,
        subject: vm?.name ?? vmId ?? id,
        vmId,
        restorePointId: points?.items[0]?.id ?? textOf(job.payload['restorePointId']),
        attempt,
        cancelRequested,
        progress: board.get(id),
        result,
        error: errorView(job.errorCode, job.errorMessage, job.errorDetails),
        createdAt: text(job.createdAt),
        startedAt: textOrNull(job.startedAt),
        finishedAt: textOrNull(job.finishedAt),
      };
    }),
  );
}

function errorView(
  code: string | null,
  message: string | null,
  details?: Record<string, unknown> | null,
): Failure | null {
  if (code === null) return null;
  return { code, message: message ?? '', ...(details && Object.keys(details).length > 0 && { details }) };
}

function text(instant: Temporal.Instant): string {
  return instant.toString();
}

function textOrNull(instant: Temporal.Instant | null): string | null {
  return instant === null ? null : instant.toString();
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}
