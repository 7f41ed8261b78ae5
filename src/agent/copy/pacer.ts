/** Spreads bytes evenly over time. Half a second's worth may go at once, so that a stop-and-go source still reaches the rate. */
const BURST_MS = 500;

export class Pacer {
  readonly #bytesPerMs: number;
  #paidUntilMs = Number.NEGATIVE_INFINITY;

  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
  }

  /** Books `bytes` at the time `nowMs` and says how many milliseconds to wait before moving them. */
  book(bytes: number, nowMs: number): number {
    this.#paidUntilMs = Math.max(this.#paidUntilMs, nowMs - BURST_MS) + bytes / this.#bytesPerMs;
    return Math.max(0, this.#paidUntilMs - nowMs);
  }
}
