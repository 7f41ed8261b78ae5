/**
 * Turns areas that must be copied into the steps that copy them: sorted, without overlap, on the block grid, none
 * longer than a request. Everything is a generator, so memory does not grow with the disk. Nothing here does I/O;
 * where an allocation map leaves the smallest doubt the bytes are read.
 */
import { SendenseError } from '#/lib/errors.ts';
import { endOf } from '#/lib/extents.ts';
import type { Extent, KnownExtent } from '#/lib/extents.ts';

/** The grid of everything that is copied, detected as zero or (in the image) allocated. */
export const BLOCK_BYTES = 64 * 1024;

/** Longest zero step: progress and aborts stay lively on huge holes, and 64 TiB of them are a thousand steps. */
export const MAX_ZERO_BYTES = 64 * 1024 ** 3;

export type Areas = Iterable<Extent> | AsyncIterable<Extent>;

/** `read` must be fetched from the source, `zero` is known to be zeroes without reading. */
export interface Step extends Extent {
  kind: 'read' | 'zero';
}

export interface PlanOptions {
  sizeBytes: number;
  /** A multiple of BLOCK_BYTES. */
  requestBytes: number;
  /** What is known of an area; see DiskSource.allocation. Without it every area is read. */
  allocation?: (area: Extent) => AsyncIterable<KnownExtent>;
}

/**
 * The union of `areas` on the block grid, clamped to the disk, as the fewest extents in order of offset. A list may
 * be in any order; a stream must ascend (SOURCE_FAULT when it does not), because nobody could sort it in bounded memory.
 */
export async function* blockAreas(areas: Areas, sizeBytes: number): AsyncGenerator<Extent> {
  let current: Extent | undefined;
  let lastOffset = 0;
  const ordered = Array.isArray(areas) ? (areas as Extent[]).toSorted((a, b) => a.offset - b.offset) : areas;
  for await (const area of ordered) {
    checkArea(area, lastOffset);
    lastOffset = area.offset;
    const offset = floorToBlock(area.offset);
    const end = Math.min(ceilToBlock(endOf(area)), sizeBytes);
    if (area.length === 0 || area.offset >= sizeBytes) continue;
    if (current && offset <= endOf(current)) {
      current.length = Math.max(endOf(current), end) - current.offset;
    } else {
      if (current) yield current;
      current = { offset, length: end - offset };
    }
  }
  if (current) yield current;
}

/** The steps for `areas`, in order of offset, together covering exactly what `blockAreas` yields. */
export async function* planSteps(areas: Areas, options: PlanOptions): AsyncGenerator<Step> {
  for await (const area of blockAreas(areas, options.sizeBytes)) {
    if (options.allocation) {
      for await (const run of runsOf(area, options.allocation(area))) yield* split(run, options.requestBytes);
    } else {
      yield* split({ ...area, kind: 'read' }, options.requestBytes);
    }
  }
}

/** Joins neighbours of `pieces` that are of one kind. */
async function* runsOf(area: Extent, known: AsyncIterable<KnownExtent>): AsyncGenerator<Step> {
  let run: Step | undefined;
  for await (const piece of classify(area, known)) {
    if (run?.kind === piece.kind) {
      run.length += piece.length;
    } else {
      if (run) yield run;
      run = piece;
    }
  }
  if (run) yield run;
}

/** A block is read when any byte of it may be data. A map with gaps or overlaps is refused rather than believed. */
async function* classify(area: Extent, known: AsyncIterable<KnownExtent>): AsyncGenerator<Step> {
  let planned = area.offset;
  let described = area.offset;
  for await (const extent of known) {
    if (extent.offset !== described || !(extent.length > 0) || endOf(extent) > endOf(area)) {
      throw new SendenseError('READ_FAILED', 'the source described a range of the disk wrongly', {
        details: { offset: extent.offset, length: extent.length, expectedOffset: described },
      });
    }
    described = endOf(extent);
    if (extent.kind !== 'data') continue;
    const start = Math.max(planned, floorToBlock(extent.offset));
    const end = Math.min(ceilToBlock(described), endOf(area));
    if (start > planned) yield { offset: planned, length: start - planned, kind: 'zero' };
    if (end > start) yield { offset: start, length: end - start, kind: 'read' };
    planned = Math.max(planned, end);
  }
  if (described !== endOf(area)) {
    throw new SendenseError('READ_FAILED', 'the source described only a part of a range', {
      details: { offset: described, length: endOf(area) - described },
    });
  }
  if (planned < endOf(area)) yield { offset: planned, length: endOf(area) - planned, kind: 'zero' };
}

function* split(run: Step, requestBytes: number): Generator<Step> {
  const most = run.kind === 'read' ? requestBytes : MAX_ZERO_BYTES;
  for (let offset = run.offset; offset < endOf(run); offset += most) {
    yield { offset, length: Math.min(most, endOf(run) - offset), kind: run.kind };
  }
}

function checkArea(area: Extent, lastOffset: number): void {
  const valid = Number.isSafeInteger(area.offset) && Number.isSafeInteger(endOf(area)) && area.length >= 0;
  if (valid && area.offset >= lastOffset) return;
  throw new SendenseError('SOURCE_FAULT', valid ? 'areas do not ascend' : 'an area is not a range of bytes', {
    details: { offset: area.offset, length: area.length },
  });
}

function floorToBlock(offset: number): number {
  return offset - (offset % BLOCK_BYTES);
}

function ceilToBlock(offset: number): number {
  return Math.ceil(offset / BLOCK_BYTES) * BLOCK_BYTES;
}
