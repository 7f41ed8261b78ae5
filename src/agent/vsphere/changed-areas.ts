/**
 * What changed on a disk since an earlier snapshot. An answer that leaves any part of the disk undescribed, or makes
 * no sense, is an error: only a whole answer may be trusted with leaving blocks out.
 */
import type { Extent } from '#/lib/extents.ts';
import { endOf } from '#/lib/extents.ts';
import { vmRef } from './properties.ts';
import type { Caller } from './session.ts';
import { faultError, moRef } from './soap.ts';
import { whenFree } from './tasks.ts';
import { child, childrenOf, integerOf } from './xml.ts';
import type { XmlNode } from './xml.ts';

const METHOD = 'QueryChangedDiskAreas';
/** More are merged with what lies between them: reading too much is slow, never wrong. */
const MAX_EXTENTS = 500_000;
const FIRST_GAP_BYTES = 64 * 1024;

export interface ChangedAreasQuery {
  vm: string;
  snapshot: string;
  /** Key of the disk in the snapshot's configuration. */
  deviceKey: number;
  /** Change id of the snapshot to compare with. */
  changeId: string;
  /** Capacity of the disk in the snapshot's configuration. */
  capacityBytes: number;
}

/**
 * Areas that may have changed, in order, merged, inside the disk. May report too much, never too little as far as the
 * server tells the truth. SOURCE_FAULT for every refusal and for an answer that is not whole (`MalformedAnswer`).
 */
export async function queryChangedAreas(
  session: Caller,
  query: ChangedAreasQuery,
  signal?: AbortSignal,
): Promise<Extent[]> {
  const { capacityBytes } = query;
  const snapshot = moRef('VirtualMachineSnapshot', query.snapshot);
  const args = { snapshot, deviceKey: query.deviceKey, changeId: query.changeId };
  let areas: Extent[] = [];
  for (let offset = 0; offset < capacityBytes; ) {
    const page = await whenFree(
      session,
      () => session.call(vmRef(query.vm), METHOD, { ...args, startOffset: offset }, signal),
      { signal, attempts: 5 },
    );
    const { areas: found, end } = readPage(child(page, 'returnval'), offset, capacityBytes);
    for (const area of found) areas.push(area);
    if (areas.length > MAX_EXTENTS) areas = atMost(areas, MAX_EXTENTS / 2);
    // The end is taken from the answer: it need not begin where it was asked for.
    offset = end;
  }
  return normalize(areas, 0);
}

function readPage(node: XmlNode | undefined, asked: number, capacityBytes: number): { areas: Extent[]; end: number } {
  const start = integerOf(node, 'startOffset');
  const length = integerOf(node, 'length');
  if (start === undefined || length === undefined || start < 0 || length < 0) throw malformed('no region', asked);
  if (start > asked) throw malformed(`nothing is said of ${asked} to ${start}`, asked);
  if (start + length <= asked) throw malformed('the region does not go on', asked);
  const areas: Extent[] = [];
  for (const entry of childrenOf(node, 'changedArea')) {
    const offset = integerOf(entry, 'start');
    const bytes = integerOf(entry, 'length');
    if (offset === undefined || bytes === undefined || offset < 0 || bytes < 0) throw malformed('no area', asked);
    if (bytes === 0) continue;
    if (offset >= capacityBytes) throw malformed(`an area begins at ${offset}, past the end of the disk`, asked);
    // A coarse last area may reach past the end of the disk.
    areas.push({ offset, length: Math.min(bytes, capacityBytes - offset) });
  }
  return { areas, end: start + length };
}

/** The same areas and, where they are too many, what lies between the closest of them. */
export function atMost(areas: readonly Extent[], count: number): Extent[] {
  let merged = normalize(areas, 0);
  for (let gap = FIRST_GAP_BYTES; merged.length > count; gap *= 2) merged = normalize(merged, gap);
  return merged;
}

/** Sorted, without overlap; areas at most `gap` bytes apart become one. */
export function normalize(areas: readonly Extent[], gap: number): Extent[] {
  const merged: Extent[] = [];
  let last: Extent | undefined;
  for (const area of areas.toSorted((a, b) => a.offset - b.offset)) {
    if (last && area.offset <= endOf(last) + gap) {
      last.length = Math.max(last.length, endOf(area) - last.offset);
    } else {
      last = { offset: area.offset, length: area.length };
      merged.push(last);
    }
  }
  return merged;
}

function malformed(why: string, startOffset: number): Error {
  const error = faultError(METHOD, { fault: 'MalformedAnswer', message: why, fields: {} });
  error.details['startOffset'] = startOffset;
  return error;
}
