/**
 * Changed block tracking of one disk, by the rules of a real host. An id is `<epoch uuid>/<seq>`. The id of a snapshot
 * is the seq at its instant; what is written afterwards belongs to the next seq. A revert goes back to the seq of its
 * snapshot and forgets what came later, so ids are given out twice: exactly the trap that clients must see.
 */
import { randomBytes } from 'node:crypto';
import type { Extent } from '#/lib/extents.ts';
import { ExtentSet } from './extent-set.ts';
import { Journal } from './journal.ts';

/** The part that is kept with the VM. Present on a disk exactly while its tracking is active. */
export interface TrackingState {
  epoch: string;
  seq: number;
}

export class ChangeLog implements AsyncDisposable {
  readonly #journal: Journal;
  #bySeq: Map<number, ExtentSet> | undefined;

  constructor(path: string) {
    this.#journal = new Journal(path, 3);
  }

  async note(seq: number, extents: readonly Extent[]): Promise<void> {
    const bySeq = await this.#load();
    await this.#journal.append(extents.map((extent) => [seq, extent.offset, extent.length]));
    const set = bySeq.get(seq) ?? new ExtentSet();
    bySeq.set(seq, set);
    for (const extent of extents) set.add(extent.offset, extent.length);
  }

  /** Everything written after id `base` up to id `until`. */
  async between(base: number, until: number): Promise<ExtentSet> {
    const result = new ExtentSet();
    for (const [seq, set] of await this.#load()) if (seq > base && seq <= until) result.addAll(set);
    return result;
  }

  /** Forgets what was written after id `seq`. */
  async truncate(seq: number): Promise<void> {
    const bySeq = await this.#load();
    for (const known of bySeq.keys()) if (known > seq) bySeq.delete(known);
    const records: number[][] = [];
    for (const [known, set] of bySeq) for (const { offset, length } of set) records.push([known, offset, length]);
    await this.#journal.rewrite(records);
  }

  async clear(): Promise<void> {
    this.#bySeq = new Map();
    await this.#journal.remove();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#journal[Symbol.asyncDispose]();
  }

  async #load(): Promise<Map<number, ExtentSet>> {
    if (this.#bySeq) return this.#bySeq;
    const bySeq = new Map<number, ExtentSet>();
    for (const [seq = 0, offset = 0, length = 0] of await this.#journal.load()) {
      const set = bySeq.get(seq) ?? new ExtentSet();
      bySeq.set(seq, set);
      set.add(offset, length);
    }
    return (this.#bySeq ??= bySeq);
  }
}

/** `52 2d 7b 8f ac 61 51 cc-77 4c 7b ec 91 50 bb 7b`, as hosts write it. */
export function newEpoch(): string {
  const pairs = [...randomBytes(16)].map((byte) => byte.toString(16).padStart(2, '0'));
  return `${pairs.slice(0, 8).join(' ')}-${pairs.slice(8).join(' ')}`;
}

export function formatChangeId(state: TrackingState): string {
  return `${state.epoch}/${state.seq}`;
}

export type IdVerdict = { kind: 'all' } | { kind: 'since'; seq: number } | { kind: 'malformed' } | { kind: 'stale' };

/** What the host makes of a change id that a client sends, given the id of the snapshot that is asked about. */
export function judgeChangeId(changeId: string, snapshot: TrackingState | undefined): IdVerdict {
  if (changeId === '*') return snapshot ? { kind: 'all' } : { kind: 'stale' };
  const match = /^((?:[0-9a-f]{2} ){7}[0-9a-f]{2}-(?:[0-9a-f]{2} ){7}[0-9a-f]{2})\/(\d{1,15})$/.exec(changeId);
  if (!match) return { kind: 'malformed' };
  const seq = Number(match[2]);
  if (!snapshot || match[1] !== snapshot.epoch || seq > snapshot.seq) return { kind: 'stale' };
  return { kind: 'since', seq };
}

export function parseChangeId(changeId: string | undefined): TrackingState | undefined {
  const slash = changeId?.lastIndexOf('/') ?? -1;
  if (changeId === undefined || slash < 0) return undefined;
  return { epoch: changeId.slice(0, slash), seq: Number(changeId.slice(slash + 1)) };
}

export interface ChangedAreaPage {
  startOffset: number;
  length: number;
  areas: Extent[];
}

/** One answer: the areas of a region that begins at `startOffset` and ends where either limit is reached. */
export function pageOfAreas(
  areas: ExtentSet,
  startOffset: number,
  limits: { capacityBytes: number; regionBytes: number; maxAreas: number },
): ChangedAreaPage {
  let length = Math.min(limits.regionBytes, limits.capacityBytes - startOffset);
  const page: Extent[] = [];
  for (const area of areas.within(startOffset, length)) {
    if (page.length === limits.maxAreas) {
      length = area.offset - startOffset;
      break;
    }
    page.push(area);
  }
  return { startOffset, length, areas: page };
}
