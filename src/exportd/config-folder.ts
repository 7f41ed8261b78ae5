/** Reads the configuration folder and judges the images its files name. Nothing here changes anything. */
import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { sleep } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import { readQcow2Header } from '#/qemu/qcow2-header.ts';
import { MAX_FILE_BYTES, parseConfig } from './config-d.ts';
import type { ExportSection, ParsedConfig, Refusal } from './config-d.ts';

const MAX_FILES = 4096;
const MAX_CHAIN = 256;
const IMAGE_TIMEOUT_MS = 10_000;

/**
 * Every `*.conf` file that does not start with a dot, parsed. A file that cannot be read is a refusal like any other;
 * CONFIG_INVALID only when the folder itself cannot be read or holds more than 4096 files.
 */
export async function readConfigFolder(dir: string): Promise<ParsedConfig[]> {
  let names;
  try {
    names = await readdir(dir);
  } catch (cause) {
    throw new SendenseError('CONFIG_INVALID', `the folder ${dir} cannot be read`, { details: { dir }, cause });
  }
  const files = names.filter((name) => name.endsWith('.conf') && !name.startsWith('.')).sort();
  if (files.length > MAX_FILES) {
    throw new SendenseError('CONFIG_INVALID', `${dir} holds ${files.length} files; at most ${MAX_FILES} are read`);
  }
  const parsed: ParsedConfig[] = [];
  for (const file of files) {
    const text = await readConfigFile(join(dir, file));
    if (text === 'gone') continue;
    parsed.push('reason' in text ? { file, name: null, line: 1, reason: text.reason } : parseConfig(text.text, file));
  }
  return parsed;
}

async function readConfigFile(path: string): Promise<{ text: string } | { reason: string } | 'gone'> {
  let file;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return 'gone'; // removed since the folder was listed
    return { reason: code === 'ELOOP' ? 'the file is a symbolic link' : `the file cannot be opened (${code})` };
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile()) return { reason: 'it is not a regular file' };
    if (stat.size > MAX_FILE_BYTES) return { reason: `the file is larger than ${MAX_FILE_BYTES} bytes` };
    const { buffer, bytesRead } = await file.read(Buffer.alloc(MAX_FILE_BYTES), 0, MAX_FILE_BYTES, 0);
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(buffer.subarray(0, bytesRead)) };
  } catch (error) {
    return { reason: error instanceof TypeError ? 'the file is not UTF-8 text' : 'the file cannot be read' };
  } finally {
    await file.close();
  }
}

/**
 * Looks at the image before anything opens it: really QCOW2 (so container bytes are never served), of the expected
 * size, every layer below it too, and no layer points at a file of its own choosing outside a relative chain.
 */
export async function judgeImage(section: ExportSection): Promise<ParsedConfig> {
  const timer = new AbortController();
  try {
    const late = sleep(IMAGE_TIMEOUT_MS, timer.signal).then(() => 'the storage of the image does not answer');
    const reason = await Promise.race([imageFault(section), late]);
    return reason === undefined ? { section } : refusal(section, reason);
  } finally {
    timer.abort();
  }
}

async function imageFault(section: ExportSection): Promise<string | undefined> {
  let path = section.imagePath;
  for (let depth = 0; depth < MAX_CHAIN; depth++) {
    let header;
    try {
      header = await readQcow2Header(path);
    } catch (error) {
      return error instanceof SendenseError ? error.message : `${path} cannot be read: ${(error as Error).message}`;
    }
    if (depth === 0 && section.sizeBytes !== null && header.virtualSizeBytes !== section.sizeBytes) {
      return `${path} has ${header.virtualSizeBytes} bytes, expected are ${section.sizeBytes}`;
    }
    if (header.externalDataFile) return `${path} keeps its data in another file`;
    if (header.encrypted) return `${path} is encrypted`;
    if (!header.backing) return undefined;
    const { name, format } = header.backing;
    if (format !== 'qcow2') return `${path} does not say that its backing file is qcow2`;
    if (name.startsWith('/') || /^[^/]*:/.test(name)) return `the backing file of ${path} is not a relative path`;
    path = `${dirname(path)}/${name}`; // as QEMU does: `..` is for the kernel to follow
  }
  return `the chain below ${section.imagePath} is deeper than ${MAX_CHAIN} files`;
}

function refusal(section: ExportSection, reason: string): Refusal {
  return { file: section.file, name: section.name, line: section.line, reason };
}
