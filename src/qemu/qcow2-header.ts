/**
 * Reads the header of a QCOW2 file without QEMU and without a lock, so a file can be judged before anything opens it
 * for writing. Files are hostile: nothing outside the first 64 KiB is looked at and every number is checked.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { SendenseError } from '#/lib/errors.ts';

const HEADER_BYTES = 64 * 1024;
const MAX_BACKING_NAME_BYTES = 1023;
const EXTENSION_BACKING_FORMAT = 0xe2792aca;
/** Incompatible feature bit: guest data lie in another file, named by this one. */
const FEATURE_DATA_FILE = 4;

export interface Qcow2Header {
  version: number;
  virtualSizeBytes: number;
  /** Name and format exactly as stored; the format is null when the file does not say. */
  backing: { name: string; format: string | null } | null;
  externalDataFile: boolean;
  encrypted: boolean;
}

/**
 * IMAGE_INVALID when the path is no regular file (a symbolic link is not followed) or its content is no QCOW2 header
 * that can be trusted; the errors of the file system pass through as the cause.
 */
export async function readQcow2Header(path: string): Promise<Qcow2Header> {
  let file;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? '';
    const why = code === 'ELOOP' ? 'is a symbolic link' : code === 'ENOENT' ? 'does not exist' : `cannot be opened`;
    throw invalid(path, why, cause);
  }
  try {
    if (!(await file.stat()).isFile()) throw invalid(path, 'is not a regular file');
    const buffer = Buffer.alloc(HEADER_BYTES);
    const { bytesRead } = await file.read(buffer, 0, HEADER_BYTES, 0);
    return parseQcow2Header(buffer.subarray(0, bytesRead), path);
  } finally {
    await file.close();
  }
}

export function parseQcow2Header(bytes: Buffer, path: string): Qcow2Header {
  if (bytes.length < 72 || bytes.readUInt32BE(0) !== 0x514649fb) throw invalid(path, 'is not a QCOW2 image');
  const version = bytes.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw invalid(path, `is QCOW2 version ${version}, not 2 or 3`);
  if (version === 3 && bytes.length < 104) throw invalid(path, 'has a truncated header');
  const headerBytes = version === 3 ? bytes.readUInt32BE(100) : 72;
  return {
    version,
    virtualSizeBytes: uint64(bytes, 24, path),
    backing: backing(bytes, headerBytes, path),
    externalDataFile: version === 3 && (bytes.readUInt32BE(76) & FEATURE_DATA_FILE) !== 0,
    encrypted: bytes.readUInt32BE(32) !== 0,
  };
}

function backing(bytes: Buffer, headerBytes: number, path: string): Qcow2Header['backing'] {
  const at = uint64(bytes, 8, path);
  if (at === 0) return null;
  const length = bytes.readUInt32BE(16);
  if (length === 0 || length > MAX_BACKING_NAME_BYTES || at + length > bytes.length) {
    throw invalid(path, 'has a backing file name outside its header');
  }
  return { name: bytes.toString('utf8', at, at + length), format: backingFormat(bytes, headerBytes, at) };
}

function backingFormat(bytes: Buffer, start: number, end: number): string | null {
  for (let at = start; at + 8 <= end; ) {
    const type = bytes.readUInt32BE(at);
    const length = bytes.readUInt32BE(at + 4);
    if (type === 0 || at + 8 + length > end) return null;
    if (type === EXTENSION_BACKING_FORMAT) return bytes.toString('utf8', at + 8, at + 8 + length);
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return null;
}

function uint64(bytes: Buffer, at: number, path: string): number {
  const value = bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
  if (!Number.isSafeInteger(value)) throw invalid(path, 'has a number in its header that cannot be true');
  return value;
}

function invalid(path: string, why: string, cause?: unknown): SendenseError {
  return new SendenseError('IMAGE_INVALID', `${path} ${why}`, { details: { path }, cause });
}
