/** The run folder: pid file (one daemon per folder), status file, and the folder of the exports' sockets. */
import { chmod, mkdir, open, readFile, readdir, rename, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ExportStatus } from '#/api/export-status.ts';
import { SendenseError } from '#/lib/errors.ts';
import { MAX_SOCKET_PATH_BYTES } from '#/qemu/storage-daemon.ts';
import { filesOf } from './served-export.ts';

export interface RunFolder extends AsyncDisposable {
  readonly sockets: string;
  readonly statusFile: string;
}

/**
 * Makes the folder (mode 0700) and takes it: BUSY when another export daemon holds it, CONFIG_INVALID when its path
 * is too long for a socket. The pid file stays open while we live: that, not its content, is what proves its owner
 * alive, so a number that now belongs to another program is recognised. Disposal gives all of it back.
 */
export async function openRunFolder(dir: string): Promise<RunFolder> {
  const path = resolve(dir);
  const sockets = join(path, 'e');
  const length = Buffer.byteLength(filesOf(sockets, '').socket);
  if (length > MAX_SOCKET_PATH_BYTES) {
    const excess = length - MAX_SOCKET_PATH_BYTES;
    const message = `the run folder's path is ${excess} bytes too long: a unix socket's takes ${MAX_SOCKET_PATH_BYTES}`;
    throw new SendenseError('CONFIG_INVALID', message, { details: { runDir: path } });
  }
  for (const folder of [path, sockets]) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await chmod(folder, 0o700);
  }
  const pidFile = join(path, 'exportd.pid');
  const held = await takePidFile(pidFile);
  return {
    sockets,
    statusFile: join(path, 'status.json'),
    async [Symbol.asyncDispose]() {
      if ((await readdir(sockets)).length === 0) await rmdir(sockets);
      await rm(pidFile, { force: true });
      await held.close();
    },
  };
}

async function takePidFile(path: string): Promise<FileHandle> {
  for (let attempt = 0; ; attempt++) {
    try {
      const file = await open(path, 'wx', 0o600);
      await file.write(`${process.pid}\n`);
      return file;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || attempt > 0) throw error;
    }
    const pid = Number.parseInt(await readFile(path, 'utf8').catch(() => ''), 10);
    if (await holds(pid, path)) {
      const message = `an export daemon already runs on this folder as process ${pid}`;
      throw new SendenseError('BUSY', message, { details: { pid, pidFile: path } });
    }
    await rm(path, { force: true });
  }
}

async function holds(pid: number, path: string): Promise<boolean> {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  const wanted = await stat(path).catch(() => undefined);
  let entries: string[];
  try {
    entries = await readdir(`/proc/${pid}/fd`);
  } catch (error) {
    // A process we may not look into could be the owner under another user: better to refuse than to start twice.
    return (error as NodeJS.ErrnoException).code === 'EACCES';
  }
  for (const entry of entries) {
    const found = await stat(`/proc/${pid}/fd/${entry}`).catch(() => undefined);
    if (found && wanted && found.ino === wanted.ino && found.dev === wanted.dev) return true;
  }
  return false;
}

/** The last status, or undefined when there is none that can be read. */
export async function readStatusFile(path: string): Promise<ExportStatus | undefined> {
  try {
    return ExportStatus.safeParse(JSON.parse(await readFile(path, 'utf8'))).data;
  } catch {
    return undefined; // none yet, or one of another version: it only feeds the list of closed exports
  }
}

/** Writes the status after changes, whole or not at all; changes during a write are gathered into the next. */
export class StatusFile {
  readonly #path: string;
  readonly #snapshot: () => ExportStatus;
  readonly #onError: (error: unknown) => void;
  #dirty = false;
  #writing: Promise<void> | undefined;

  constructor(path: string, snapshot: () => ExportStatus, onError: (error: unknown) => void) {
    this.#path = path;
    this.#snapshot = snapshot;
    this.#onError = onError;
  }

  changed(): void {
    this.#dirty = true;
    this.#writing ??= this.#write();
  }

  /** Resolves when everything that was told so far is in the file. */
  async written(): Promise<void> {
    while (this.#writing) await this.#writing;
  }

  async #write(): Promise<void> {
    await Promise.resolve(); // lets the changes of the same moment join
    while (this.#dirty) {
      this.#dirty = false;
      try {
        await writeFile(`${this.#path}.new`, `${JSON.stringify(this.#snapshot(), null, 1)}\n`, { mode: 0o600 });
        await rename(`${this.#path}.new`, this.#path);
      } catch (error) {
        this.#onError(error);
      }
    }
    this.#writing = undefined;
  }
}
