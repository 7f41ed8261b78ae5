import { open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';

const NUMBER_BYTES = 8;

/** An append-only file of records of `width` numbers; a record cut short by a crash is dropped when it is read. */
export class Journal implements AsyncDisposable {
  readonly path: string;
  readonly width: number;
  #handle: FileHandle | undefined;

  constructor(path: string, width: number) {
    this.path = path;
    this.width = width;
  }

  async load(): Promise<number[][]> {
    const bytes = await readOrEmpty(this.path);
    const recordBytes = this.width * NUMBER_BYTES;
    const records: number[][] = [];
    for (let at = 0; at + recordBytes <= bytes.length; at += recordBytes) {
      const record: number[] = [];
      for (let i = 0; i < this.width; i++) record.push(bytes.readDoubleLE(at + i * NUMBER_BYTES));
      records.push(record);
    }
    if (bytes.length % recordBytes !== 0) await this.rewrite(records);
    return records;
  }

  async append(records: readonly number[][]): Promise<void> {
    this.#handle ??= await open(this.path, 'a');
    await this.#handle.appendFile(this.#encode(records));
  }

  async rewrite(records: readonly number[][]): Promise<void> {
    await this[Symbol.asyncDispose]();
    await writeFile(`${this.path}.new`, this.#encode(records));
    await rename(`${this.path}.new`, this.path);
  }

  async remove(): Promise<void> {
    await this[Symbol.asyncDispose]();
    await rm(this.path, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  #encode(records: readonly number[][]): Buffer {
    const bytes = Buffer.alloc(records.length * this.width * NUMBER_BYTES);
    records.flat().forEach((value, index) => bytes.writeDoubleLE(value, index * NUMBER_BYTES));
    return bytes;
  }
}

async function readOrEmpty(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0);
    throw error;
  }
}
