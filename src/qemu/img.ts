/**
 * qemu-img: create images, look into them, check and compare them. Names never reach qemu-img as options or protocols:
 * every image is named by an absolute path (or `./name` in its own folder) with its format given, so nothing is probed.
 * Not guaranteed: that the data of an image are right. `checkImage` reads metadata only.
 */
import { open, unlink } from 'node:fs/promises';
import path from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';
import { run } from '#/lib/run.ts';
import type { RunResult } from '#/lib/run.ts';

const QEMU_IMG = 'qemu-img';
const METADATA_TIMEOUT_MS = 30 * 60_000;
/** Reading whole disks takes as long as it takes; the abort signal is the way to end it. */
const DATA_TIMEOUT_MS = 7 * 24 * 3600_000;
/** What a qcow2 header can hold. */
const MAX_BACKING_NAME_BYTES = 1023;

export type ImageFormat = 'qcow2' | 'raw';

export interface NewImage {
  path: string;
  /** Virtual size; a multiple of 512. */
  sizeBytes: number;
  /** Written into the header as given: relative to the new image's folder. The file must exist and be QCOW2. */
  backing?: { relativeName: string };
  /** Power of two from 512 to 2 MiB; default 64 KiB. */
  clusterBytes?: number;
  signal?: AbortSignal;
}

/** A new, empty QCOW2 image. ALREADY_EXISTS when the path is taken: an existing file is never touched. */
export async function createImage(image: NewImage): Promise<void> {
  const { dir, base } = path.parse(path.resolve(image.path));
  const name = image.backing?.relativeName;
  if (name !== undefined) checkBackingName(name);
  if (!Number.isSafeInteger(image.sizeBytes) || image.sizeBytes <= 0 || image.sizeBytes % 512 !== 0) {
    throw new SendenseError('INVALID_REQUEST', `a disk of ${image.sizeBytes} bytes is not a whole number of sectors`);
  }
  const options = `compat=1.1,lazy_refcounts=off,cluster_size=${image.clusterBytes ?? 65_536}`;
  const backing = name === undefined ? [] : ['-b', name, '-F', 'qcow2'];
  const args = ['create', '-q', '-f', 'qcow2', '-o', options, ...backing, '--', `./${base}`, String(image.sizeBytes)];
  await reserve(path.join(dir, base));
  try {
    await qemuImg(args, { cwd: dir, ...pick(image.signal) });
  } catch (error) {
    await unlink(path.join(dir, base));
    throw error;
  }
}

export interface ImageInfo {
  format: string;
  virtualBytes: number;
  /** Space that the file takes on its file system. */
  allocatedBytes: number;
  /** 0 for formats without clusters. */
  clusterBytes: number;
  /** As it stands in the header. */
  backing: { name: string; format: string | null } | null;
  /** Set by QEMU when it met damage; such an image is not written again. */
  corrupt: boolean;
  lazyRefcounts: boolean;
}

/** What the header says; works while another process writes the image. Never opens a backing file. */
export async function imageInfo(
  file: string,
  options: { format?: ImageFormat; signal?: AbortSignal } = {},
): Promise<ImageInfo> {
  const args = ['info', '-U', '-f', options.format ?? 'qcow2', '--output=json', '--', path.resolve(file)];
  const raw = parseObject(await qemuImg(args, pick(options.signal)));
  const data = object(object(raw['format-specific'])['data']);
  const backing = raw['backing-filename'];
  const backingFormat = raw['backing-filename-format'];
  return {
    format: String(raw['format']),
    virtualBytes: count(raw['virtual-size']),
    allocatedBytes: count(raw['actual-size']),
    clusterBytes: count(raw['cluster-size']),
    backing:
      typeof backing === 'string'
        ? { name: backing, format: typeof backingFormat === 'string' ? backingFormat : null }
        : null,
    corrupt: data['corrupt'] === true,
    lazyRefcounts: data['lazy-refcounts'] === true,
  };
}

export interface ImageCheck {
  /** No corruption and no leak is left. */
  clean: boolean;
  /** Clusters still leaked: space lost, data right. */
  leaks: number;
  leaksRepaired: number;
  corruptions: number;
  allocatedClusters: number;
  totalClusters: number;
}

/**
 * Checks the metadata of an image that nobody has open for writing (BUSY otherwise) and repairs leaks, nothing else.
 * IMAGE_DAMAGED when there is corruption, CHAIN_BROKEN when it or its backing file is missing.
 */
export async function checkImage(
  file: string,
  options: { repairLeaks?: boolean; signal?: AbortSignal } = {},
): Promise<ImageCheck> {
  const first = await checkOnce(file, [], options.signal);
  if (first.leaks === 0 || options.repairLeaks === false) return first;
  await checkOnce(file, ['-r', 'leaks'], options.signal);
  const second = await checkOnce(file, [], options.signal);
  return { ...second, leaksRepaired: first.leaks - second.leaks };
}

async function checkOnce(file: string, repair: string[], signal: AbortSignal | undefined): Promise<ImageCheck> {
  const args = ['check', '-f', 'qcow2', ...repair, '--output=json', '--', path.resolve(file)];
  const result = await qemuImg(args, { okCodes: [0, 2, 3], timeoutMs: METADATA_TIMEOUT_MS, ...pick(signal) });
  const raw = parseObject(result);
  const corruptions = count(raw['corruptions']);
  if (result.code === 2) {
    const message = `${path.basename(file)} has ${corruptions} corruptions`;
    throw new SendenseError('IMAGE_DAMAGED', message, { details: { image: file, corruptions } });
  }
  // After a repair qemu-img reports leaks as found and as fixed in one answer; only a run of its own tells what is left.
  const leaks = count(raw['leaks']);
  return {
    clean: result.code === 0 && leaks === 0,
    leaks,
    leaksRepaired: 0,
    corruptions,
    allocatedClusters: count(raw['allocated-clusters']),
    totalClusters: count(raw['total-clusters']),
  };
}

export interface ImageRef {
  path: string;
  format: ImageFormat;
}

/** Compares size and every byte of two images as a guest sees them. */
export async function compareImages(
  a: ImageRef,
  b: ImageRef,
  signal?: AbortSignal,
): Promise<{ identical: boolean; difference: string | null }> {
  // qemu-img's strict mode would compare the size, but the allocation of sectors as well.
  const [sizeA, sizeB] = await Promise.all([a, b].map((ref) => virtualSize(ref, signal)));
  if (sizeA !== sizeB) return { identical: false, difference: `sizes differ: ${sizeA} and ${sizeB} bytes` };
  const formats = ['-f', a.format, '-F', b.format];
  const args = ['compare', '-U', ...formats, '--', path.resolve(a.path), path.resolve(b.path)];
  const result = await qemuImg(args, { okCodes: [0, 1], timeoutMs: DATA_TIMEOUT_MS, ...pick(signal) });
  return result.code === 0
    ? { identical: true, difference: null }
    : { identical: false, difference: result.stdout.trim().split('\n').at(-1) ?? '' };
}

async function virtualSize(image: ImageRef, signal: AbortSignal | undefined): Promise<number> {
  return (await imageInfo(image.path, { format: image.format, ...pick(signal) })).virtualBytes;
}

export interface MappedExtent {
  offset: number;
  length: number;
  /** 0: this file; k: the k-th backing file below. */
  depth: number;
  /** False when no file of the chain says anything about the range: it reads as zeroes. */
  present: boolean;
  zero: boolean;
  data: boolean;
}

/** Where each byte of the image comes from; the extents cover it without gap, in order. */
export async function mapImage(image: ImageRef, signal?: AbortSignal): Promise<MappedExtent[]> {
  const args = ['map', '-U', '-f', image.format, '--output=json', '--', path.resolve(image.path)];
  const result = await qemuImg(args, { timeoutMs: METADATA_TIMEOUT_MS, ...pick(signal) });
  const rows: unknown = JSON.parse(result.stdout);
  if (!Array.isArray(rows)) throw new SendenseError('TOOL_FAILED', 'qemu-img map gave no list');
  return rows.map((value: unknown) => {
    const row = object(value);
    return {
      offset: count(row['start']),
      length: count(row['length']),
      depth: count(row['depth']),
      present: row['present'] === true,
      zero: row['zero'] === true,
      data: row['data'] === true,
    };
  });
}

/** Throws unless the name can only ever mean a file relative to the image's folder. */
export function checkBackingName(name: string): void {
  const beforeSlash = name.split('/', 1)[0] ?? '';
  const bad =
    name === '' ||
    name.startsWith('/') ||
    beforeSlash.includes(':') ||
    /\p{Cc}/u.test(name) ||
    Buffer.byteLength(name) > MAX_BACKING_NAME_BYTES;
  if (bad) {
    throw new SendenseError('INVALID_REQUEST', `not a relative backing file name: ${JSON.stringify(name)}`);
  }
}

async function reserve(file: string): Promise<void> {
  try {
    await (await open(file, 'wx', 0o640)).close();
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'EEXIST') throw new SendenseError('ALREADY_EXISTS', `${file} exists already`, { cause });
    throw new SendenseError(code === 'ENOSPC' ? 'REPOSITORY_FULL' : 'TOOL_FAILED', `cannot create ${file}: ${code}`, {
      cause,
    });
  }
}

interface QemuImgOptions {
  cwd?: string;
  signal?: AbortSignal;
  timeoutMs?: number;
  okCodes?: readonly number[];
}

async function qemuImg(args: readonly string[], options: QemuImgOptions): Promise<RunResult> {
  const answers = options.okCodes ?? [0];
  // Every exit code comes back, so that the cause is read from the whole of standard error and not from its last lines.
  const result = await run(QEMU_IMG, args, { ...options, okCodes: ANY_CODE });
  if (answers.includes(result.code)) return result;
  const words = (result.stderr.trim() || result.stdout.trim()).slice(-1000);
  throw new SendenseError(classify(words), `qemu-img ${args[0]} failed: ${words || `exit ${result.code}`}`, {
    details: { program: QEMU_IMG, exitCode: result.code },
  });
}

const ANY_CODE = Array.from({ length: 256 }, (_, code) => code);

/** qemu-img tells causes apart in words only (C locale), never by exit code. */
const CAUSES: readonly [RegExp, ErrorCode][] = [
  [/No space left on device|Disk quota exceeded/, 'REPOSITORY_FULL'],
  [/Failed to get .*lock|Is another process using/, 'BUSY'],
  [/backing (file|image)|No such file or directory/, 'CHAIN_BROKEN'],
  [/not in qcow2 format|corrupt|Invalid (L1|refcount|image)|header/i, 'IMAGE_DAMAGED'],
];

function classify(words: string): ErrorCode {
  return CAUSES.find(([pattern]) => pattern.test(words))?.[1] ?? 'TOOL_FAILED';
}

function parseObject(result: RunResult): Record<string, unknown> {
  try {
    return object(JSON.parse(result.stdout));
  } catch (cause) {
    throw new SendenseError('TOOL_FAILED', 'qemu-img gave an answer that is not JSON', { cause });
  }
}

function object(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function count(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : 0;
}

function pick(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
