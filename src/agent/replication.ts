/**
 * The visible state of one replication, its lease and its reports to the hub. replicate.ts does the work on it.
 */
import { CopyProgress } from './copy/progress.ts';
import type { Reporter } from './reporter.ts';
import type { DiskReplication, Replication, ReplicateRequest, Target } from '#/api/replication.ts';
import { elapsedMs, now } from '#/lib/clock.ts';
import { SendenseError, toSendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';

const LEASE_CHECK_MS = 500;

export type DiskRequest = ReplicateRequest['disks'][number];

export class DiskRun {
  readonly request: DiskRequest;
  readonly progress = new CopyProgress();
  target: Target;
  phase: DiskReplication['phase'] = 'waiting';
  type: DiskReplication['type'] = null;
  typeReason: string | null = null;
  transport: string | null = null;
  transportReason: string | null = null;
  changeTracking = true;
  changeId: string | null = null;
  areasBytes: number | null = null;
  readonly newTarget = Promise.withResolvers<Target>();

  constructor(request: DiskRequest) {
    this.request = request;
    this.target = request.target;
  }

  view(): DiskReplication {
    const counts = this.progress.snapshot();
    const moving = this.phase === 'copying' || this.phase === 'flushing';
    return {
      diskUuid: this.request.diskUuid,
      phase: this.phase,
      type: this.type,
      typeReason: this.typeReason,
      transport: this.transport,
      transportReason: this.transportReason,
      changeTracking: this.changeTracking,
      changeId: this.changeId,
      virtualBytes: this.request.capacityBytes,
      changedBytes: this.areasBytes,
      readBytes: counts.readBytes,
      writtenBytes: counts.writtenBytes,
      zeroBytes: counts.zeroBytes + counts.skippedBytes,
      skippedBytes: this.areasBytes === null ? 0 : Math.max(0, this.request.capacityBytes - this.areasBytes),
      bytesPerSecond: moving ? counts.bytesPerSecond : 0,
      idleMs: moving ? counts.idleMs : 0,
    };
  }
}

export class ReplicationRun {
  readonly id = newId();
  readonly request: ReplicateRequest;
  readonly disks: DiskRun[];
  readonly warnings: string[] = [];
  snapshot: Replication['snapshot'] = null;
  vmConfigXml: string | null = null;
  dataComplete = false;
  #state: Replication['state'] = 'preparing';
  #error: SendenseError | undefined;
  readonly #startedAt = now();
  #finishedAt: Temporal.Instant | undefined;
  readonly #controller = new AbortController();
  readonly #reporter: Reporter | undefined;
  readonly #leaseTimer: NodeJS.Timeout;
  #heardMs = elapsedMs();

  constructor(request: ReplicateRequest, reporter: Reporter | undefined) {
    this.request = request;
    this.disks = request.disks.map((disk) => new DiskRun(disk));
    this.#reporter = reporter;
    this.#leaseTimer = setInterval(() => this.#checkLease(), LEASE_CHECK_MS);
    reporter?.start(
      () => this.view(),
      () => this.heard(),
    );
  }

  /** Aborted by a cancel, or by the lease when the hub has been silent for too long. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get ended(): boolean {
    return this.#finishedAt !== undefined;
  }

  get finishedAt(): Temporal.Instant | undefined {
    return this.#finishedAt;
  }

  /** The hub has asked or has taken a report: the lease starts anew. */
  heard(): void {
    this.#heardMs = elapsedMs();
  }

  cancel(): void {
    if (!this.ended) this.#controller.abort(new SendenseError('CANCELLED', 'the hub cancelled the replication'));
  }

  enter(state: Replication['state']): void {
    this.#state = state;
    this.changed();
  }

  /** Something that the hub should hear of without waiting for the next turn. */
  changed(): void {
    this.#reporter?.changed();
  }

  disk(diskUuid: string): DiskRun {
    const disk = this.disks.find((one) => one.request.diskUuid === diskUuid);
    if (!disk) throw new SendenseError('DISK_NOT_FOUND', `the replication has no disk ${diskUuid}`);
    return disk;
  }

  /** Runs the work to its end, whatever that is; never throws. */
  async execute(work: (run: ReplicationRun) => Promise<void>): Promise<void> {
    try {
      await work(this);
      this.#state = 'completed';
    } catch (cause) {
      const reason: unknown = this.signal.reason;
      const error = this.signal.aborted && reason instanceof SendenseError ? reason : toSendenseError(cause);
      this.#state = error.code === 'CANCELLED' ? 'cancelled' : 'failed';
      this.#error = error;
      this.dataComplete = false;
      for (const disk of this.disks) if (disk.phase !== 'done') disk.phase = 'failed';
    }
    this.#finishedAt = now();
    clearInterval(this.#leaseTimer);
    await this.#reporter?.finish();
  }

  view(): Replication {
    return {
      id: this.id,
      jobId: this.request.jobId,
      state: this.#state,
      dataComplete: this.dataComplete,
      snapshot: this.snapshot,
      disks: this.disks.map((disk) => disk.view()),
      warnings: this.warnings,
      error: this.#error?.toWire() ?? null,
      startedAt: this.#startedAt.toString(),
      finishedAt: this.#finishedAt?.toString() ?? null,
    };
  }

  #checkLease(): void {
    const silentMs = elapsedMs() - this.#heardMs;
    if (silentMs < this.request.leaseSeconds * 1000) return;
    const message = `the hub has been silent for ${Math.round(silentMs / 1000)} s`;
    this.#controller.abort(new SendenseError('LEASE_EXPIRED', message));
  }
}
