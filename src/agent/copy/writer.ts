import { contentRuns } from './zeroes.ts';
import { MAX_ZERO_BYTES } from './plan.ts';
import type { CopyProgress } from './progress.ts';
import { targetError } from './target.ts';
import type { CopyTarget } from './target.ts';

export interface WriterOptions {
  target: CopyTarget;
  zeroes: 'skip' | 'write';
  flushEveryBytes: number;
  progress: CopyProgress;
  signal: AbortSignal;
}

/**
 * Sends content to the target. Calls must come in order of offset and send at once, so that the target sees offsets
 * ascend; the promise they return ends with the acknowledgement. Zeroes that touch each other travel as one request.
 */
export class Writer {
  readonly #options: WriterOptions;
  #zeroRun: { offset: number; length: number } | undefined;
  #unflushedBytes = 0;
  #flushing: Promise<void> | undefined;

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  async content(offset: number, data: Buffer): Promise<void> {
    const sent: Promise<void>[] = [];
    for (const run of contentRuns(data)) {
      if (run.zero) sent.push(this.zeroes(offset + run.start, run.end - run.start));
      else sent.push(this.#sendZeroRun(), this.#send(offset + run.start, data.subarray(run.start, run.end)));
    }
    await allSettled(sent);
  }

  async zeroes(offset: number, length: number): Promise<void> {
    if (this.#options.zeroes === 'skip') return this.#options.progress.count('skipped', length);
    const run = this.#zeroRun;
    if (run && run.offset + run.length === offset && run.length + length <= MAX_ZERO_BYTES) {
      run.length += length;
      return;
    }
    const sent = this.#sendZeroRun();
    this.#zeroRun = { offset, length };
    await sent;
  }

  /** To be called when all else has ended: sends what is left and makes everything durable. */
  async end(): Promise<void> {
    await this.#sendZeroRun();
    await this.#flush();
  }

  async #send(offset: number, data: Buffer): Promise<void> {
    const { target, progress, signal } = this.#options;
    try {
      await target.write(offset, data, { signal });
    } catch (cause) {
      signal.throwIfAborted();
      throw targetError(cause, 'writing', { offset, length: data.length });
    }
    progress.count('written', data.length);
    await this.#flushWhenDue(data.length);
  }

  async #sendZeroRun(): Promise<void> {
    if (!this.#zeroRun) return;
    const { offset, length } = this.#zeroRun;
    this.#zeroRun = undefined;
    const { target, progress, signal } = this.#options;
    try {
      await target.writeZeroes(offset, length, { signal });
    } catch (cause) {
      signal.throwIfAborted();
      throw targetError(cause, 'writing zeroes', { offset, length });
    }
    progress.count('zero', length);
  }

  /** Writes go on during a flush, but are held up once a second one is due: what a crash can cost stays bounded. */
  async #flushWhenDue(writtenBytes: number): Promise<void> {
    this.#unflushedBytes += writtenBytes;
    while (this.#unflushedBytes >= this.#options.flushEveryBytes) {
      if (this.#flushing) {
        await this.#flushing;
        continue;
      }
      this.#unflushedBytes = 0;
      this.#flushing = this.#flush().finally(() => (this.#flushing = undefined));
      await this.#flushing;
    }
  }

  async #flush(): Promise<void> {
    const { target, signal } = this.#options;
    try {
      await target.flush({ signal });
    } catch (cause) {
      signal.throwIfAborted();
      throw targetError(cause, 'flushing', {});
    }
  }
}

/** Waits for all, then throws the first error: a buffer must not be reused while any of its writes is under way. */
export async function allSettled(promises: Iterable<Promise<void>>): Promise<void> {
  for (const result of await Promise.allSettled(promises)) if (result.status === 'rejected') throw result.reason;
}
