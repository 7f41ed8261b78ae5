/** File operations that end on stable storage, and the translation of what the file system says when they fail. */
import { lstat, open, rm } from 'node:fs/promises';
import { SendenseError } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';

const CODES: Record<string, ErrorCode> = {
  ENOSPC: 'REPOSITORY_FULL',
  EDQUOT: 'REPOSITORY_FULL',
  EIO: 'REPOSITORY_UNAVAILABLE',
  ESTALE: 'REPOSITORY_UNAVAILABLE',
  ENOTCONN: 'REPOSITORY_UNAVAILABLE',
  EHOSTDOWN: 'REPOSITORY_UNAVAILABLE',
  ETIMEDOUT: 'REPOSITORY_UNAVAILABLE',
  EROFS: 'REPOSITORY_UNAVAILABLE',
  EACCES: 'REPOSITORY_UNAVAILABLE',
  EPERM: 'REPOSITORY_UNAVAILABLE',
  ENODEV: 'REPOSITORY_UNAVAILABLE',
};

export function errno(error: unknown): string {
  return error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? '') : '';
}

/** Runs file operations of the repository at `root` and gives their errors a code of ours. */
export async function translated<T>(root: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const code = CODES[errno(error)];
    if (error instanceof SendenseError || code === undefined) throw error;
    throw new SendenseError(code, `repository at ${root}: ${(error as Error).message}`, {
      details: { root, errno: errno(error) },
      cause: error,
    });
  }
}

/** Makes the entries of a folder durable: names made, renamed and removed in it. */
export async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, 'r');
  await handle.sync();
}

export async function writeDurably(file: string, data: string | Uint8Array, flags: 'w' | 'wx'): Promise<void> {
  await using handle = await open(file, flags, 0o640);
  await handle.writeFile(data);
  await handle.sync();
}

/** Removes a tree without following links. */
export async function removeTree(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
}

/** True for a link too, wherever it leads. */
export async function exists(file: string): Promise<boolean> {
  return (await lstat(file).catch(missing)) !== undefined;
}

/** For `catch`: turns "does not exist" into undefined and throws everything else. */
export function missing(error: unknown): undefined {
  if (errno(error) !== 'ENOENT') throw error;
}
