/** Steps 3 and 4: one QCOW2 file per disk in an unfinished folder, and one export per file. */
import type { OpenExport } from '../export/exports.ts';
import type { JobRun } from '../jobs.ts';
import type { BackupContext } from './engine.ts';
import type { BackupPlan, PlannedDisk } from './validate.ts';
import { rm } from 'node:fs/promises';
import { createImage } from '#/qemu/img.ts';
import { backingReference } from '#/repository/layout.ts';
import type { Repository, UnfinishedPoint } from '#/repository/repository.ts';
import { SendenseError } from '#/lib/errors.ts';

/** The unfinished folder; discarded unless it was committed. */
export class Images implements AsyncDisposable {
  readonly point: UnfinishedPoint;
  #kept = false;

  constructor(point: UnfinishedPoint) {
    this.point = point;
  }

  /** A new file for a full, a file over its parent (by relative path, so that the repository can be moved) otherwise. */
  async create({ backup, parent }: PlannedDisk): Promise<void> {
    const path = this.point.imagePath(backup.diskIndex);
    const backing = parent ? { relativeName: backingReference(this.point.finalFolder, imageOf(parent)) } : undefined;
    await createImage({ path, sizeBytes: backup.virtualBytes, ...(backing && { backing }) });
  }

  async recreate(disk: PlannedDisk): Promise<void> {
    await rm(this.point.imagePath(disk.backup.diskIndex), { force: true });
    await this.create(disk);
  }

  /** Renames to the final folder; from then on there is nothing to discard. Returns that folder, relative to the root. */
  async commit(): Promise<string> {
    const folder = await this.point.commit();
    this.#kept = true;
    return folder;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#kept) await this.point.discard();
  }
}

export async function createImages(
  job: JobRun,
  ctx: BackupContext,
  plan: BackupPlan,
  repository: Repository,
): Promise<Images> {
  if (job.resumed) {
    const found = (await repository.listUnfinished()).find((one) => one.pointId === plan.point.id);
    if (!found) throw new SendenseError('HUB_RESTARTED', 'the hub stopped before the images were made');
    return new Images(await repository.openUnfinished(found.folder));
  }
  await job.status('preparing');
  const { vm, point } = plan;
  const images = new Images(
    await repository.beginPoint({ vmName: vm.name, vmId: vm.id, pointId: point.id, startedAt: point.startedAt }),
  );
  try {
    for (const disk of plan.disks) {
      job.signal.throwIfAborted();
      await images.create(disk);
    }
  } catch (error) {
    await images[Symbol.asyncDispose]();
    throw error;
  }
  await job.log('images', `${plan.disks.length} image(s) made`, { folder: images.point.folder });
  await ctx.catalog.restorePoints.update(point.id, { folder: images.point.finalFolder });
  return images;
}

/** All exports of a job, by disk uuid. */
export class DiskExports implements AsyncDisposable {
  readonly #ctx: BackupContext;
  readonly #plan: BackupPlan;
  readonly #images: Images;
  readonly #open = new Map<string, OpenExport>();

  constructor(ctx: BackupContext, plan: BackupPlan, images: Images) {
    this.#ctx = ctx;
    this.#plan = plan;
    this.#images = images;
  }

  /** Opens the disk's export, or finds it open as it should be. */
  async open({ backup }: PlannedDisk, signal: AbortSignal): Promise<void> {
    if (backup.exportName === null) throw new SendenseError('INTERNAL', 'backup without an export name');
    const request = {
      name: backup.exportName,
      imagePath: this.#images.point.imagePath(backup.diskIndex),
      readOnly: false,
      agent: this.#plan.agent.name,
      virtualBytes: backup.virtualBytes,
    };
    this.#open.set(backup.diskUuid, await this.#ctx.exports.open(request, signal));
  }

  async replace(disk: PlannedDisk, signal: AbortSignal): Promise<void> {
    await this.#open.get(disk.backup.diskUuid)?.close();
    await this.#images.recreate(disk);
    await this.open(disk, signal);
  }

  /** What the agent opens: the socket itself on this machine, the front door from elsewhere. */
  uri(diskUuid: string): string {
    const opened = this.#open.get(diskUuid);
    if (!opened) throw new SendenseError('INTERNAL', `no export for disk ${diskUuid}`);
    if (new URL(this.#plan.agent.url).protocol === 'http:') return opened.localUri;
    if (opened.remoteUri === null) {
      throw new SendenseError(
        'CONFIG_INVALID',
        'an agent on another machine needs the front door; start the hub with one',
      );
    }
    return opened.remoteUri;
  }

  /** Flushes and closes all; EXPORT_FAILED when any did not end cleanly. */
  async close(): Promise<void> {
    for (const opened of this.#open.values()) await opened.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const results = await Promise.allSettled([...this.#open.values()].map((one) => one[Symbol.asyncDispose]()));
    const failed = results.find((one) => one.status === 'rejected');
    if (failed) throw failed.reason;
  }
}

export async function openExports(
  job: JobRun,
  ctx: BackupContext,
  plan: BackupPlan,
  images: Images,
): Promise<DiskExports> {
  const exports = new DiskExports(ctx, plan, images);
  try {
    for (const disk of plan.disks) await exports.open(disk, job.signal);
  } catch (error) {
    await exports[Symbol.asyncDispose]();
    throw error;
  }
  await job.log('exports', `${plan.disks.length} export(s) open`);
  return exports;
}

function imageOf(parent: { imagePath: string | null; id: string }): string {
  if (parent.imagePath === null) throw new SendenseError('CHAIN_BROKEN', `backup ${parent.id} has no image`);
  return parent.imagePath;
}
