/**
 * The agent's main path: one snapshot of the VM, what changed on each disk, the bytes into the exports. Whatever
 * happens, the snapshot is removed before this ends, readers first. Nothing is kept between runs: what must survive
 * the agent's death (the snapshot's name, the base ids) is with the hub.
 */
import { copyDisk } from './copy/copier.ts';
import { decideDisk } from './decide-disk.ts';
import type { DiskDecision } from './decide-disk.ts';
import type { DiskRun, ReplicationRun } from './replication.ts';
import { openSource, TRANSPORT } from './source/open.ts';
import { enableChangeTracking } from './vsphere/change-tracking.ts';
import { loadVm } from './vsphere/inventory.ts';
import type { VmRecord } from './vsphere/inventory.ts';
import type { Session } from './vsphere/session.ts';
import { removeOwnSnapshots, removeSnapshot } from './vsphere/snapshot-removal.ts';
import { isTrackable } from './vsphere/decide.ts';
import { freezeDisks } from './vsphere/freeze.ts';
import type { SnapshotDisk } from './vsphere/devices.ts';
import { SendenseError, toSendenseError } from '#/lib/errors.ts';
import { Limit } from '#/lib/limit.ts';
import type { Logger } from '#/lib/log.ts';
import { connectNbd } from '#/nbd/client.ts';
import type { NbdClient } from '#/nbd/client.ts';

export interface ReplicateContext {
  session: Session;
  /** Folder with the certificates for `nbds:` exports; null on the hub's own machine. */
  tlsDir: string | null;
  log: Logger;
}

/** How long the hub may take to bring a new export for a disk that must be read in full after all. */
const TARGET_TIMEOUT_MS = 120_000;
/** Consolidation takes as long as the guest has written; this only bounds a server that never answers. */
const REMOVE_TIMEOUT_MS = 30 * 60_000;

export async function replicate(run: ReplicationRun, ctx: ReplicateContext): Promise<void> {
  const vm = await loadVm(ctx.session, run.request.vm.moref, run.signal);
  checkIdentity(run, vm);
  await trackChanges(run, ctx, vm);
  await using snapshot = await takeSnapshot(run, ctx, vm);
  const jobs = [];
  for (const disk of run.disks) {
    const decision = await decide(run, ctx, { vm, disk, frozen: snapshot.disk(disk), snapshot: snapshot.moref });
    jobs.push({ disk, decision });
  }
  run.enter('copying');
  await copyAll(run, ctx, { vm, jobs });
  run.dataComplete = true;
  run.enter('cleaning');
}

function checkIdentity(run: ReplicationRun, vm: VmRecord): void {
  const { moref, instanceUuid, name } = run.request.vm;
  if (vm.instanceUuid === instanceUuid) return;
  throw new SendenseError('VM_NOT_FOUND', `${moref} is ${vm.name} by now and no longer ${name}`);
}

async function trackChanges(run: ReplicationRun, ctx: ReplicateContext, vm: VmRecord): Promise<void> {
  const state = await enableChangeTracking(ctx.session, vm.moref, run.signal);
  if (state.enabled) {
    if (state.changed) run.warnings.push('changed block tracking was off and has been switched on');
    return;
  }
  run.warnings.push(`changed block tracking cannot be used (${state.reason}): every backup of this VM is a full`);
  for (const disk of run.disks) disk.changeTracking = false;
}

class TakenSnapshot implements AsyncDisposable {
  readonly moref: string;
  readonly #run: ReplicationRun;
  readonly #ctx: ReplicateContext;
  readonly #disks: readonly SnapshotDisk[];

  constructor(run: ReplicationRun, ctx: ReplicateContext, taken: { moref: string; disks: readonly SnapshotDisk[] }) {
    this.#run = run;
    this.#ctx = ctx;
    this.moref = taken.moref;
    this.#disks = taken.disks;
  }

  /** The disk as this snapshot froze it, found by its identity; sizes must agree before a byte is written. */
  disk({ request }: DiskRun): SnapshotDisk {
    const found = this.#disks.filter((disk) => disk.uuid === request.diskUuid);
    const [only] = found;
    if (!only || found.length > 1) {
      throw new SendenseError(
        'DISK_NOT_FOUND',
        `the snapshot has ${found.length} disks with identity ${request.diskUuid}`,
      );
    }
    if (only.capacityBytes === request.capacityBytes) return only;
    throw new SendenseError(
      'DISK_MISMATCH',
      `${only.label} has ${only.capacityBytes} bytes in the snapshot, ${request.capacityBytes} were expected`,
    );
  }

  /** A snapshot that cannot be removed now is reported as such; the hub goes on trying. */
  async [Symbol.asyncDispose](): Promise<void> {
    const signal = AbortSignal.timeout(REMOVE_TIMEOUT_MS);
    try {
      const removal = await removeSnapshot(
        this.#ctx.session,
        { vm: this.#run.request.vm.moref, snapshot: this.moref },
        { signal },
      );
      if (this.#run.snapshot) this.#run.snapshot.removed = true;
      if (removal.consolidationNeeded)
        this.#run.warnings.push('the VM needs consolidation: redo files were left behind');
    } catch (error) {
      this.#run.warnings.push(`the snapshot could not be removed: ${toSendenseError(error).message}`);
      this.#ctx.log.error({ err: error, snapshot: this.moref }, 'snapshot not removed');
    }
    this.#run.changed();
  }
}

async function takeSnapshot(run: ReplicationRun, ctx: ReplicateContext, vm: VmRecord): Promise<TakenSnapshot> {
  const name = run.request.snapshotName;
  run.snapshot = { name, moref: null, takenAt: null, consistency: null, note: null, removed: false };
  run.enter('snapshotting');
  try {
    const description = JSON.stringify({ v: 1, job: run.request.jobId });
    const { quiesce } = run.request;
    const tracking = { ...vm, changeTrackingEnabled: run.disks.some((disk) => disk.changeTracking) };
    const made = await freezeDisks(ctx.session, vm.moref, { name, description, quiesce, tracking, signal: run.signal });
    const note = made.fellBackBecause === undefined ? null : `not quiesced: ${made.fellBackBecause}`;
    Object.assign(run.snapshot, {
      moref: made.moref,
      takenAt: made.at.toString(),
      consistency: made.consistency,
      note,
    });
    run.vmConfigXml = made.configXml;
    for (const disk of run.disks) {
      const frozen = made.disks.find((one) => one.uuid === disk.request.diskUuid);
      disk.changeTracking &&= frozen !== undefined && isTrackable(frozen, tracking);
    }
    run.changed();
    return new TakenSnapshot(run, ctx, { moref: made.moref, disks: made.disks });
  } catch (error) {
    // Cut off in the middle we do not know whether it was made: look for it by its name, which is ours alone.
    await removeOwnSnapshots(ctx.session, vm.moref, { name }, AbortSignal.timeout(REMOVE_TIMEOUT_MS));
    run.snapshot.removed = true;
    throw error;
  }
}

interface DecideInput {
  vm: VmRecord;
  disk: DiskRun;
  frozen: SnapshotDisk;
  snapshot: string;
}

async function decide(
  run: ReplicationRun,
  ctx: ReplicateContext,
  input: DecideInput,
): Promise<DiskDecision & { frozen: SnapshotDisk }> {
  const { disk, frozen } = input;
  disk.phase = 'deciding';
  const decision = await decideDisk(ctx.session, { ...input, requested: run.request.requestedType }, run.signal);
  disk.type = decision.type;
  disk.typeReason = decision.reason;
  disk.areasBytes = decision.areasBytes;
  disk.progress.totalBytes = decision.areasBytes;
  disk.changeId = frozen.changeId ?? null;
  disk.transport = TRANSPORT.name;
  disk.transportReason = TRANSPORT.reason;
  const needsTarget = decision.type === 'full' && disk.target.type === 'incremental';
  disk.phase = needsTarget ? 'awaiting-target' : 'waiting';
  run.changed();
  return { ...decision, frozen };
}

interface CopyJob {
  disk: DiskRun;
  decision: DiskDecision & { frozen: SnapshotDisk };
}

async function copyAll(
  run: ReplicationRun,
  ctx: ReplicateContext,
  { vm, jobs }: { vm: VmRecord; jobs: CopyJob[] },
): Promise<void> {
  const limit = new Limit(run.request.limits.parallelDisks);
  const failed = new AbortController();
  const signal = AbortSignal.any([run.signal, failed.signal]);
  const results = await Promise.allSettled(
    jobs.map(async (job) => {
      try {
        using _ = await limit.take(1, signal);
        await copyOne(run, ctx, { vm, job, signal });
      } catch (error) {
        job.disk.phase = 'failed';
        failed.abort(error); // the others stop: a restore point has all its disks or does not exist
        throw error;
      }
    }),
  );
  run.signal.throwIfAborted();
  failed.signal.throwIfAborted();
  const rejected = results.find((result) => result.status === 'rejected');
  if (rejected) throw rejected.reason;
}

async function copyOne(
  run: ReplicationRun,
  ctx: ReplicateContext,
  { vm, job, signal }: { vm: VmRecord; job: CopyJob; signal: AbortSignal },
): Promise<void> {
  const { disk, decision } = job;
  if (disk.phase === 'awaiting-target') disk.target = await newTarget(disk, signal);
  await using source = await openSource(ctx.session, { vm, disk: decision.frozen }, signal);
  await using target = await openTarget(disk, ctx, signal);
  disk.phase = 'copying';
  run.changed();
  const { bytesPerSecond } = run.request.limits;
  await copyDisk({
    source,
    target,
    areas: decision.areas,
    zeroes: decision.type === 'full' ? 'skip' : 'write',
    ...(bytesPerSecond !== null && {
      bytesPerSecond: Math.max(1, Math.floor(bytesPerSecond / run.request.limits.parallelDisks)),
    }),
    signal,
    progress: disk.progress,
  });
  disk.phase = 'done';
  run.changed();
}

async function newTarget(disk: DiskRun, signal: AbortSignal): Promise<DiskRun['target']> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  const late = new SendenseError('TIMEOUT', 'the hub brought no new export for a disk that must be read in full');
  const timer = setTimeout(() => reject(late), TARGET_TIMEOUT_MS);
  try {
    return await Promise.race([disk.newTarget.promise, promise]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbort);
  }
}

/** The export must be writable and exactly as large as the disk before anything is written to it. */
async function openTarget(disk: DiskRun, ctx: ReplicateContext, signal: AbortSignal): Promise<NbdClient> {
  const uri = new URL(disk.target.uri);
  if (uri.protocol.startsWith('nbds') && ctx.tlsDir !== null) uri.searchParams.set('tls-certificates', ctx.tlsDir);
  const client = await connectNbd({ uri: uri.toString() }, { signal });
  if (!client.readOnly && client.sizeBytes === disk.request.capacityBytes) return client;
  await client.close();
  const what = client.readOnly
    ? 'is read-only'
    : `has ${client.sizeBytes} bytes instead of ${disk.request.capacityBytes}`;
  throw new SendenseError('DISK_MISMATCH', `the export for disk ${disk.request.diskUuid} ${what}`);
}
