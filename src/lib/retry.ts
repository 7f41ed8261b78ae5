import { sleep } from './clock.ts';
import { SendenseError } from './errors.ts';

export interface RetryOptions {
  attempts: number;
  /** Wait before the second attempt; doubles each time up to `maxDelayMs`. */
  delayMs: number;
  maxDelayMs?: number;
  signal?: AbortSignal;
  shouldRetry: (error: unknown) => boolean;
}

/** Calls `work` until it succeeds, the attempts are used up or the error is not worth another try; throws the last error. */
export async function retry<T>(work: (attempt: number) => Promise<T>, options: RetryOptions): Promise<T> {
  let delayMs = options.delayMs;
  for (let attempt = 1; ; attempt++) {
    try {
      return await work(attempt);
    } catch (error) {
      options.signal?.throwIfAborted();
      if (attempt >= options.attempts || !options.shouldRetry(error)) throw error;
      await sleep(delayMs, options.signal);
      delayMs = Math.min(delayMs * 2, options.maxDelayMs ?? 60_000);
    }
  }
}

/** Polls `probe` until it returns something other than undefined; TIMEOUT when `timeoutMs` is over. */
export async function waitFor<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  options: { timeoutMs: number; everyMs?: number; signal?: AbortSignal },
): Promise<T> {
  const deadline = performance.now() + options.timeoutMs;
  for (;;) {
    options.signal?.throwIfAborted();
    const found = await probe();
    if (found !== undefined) return found;
    if (performance.now() >= deadline) {
      throw new SendenseError('TIMEOUT', `waited ${options.timeoutMs} ms for ${what}`);
    }
    await sleep(options.everyMs ?? 20, options.signal);
  }
}
