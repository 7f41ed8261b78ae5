/** The file that makes a folder a repository. Whoever finds it missing or changed stops. */
import { open } from 'node:fs/promises';
import path from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import { IDENTITY_FILE } from './layout.ts';
import type { RepositoryIdentity } from './repository.ts';

const FORMAT_VERSION = 1;
const MAX_BYTES = 65_536;

export interface IdentityFile extends RepositoryIdentity {
  formatVersion: number;
  createdAt: string;
}

export function identityText(identity: RepositoryIdentity, createdAt: Temporal.Instant): string {
  const file: IdentityFile = { formatVersion: FORMAT_VERSION, ...identity, createdAt: createdAt.toString() };
  return `${JSON.stringify(file, undefined, 2)}\n`;
}

/** Undefined when the folder carries no identity. REPOSITORY_INVALID when it is unreadable or from a newer version. */
export async function readIdentity(root: string): Promise<IdentityFile | undefined> {
  const file = path.join(root, IDENTITY_FILE);
  let text: string;
  try {
    await using handle = await open(file, 'r');
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(MAX_BYTES), 0, MAX_BYTES, 0);
    text = buffer.toString('utf8', 0, bytesRead);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
  const parsed = parse(text);
  if (!parsed) throw new SendenseError('REPOSITORY_INVALID', `${file} is damaged`, { details: { root } });
  if (parsed.formatVersion > FORMAT_VERSION) {
    const message = `${root} was written by a newer sendense (format ${parsed.formatVersion})`;
    throw new SendenseError('REPOSITORY_INVALID', message, { details: { root } });
  }
  return parsed;
}

/** REPOSITORY_UNAVAILABLE unless the folder is there and carries exactly this id. */
export async function requireIdentity(root: string, id: string): Promise<IdentityFile> {
  const found = await readIdentity(root);
  if (found?.id === id) return found;
  const message = found
    ? `${root} is the repository ${found.name} (${found.id}), not ${id}`
    : `no repository at ${root}`;
  throw new SendenseError('REPOSITORY_UNAVAILABLE', message, { details: { root, expected: id } });
}

function parse(text: string): IdentityFile | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined; // the caller says that the file is damaged
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { formatVersion, id, name, createdAt } = value as Record<string, unknown>;
  const valid =
    Number.isInteger(formatVersion) &&
    typeof id === 'string' &&
    id !== '' &&
    typeof name === 'string' &&
    typeof createdAt === 'string';
  return valid ? { formatVersion: formatVersion as number, id, name, createdAt } : undefined;
}
