import type { Extent } from '#/lib/extents.ts';
import { ExtentSet } from './extent-set.ts';
import { Journal } from './journal.ts';
import { SegmentFile } from './segment-file.ts';

const COPY_BYTES = 1024 * 1024;

/**
 * One file of a disk's chain: the flat base or a delta. It knows which ranges were ever written. A base notes a range
 * before it writes the bytes (it may over-report), a delta after (what it does not note is its parent's).
 */
export class Layer implements AsyncDisposable {
  readonly path: string;
  readonly isBase: boolean;
  readonly written: ExtentSet;
  readonly #data: SegmentFile;
  readonly #journal: Journal;

  private constructor(path: string, isBase: boolean, written: ExtentSet, journal: Journal) {
    this.path = path;
    this.isBase = isBase;
    this.written = written;
    this.#data = new SegmentFile(path);
    this.#journal = journal;
  }

  static async open(path: string, isBase: boolean): Promise<Layer> {
    const journal = new Journal(`${path}.map`, 2);
    const records = await journal.load();
    const written = new ExtentSet();
    for (const [offset = 0, length = 0] of records) written.add(offset, length);
    if (records.length > 1024 && records.length > written.count * 2) {
      await journal.rewrite(Array.from(written, (extent) => [extent.offset, extent.length]));
    }
    return new Layer(path, isBase, written, journal);
  }

  /** Records what a file put in place from outside holds. */
  async adopt(extents: Iterable<Extent>): Promise<void> {
    for (const extent of extents) this.written.add(extent.offset, extent.length);
    await this.#journal.rewrite(Array.from(this.written, (extent) => [extent.offset, extent.length]));
  }

  async read(offset: number, target: Buffer): Promise<void> {
    await this.#data.read(offset, target);
  }

  /** Overlays this layer's own bytes of the range. */
  async overlay(offset: number, target: Buffer): Promise<void> {
    for (const extent of this.written.within(offset, target.length)) {
      const from = extent.offset - offset;
      await this.#data.read(extent.offset, target.subarray(from, from + extent.length));
    }
  }

  async write(pieces: readonly { offset: number; data: Buffer }[]): Promise<void> {
    const records = pieces.map((piece) => [piece.offset, piece.data.length]);
    if (this.isBase) await this.#journal.append(records);
    for (const piece of pieces) await this.#data.write(piece.offset, piece.data);
    if (!this.isBase) await this.#journal.append(records);
    for (const piece of pieces) this.written.add(piece.offset, piece.data.length);
  }

  /** Writes everything this layer holds into `target`; doing it again after a crash gives the same result. */
  async mergeInto(target: Layer): Promise<void> {
    const buffer = Buffer.allocUnsafe(COPY_BYTES);
    for (const extent of this.written) {
      for (let done = 0; done < extent.length; done += COPY_BYTES) {
        const part = buffer.subarray(0, Math.min(COPY_BYTES, extent.length - done));
        await this.#data.read(extent.offset + done, part);
        await target.write([{ offset: extent.offset + done, data: part }]);
      }
    }
  }

  async remove(capacityBytes: number): Promise<void> {
    await this.#data.remove(capacityBytes);
    await this.#journal.remove();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#data[Symbol.asyncDispose]();
    await this.#journal[Symbol.asyncDispose]();
  }
}
