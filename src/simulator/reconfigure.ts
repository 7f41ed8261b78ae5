import type { Arguments } from './arguments.ts';
import { addDisk, diskKey, isFree, isReservedUnit } from './create.ts';
import { notSupported, VimFault } from './faults.ts';
import { consolidate } from './snapshots.ts';
import type { DiskState, VmState } from './state.ts';
import { applyTracking, FIRST_TRACKING_HARDWARE, startEpoch } from './tracking.ts';
import type { World } from './world.ts';

const MAX_DISK_BYTES = 64 * 1024 ** 4;
const SUPPORTED = new Set([
  'changeVersion',
  'name',
  'annotation',
  'numCPUs',
  'memoryMB',
  'deviceChange',
  'changeTrackingEnabled',
]);

/** Refuses what needs no look at the disks; the rest is decided in the task. */
export function checkReconfigure(vm: VmState, spec: Arguments): void {
  const unsupported = spec.names.find((name) => !SUPPORTED.has(name));
  if (unsupported !== undefined) throw notSupported(`spec.${unsupported}`);
  const version = spec.optionalText('changeVersion');
  if (version !== undefined && version !== String(vm.changeVersion)) {
    throw new VimFault('ConcurrentAccess', 'The VM was changed since it was read.');
  }
  if (vm.connectionState !== 'connected') throw new VimFault('InvalidState', 'The VM is not connected to its host.');
  if (spec.flag('changeTrackingEnabled') === true && vm.hardwareVersion < FIRST_TRACKING_HARDWARE) {
    throw notSupported('changed block tracking needs hardware version 7');
  }
}

export async function reconfigure(world: World, vm: VmState, spec: Arguments): Promise<void> {
  for (const [index, change] of spec.objects('deviceChange').entries()) await changeDevice(world, vm, change, index);
  vm.name = unescapeName(spec.optionalText('name') ?? vm.name);
  vm.annotation = spec.optionalText('annotation') ?? vm.annotation;
  vm.numCpu = spec.number('numCPUs') ?? vm.numCpu;
  vm.memoryMb = spec.number('memoryMB') ?? vm.memoryMb;
  vm.changeTracking = spec.flag('changeTrackingEnabled') ?? vm.changeTracking;
  // A running VM keeps its disks open: tracking changes only when they are opened anew.
  if (vm.powerState !== 'poweredOn') await applyTracking(world, vm);
  vm.changeVersion++;
  world.recordEvent(vm, world.store.state.username, 'VirtualMachine.reconfigure');
  world.store.save();
}

async function changeDevice(world: World, vm: VmState, change: Arguments, index: number): Promise<void> {
  const device = change.object('device');
  const operation = change.text('operation');
  if (device?.type !== 'VirtualDisk') throw wrongDevice('virtualDeviceSpec.device', index);
  if (operation === 'add') return addVirtualDisk(world, vm, device, index);
  const disk = vm.disks.find((entry) => entry.present && entry.key === device.number('key'));
  if (!disk) throw wrongDevice('virtualDeviceSpec.device.key', index);
  if (operation === 'remove') return removeDisk(world, vm, disk);
  if (operation !== 'edit') throw wrongDevice('virtualDeviceSpec.operation', index);
  const sizeBytes = capacityOf(device);
  if (sizeBytes !== disk.capacityBytes) await extendDisk(world, vm, disk, { sizeBytes, index });
}

async function addVirtualDisk(world: World, vm: VmState, device: Arguments, index: number): Promise<void> {
  const controllerKey = device.number('controllerKey');
  const controller = vm.controllers.find((entry) => entry.key === controllerKey);
  if (!controller) throw wrongDevice('virtualDeviceSpec.device.controllerKey', index);
  const asked = device.number('unitNumber') ?? -1;
  const free = Array.from({ length: 64 }, (_, unit) => unit).find(
    (unit) => !isReservedUnit(controller.type, unit) && isFree(vm, controller.key, unit),
  );
  const unitNumber = asked >= 0 ? asked : (free ?? -1);
  if (isReservedUnit(controller.type, unitNumber) || !isFree(vm, controller.key, unitNumber)) {
    throw wrongDevice('virtualDeviceSpec.device.unitNumber', index);
  }
  const sizeBytes = capacityOf(device);
  if (!isCapacity(sizeBytes)) throw wrongDevice('virtualDeviceSpec.device.capacityInBytes', index);
  const mode = device.object('backing')?.optionalText('diskMode') ?? 'persistent';
  if (mode !== 'persistent' && mode !== 'independent_persistent' && mode !== 'independent_nonpersistent') {
    throw wrongDevice('virtualDeviceSpec.device.backing.diskMode', index);
  }
  await addDisk(world.store, vm, {
    disk: {
      sizeBytes,
      content: 'blank',
      thin: device.object('backing')?.flag('thinProvisioned') ?? false,
      mode,
      sharing: 'sharingNone',
      backing: 'flat',
    },
    slot: {
      controllerKey: controller.key,
      unitNumber,
      key: diskKey(controller.type, controller.busNumber, unitNumber),
    },
    seed: `${vm.moref}/${crypto.randomUUID()}`,
    signal: world.signal,
  });
}

/** Takes a disk from the VM; its files stay as long as a snapshot needs them. The caller holds the lock and saves. */
export async function removeDisk(world: World, vm: VmState, disk: DiskState): Promise<void> {
  disk.present = false;
  await consolidate(world, vm);
}

/** Grows a disk; every change id of it is worthless afterwards. The caller holds the lock and saves. */
export async function extendDisk(
  world: World,
  vm: VmState,
  disk: DiskState,
  to: { sizeBytes: number; index: number },
): Promise<void> {
  const [base] = disk.layers;
  const possible = isCapacity(to.sizeBytes) && to.sizeBytes > disk.capacityBytes;
  if (!possible || !base || disk.layers.length > 1) {
    throw wrongDevice('virtualDeviceSpec.device.capacityInBytes', to.index);
  }
  disk.capacityBytes = to.sizeBytes;
  base.capacityBytes = to.sizeBytes;
  if (disk.tracking) await startEpoch(world, vm, disk);
}

/** Clients that know only kilobytes send no bytes. */
function capacityOf(device: Arguments): number {
  return device.number('capacityInBytes') ?? (device.number('capacityInKB') ?? 0) * 1024;
}

function isCapacity(sizeBytes: number): boolean {
  return Number.isSafeInteger(sizeBytes) && sizeBytes >= 512 && sizeBytes <= MAX_DISK_BYTES && sizeBytes % 512 === 0;
}

function wrongDevice(property: string, deviceIndex: number): VimFault {
  return new VimFault('InvalidDeviceSpec', `Invalid configuration for device '${deviceIndex}'.`, {
    property,
    deviceIndex,
  });
}

function unescapeName(name: string): string {
  return name.replaceAll(/%(2f|5c|25)/gi, (code) => decodeURIComponent(code));
}
