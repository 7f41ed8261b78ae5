/**
 * Makes the first content of a disk: real file systems by mke2fs from a folder of files, without root. The same seed
 * gives the same files and sizes; inode times and layout are mke2fs's own.
 */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import type { Extent } from '#/lib/extents.ts';
import { run } from '#/lib/run.ts';
import { writeGuestFiles } from './guest-files.ts';
import { partitionTable, ROOT_PARTITION_SECTOR, rootPartitionBytes } from './partition-table.ts';
import { SeededRandom, seededUuid } from './random.ts';
import { SEGMENT_BYTES, SegmentFile } from './segment-file.ts';

const BLOCK = 65_536;
const MAX_RANDOM_BYTES = 8 * 1024 ** 3;
const MAX_FILE_BYTES = 32 * 1024 ** 2;
export const MIN_FILE_SYSTEM_BYTES = 16 * 1024 ** 2;

export type GuestContent = 'ext4' | 'partitioned' | 'blank' | `random:${number}`;

export function isGuestContent(value: unknown): value is GuestContent {
  if (value === 'ext4' || value === 'partitioned' || value === 'blank') return true;
  const percent = typeof value === 'string' ? /^random:(\d{1,3}(?:\.\d{1,6})?)$/.exec(value)?.[1] : undefined;
  return percent !== undefined && Number(percent) <= 100;
}

/** Why a disk of that size cannot have that content; undefined when it can. */
export function contentProblem(content: GuestContent, sizeBytes: number): string | undefined {
  if (content === 'blank') return undefined;
  if (content === 'ext4' || content === 'partitioned') {
    if (sizeBytes < MIN_FILE_SYSTEM_BYTES) return `needs at least ${MIN_FILE_SYSTEM_BYTES} bytes for ${content}`;
    return sizeBytes > SEGMENT_BYTES ? `may have at most ${SEGMENT_BYTES} bytes for ${content}` : undefined;
  }
  const bytes = (sizeBytes * percentOf(content)) / 100;
  return bytes > MAX_RANDOM_BYTES
    ? `would hold ${Math.round(bytes)} random bytes; ${MAX_RANDOM_BYTES} is the most`
    : undefined;
}

export interface GuestDiskOptions {
  /** Path of the layer; its segments get `.000` and so on. */
  path: string;
  sizeBytes: number;
  content: GuestContent;
  seed: string;
  hostName: string;
  signal?: AbortSignal;
}

/** Makes the files of a disk and returns where they hold data. */
export async function makeGuestDisk(options: GuestDiskOptions): Promise<Extent[]> {
  switch (options.content) {
    case 'blank':
      return [];
    case 'ext4':
      return makeFileSystem(options, 0, options.sizeBytes);
    case 'partitioned':
      return makeFileSystem(options, ROOT_PARTITION_SECTOR * 512, rootPartitionBytes(options.sizeBytes));
    default:
      return writeRandom(options, percentOf(options.content));
  }
}

async function makeFileSystem(options: GuestDiskOptions, offset: number, bytes: number): Promise<Extent[]> {
  const image = new SegmentFile(options.path).segmentPath(0);
  const system = options.content === 'partitioned';
  const tree = await mkdtemp(join(tmpdir(), 'sendense-guest-'));
  try {
    const dataBytes = Math.min(MAX_FILE_BYTES, Math.floor(bytes / 6));
    await writeGuestFiles(tree, { hostName: options.hostName, seed: options.seed, dataBytes, system });
    const handle = await open(image, 'w');
    try {
      await handle.truncate(options.sizeBytes);
      if (system) {
        for (const piece of partitionTable(options.sizeBytes, options.seed)) {
          await handle.write(piece.data, 0, piece.data.length, piece.offset);
        }
      }
    } finally {
      await handle.close();
    }
    const uuid = seededUuid(new SeededRandom(`${options.seed}/filesystem`));
    const extended = `offset=${offset},root_owner=0:0,hash_seed=${uuid},nodiscard`;
    const label = system ? 'root' : 'data';
    const args = [
      '-q',
      '-F',
      '-t',
      'ext4',
      '-b',
      '4096',
      '-m',
      '0',
      '-L',
      label,
      '-U',
      uuid,
      '-E',
      extended,
      '-d',
      tree,
    ];
    await run('mke2fs', [...args, image, `${Math.floor(bytes / 4096) * 4}k`], {
      ...(options.signal && { signal: options.signal }),
      // Debian keeps it where only root's PATH leads.
      env: { E2FSPROGS_FAKE_TIME: '1767225600', PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
    });
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
  return allocated(image, options.sizeBytes);
}

async function allocated(image: string, sizeBytes: number): Promise<Extent[]> {
  const { stdout } = await run('qemu-img', ['map', '-f', 'raw', '--output=json', image]);
  const extents: Extent[] = [];
  for (const entry of JSON.parse(stdout) as { start: number; length: number; data: boolean }[]) {
    const length = Math.min(entry.length, sizeBytes - entry.start);
    if (entry.data && length > 0) extents.push({ offset: entry.start, length });
  }
  if (extents.length === 0) throw new SendenseError('TOOL_FAILED', `mke2fs left ${image} empty`);
  return extents;
}

async function writeRandom(options: GuestDiskOptions, percent: number): Promise<Extent[]> {
  await using file = new SegmentFile(options.path);
  const random = new SeededRandom(`${options.seed}/random`);
  const blocks = Math.ceil(options.sizeBytes / BLOCK);
  const extents: Extent[] = [];
  for (const index of random.distinct(Math.round((blocks * percent) / 100), blocks)) {
    options.signal?.throwIfAborted();
    const offset = index * BLOCK;
    const length = Math.min(BLOCK, options.sizeBytes - offset);
    await file.write(offset, random.bytes(length));
    extents.push({ offset, length });
  }
  return extents;
}

function percentOf(content: `random:${number}`): number {
  return Number(content.slice('random:'.length));
}
