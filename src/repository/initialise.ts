/** Makes a folder a repository. Never takes a folder that holds anything else. */
import { mkdir, readdir, realpath, rename, stat } from 'node:fs/promises';
import path from 'node:path';
import { now } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import { errno, syncFolder, translated, writeDurably } from './files.ts';
import { identityText, readIdentity } from './identity.ts';
import { IDENTITY_FILE } from './layout.ts';
import type { RepositoryIdentity } from './repository.ts';

const NEW_IDENTITY_FILE = `${IDENTITY_FILE}.new`;
/** May lie in a folder that counts as empty: what mkfs makes, and what an earlier attempt of ours left. */
const NOTHING = new Set(['lost+found', NEW_IDENTITY_FILE]);

/**
 * Makes `root` when only its last part is missing, so that a path whose mount is absent is not filled in by mistake.
 * ALREADY_EXISTS when it is a repository; REPOSITORY_INVALID for every other reason, with the reason.
 */
export async function initialise(root: string, name: string): Promise<RepositoryIdentity> {
  if (!path.isAbsolute(root) || root.includes('\0')) throw invalid(root, 'is not an absolute path');
  const folder = path.resolve(root);
  if (folder === path.parse(folder).root) throw invalid(root, 'is the root of the file system');
  return translated(folder, async () => {
    await makeLastPart(folder);
    await refuseNesting(folder);
    const found = await readIdentity(folder);
    if (found) {
      const message = `${folder} is the repository ${found.name} already`;
      throw new SendenseError('ALREADY_EXISTS', message, { details: { root: folder, id: found.id, name: found.name } });
    }
    const foreign = (await readdir(folder)).find((entry) => !NOTHING.has(entry));
    if (foreign !== undefined) throw invalid(root, `is not empty: it holds ${JSON.stringify(foreign)}`);
    const identity = { id: newId(), name };
    await writeDurably(path.join(folder, NEW_IDENTITY_FILE), identityText(identity, now()), 'w');
    await rename(path.join(folder, NEW_IDENTITY_FILE), path.join(folder, IDENTITY_FILE));
    await syncFolder(folder);
    return identity;
  });
}

async function makeLastPart(folder: string): Promise<void> {
  try {
    await mkdir(folder, { mode: 0o750 });
    await syncFolder(path.dirname(folder));
  } catch (error) {
    const code = errno(error);
    if (code === 'EEXIST' && (await stat(folder)).isDirectory()) return;
    if (code === 'EEXIST') throw invalid(folder, 'is not a folder');
    if (code === 'EACCES' || code === 'EROFS') throw invalid(folder, `cannot be made: ${code}`);
    if (code === 'ENOENT') throw invalid(folder, `cannot be made: ${path.dirname(folder)} does not exist`);
    if (code === 'ENOTDIR') throw invalid(folder, 'lies below something that is not a folder');
    throw error;
  }
}

async function refuseNesting(folder: string): Promise<void> {
  let above = path.dirname(await realpath(folder));
  for (;;) {
    const outer = await readIdentity(above);
    if (outer) throw invalid(folder, `lies inside the repository ${outer.name} at ${above}`);
    const next = path.dirname(above);
    if (next === above) return;
    above = next;
  }
}

function invalid(root: string, why: string): SendenseError {
  return new SendenseError('REPOSITORY_INVALID', `${JSON.stringify(root)} ${why}`, { details: { root } });
}
