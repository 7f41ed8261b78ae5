import type { Extent } from '#/lib/extents.ts';

/** A set of byte ranges, kept sorted and merged. */
export class ExtentSet {
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  static of(extents: Iterable<Extent>): ExtentSet {
    const set = new ExtentSet();
    for (const extent of extents) set.add(extent.offset, extent.length);
    return set;
  }

  get count(): number {
    return this.#starts.length;
  }

  get bytes(): number {
    let sum = 0;
    for (let i = 0; i < this.#starts.length; i++) sum += this.#end(i) - this.#start(i);
    return sum;
  }

  add(offset: number, length: number): void {
    if (length <= 0) return;
    let start = offset;
    let end = offset + length;
    const first = this.#firstEndingAtOrAfter(start);
    let last = first;
    while (last < this.#starts.length && this.#start(last) <= end) {
      start = Math.min(start, this.#start(last));
      end = Math.max(end, this.#end(last));
      last++;
    }
    this.#starts.splice(first, last - first, start);
    this.#ends.splice(first, last - first, end);
  }

  addAll(other: ExtentSet): void {
    for (const extent of other) this.add(extent.offset, extent.length);
  }

  *[Symbol.iterator](): Generator<Extent> {
    yield* this.within(0, Number.MAX_SAFE_INTEGER);
  }

  /** The members that touch the range, cut to it. */
  *within(offset: number, length: number): Generator<Extent> {
    const limit = offset + length;
    for (let i = this.#firstEndingAtOrAfter(offset + 1); i < this.#starts.length; i++) {
      const start = Math.max(this.#start(i), offset);
      if (start >= limit) return;
      yield { offset: start, length: Math.min(this.#end(i), limit) - start };
    }
  }

  /** Every member grown to whole blocks of `blockBytes`, cut at `capacityBytes`. */
  rounded(blockBytes: number, capacityBytes: number): ExtentSet {
    const result = new ExtentSet();
    for (const { offset, length } of this) {
      const start = Math.floor(offset / blockBytes) * blockBytes;
      const end = Math.min(Math.ceil((offset + length) / blockBytes) * blockBytes, capacityBytes);
      result.add(start, end - start);
    }
    return result;
  }

  #start(index: number): number {
    return this.#starts[index] ?? 0;
  }

  #end(index: number): number {
    return this.#ends[index] ?? 0;
  }

  #firstEndingAtOrAfter(position: number): number {
    let low = 0;
    let high = this.#ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#end(middle) < position) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
