/**
 * Changed block tracking of one disk, by the rules of a real host. An id is `<epoch uuid>/<seq>`. The id of a snapshot
 * is the seq at its instant; what is written afterwards belongs to the next seq. A revert goes back to the seq of its
 * snapshot, so that ids are given out twice for different states: exactly the trap that clients must see.
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

interface Entry {
  layer: number;
  seq: number;
  areas: ExtentSet;
}

/** What was written when, for each layer of the disk's tree: like a host, which keeps one such file beside each. */
export class ChangeLog implements AsyncDisposable {
  readonly #journal: Journal;
  #entries: Entry[] | undefined;

  constructor(path: string) {
    this.#journal = new Journal(path, 4);
  }

  async note(layer: number, seq: number, extents: readonly Extent[]): Promise<void> {
    const entries = await this.#load();
    await this.#journal.append(extents.map((extent) => [layer, seq, extent.offset, extent.length]));
    for (const extent of extents) enter(entries, { layer, seq, ...extent });
  }

  /** Everything written in one of `layers` after id `base` up to id `until`. */
  async between(layers: readonly number[], base: number, until: number): Promise<ExtentSet> {
    const result = new ExtentSet();
    for (const { layer, seq, areas } of await this.#load()) {
      if (layers.includes(layer) && seq > base && seq <= until) result.addAll(areas);
    }
    return result;
  }

  /** Counts what was written in layer `from` as written in `to`, its parent. */
  async merge(from: number, to: number): Promise<void> {
    const entries = await this.#load();
    if (!entries.some((entry) => entry.layer === from)) return;
    const merged: Entry[] = [];
    for (const { layer, seq, areas } of entries) {
      for (const extent of areas) enter(merged, { layer: layer === from ? to : layer, seq, ...extent });
    }
    await this.#replace(merged);
  }

  async forget(layer: number): Promise<void> {
    const entries = await this.#load();
    const left = entries.filter((entry) => entry.layer !== layer);
    if (left.length < entries.length) await this.#replace(left);
  }

  async clear(): Promise<void> {
    this.#entries = [];
    await this.#journal.remove();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#journal[Symbol.asyncDispose]();
  }

  async #replace(entries: Entry[]): Promise<void> {
    this.#entries = entries;
    await this.#journal.rewrite(
      entries.flatMap(({ layer, seq, areas }) =>
        Array.from(areas, ({ offset, length }) => [layer, seq, offset, length]),
      ),
    );
  }

  async #load(): Promise<Entry[]> {
    if (this.#entries) return this.#entries;
    const entries: Entry[] = [];
    for (const [layer = 0, seq = 0, offset = 0, length = 0] of await this.#journal.load()) {
      enter(entries, { layer, seq, offset, length });
    }
    return (this.#entries ??= entries);
  }
}

function enter(entries: Entry[], change: Extent & { layer: number; seq: number }): void {
  let entry = entries.findLast((one) => one.layer === change.layer && one.seq === change.seq);
  if (!entry) entries.push((entry = { layer: change.layer, seq: change.seq, areas: new ExtentSet() }));
  entry.areas.add(change.offset, change.length);
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
