/** The folder of a restore point that is being made, and the steps that finish it. */
import { lstat, open, readdir, readFile, rename } from 'node:fs/promises';
import path from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import { errno, exists, syncFolder, writeDurably } from './files.ts';
import { diskImage, POINT_FILE, requirePointFolder, UNFINISHED_SUFFIX } from './layout.ts';
import { MAX_POINT_FILE_BYTES, parsePointFile } from './point-file.ts';
import type { UnfinishedPoint } from './repository.ts';

const SIDE_FILE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$/;
const IMAGE = /^disk-\d{1,4}\.qcow2$/;

export interface UnfinishedOptions {
  folder: string;
  absolute: string;
  /** Runs file operations with the identity of the repository checked and errors translated. */
  guarded: <T>(work: () => Promise<T>) => Promise<T>;
  discard: () => Promise<void>;
}

export class LocalUnfinishedPoint implements UnfinishedPoint {
  readonly pointId: string;
  readonly folder: string;
  readonly absolute: string;
  readonly finalFolder: string;
  readonly #options: UnfinishedOptions;

  constructor(options: UnfinishedOptions) {
    this.pointId = requirePointFolder(options.folder, 'unfinished').pointId;
    this.folder = options.folder;
    this.absolute = options.absolute;
    this.finalFolder = options.folder.slice(0, -UNFINISHED_SUFFIX.length);
    this.#options = options;
  }

  imagePath(diskIndex: number): string {
    return path.join(this.absolute, diskImage(diskIndex));
  }

  async writeFile(name: string, data: string | Uint8Array): Promise<void> {
    if (!SIDE_FILE.test(name) || IMAGE.test(name)) {
      throw new SendenseError('INVALID_REQUEST', `not a name for a file beside the images: ${JSON.stringify(name)}`);
    }
    await this.#options.guarded(() => writeDurably(path.join(this.absolute, name), data, 'w'));
  }

  async commit(): Promise<string> {
    const final = this.absolute.slice(0, -UNFINISHED_SUFFIX.length);
    await this.#options.guarded(async () => {
      // rename() would silently replace an empty folder.
      if (await exists(final)) throw this.#taken();
      const files = await this.#completeFiles();
      for (const name of files) await finish(path.join(this.absolute, name), IMAGE.test(name));
      await syncFolder(this.absolute);
      await rename(this.absolute, final).catch((error: unknown) => {
        throw errno(error) === 'ENOTEMPTY' || errno(error) === 'EEXIST' ? this.#taken() : error;
      });
      await syncFolder(path.dirname(final));
    });
    return this.finalFolder;
  }

  async discard(): Promise<void> {
    await this.#options.discard();
  }

  /** Names of all files, once it is sure that they make up the restore point that its sidecar describes. */
  async #completeFiles(): Promise<string[]> {
    const entries = await readdir(this.absolute, { withFileTypes: true }).catch((error: unknown) => {
      throw errno(error) === 'ENOENT' ? new SendenseError('NOT_FOUND', `${this.folder} is gone`) : error;
    });
    const odd = entries.find((entry) => !entry.isFile());
    if (odd) throw this.#incomplete(`${JSON.stringify(odd.name)} is not a file`);
    const names = new Set(entries.map((entry) => entry.name));
    if (!names.has(POINT_FILE)) throw this.#incomplete(`it has no ${POINT_FILE}`);
    const sidecar = path.join(this.absolute, POINT_FILE);
    if ((await lstat(sidecar)).size > MAX_POINT_FILE_BYTES) throw this.#incomplete(`its ${POINT_FILE} is too large`);
    const point = parsePointFile(await readFile(sidecar, 'utf8'));
    if (typeof point === 'string') throw this.#incomplete(point);
    if (point.id !== this.pointId) throw this.#incomplete(`its ${POINT_FILE} is that of ${point.id}`);
    const images = new Set(point.disks.map((disk) => disk.image));
    const missing = [...images].find((image) => !names.has(image));
    if (missing !== undefined) throw this.#incomplete(`${missing} is missing`);
    const unnamed = [...names].find((name) => IMAGE.test(name) && !images.has(name));
    if (unnamed !== undefined) throw this.#incomplete(`${POINT_FILE} does not name ${unnamed}`);
    return [...names];
  }

  #incomplete(why: string): SendenseError {
    return new SendenseError('WRONG_STATE', `${this.folder} cannot be committed: ${why}`);
  }

  #taken(): SendenseError {
    const details = { folder: this.finalFolder };
    return new SendenseError('ALREADY_EXISTS', `${this.finalFolder} exists already`, { details });
  }
}

async function finish(file: string, isImage: boolean): Promise<void> {
  await using handle = await open(file, 'r');
  if (isImage) await handle.chmod(0o440);
  await handle.sync();
}
