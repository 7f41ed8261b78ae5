/**
 * Step 7: follows the replication until all data are flushed. The agent reports by itself about once a second and on
 * every change; the hub also asks, so that neither a lost report nor a silent agent goes unnoticed.
 */
import { toProgress } from '../progress.ts';
import type { JobRun } from '../jobs.ts';
import type { Capture } from './capture.ts';
import type { BackupContext } from './engine.ts';
import type { DiskExports, Images } from './images.ts';
import type { BackupPlan, PlannedDisk } from './validate.ts';
import type { DiskReplication, Replication } from '#/api/replication.ts';
import { elapsedMs, instantFromMs } from '#/lib/clock.ts';
import { fromWire, hasCode, SendenseError } from '#/lib/errors.ts';

const POLL_MS = 2_000;
const PERSIST_MS = 5_000;

export interface WatchContext {
  plan: BackupPlan;
  images: Images;
  exports: DiskExports;
  capture: Capture;
}

/** Returns once the data of all disks are flushed; throws the agent's error, STALLED, AGENT_LOST or AGENT_UNREACHABLE. */
export async function watch(job: JobRun, ctx: BackupContext, parts: WatchContext): Promise<Replication> {
  const follower = new Follower(job, ctx, parts);
  for (;;) {
    job.signal.throwIfAborted();
    const replication = ctx.progress.take(job.job.id) ?? (await follower.ask());
    if (replication) {
      await follower.follow(replication);
      if (replication.error) throw fromWire(replication.error, 'AGENT_LOST');
      if (replication.state === 'cancelled')
        throw new SendenseError('CANCELLED', 'the agent cancelled the replication');
      if (replication.dataComplete) return replication;
    }
    await ctx.progress.reported(job.job.id, POLL_MS, job.signal);
  }
}

class Follower {
  readonly #job: JobRun;
  readonly #ctx: BackupContext;
  readonly #parts: WatchContext;
  readonly #labels: Map<string, string>;
  readonly #decided = new Set<string>();
  #copying = false;
  #snapshotSeen = false;
  #warnings = 0;
  #lastAnswer = elapsedMs();
  #lastPersist = elapsedMs();

  constructor(job: JobRun, ctx: BackupContext, parts: WatchContext) {
    this.#job = job;
    this.#ctx = ctx;
    this.#parts = parts;
    this.#labels = new Map(parts.plan.disks.map(({ backup }) => [backup.diskUuid, backup.label]));
  }

  /** The agent's state, or undefined while it may still come back. */
  async ask(): Promise<Replication | undefined> {
    try {
      return await this.#parts.capture.get(this.#job.signal);
    } catch (error) {
      if (hasCode(error, 'NOT_FOUND')) {
        throw new SendenseError('AGENT_LOST', 'the capture agent was restarted and lost the replication', {
          cause: error,
        });
      }
      if (!hasCode(error, 'AGENT_UNREACHABLE', 'TIMEOUT')) throw error;
      if (elapsedMs() - this.#lastAnswer > this.#ctx.limits.agentGraceMs) throw error;
      return undefined;
    }
  }

  async follow(replication: Replication): Promise<void> {
    this.#lastAnswer = elapsedMs();
    const { capture, plan } = this.#parts;
    await capture.track(replication);
    await this.#noteSnapshot(replication);
    for (const warning of replication.warnings.slice(this.#warnings))
      await this.#job.log('capture', warning, {}, 'warn');
    this.#warnings = replication.warnings.length;
    for (const disk of replication.disks) {
      const planned = plan.disks.find(({ backup }) => backup.diskUuid === disk.diskUuid);
      if (!planned)
        throw new SendenseError('DISK_MISMATCH', `the agent reports a disk that was not asked for: ${disk.diskUuid}`);
      await this.#noteDecision(planned, disk);
    }
    if (!this.#copying && replication.state === 'copying') {
      this.#copying = true;
      await this.#job.status('copying');
    }
    const progress = toProgress(replication, this.#labels);
    this.#ctx.progress.set(this.#job.job.id, progress);
    if (progress.idleMs > this.#ctx.limits.stallMs) {
      throw new SendenseError('STALLED', `no byte has moved for ${Math.round(progress.idleMs / 1000)} s`);
    }
    if (elapsedMs() - this.#lastPersist > PERSIST_MS || replication.dataComplete) {
      this.#lastPersist = elapsedMs();
      for (const disk of replication.disks) await this.#persist(disk);
    }
  }

  async #noteSnapshot({ snapshot }: Replication): Promise<void> {
    if (this.#snapshotSeen || !snapshot?.takenAt) return;
    this.#snapshotSeen = true;
    const snapshotAt = instantFromMs(Date.parse(snapshot.takenAt));
    const consistency = snapshot.consistency ?? 'crash';
    this.#parts.plan.point = await this.#ctx.catalog.restorePoints.update(this.#parts.plan.point.id, {
      snapshotAt,
      consistency,
    });
    const note = snapshot.note === null ? {} : { note: snapshot.note };
    await this.#job.log('capture', `snapshot taken, ${consistency}-consistent`, {
      moref: snapshot.moref ?? '',
      ...note,
    });
  }

  /** Records what the agent decided; a disk that must be read in full after all gets an image that stands alone. */
  async #noteDecision(planned: PlannedDisk, disk: DiskReplication): Promise<void> {
    if (disk.type === null || this.#decided.has(disk.diskUuid)) return;
    const { backup } = planned;
    const { catalog } = this.#ctx;
    const turned = backup.type === 'incremental' && disk.type === 'full';
    if (turned) {
      planned.parent = null;
      Object.assign(backup, { type: 'full', parentBackupId: null });
    }
    // The plan's reason stands for a full that was planned; otherwise the agent knows why.
    if (turned || backup.type === 'incremental') backup.typeReason = disk.typeReason ?? backup.typeReason;
    const { type, typeReason, parentBackupId } = backup;
    const { transport, transportReason, changeTracking } = disk;
    const previousChangeId = type === 'full' ? null : backup.previousChangeId;
    const patch = { type, typeReason, parentBackupId, previousChangeId, transport, transportReason, changeTracking };
    Object.assign(backup, patch);
    await catalog.backupJobs.update(backup.id, patch);
    await this.#job.log('capture', `${backup.label}: ${type} over ${transport ?? '?'}`, { reason: typeReason });
    if (disk.phase === 'awaiting-target') {
      await this.#parts.exports.replace(planned, this.#job.signal);
      await this.#parts.capture.putTarget(disk.diskUuid, this.#parts.exports.uri(disk.diskUuid));
    }
    this.#decided.add(disk.diskUuid);
  }

  async #persist(disk: DiskReplication): Promise<void> {
    const planned = this.#parts.plan.disks.find(({ backup }) => backup.diskUuid === disk.diskUuid);
    if (!planned) return;
    const counts = {
      changedBytes: disk.changedBytes ?? 0,
      readBytes: disk.readBytes,
      transferredBytes: disk.writtenBytes,
      zeroBytes: disk.zeroBytes,
      skippedBytes: disk.skippedBytes,
    };
    Object.assign(planned.backup, counts);
    await this.#ctx.catalog.backupJobs.update(planned.backup.id, { status: 'copying', ...counts });
  }
}
