import { elapsedMs } from '#/lib/clock.ts';

/** Time in which a changed rate is mostly believed. */
const SMOOTHING_MS = 5000;
/** Samples closer together than this say nothing about the rate. */
const MIN_SAMPLE_MS = 250;

export interface ProgressSnapshot {
  readBytes: number;
  writtenBytes: number;
  zeroBytes: number;
  skippedBytes: number;
  /** Bytes of the areas that are dealt with: written + zero + skipped. */
  doneBytes: number;
  totalBytes: number | null;
  /** Smoothed rate of readBytes: what source and network carry, without the holes that cost nothing. */
  bytesPerSecond: number;
  /** From the smoothed rate of doneBytes; null while that or the total is unknown. */
  etaSeconds: number | null;
  /** Time since anything moved: a read ended or a write was acknowledged. */
  idleMs: number;
}

/**
 * Counts what the copier moves. Counting costs an addition; rates are worked out when somebody looks. A limit for
 * stalls is the caller's: `idleMs` is all the evidence there is.
 */
export class CopyProgress {
  /** Bytes to deal with when known beforehand; the caller may learn and set it late. */
  totalBytes: number | null;
  readBytes = 0;
  writtenBytes = 0;
  zeroBytes = 0;
  skippedBytes = 0;

  readonly #nowMs: () => number;
  readonly #readRate: Rate;
  readonly #doneRate: Rate;
  #lastMoveMs: number;

  constructor(totalBytes: number | null = null, nowMs: () => number = elapsedMs) {
    this.totalBytes = totalBytes;
    this.#nowMs = nowMs;
    this.#lastMoveMs = nowMs();
    this.#readRate = new Rate(this.#lastMoveMs);
    this.#doneRate = new Rate(this.#lastMoveMs);
  }

  count(what: 'read' | 'written' | 'zero' | 'skipped', bytes: number): void {
    this[`${what}Bytes`] += bytes;
    this.#lastMoveMs = this.#nowMs();
  }

  get doneBytes(): number {
    return this.writtenBytes + this.zeroBytes + this.skippedBytes;
  }

  snapshot(): ProgressSnapshot {
    const nowMs = this.#nowMs();
    const leftBytes = this.totalBytes === null ? null : Math.max(0, this.totalBytes - this.doneBytes);
    return {
      readBytes: this.readBytes,
      writtenBytes: this.writtenBytes,
      zeroBytes: this.zeroBytes,
      skippedBytes: this.skippedBytes,
      doneBytes: this.doneBytes,
      totalBytes: this.totalBytes,
      bytesPerSecond: Math.round(this.#readRate.perSecond(this.readBytes, nowMs)),
      etaSeconds: etaSeconds(leftBytes, this.#doneRate.perSecond(this.doneBytes, nowMs)),
      idleMs: Math.round(nowMs - this.#lastMoveMs),
    };
  }
}

/** An exponentially weighted rate of a counter, brought up to date whenever it is asked for. */
class Rate {
  #sampleMs: number;
  #sampleCount = 0;
  #perMs: number | undefined;

  constructor(nowMs: number) {
    this.#sampleMs = nowMs;
  }

  perSecond(count: number, nowMs: number): number {
    const spanMs = nowMs - this.#sampleMs;
    if (spanMs >= MIN_SAMPLE_MS) {
      const latest = (count - this.#sampleCount) / spanMs;
      const weight = 1 - Math.exp(-spanMs / SMOOTHING_MS);
      this.#perMs = this.#perMs === undefined ? latest : this.#perMs + weight * (latest - this.#perMs);
      this.#sampleMs = nowMs;
      this.#sampleCount = count;
    }
    return (this.#perMs ?? 0) * 1000;
  }
}

function etaSeconds(leftBytes: number | null, bytesPerSecond: number): number | null {
  if (leftBytes === 0) return 0;
  if (leftBytes === null || bytesPerSecond < 1) return null;
  return Math.ceil(leftBytes / bytesPerSecond);
}
