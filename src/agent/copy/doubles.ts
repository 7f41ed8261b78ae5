/** Stand-ins for tests: disks in memory, sparse, so that a 64 TiB one costs nothing, and with faults on request. */
import type { Extent, KnownExtent } from '#/lib/extents.ts';
import { endOf } from '#/lib/extents.ts';
import type { DiskSource } from '../source/source.ts';
import { BLOCK_BYTES } from './plan.ts';
import type { CopyTarget } from './target.ts';

/** Blocks by their offset; what was never put reads as zeroes. */
export class SparseBytes {
  readonly #blocks = new Map<number, Buffer>();

  put(offset: number, data: Buffer): void {
    this.#pieces(offset, data.length, (block, at, from, to) => {
      const stored = this.#blocks.get(block) ?? Buffer.alloc(BLOCK_BYTES);
      data.copy(stored, at, from, to);
      this.#blocks.set(block, stored);
    });
  }

  get(offset: number, target: Buffer): Buffer {
    this.#pieces(offset, target.length, (block, at, from, to) => {
      const stored = this.#blocks.get(block);
      if (stored) stored.copy(target, from, at, at + to - from);
      else target.fill(0, from, to);
    });
    return target;
  }

  /** Whole blocks are dropped, so that zeroing terabytes costs nothing. */
  clear(offset: number, length: number): void {
    for (const block of this.#blocks.keys()) {
      const from = Math.max(block, offset);
      const to = Math.min(block + BLOCK_BYTES, offset + length);
      if (from < to) this.put(from, Buffer.alloc(to - from));
    }
  }

  /** Offsets of the blocks that were ever put, ascending. */
  get blocks(): number[] {
    return [...this.#blocks.keys()].sort((a, b) => a - b);
  }

  #pieces(offset: number, length: number, visit: (block: number, at: number, from: number, to: number) => void): void {
    for (let from = 0; from < length; ) {
      const at = (offset + from) % BLOCK_BYTES;
      const to = Math.min(length, from + BLOCK_BYTES - at);
      visit(offset + from - at, at, from, to);
      from = to;
    }
  }
}

interface FakeSourceOptions {
  sizeBytes: number;
  bytes?: SparseBytes;
  /** True: blocks never put are reported as holes. */
  mapped?: boolean;
  parallel?: number;
  /** Called before each read; may wait or throw. */
  onRead?: (offset: number, signal: AbortSignal) => Promise<void> | void;
}

export class FakeSource implements DiskSource {
  readonly transport = 'fake';
  readonly sizeBytes: number;
  readonly parallel: number;
  readonly maxReadBytes = 32 * 1024 * 1024;
  readonly allocation?: (range: Extent, signal: AbortSignal) => AsyncIterable<KnownExtent>;
  readonly bytes: SparseBytes;
  readonly reads: Extent[] = [];
  running = 0;
  mostRunning = 0;
  readonly #onRead: FakeSourceOptions['onRead'];

  constructor(options: FakeSourceOptions) {
    this.sizeBytes = options.sizeBytes;
    this.bytes = options.bytes ?? new SparseBytes();
    this.parallel = options.parallel ?? 4;
    this.#onRead = options.onRead;
    if (options.mapped) this.allocation = (range) => this.#map(range);
  }

  async read(offset: number, target: Buffer, signal: AbortSignal): Promise<void> {
    this.reads.push({ offset, length: target.length });
    this.running++;
    this.mostRunning = Math.max(this.mostRunning, this.running);
    try {
      await new Promise((resolve) => setImmediate(resolve));
      await this.#onRead?.(offset, signal);
      signal.throwIfAborted();
      this.bytes.get(offset, target);
    } finally {
      this.running--;
    }
  }

  async *#map(range: Extent): AsyncGenerator<KnownExtent> {
    let at = range.offset;
    for (const block of this.bytes.blocks) {
      const start = Math.max(block, range.offset);
      const end = Math.min(block + BLOCK_BYTES, endOf(range));
      if (end <= start) continue;
      if (start > at) yield { offset: at, length: start - at, kind: 'hole' };
      yield { offset: start, length: end - start, kind: 'data' };
      at = end;
    }
    if (at < endOf(range)) yield { offset: at, length: endOf(range) - at, kind: 'hole' };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

interface FakeTargetOptions {
  sizeBytes: number;
  bytes?: SparseBytes;
  blockSize?: { maximum: number };
  /** Called before each request is answered; may wait or throw. */
  onRequest?: (request: string, signal: AbortSignal) => Promise<void> | void;
}

export class FakeTarget implements CopyTarget {
  readonly sizeBytes: number;
  readonly blockSize?: { maximum: number };
  readonly bytes: SparseBytes;
  /** Requests in the order in which they were sent, such as `write 65536+512`, `zero 0+65536` and `flush`. */
  readonly log: string[] = [];
  running = 0;
  readonly #onRequest: FakeTargetOptions['onRequest'];

  constructor(options: FakeTargetOptions) {
    this.sizeBytes = options.sizeBytes;
    this.bytes = options.bytes ?? new SparseBytes();
    this.#onRequest = options.onRequest;
    if (options.blockSize) this.blockSize = options.blockSize;
  }

  async write(offset: number, data: Buffer, { signal }: { signal: AbortSignal }): Promise<void> {
    await this.#answer(`write ${offset}+${data.length}`, signal, () => this.bytes.put(offset, data));
  }

  async writeZeroes(offset: number, length: number, { signal }: { signal: AbortSignal }): Promise<void> {
    await this.#answer(`zero ${offset}+${length}`, signal, () => this.bytes.clear(offset, length));
  }

  async flush({ signal }: { signal: AbortSignal }): Promise<void> {
    await this.#answer('flush', signal, () => undefined);
  }

  /** The bytes are taken late, as a socket would: a buffer reused too early shows up as wrong content. */
  async #answer(request: string, signal: AbortSignal, apply: () => void): Promise<void> {
    this.log.push(request);
    this.running++;
    try {
      await new Promise((resolve) => setImmediate(resolve));
      await this.#onRequest?.(request, signal);
      signal.throwIfAborted();
      apply();
    } finally {
      this.running--;
    }
  }
}
