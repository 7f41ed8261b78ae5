import { randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeGuestDisk } from './guest-disk.ts';
import { Layer } from './layer.ts';
import { SeededRandom, seededUuid } from './random.ts';
import type { Scenario, ScenarioDisk, ScenarioVm } from './scenario.ts';
import type { ControllerState, DiskState, FolderState, InventoryState, VmState } from './state.ts';
import { Store } from './state.ts';

const VM_FOLDER = 'group-v3';
const FIRST_KEYS = {
  ParaVirtualSCSIController: { controller: 1000, disk: 2000, units: 16, reserved: 7 },
  VirtualLsiLogicController: { controller: 1000, disk: 2000, units: 16, reserved: 7 },
  VirtualAHCIController: { controller: 15_000, disk: 16_000, units: 30, reserved: -1 },
  VirtualNVMEController: { controller: 31_000, disk: 32_000, units: 15, reserved: -1 },
} as const;

/** Makes the inventory of a scenario with all its disks under `dir`; what a broken earlier attempt left is replaced. */
export async function createInventory(
  dir: string,
  scenario: Scenario,
  options: { username: string; signal: AbortSignal },
): Promise<Store> {
  await rm(join(dir, 'vms'), { recursive: true, force: true });
  const state: InventoryState = {
    format: 1,
    instanceUuid: randomUUID(),
    datacenter: scenario.datacenter,
    username: options.username,
    nextMoref: 100,
    nextLayer: 1,
    settings: scenario.settings,
    folders: [],
    datastores: scenario.datastores.map((datastore, index) => ({
      moref: `datastore-${11 + index}`,
      name: datastore.name,
      type: datastore.type,
      capacityBytes: 256 * 1024 ** 4,
    })),
    vms: [],
    events: [],
  };
  const store = new Store(dir, state);
  for (const [index, vm] of scenario.vms.entries()) {
    options.signal.throwIfAborted();
    await addVm(store, vm, { seed: `${scenario.seed}/${index}/${vm.name}`, signal: options.signal });
  }
  store.save();
  return store;
}

async function addVm(store: Store, spec: ScenarioVm, options: { seed: string; signal: AbortSignal }): Promise<void> {
  const random = new SeededRandom(options.seed);
  const vm: VmState = {
    moref: spec.moref ?? store.newMoref('vm'),
    name: spec.name,
    folder: folderOf(store, spec.folder),
    datastore: spec.datastore ?? store.state.datastores[0]?.name ?? 'datastore1',
    directory: freeDirectory(store, spec.name),
    uuid: seededUuid(random),
    instanceUuid: randomUUID(),
    powerState: spec.template ? 'poweredOff' : spec.powerState,
    connectionState: spec.connectionState,
    tools: spec.tools,
    hardwareVersion: spec.hardwareVersion,
    guestId: spec.guestId,
    guestFullName: spec.guestFullName,
    firmware: spec.firmware,
    numCpu: spec.numCpu,
    memoryMb: spec.memoryMb,
    annotation: spec.annotation,
    template: spec.template,
    encrypted: spec.encrypted,
    changeTracking: spec.changeTracking,
    changeVersion: 1,
    macAddress: `00:50:56:${[0x80 | random.below(64), random.below(256), random.below(256)].map(hexByte).join(':')}`,
    controllers: [],
    disks: [],
    snapshots: [],
    consolidationNeeded: false,
    nextSnapshotId: 1,
    nextDelta: 1,
  };
  await mkdir(join(store.dir, 'vms', vm.moref), { recursive: true });
  for (const [index, disk] of spec.disks.entries()) {
    const slot = takeSlot(vm, spec.controller);
    await addDisk(store, vm, { disk, slot, seed: `${options.seed}/${index}`, signal: options.signal });
  }
  store.state.vms.push(vm);
}

export interface Slot {
  controllerKey: number;
  unitNumber: number;
  key: number;
}

/** The next free place on the VM's controllers; a controller of that type is added when all are full. */
export function takeSlot(vm: VmState, type: ControllerState['type']): Slot {
  const keys = FIRST_KEYS[type];
  for (let bus = 0; ; bus++) {
    const controllerKey = keys.controller + bus;
    if (!vm.controllers.some((controller) => controller.key === controllerKey)) {
      vm.controllers.push({ key: controllerKey, type, busNumber: bus, sharedBus: 'noSharing' });
    }
    for (let unit = 0; unit < keys.units; unit++) {
      if (unit === keys.reserved || !isFree(vm, controllerKey, unit)) continue;
      return { controllerKey, unitNumber: unit, key: diskKey(type, bus, unit) };
    }
  }
}

export function isFree(vm: VmState, controllerKey: number, unit: number): boolean {
  return !vm.disks.some((disk) => disk.present && disk.controllerKey === controllerKey && disk.unitNumber === unit);
}

export function diskKey(type: ControllerState['type'], bus: number, unit: number): number {
  const keys = FIRST_KEYS[type];
  return keys.disk + bus * keys.units + unit;
}

export function isReservedUnit(type: ControllerState['type'], unit: number): boolean {
  const keys = FIRST_KEYS[type];
  return unit < 0 || unit >= keys.units || unit === keys.reserved;
}

export async function addDisk(
  store: Store,
  vm: VmState,
  options: { disk: ScenarioDisk; slot: Slot; seed: string; signal: AbortSignal },
): Promise<DiskState> {
  const { disk, slot } = options;
  const random = new SeededRandom(`${options.seed}/identity`);
  const number = nextDiskNumber(vm);
  const id = store.newLayerId();
  const state: DiskState = {
    ...slot,
    uuid: disk.uuid ?? `6000C29${random.hex(1)}-${random.hex(4)}-${random.hex(4)}-${random.hex(4)}-${random.hex(12)}`,
    label: disk.label ?? `Hard disk ${vm.disks.filter((entry) => entry.present).length + 1}`,
    capacityBytes: disk.sizeBytes,
    mode: disk.mode,
    sharing: disk.sharing,
    thin: disk.thin,
    backing: disk.backing,
    present: true,
    layers: [
      { id, fileName: `${vm.directory}${number === 0 ? '' : `_${number}`}.vmdk`, capacityBytes: disk.sizeBytes },
    ],
    head: id,
  };
  const path = join(store.dir, 'vms', vm.moref, `${state.uuid}-${id}`);
  const { sizeBytes, content } = disk;
  const data = await makeGuestDisk({
    path,
    sizeBytes,
    content,
    seed: options.seed,
    hostName: vm.name,
    signal: options.signal,
  });
  await using layer = await Layer.open(path, true);
  await layer.adopt(data);
  vm.disks.push(state);
  return state;
}

function nextDiskNumber(vm: VmState): number {
  const used = new Set(vm.disks.flatMap((disk) => disk.layers.map((layer) => layer.fileName)));
  for (let number = 0; ; number++) {
    if (!used.has(`${vm.directory}${number === 0 ? '' : `_${number}`}.vmdk`)) return number;
  }
}

function folderOf(store: Store, path: string): string {
  let parent = VM_FOLDER;
  for (const name of path.split('/').filter((part) => part !== '')) {
    let folder: FolderState | undefined = store.state.folders.find((f) => f.parent === parent && f.name === name);
    if (!folder) store.state.folders.push((folder = { moref: store.newMoref('group-v'), name, parent }));
    parent = folder.moref;
  }
  return parent;
}

function freeDirectory(store: Store, name: string): string {
  const plain = name.replaceAll(/[/\\%:*?"<>|[\]\p{Cc}]/gu, '_');
  const used = new Set(store.state.vms.map((vm) => vm.directory));
  for (let number = 0; ; number++) {
    const candidate = number === 0 ? plain : `${plain}_${number}`;
    if (!used.has(candidate)) return candidate;
  }
}

function hexByte(value: number): string {
  return value.toString(16).padStart(2, '0');
}
