import { elapsedMs, sleep } from '#/lib/clock.ts';

/** Spreads bytes over time so that all downloads together keep to the rate. */
export class Pace {
  #freeAtMs = 0;

  async wait(bytes: number, bytesPerSecond: number, signal: AbortSignal): Promise<void> {
    if (bytesPerSecond <= 0) return;
    const startMs = Math.max(elapsedMs(), this.#freeAtMs);
    this.#freeAtMs = startMs + (bytes / bytesPerSecond) * 1000;
    const waitMs = this.#freeAtMs - elapsedMs();
    if (waitMs > 1) await sleep(waitMs, signal);
  }
}
