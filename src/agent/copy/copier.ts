/**
 * Copies areas of a source into a target. When copyDisk returns, every byte of the areas is in the target and durable,
 * and nothing outside the areas has been touched. When it throws, nothing is still running, but what was already sent
 * stays: half a copy is the caller's to discard. It does not retry and does not compare; sizes excepted.
 */
import { elapsedMs, sleep } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import { Limit } from '#/lib/limit.ts';
import { readFailed } from '../source/read-failed.ts';
import type { DiskSource } from '../source/source.ts';
import { BufferPool } from './buffers.ts';
import type { Lease } from './buffers.ts';
import { Pacer } from './pacer.ts';
import { BLOCK_BYTES, planSteps } from './plan.ts';
import type { Areas, Step } from './plan.ts';
import { CopyProgress } from './progress.ts';
import type { CopyTarget } from './target.ts';
import { Writer } from './writer.ts';

export interface CopyOptions {
  source: DiskSource;
  target: CopyTarget;
  /** What to copy, in bytes of the disk; rounded outwards to 64 KiB. A list in any order, or an ascending stream. */
  areas: Areas;
  /** `skip` only where the target reads as zeroes already; `write` wherever something else may lie below. */
  zeroes: 'skip' | 'write';
  /** Longest read and write. */
  requestBytes?: number;
  /** Bound of the memory for payload. */
  inFlightBytes?: number;
  /** The target is flushed each time so much has been written since the last flush, and at the end. */
  flushEveryBytes?: number;
  /** Limit for reading; none when absent. */
  bytesPerSecond?: number;
  signal: AbortSignal;
  progress?: CopyProgress;
}

/** areasBytes = writtenBytes + zeroBytes + skippedBytes. */
export interface CopyResult {
  /** Size of the areas after rounding to blocks. */
  areasBytes: number;
  readBytes: number;
  /** Payload sent to the target. */
  writtenBytes: number;
  /** Zeroes sent as such, without payload. */
  zeroBytes: number;
  /** Zeroes that the target had already. */
  skippedBytes: number;
}

const MIB = 1024 * 1024;
/** Measured: small requests cost all three processes more than caches give back; 2 MiB is where that levels out. */
const DEFAULTS = { requestBytes: 2 * MIB, inFlightBytes: 16 * MIB, flushEveryBytes: 64 * MIB };

/**
 * Throws DISK_MISMATCH before anything is written when the sizes differ, READ_FAILED, REPOSITORY_FULL, NBD_IO or
 * NBD_CLOSED for the first thing that failed, or the signal's reason.
 */
export async function copyDisk(options: CopyOptions): Promise<CopyResult> {
  const { source, target } = options;
  options.signal.throwIfAborted();
  if (source.sizeBytes !== target.sizeBytes) {
    throw new SendenseError('DISK_MISMATCH', 'source and target differ in size', {
      details: { sourceBytes: source.sizeBytes, targetBytes: target.sizeBytes },
    });
  }
  return new Copy(options).run();
}

class Copy {
  readonly #options: CopyOptions;
  readonly #requestBytes: number;
  readonly #progress: CopyProgress;
  readonly #buffers: BufferPool;
  readonly #reads: Limit;
  readonly #pacer: Pacer | undefined;
  readonly #writer: Writer;
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;
  readonly #running = new Set<Promise<void>>();

  constructor(options: CopyOptions) {
    this.#options = options;
    this.#requestBytes = requestBytes(options);
    this.#progress = options.progress ?? new CopyProgress();
    const buffers = Math.max(1, Math.floor((options.inFlightBytes ?? DEFAULTS.inFlightBytes) / this.#requestBytes));
    this.#buffers = new BufferPool(buffers, this.#requestBytes);
    this.#reads = new Limit(options.source.parallel);
    if (options.bytesPerSecond !== undefined) this.#pacer = new Pacer(options.bytesPerSecond);
    this.#signal = AbortSignal.any([options.signal, this.#failed.signal]);
    this.#writer = new Writer({
      target: options.target,
      zeroes: options.zeroes,
      flushEveryBytes: options.flushEveryBytes ?? DEFAULTS.flushEveryBytes,
      progress: this.#progress,
      signal: this.#signal,
    });
  }

  async run(): Promise<CopyResult> {
    try {
      await this.#startSteps();
    } catch (error) {
      this.#failed.abort(error);
    }
    await Promise.all(this.#running);
    this.#signal.throwIfAborted();
    await this.#writer.end();
    const { readBytes, writtenBytes, zeroBytes, skippedBytes } = this.#progress;
    return { areasBytes: writtenBytes + zeroBytes + skippedBytes, readBytes, writtenBytes, zeroBytes, skippedBytes };
  }

  /** Each step waits for its turn before it writes, so writes are sent in order of offset however reads overtake. */
  async #startSteps(): Promise<void> {
    let turn = Promise.resolve();
    for await (const step of this.#plan()) {
      await this.#pace(step);
      const lease = await this.#buffers.take(this.#signal);
      const sent = Promise.withResolvers<void>();
      const copied = this.#copyStep(step, lease, turn, sent.resolve)
        .catch((error: unknown) => this.#failed.abort(error)) // only the first abort counts: the first error wins
        .finally(() => this.#running.delete(copied));
      this.#running.add(copied);
      turn = sent.promise;
    }
  }

  async #copyStep(step: Step, lease: Lease, turn: Promise<void>, sent: () => void): Promise<void> {
    using _ = lease;
    try {
      const data = lease.buffer.subarray(0, step.length);
      if (step.kind === 'read') await this.#read(step.offset, data);
      await turn;
      this.#signal.throwIfAborted();
      const { offset, length, kind } = step;
      const written = kind === 'read' ? this.#writer.content(offset, data) : this.#writer.zeroes(offset, length);
      sent();
      await written;
    } finally {
      sent();
    }
  }

  async #read(offset: number, data: Buffer): Promise<void> {
    using _ = await this.#reads.take(1, this.#signal);
    try {
      await this.#options.source.read(offset, data, this.#signal);
    } catch (cause) {
      this.#signal.throwIfAborted();
      throw readFailed(cause, offset, data.length);
    }
    this.#progress.count('read', data.length);
  }

  async #pace(step: Step): Promise<void> {
    if (!this.#pacer || step.kind === 'zero') return;
    const waitMs = this.#pacer.book(step.length, elapsedMs());
    if (waitMs > 0) await sleep(waitMs, this.#signal);
  }

  #plan(): AsyncGenerator<Step> {
    const { source, areas } = this.#options;
    const requestBytes = this.#requestBytes;
    const { sizeBytes } = source;
    if (!source.allocation) return planSteps(areas, { sizeBytes, requestBytes });
    const allocation = source.allocation.bind(source);
    return planSteps(areas, { sizeBytes, requestBytes, allocation: (area) => allocation(area, this.#signal) });
  }
}

function requestBytes(options: CopyOptions): number {
  const { source, target } = options;
  const wanted = Math.min(
    options.requestBytes ?? DEFAULTS.requestBytes,
    source.maxReadBytes,
    target.blockSize?.maximum ?? Infinity,
  );
  return Math.max(BLOCK_BYTES, wanted - (wanted % BLOCK_BYTES));
}
