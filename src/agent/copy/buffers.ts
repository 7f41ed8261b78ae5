import { Limit } from '#/lib/limit.ts';
import type { Permit } from '#/lib/limit.ts';

/**
 * A fixed number of equal buffers that bounds memory, whatever the size of the disk. The buffer given back last is
 * handed out first: a small working set stays in the processor's caches.
 */
export class BufferPool {
  readonly #free: Buffer[] = [];
  readonly #limit: Limit;
  readonly #bufferBytes: number;

  constructor(count: number, bufferBytes: number) {
    this.#limit = new Limit(count);
    this.#bufferBytes = bufferBytes;
  }

  /** Waits, first come first served, for a free buffer; its content is whatever it held before. */
  async take(signal: AbortSignal): Promise<Lease> {
    const permit = await this.#limit.take(1, signal);
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#bufferBytes);
    return new Lease(buffer, permit, this.#free);
  }
}

/** A buffer on loan, to be disposed exactly once and only when nothing writes into it any more. */
export class Lease implements Disposable {
  readonly buffer: Buffer;
  readonly #permit: Permit;
  readonly #free: Buffer[];

  constructor(buffer: Buffer, permit: Permit, free: Buffer[]) {
    this.buffer = buffer;
    this.#permit = permit;
    this.#free = free;
  }

  [Symbol.dispose](): void {
    this.#free.push(this.buffer);
    this.#permit.release();
  }
}
