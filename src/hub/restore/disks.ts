/**
 * Restores one disk into a file on the hub's machine. qemu-img reads the chain and writes a new file beside the target,
 * which gets its name when it is whole and flushed: a half-written disk never carries the name that was asked for.
 */
import { open, rename, rm, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { JobRun } from '../jobs.ts';
import type { ProgressBoard } from '../progress.ts';
import type { Repositories } from '../repositories.ts';
import { RestorePayload } from '#/api/payload.ts';
import type { Catalog } from '#/catalog/catalog.ts';
import type { BackupJob } from '#/catalog/records.ts';
import { elapsedMs } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import { syncFolder } from '#/lib/files.ts';
import { convertImage } from '#/qemu/convert.ts';

export interface RestoreContext {
  catalog: Catalog;
  repositories: Repositories;
  progress: ProgressBoard;
}

export async function executeDiskRestore(job: JobRun, ctx: RestoreContext): Promise<void> {
  const payload = RestorePayload.parse(job.job.payload);
  const partial = `${payload.path}.${job.job.id}.partial`;
  try {
    if (job.resumed)
      throw new SendenseError('HUB_RESTARTED', 'the hub was restarted while it restored; start it again');
    await refuseTarget(payload);
    const backup = await ctx.catalog.backupJobs.get(payload.backupId);
    const point = await ctx.catalog.restorePoints.get(payload.restorePointId);
    const record = await ctx.catalog.repositories.get(point.repositoryId);
    await using repository = await ctx.repositories.open(record);
    await job.status('copying');
    const links = await ctx.catalog.backupJobs.parentsToFull(backup.id);
    await job.log('restore', `${backup.label} of ${point.id}`, { images: links.length, path: payload.path });
    const started = elapsedMs();
    await convertImage({
      source: { path: resolve(repository.root, backup.imagePath ?? ''), format: 'qcow2' },
      target: { path: partial, format: payload.format },
      onProgress: (share) => ctx.progress.set(job.job.id, progressOf(backup, share, elapsedMs() - started)),
      signal: job.signal,
    });
    await job.status('committing');
    await publish(partial, payload);
    await ctx.catalog.jobs.finish(job.lease, {
      status: 'completed',
      result: { path: payload.path, format: payload.format, virtualBytes: backup.virtualBytes },
    });
    await job.log('restore', 'restored', { path: payload.path });
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/** Refused before a byte is read. The hub calls it too when the restore is asked for. */
export async function refuseTarget({ path, overwrite }: Pick<RestorePayload, 'path' | 'overwrite'>): Promise<void> {
  const folder = await stat(dirname(path)).catch(() => undefined);
  if (!folder?.isDirectory()) throw new SendenseError('INVALID_REQUEST', `there is no folder ${dirname(path)}`);
  const existing = await stat(path).catch(() => undefined);
  if (!existing) return;
  if (!existing.isFile()) throw new SendenseError('INVALID_REQUEST', `${path} is not a file`);
  if (!overwrite) throw new SendenseError('ALREADY_EXISTS', `${path} exists; nothing was overwritten`);
}

async function publish(partial: string, payload: RestorePayload): Promise<void> {
  const file = await open(partial, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
  await refuseTarget(payload); // it may have come into being meanwhile
  await rename(partial, payload.path);
  await syncFolder(dirname(payload.path));
}

function progressOf(backup: BackupJob, share: number, ms: number): Parameters<ProgressBoard['set']>[1] {
  const totalBytes = backup.virtualBytes;
  const doneBytes = Math.min(totalBytes, Math.round(totalBytes * share));
  const bytesPerSecond = ms > 0 ? (doneBytes * 1000) / ms : 0;
  return {
    totalBytes,
    doneBytes,
    bytesPerSecond,
    etaSeconds: bytesPerSecond > 0 ? (totalBytes - doneBytes) / bytesPerSecond : null,
    idleMs: 0,
    disks: [{ diskUuid: backup.diskUuid, label: backup.label, phase: 'copying', totalBytes, doneBytes, type: null }],
  };
}
