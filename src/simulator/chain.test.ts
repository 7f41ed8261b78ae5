import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLogger } from '#/lib/log.ts';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { createInventory } from './create.ts';
import { queryChangedAreas } from './query.ts';
import { SeededRandom } from './random.ts';
import { parseScenario } from './scenario.ts';
import { createSnapshot, removeSnapshots, revertTo } from './snapshots.ts';
import type { SnapshotState, VmState } from './state.ts';
import { Store } from './state.ts';
import { World } from './world.ts';

const SIZE = 64 * 512 + 512;
const SECTORS = SIZE / 512;

/** A VM with one disk beside a copy in memory of what every snapshot must hold. */
class Model implements AsyncDisposable {
  readonly dir: string;
  world: World;
  live = Buffer.alloc(SIZE);
  readonly frozen = new Map<string, Buffer>();

  constructor(dir: string, world: World) {
    this.dir = dir;
    this.world = world;
  }

  static async create(): Promise<Model> {
    const dir = await mkdtemp(join(tmpdir(), 'sendense-chain-'));
    const scenario = parseScenario({
      settings: { granularityBytes: 512 },
      vms: [{ name: 'vm', changeTracking: true, disks: [{ sizeBytes: SIZE }] }],
    });
    const options = { username: 'u', signal: new AbortController().signal };
    return new Model(dir, worldOf(await createInventory(dir, scenario, options)));
  }

  get vm(): VmState {
    return this.world.vmNamed('vm');
  }

  /** As after a kill: nothing is closed in order, everything is read from the folder again. */
  async restart(): Promise<void> {
    await this.world[Symbol.asyncDispose]();
    const state = Store.load(this.dir);
    assert.ok(state);
    this.world = worldOf(new Store(this.dir, state));
  }

  async write(sector: number, count: number, fill: number): Promise<void> {
    const length = Math.min(count, SECTORS - sector) * 512;
    const data = Buffer.alloc(length, fill);
    const [disk] = this.vm.disks;
    assert.ok(disk);
    await this.world.disk(this.vm, disk).write([{ offset: sector * 512, data }]);
    data.copy(this.live, sector * 512);
  }

  async snapshot(name: string): Promise<SnapshotState> {
    const made = await createSnapshot(this.world, this.vm, { name, description: '', memory: false, quiesce: false });
    this.frozen.set(made.moref, Buffer.from(this.live));
    return made;
  }

  async remove(moref: string, consolidate: boolean): Promise<void> {
    await removeSnapshots(this.world, this.vm, { morefs: new Set([moref]), consolidate });
    this.frozen.delete(moref);
  }

  async revert(snapshot: SnapshotState): Promise<void> {
    await revertTo(this.world, this.vm, snapshot);
    this.live = Buffer.from(this.frozen.get(snapshot.moref) ?? assert.fail('a snapshot has a copy'));
  }

  async check(): Promise<void> {
    const [disk] = this.vm.disks;
    assert.ok(disk);
    const opened = this.world.disk(this.vm, disk);
    const bytes = Buffer.alloc(SIZE, 0xee);
    await opened.read(disk.head, 0, bytes);
    assert.ok(bytes.equals(this.live), 'the live disk is what was written');
    for (const snapshot of this.vm.snapshots) {
      const [frozen] = snapshot.disks;
      assert.ok(frozen);
      await opened.read(frozen.layer, 0, bytes);
      assert.ok(bytes.equals(this.frozen.get(snapshot.moref) ?? Buffer.alloc(0)), `${snapshot.name} is frozen`);
    }
  }

  /** Every pair of snapshots in a line: what differs between them is among the areas that were changed. */
  async checkChanges(): Promise<void> {
    const { vm } = this;
    for (const newer of vm.snapshots) {
      for (let older = parentOf(vm, newer); older; older = parentOf(vm, older)) {
        const changeId = older.disks[0]?.changeId ?? '';
        const page = await queryChangedAreas(this.world, vm, {
          snapshot: newer,
          deviceKey: 2000,
          startOffset: 0,
          changeId,
        });
        const patched = Buffer.from(this.frozen.get(older.moref) ?? Buffer.alloc(0));
        const target = this.frozen.get(newer.moref) ?? Buffer.alloc(0);
        for (const { offset, length } of page.areas) target.copy(patched, offset, offset, offset + length);
        assert.ok(patched.equals(target), `${older.name} and the areas up to ${newer.name} make ${newer.name}`);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.world[Symbol.asyncDispose]();
    await rm(this.dir, { recursive: true, force: true });
  }
}

function worldOf(store: Store): World {
  return new World({ store, password: 'p', log: silentLogger(), signal: new AbortController().signal });
}

function parentOf(vm: VmState, snapshot: SnapshotState): SnapshotState | undefined {
  return vm.snapshots.find((entry) => entry.moref === snapshot.parent);
}

test('whatever the order of writes, snapshots, removals, reverts and restarts, every disk holds its bytes', async () => {
  for (const seed of ['a', 'b', 'c', 'd']) {
    await using model = await Model.create();
    const random = new SeededRandom(seed);
    for (let step = 0; step < 60; step++) {
      const { vm } = model;
      const chosen = vm.snapshots[random.below(Math.max(1, vm.snapshots.length))];
      const action = random.below(10);
      if (action < 5) await model.write(random.below(SECTORS), 1 + random.below(8), 1 + random.below(255));
      else if (action < 7 && vm.snapshots.length < 6) await model.snapshot(`s${step}`);
      else if (action === 7 && chosen) await model.remove(chosen.moref, random.below(3) > 0);
      else if (action === 8 && chosen) await model.revert(chosen);
      else if (action === 9) await model.restart();
      await model.check();
      await model.checkChanges();
    }
  }
});

test('when the last snapshot is gone the disk is one flat file again and no delta is left', async () => {
  await using model = await Model.create();
  await model.write(0, 4, 1);
  const first = await model.snapshot('one');
  await model.write(2, 4, 2);
  const second = await model.snapshot('two');
  await model.write(4, 4, 3);
  await model.revert(first);
  await model.write(60, 5, 4);
  const third = await model.snapshot('three');
  for (const snapshot of [second, first, third]) await model.remove(snapshot.moref, true);
  await model.check();
  const [disk] = model.vm.disks;
  assert.deepEqual(
    disk?.layers.map((layer) => layer.fileName),
    ['vm.vmdk'],
  );
  assert.equal(model.vm.consolidationNeeded, false);
  const left = (await readdir(join(model.dir, 'vms', model.vm.moref))).filter((name) => !name.endsWith('.changes'));
  assert.equal(left.length, 2, `only the flat file and its map: ${left.join(', ')}`);
});

test('a removal without consolidation leaves deltas behind that a later one merges', async () => {
  await using model = await Model.create();
  const snapshot = await model.snapshot('one');
  await model.write(1, 3, 7);
  await model.remove(snapshot.moref, false);
  assert.equal(model.vm.consolidationNeeded, true);
  assert.equal(model.vm.disks[0]?.layers.length, 2);
  await model.restart();
  await model.check();
  const next = await model.snapshot('two');
  await model.remove(next.moref, true);
  assert.equal(model.vm.consolidationNeeded, false);
  assert.equal(model.vm.disks[0]?.layers.length, 1);
  await model.check();
});
