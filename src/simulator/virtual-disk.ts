import { join } from 'node:path';
import { assert } from '#/lib/errors.ts';
import type { Extent } from '#/lib/extents.ts';
import { ChangeLog } from './changed-blocks.ts';
import { ExtentSet } from './extent-set.ts';
import { Layer } from './layer.ts';
import type { DiskState, LayerState } from './state.ts';

/** The bytes and the change log of one disk. Callers hold the VM's lock for everything but reads of frozen layers. */
export class VirtualDisk implements AsyncDisposable {
  readonly state: DiskState;
  readonly changes: ChangeLog;
  readonly #directory: string;
  readonly #layers = new Map<string, Promise<Layer>>();

  constructor(directory: string, state: DiskState) {
    this.#directory = directory;
    this.state = state;
    this.changes = new ChangeLog(join(directory, `${state.uuid}.changes`));
  }

  layer(id: string): Promise<Layer> {
    const known = this.#layers.get(id);
    if (known) return known;
    const opening = Layer.open(this.layerPath(id), this.layerState(id).parent === undefined);
    this.#layers.set(id, opening);
    return opening;
  }

  layerPath(id: string): string {
    return join(this.#directory, `${this.state.uuid}-${id}`);
  }

  layerState(id: string): LayerState {
    const state = this.state.layers.find((layer) => layer.id === id);
    assert(state, `layer ${id} of disk ${this.state.uuid} exists`);
    return state;
  }

  /** Fills `target` with what the disk holds at `layerId`, all layers below included. */
  async read(layerId: string, offset: number, target: Buffer): Promise<void> {
    const [base, ...deltas] = this.#chain(layerId);
    assert(base, 'a chain has a base');
    await (await this.layer(base.id)).read(offset, target);
    for (const delta of deltas) await (await this.layer(delta.id)).overlay(offset, target);
  }

  /** Where anything was ever written in the chain that ends at `layerId`. */
  async written(layerId: string): Promise<ExtentSet> {
    const all = new ExtentSet();
    for (const link of this.#chain(layerId)) all.addAll((await this.layer(link.id)).written);
    return all;
  }

  /** What was written up to `layerId` between two ids. */
  async changed(layerId: string, base: number, until: number): Promise<ExtentSet> {
    const layers = this.#chain(layerId).map((link) => layerNumber(link.id));
    return this.changes.between(layers, base, until);
  }

  async write(pieces: readonly { offset: number; data: Buffer }[]): Promise<void> {
    const extents: Extent[] = pieces.map((piece) => ({ offset: piece.offset, length: piece.data.length }));
    const { tracking, head } = this.state;
    if (tracking) await this.changes.note(layerNumber(head), tracking.seq, extents);
    await (await this.layer(head)).write(pieces);
  }

  /** Merges a layer's only child into it on disk; the caller then drops the child from the state. */
  async mergeChild(parentId: string, childId: string): Promise<void> {
    await (await this.layer(childId)).mergeInto(await this.layer(parentId));
    await this.changes.merge(layerNumber(childId), layerNumber(parentId));
  }

  async dropLayer(state: LayerState): Promise<void> {
    const path = this.layerPath(state.id);
    const layer = (await this.#layers.get(state.id)) ?? (await Layer.open(path, state.parent === undefined));
    this.#layers.delete(state.id);
    await layer.remove(state.capacityBytes);
    await this.changes.forget(layerNumber(state.id));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const layer of this.#layers.values()) await (await layer)[Symbol.asyncDispose]();
    this.#layers.clear();
    await this.changes[Symbol.asyncDispose]();
  }

  /** From the base up to `layerId`. */
  #chain(layerId: string): LayerState[] {
    const chain: LayerState[] = [];
    for (let id: string | undefined = layerId; id !== undefined; ) {
      const link = this.layerState(id);
      chain.unshift(link);
      id = link.parent;
    }
    return chain;
  }
}

/** Layer ids are `l` and a number that is never used again. */
function layerNumber(id: string): number {
  return Number(id.slice(1));
}
