/**
 * The only place that reads the time or waits for it, so that tests can turn the clock instead of sleeping.
 * Instants are Temporal.Instant in code, epoch milliseconds in the catalog and RFC 3339 UTC text on the wire.
 */
import { setTimeout as delay } from 'node:timers/promises';

export function now(): Temporal.Instant {
  return Temporal.Now.instant();
}

/** Monotonic milliseconds, for durations only. */
export function elapsedMs(): number {
  return performance.now();
}

/** Waits; rejects with the signal's reason when it is aborted. `unref` timers do not keep the process alive. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await delay(ms, undefined, signal ? { signal } : {});
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

export function instantFromMs(epochMs: number): Temporal.Instant {
  return Temporal.Instant.fromEpochMilliseconds(epochMs);
}

/** `20261123T234500Z`: sorts as text and is legal in every file system. */
export function fileTimestamp(instant: Temporal.Instant): string {
  return instant.toString({ smallestUnit: 'second' }).replaceAll(/[-:]/g, '');
}
