import { open, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';

/** Below what any usual file system allows for one file (ext4: 16 TiB). */
export const SEGMENT_BYTES = 1024 ** 4;

/** A sparse file of any length, kept as files `<path>.000`, `<path>.001` … that appear when they are first written. */
export class SegmentFile implements AsyncDisposable {
  readonly path: string;
  readonly #segmentBytes: number;
  readonly #open = new Map<number, Promise<FileHandle | undefined>>();

  constructor(path: string, segmentBytes: number = SEGMENT_BYTES) {
    this.path = path;
    this.#segmentBytes = segmentBytes;
  }

  segmentPath(index: number): string {
    return `${this.path}.${String(index).padStart(3, '0')}`;
  }

  /** Fills `target`; what was never written reads as zeroes. */
  async read(offset: number, target: Buffer): Promise<void> {
    for (const piece of this.#pieces(offset, target.length)) {
      const handle = await this.#segment(piece.index, false);
      const part = target.subarray(piece.from, piece.from + piece.length);
      part.fill(0, handle ? await fillFrom(handle, part, piece.position) : 0);
    }
  }

  async write(offset: number, data: Buffer): Promise<void> {
    for (const piece of this.#pieces(offset, data.length)) {
      const handle = await this.#segment(piece.index, true);
      const part = data.subarray(piece.from, piece.from + piece.length);
      if (handle) await writeAll(handle, part, piece.position);
    }
  }

  async remove(capacityBytes: number): Promise<void> {
    await this[Symbol.asyncDispose]();
    const segments = Math.ceil(capacityBytes / this.#segmentBytes);
    for (let index = 0; index < segments; index++) await rm(this.segmentPath(index), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const handles = [...this.#open.values()];
    this.#open.clear();
    for (const handle of handles) await (await handle)?.close();
  }

  *#pieces(
    offset: number,
    length: number,
  ): Generator<{ index: number; position: number; from: number; length: number }> {
    for (let from = 0; from < length; ) {
      const index = Math.floor((offset + from) / this.#segmentBytes);
      const position = (offset + from) % this.#segmentBytes;
      const size = Math.min(length - from, this.#segmentBytes - position);
      yield { index, position, from, length: size };
      from += size;
    }
  }

  async #segment(index: number, create: boolean): Promise<FileHandle | undefined> {
    const known = await this.#open.get(index);
    if (known) return known;
    const opening = openSegment(this.segmentPath(index), create);
    this.#open.set(index, opening);
    try {
      const handle = await opening;
      if (!handle && this.#open.get(index) === opening) this.#open.delete(index);
      return handle;
    } catch (error) {
      this.#open.delete(index);
      throw error;
    }
  }
}

async function openSegment(path: string, create: boolean): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r+');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    if (!create) return undefined;
  }
  try {
    return await open(path, 'wx+');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return open(path, 'r+');
  }
}

/** Reads as much of `part` as the file has; returns how much that was. */
async function fillFrom(handle: FileHandle, part: Buffer, position: number): Promise<number> {
  let done = 0;
  while (done < part.length) {
    const { bytesRead } = await handle.read(part, done, part.length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

async function writeAll(handle: FileHandle, part: Buffer, position: number): Promise<void> {
  for (let done = 0; done < part.length; ) {
    const { bytesWritten } = await handle.write(part, done, part.length - done, position + done);
    done += bytesWritten;
  }
}
