import { sleep } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import type { Extent } from '#/lib/extents.ts';
import { SeededRandom } from './random.ts';
import type { DiskState, VmState } from './state.ts';
import type { World } from './world.ts';

const MAX_WRITE_BYTES = 4 * 1024 ** 3;
const BATCH_BYTES = 4 * 1024 ** 2;

export interface GuestWriteRequest {
  /** Index among the VM's disks, its key, uuid or label; default the first. */
  disk?: number | string;
  /** Share of the disk's blocks, chosen by `seed`; or `extents`. */
  percent?: number;
  extents?: Extent[];
  seed?: string;
  blockBytes?: number;
  /** Zeroes instead of random bytes. */
  zero?: boolean;
}

export interface GuestWriteResult {
  disk: string;
  bytes: number;
  extents: Extent[];
}

/** Writes as the guest would: what is returned was written, tracked and lies in the live layer. */
export async function writeAsGuest(world: World, vm: VmState, request: GuestWriteRequest): Promise<GuestWriteResult> {
  if (vm.powerState !== 'poweredOn') {
    throw new SendenseError('WRONG_STATE', `${vm.name} is ${vm.powerState}; only a running guest writes`);
  }
  const disk = diskOf(vm, request.disk ?? 0);
  const random = new SeededRandom(request.seed ?? String(Math.random()));
  const extents = request.extents ?? chooseBlocks(disk, request, random);
  checkExtents(disk, extents);
  let batch: { offset: number; data: Buffer }[] = [];
  let batchBytes = 0;
  const flush = async (): Promise<void> => {
    const pieces = batch;
    batch = [];
    batchBytes = 0;
    if (pieces.length > 0) await world.locked(vm, async () => world.disk(vm, disk).write(pieces));
  };
  for (const extent of extents) {
    for (let done = 0; done < extent.length; done += BATCH_BYTES) {
      const length = Math.min(BATCH_BYTES, extent.length - done);
      batch.push({ offset: extent.offset + done, data: request.zero ? Buffer.alloc(length) : random.bytes(length) });
      batchBytes += length;
      if (batchBytes >= BATCH_BYTES) await flush();
    }
  }
  await flush();
  return { disk: disk.uuid, bytes: extents.reduce((sum, extent) => sum + extent.length, 0), extents };
}

export function diskOf(vm: VmState, wanted: number | string): DiskState {
  const disks = vm.disks.filter((disk) => disk.present);
  const byName = disks.find((disk) => disk.uuid === wanted || disk.label === wanted || disk.key === Number(wanted));
  const found = byName ?? disks[Number(wanted)];
  if (found) return found;
  throw new SendenseError('DISK_NOT_FOUND', `${vm.name} has no disk ${wanted}`, { details: { disk: String(wanted) } });
}

function chooseBlocks(disk: DiskState, request: GuestWriteRequest, random: SeededRandom): Extent[] {
  const blockBytes = request.blockBytes ?? 65_536;
  const blocks = Math.ceil(disk.capacityBytes / blockBytes);
  const count = Math.min(blocks, Math.max(1, Math.round((blocks * (request.percent ?? 1)) / 100)));
  if (count * blockBytes > MAX_WRITE_BYTES) throw tooMuch();
  return random.distinct(count, blocks).map((index) => {
    const offset = index * blockBytes;
    return { offset, length: Math.min(blockBytes, disk.capacityBytes - offset) };
  });
}

function checkExtents(disk: DiskState, extents: readonly Extent[]): void {
  let bytes = 0;
  for (const { offset, length } of extents) {
    const whole = [offset, length].every((value) => Number.isSafeInteger(value) && value >= 0 && value % 512 === 0);
    if (!whole || length === 0 || offset + length > disk.capacityBytes) {
      throw new SendenseError('INVALID_REQUEST', `extent ${offset}+${length} is not whole sectors of the disk`, {
        details: { field: 'extents', capacityBytes: disk.capacityBytes },
      });
    }
    bytes += length;
  }
  if (bytes > MAX_WRITE_BYTES) throw tooMuch();
}

function tooMuch(): SendenseError {
  return new SendenseError('INVALID_REQUEST', `one call writes at most ${MAX_WRITE_BYTES} bytes`);
}

export interface WorkloadRequest {
  disk?: number | string;
  bytesPerSecond: number;
  blockBytes?: number;
  seed?: string;
}

/** A guest that goes on writing scattered blocks until it is stopped or the VM is switched off. */
export class Workload {
  readonly request: WorkloadRequest;
  writtenBytes = 0;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  constructor(world: World, vm: VmState, request: WorkloadRequest) {
    this.request = request;
    diskOf(vm, request.disk ?? 0);
    this.#done = this.#run(world, vm);
  }

  get running(): boolean {
    return !this.#stop.signal.aborted;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #run(world: World, vm: VmState): Promise<void> {
    const signal = AbortSignal.any([world.signal, this.#stop.signal]);
    const blockBytes = this.request.blockBytes ?? 65_536;
    const choice = new SeededRandom(this.request.seed ?? String(Math.random()));
    try {
      for (;;) {
        await sleep(Math.min((blockBytes / this.request.bytesPerSecond) * 1000, 60_000), signal);
        const disk = diskOf(vm, this.request.disk ?? 0);
        const offset = choice.below(Math.ceil(disk.capacityBytes / blockBytes)) * blockBytes;
        const extents = [{ offset, length: Math.min(blockBytes, disk.capacityBytes - offset) }];
        const { bytes } = await writeAsGuest(world, vm, { disk: disk.uuid, extents, seed: choice.hex(16) });
        this.writtenBytes += bytes;
      }
    } catch (error) {
      if (!signal.aborted) world.log.warn({ err: error, vm: vm.name }, 'workload stopped');
      this.#stop.abort();
    }
  }
}
