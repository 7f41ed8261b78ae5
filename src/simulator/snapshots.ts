/**
 * Snapshots and what they do to a VM's disks. A snapshot freezes the layer that was written to and puts a delta on top.
 * Removal takes the snapshot out of the tree first and merges files afterwards, so that a kill in between leaves a VM
 * that only needs consolidation. The caller holds the VM's lock.
 */
import { now, sleep, elapsedMs } from '#/lib/clock.ts';
import { formatChangeId, parseChangeId } from './changed-blocks.ts';
import { invalidArgument, VimFault } from './faults.ts';
import { keepCopy } from './kept.ts';
import { takeFault } from './settings.ts';
import type { DiskState, FrozenDisk, SnapshotState, VmState } from './state.ts';
import { applyTracking } from './tracking.ts';
import type { World } from './world.ts';

export interface SnapshotRequest {
  name: string;
  description: string;
  memory: boolean;
  quiesce: boolean;
}

export function checkSnapshotAllowed(world: World, vm: VmState, request: SnapshotRequest): void {
  if (request.name === '' || request.name.length > 80) throw invalidArgument('name');
  if (vm.connectionState !== 'connected') throw new VimFault('InvalidState', 'The VM is not connected to its host.');
  if (vm.template) throw new VimFault('NotSupported', 'A template cannot have snapshots.');
  const unfit = vm.disks.find(
    (disk) => disk.present && (disk.backing === 'physicalRdm' || disk.sharing !== 'sharingNone'),
  );
  if (unfit && unfit.mode === 'persistent') {
    throw new VimFault('SnapshotIncompatibleDeviceInVm', `Device ${unfit.label} does not allow snapshots.`);
  }
  const independent = vm.disks.some((disk) => disk.present && disk.mode !== 'persistent');
  if (request.memory && vm.powerState === 'poweredOn' && independent) {
    throw new VimFault('MemorySnapshotOnIndependentDisk', 'A memory snapshot is not possible with independent disks.');
  }
  if (depth(vm, vm.currentSnapshot) >= world.settings.snapshotLimit) {
    throw new VimFault('TooManySnapshotLevels', `The VM has ${world.settings.snapshotLimit} snapshot levels already.`);
  }
}

export async function createSnapshot(world: World, vm: VmState, request: SnapshotRequest): Promise<SnapshotState> {
  const tracked = new Set(vm.disks.filter((disk) => disk.tracking).map((disk) => disk.uuid));
  await applyTracking(world, vm);
  const snapshot: SnapshotState = {
    moref: world.store.newMoref('snapshot'),
    id: vm.nextSnapshotId++,
    name: request.name,
    description: request.description,
    createTime: now().toString(),
    powerState: request.memory ? vm.powerState : 'poweredOff',
    quiesced: request.quiesce && vm.powerState === 'poweredOn' && vm.tools === 'running',
    ...(vm.currentSnapshot !== undefined && { parent: vm.currentSnapshot }),
    changeTracking: vm.changeTracking,
    disks: [],
  };
  for (const disk of vm.disks.filter((entry) => entry.present)) {
    const reveal = tracked.has(disk.uuid) || world.settings.changeIdAtFirstStun;
    snapshot.disks.push(freeze(world, vm, disk, reveal));
  }
  if (snapshot.disks.some((disk) => disk.mode === 'persistent')) vm.nextDelta++;
  vm.snapshots.push(snapshot);
  vm.currentSnapshot = snapshot.moref;
  world.recordEvent(vm, world.store.state.username, 'VirtualMachine.createSnapshot');
  world.store.save();
  if (world.settings.keepSnapshots) await keepCopy(world, vm, snapshot);
  return snapshot;
}

function freeze(world: World, vm: VmState, disk: DiskState, revealId: boolean): FrozenDisk {
  const { uuid, key, controllerKey, unitNumber, label, capacityBytes, mode, sharing, thin, backing } = disk;
  const device = { uuid, key, controllerKey, unitNumber, label, capacityBytes, mode, sharing, thin, backing };
  if (mode !== 'persistent') return { ...device, layer: disk.head };
  const frozen: FrozenDisk = { ...device, layer: disk.head };
  if (disk.tracking) {
    if (revealId) frozen.changeId = formatChangeId(disk.tracking);
    disk.tracking.seq++;
  }
  const delta = world.newDelta(vm, disk);
  disk.layers.push(delta);
  disk.head = delta.id;
  return frozen;
}

export async function removeSnapshots(
  world: World,
  vm: VmState,
  options: { morefs: ReadonlySet<string>; consolidate: boolean },
): Promise<void> {
  const kept = (moref: string | undefined): string | undefined => {
    if (moref === undefined || !options.morefs.has(moref)) return moref;
    return kept(vm.snapshots.find((entry) => entry.moref === moref)?.parent);
  };
  const current = kept(vm.currentSnapshot);
  for (const snapshot of vm.snapshots) {
    const parent = kept(snapshot.parent);
    delete snapshot.parent;
    if (parent !== undefined) snapshot.parent = parent;
  }
  vm.snapshots = vm.snapshots.filter((snapshot) => !options.morefs.has(snapshot.moref));
  delete vm.currentSnapshot;
  if (current !== undefined) vm.currentSnapshot = current;
  vm.consolidationNeeded = true;
  world.recordEvent(vm, world.store.state.username, 'vim.VirtualMachineSnapshot.remove');
  await applyTracking(world, vm);
  world.store.save();
  if (options.consolidate && !takeFault(world.settings, 'consolidate', false)) await consolidate(world, vm);
}

/** All snapshots below `moref`, itself included. */
export function subtree(vm: VmState, moref: string): Set<string> {
  const found = new Set([moref]);
  for (let size = 0; size !== found.size; ) {
    size = found.size;
    for (const entry of vm.snapshots) if (entry.parent !== undefined && found.has(entry.parent)) found.add(entry.moref);
  }
  return found;
}

/** Merges and removes every layer that no snapshot and no disk needs; leaves `consolidationNeeded` set if files are open. */
export async function consolidate(world: World, vm: VmState): Promise<void> {
  let left = false;
  for (const disk of vm.disks) {
    const used = usedLayers(vm, disk);
    if (
      used.size === 0 &&
      !(await isHeldOpen(
        world,
        vm,
        disk,
        disk.layers.map((layer) => layer.id),
      ))
    ) {
      for (const layer of disk.layers) await world.disk(vm, disk).dropLayer(layer);
      await world.disk(vm, disk).changes.clear();
      await world.forgetDisk(vm, disk);
      vm.disks = vm.disks.filter((entry) => entry !== disk);
      continue;
    }
    if (!left) await collapseAll(world, vm, disk);
    left ||= nextSuperfluous(vm, disk) !== undefined;
  }
  vm.consolidationNeeded = left;
  world.store.save();
}

async function collapseAll(world: World, vm: VmState, disk: DiskState): Promise<void> {
  while (await collapseOne(world, vm, disk)) world.store.save();
}

function usedLayers(vm: VmState, disk: DiskState): Set<string> {
  const used = new Set<string>(disk.present ? [disk.head] : []);
  for (const snapshot of vm.snapshots) {
    for (const frozen of snapshot.disks) if (frozen.uuid === disk.uuid) used.add(frozen.layer);
  }
  return used;
}

/** A layer nobody uses and that is not needed where the chain forks. */
function nextSuperfluous(vm: VmState, disk: DiskState): { id: string; child: string | undefined } | undefined {
  const used = usedLayers(vm, disk);
  for (const { id } of disk.layers) {
    if (used.has(id)) continue;
    const children = disk.layers.filter((layer) => layer.parent === id);
    if (children.length < 2) return { id, child: children[0]?.id };
  }
  return undefined;
}

async function collapseOne(world: World, vm: VmState, disk: DiskState): Promise<boolean> {
  const next = nextSuperfluous(vm, disk);
  if (!next) return false;
  const gone = next.child ?? next.id;
  if (await isHeldOpen(world, vm, disk, [next.id, gone])) return false;
  const device = world.disk(vm, disk);
  const goneState = device.layerState(gone);
  if (next.child !== undefined) {
    await device.mergeChild(next.id, next.child);
    if (disk.head === gone) disk.head = next.id;
    for (const snapshot of vm.snapshots) {
      for (const frozen of snapshot.disks)
        if (frozen.layer === gone && frozen.uuid === disk.uuid) frozen.layer = next.id;
    }
    for (const layer of disk.layers) if (layer.parent === gone) layer.parent = next.id;
  }
  disk.layers = disk.layers.filter((layer) => layer.id !== gone);
  world.store.save();
  await device.dropLayer(goneState);
  return true;
}

async function isHeldOpen(world: World, vm: VmState, disk: DiskState, layers: readonly string[]): Promise<boolean> {
  const paths = layers.map((layer) => world.disk(vm, disk).layerPath(layer));
  const deadline = elapsedMs() + world.settings.lockWaitMs;
  while (paths.some((path) => (world.openLayers.get(path) ?? 0) > 0)) {
    if (elapsedMs() >= deadline) return true;
    await sleep(20, world.signal);
  }
  return false;
}

export async function revertTo(world: World, vm: VmState, snapshot: SnapshotState): Promise<void> {
  for (const disk of vm.disks) {
    const frozen = snapshot.disks.find((entry) => entry.uuid === disk.uuid);
    if (disk.mode !== 'persistent') continue;
    disk.present = frozen !== undefined;
    if (frozen) await returnTo(world, vm, disk, frozen);
  }
  vm.nextDelta++;
  vm.changeTracking = snapshot.changeTracking;
  vm.powerState = snapshot.powerState;
  vm.currentSnapshot = snapshot.moref;
  vm.consolidationNeeded = true;
  world.recordEvent(vm, world.store.state.username, 'VirtualMachine.revertToCurrentSnapshot');
  world.store.save();
  await consolidate(world, vm);
}

async function returnTo(world: World, vm: VmState, disk: DiskState, frozen: FrozenDisk): Promise<void> {
  const { layer, changeId, ...device } = frozen;
  Object.assign(disk, device, { head: layer });
  const delta = world.newDelta(vm, disk);
  disk.layers.push(delta);
  disk.head = delta.id;
  const then = parseChangeId(changeId);
  if (then && then.epoch === disk.tracking?.epoch) {
    disk.tracking = { epoch: then.epoch, seq: then.seq + 1 };
  } else {
    delete disk.tracking;
    await world.disk(vm, disk).changes.clear();
  }
}

function depth(vm: VmState, moref: string | undefined): number {
  let levels = 0;
  for (let at = moref; at !== undefined; levels++) at = vm.snapshots.find((entry) => entry.moref === at)?.parent;
  return levels;
}
