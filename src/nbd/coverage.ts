import { protocolError } from './codec.ts';

const MAX_PARTS = 65_536;

/**
 * Which bytes of one read have been answered. Chunks may come in any order, but must lie inside the request, must not
 * overlap, and together must fill it; a server that breaks this would hand out memory's old content as disk data.
 */
export class Coverage {
  readonly #start: number;
  readonly #end: number;
  /** Everything before is answered; servers normally go forward, so that this is all that is ever used. */
  #front: number;
  /** Answered runs beyond the front, sorted, each as [start, end). */
  readonly #parts: [number, number][] = [];

  constructor(offset: number, length: number) {
    this.#start = offset;
    this.#end = offset + length;
    this.#front = offset;
  }

  get complete(): boolean {
    return this.#front === this.#end;
  }

  add(offset: number, length: number): void {
    const end = offset + length;
    if (length === 0 || offset < this.#start || end > this.#end) {
      throw protocolError('a reply chunk lies outside the request', { offset, length });
    }
    if (offset < this.#front) throw protocolError('reply chunks overlap', { offset, length });
    const index = this.#after(offset);
    const next = this.#parts[index];
    const previous = this.#parts[index - 1];
    if ((next && end > next[0]) || (previous && offset < previous[1])) {
      throw protocolError('reply chunks overlap', { offset, length });
    }
    if (offset === this.#front) this.#advance(end);
    else if (this.#parts.length === MAX_PARTS) throw protocolError('a reply is cut into too many chunks');
    else this.#parts.splice(index, 0, [offset, end]);
  }

  #advance(end: number): void {
    this.#front = end;
    let joined = 0;
    for (let part = this.#parts[0]; part?.[0] === this.#front; part = this.#parts[joined]) {
      this.#front = part[1];
      joined++;
    }
    if (joined > 0) this.#parts.splice(0, joined);
  }

  /** Index of the first part that begins at or after `offset`. */
  #after(offset: number): number {
    let low = 0;
    let high = this.#parts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#parts[middle]?.[0] ?? 0) < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
