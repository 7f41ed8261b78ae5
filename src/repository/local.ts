/** A repository in a folder of this machine. Other kinds are this one behind something that puts the folder there. */
import { lstat, mkdir, readdir, readFile, realpath, rename, rmdir, statfs } from 'node:fs/promises';
import path from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import { errno, exists, missing, removeTree, syncFolder, translated } from './files.ts';
import { requireIdentity } from './identity.ts';
import * as layout from './layout.ts';
import { MAX_POINT_FILE_BYTES, parsePointFile } from './point-file.ts';
import type { ListedPoint, NewPoint, Repository, UnfinishedPoint } from './repository.ts';
import { LocalUnfinishedPoint } from './unfinished.ts';

export class LocalRepository implements Repository {
  readonly kind = 'local';
  readonly id: string;
  readonly name: string;
  readonly root: string;

  private constructor(id: string, name: string, root: string) {
    this.id = id;
    this.name = name;
    this.root = root;
  }

  static async open(root: string, id: string): Promise<LocalRepository> {
    const { name } = await translated(root, () => requireIdentity(root, id));
    return new LocalRepository(id, name, root);
  }

  async space(): Promise<{ capacityBytes: number; freeBytes: number }> {
    return this.#guarded(async () => {
      const { blocks, bavail, bsize } = await statfs(this.root);
      return { capacityBytes: blocks * bsize, freeBytes: bavail * bsize };
    });
  }

  async beginPoint(point: NewPoint): Promise<UnfinishedPoint> {
    return this.#guarded(async () => {
      const vm = await this.#vmFolder(point);
      const final = `${layout.VMS_FOLDER}/${vm}/${layout.pointName(point.startedAt, point.pointId)}`;
      const folder = final + layout.UNFINISHED_SUFFIX;
      await this.#make(layout.VMS_FOLDER);
      await this.#make(`${layout.VMS_FOLDER}/${vm}`);
      if (await exists(this.#absolute(final))) throw taken(final);
      if (!(await this.#make(folder))) throw taken(folder);
      return this.#unfinished(folder);
    });
  }

  async openUnfinished(folder: string): Promise<UnfinishedPoint> {
    layout.requirePointFolder(folder, 'unfinished');
    await this.pointFolder(folder);
    return this.#unfinished(folder);
  }

  async listUnfinished(): Promise<{ folder: string; pointId: string }[]> {
    return this.#guarded(async () => {
      const found: { folder: string; pointId: string }[] = [];
      for (const folder of await this.#pointFolders()) {
        const parsed = layout.parsePointFolder(folder);
        if (parsed?.unfinished) found.push({ folder, pointId: parsed.pointId });
      }
      return found;
    });
  }

  async pointFolder(folder: string): Promise<string> {
    layout.requirePointFolder(folder, 'any');
    return this.#guarded(async () => {
      const absolute = this.#absolute(folder);
      const [root, real] = await Promise.all([realpath(this.root), realpath(absolute).catch(missing)]);
      if (real === undefined) throw new SendenseError('NOT_FOUND', `no ${folder} in ${this.root}`);
      if (real !== path.join(root, folder)) {
        throw new SendenseError('REPOSITORY_INVALID', `${absolute} leads out of the repository`);
      }
      return absolute;
    });
  }

  async *listPoints(): AsyncGenerator<ListedPoint, void, undefined> {
    for (const folder of await this.#guarded(() => this.#pointFolders())) {
      if (layout.parsePointFolder(folder)?.unfinished) continue;
      yield await this.#guarded(() => this.#readPoint(folder));
    }
  }

  async removeUnfinished(folder: string): Promise<void> {
    const { vmFolder } = layout.requirePointFolder(folder, 'unfinished');
    await this.#guarded(async () => {
      if (!(await exists(this.#absolute(folder)))) return;
      await removeTree(await this.pointFolder(folder));
      const vm = this.#absolute(`${layout.VMS_FOLDER}/${vmFolder}`);
      await syncFolder(vm);
      await rmdir(vm).catch(notEmpty);
    });
  }

  async removePoint(folder: string): Promise<void> {
    layout.requirePointFolder(folder, 'finished');
    const unfinished = folder + layout.UNFINISHED_SUFFIX;
    await this.#guarded(async () => {
      if (!(await exists(this.#absolute(folder)))) return;
      const absolute = await this.pointFolder(folder);
      await rename(absolute, absolute + layout.UNFINISHED_SUFFIX);
      await syncFolder(path.dirname(absolute));
    });
    await this.removeUnfinished(unfinished);
  }

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Everything happens in here: the identity is read again each time, so a mount that went away is noticed. */
  async #guarded<T>(work: () => Promise<T>): Promise<T> {
    return translated(this.root, async () => {
      await requireIdentity(this.root, this.id);
      try {
        return await work();
      } catch (error) {
        if (errno(error) !== 'ENOENT') throw error;
        await requireIdentity(this.root, this.id); // gone with the whole repository, or only this file?
        throw new SendenseError('NOT_FOUND', `repository at ${this.root}: ${(error as Error).message}`, {
          cause: error,
        });
      }
    });
  }

  #absolute(folder: string): string {
    return path.join(this.root, folder);
  }

  #unfinished(folder: string): UnfinishedPoint {
    return new LocalUnfinishedPoint({
      folder,
      absolute: this.#absolute(folder),
      guarded: (work) => this.#guarded(work),
      discard: () => this.removeUnfinished(folder),
    });
  }

  /** A VM keeps the folder it was given first, also after it was renamed, so that its chains stay in one place. */
  async #vmFolder(point: NewPoint): Promise<string> {
    const suffix = `-${layout.shortId(point.vmId)}`;
    const known = (await folders(this.#absolute(layout.VMS_FOLDER))).find((name) => name.endsWith(suffix));
    return known ?? layout.vmFolder(point.vmName, point.vmId);
  }

  /** False when it was there already. */
  async #make(folder: string): Promise<boolean> {
    const absolute = this.#absolute(folder);
    try {
      await mkdir(absolute, { mode: 0o750 });
    } catch (error) {
      if (errno(error) === 'EEXIST') return false;
      throw error;
    }
    await syncFolder(path.dirname(absolute));
    return true;
  }

  async #pointFolders(): Promise<string[]> {
    const found: string[] = [];
    for (const vm of await folders(this.#absolute(layout.VMS_FOLDER))) {
      const above = `${layout.VMS_FOLDER}/${vm}`;
      found.push(...(await folders(this.#absolute(above))).map((name) => `${above}/${name}`));
    }
    return found;
  }

  async #readPoint(folder: string): Promise<ListedPoint> {
    const parsed = layout.parsePointFolder(folder);
    if (!parsed) return { folder, problem: 'its name is not that of a restore point' };
    const file = path.join(this.#absolute(folder), layout.POINT_FILE);
    const stat = await lstat(file).catch(missing);
    if (!stat?.isFile()) return { folder, problem: `it has no ${layout.POINT_FILE}` };
    if (stat.size > MAX_POINT_FILE_BYTES) return { folder, problem: `its ${layout.POINT_FILE} is too large` };
    const point = parsePointFile(await readFile(file, 'utf8'));
    if (typeof point === 'string') return { folder, problem: point };
    if (point.id !== parsed.pointId) return { folder, problem: `its ${layout.POINT_FILE} is that of ${point.id}` };
    return { folder, point };
  }
}

/** Sorted names of the folders in a folder, without hidden ones and links; none when it does not exist. */
async function folders(parent: string): Promise<string[]> {
  const entries = await readdir(parent, { withFileTypes: true }).catch(missing);
  const names = (entries ?? []).filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  return names.filter((name) => !name.startsWith('.')).sort();
}

function notEmpty(error: unknown): undefined {
  if (errno(error) !== 'ENOTEMPTY' && errno(error) !== 'EEXIST') throw error;
}

function taken(folder: string): SendenseError {
  return new SendenseError('ALREADY_EXISTS', `${folder} exists already`, { details: { folder } });
}
