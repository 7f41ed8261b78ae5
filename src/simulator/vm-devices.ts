import { formatChangeId } from './changed-blocks.ts';
import type { ControllerState, DiskDevice, DiskState, LayerState, SnapshotState, VmState } from './state.ts';
import { Data, Ref } from './values.ts';
import type { World } from './world.ts';

/** The devices of a VM as it is now, or as it was at a snapshot. */
export function devicesOf(world: World, vm: VmState, snapshot?: SnapshotState): Data[] {
  const disks = snapshot
    ? snapshot.disks.map((frozen) => frozenDisk(world, vm, frozen, frozen))
    : vm.disks.filter((disk) => disk.present).map((disk) => liveDisk(world, vm, disk));
  return [
    new Data('VirtualIDEController', {
      key: 200,
      deviceInfo: description('IDE 0', 'IDE 0'),
      busNumber: 0,
    }),
    ...vm.controllers.map((controller) => controllerDevice(vm, controller)),
    ...disks,
    ...(vm.encrypted
      ? [new Data('VirtualTPM', { key: 11_000, deviceInfo: description('Virtual TPM', 'Trusted Platform Module') })]
      : []),
    networkCard(vm),
  ];
}

function controllerDevice(vm: VmState, controller: ControllerState): Data {
  const attached = vm.disks.filter((disk) => disk.present && disk.controllerKey === controller.key);
  const scsi = controller.type === 'ParaVirtualSCSIController' || controller.type === 'VirtualLsiLogicController';
  const name = scsi ? 'SCSI' : controller.type === 'VirtualAHCIController' ? 'SATA' : 'NVME';
  return new Data(controller.type, {
    key: controller.key,
    deviceInfo: description(`${name} controller ${controller.busNumber}`, controller.type),
    controllerKey: 100,
    unitNumber: 3 + controller.busNumber,
    busNumber: controller.busNumber,
    device: attached.map((disk) => disk.key),
    ...(scsi && { hotAddRemove: true, sharedBus: controller.sharedBus, scsiCtlrUnitNumber: 7 }),
  });
}

function liveDisk(world: World, vm: VmState, disk: DiskState): Data {
  // The live id is already that of the next interval: who stores it instead of the snapshot's loses changes.
  const changeId = disk.tracking && formatChangeId(disk.tracking);
  return diskDevice(world, vm, disk, { layers: disk.layers, layer: disk.head, changeId });
}

function frozenDisk(
  world: World,
  vm: VmState,
  device: DiskDevice,
  at: { uuid: string; layer: string; changeId?: string },
): Data {
  const layers = vm.disks.find((disk) => disk.uuid === at.uuid)?.layers ?? [];
  return diskDevice(world, vm, device, { layers, layer: at.layer, changeId: at.changeId });
}

function diskDevice(
  world: World,
  vm: VmState,
  device: DiskDevice,
  at: { layers: readonly LayerState[]; layer: string; changeId: string | undefined },
): Data {
  const kilobytes = Math.floor(device.capacityBytes / 1024);
  const backing =
    device.backing === 'flat' ? flatBacking(world, vm, device, at, true) : rawMapping(world, vm, device, at);
  return new Data('VirtualDisk', {
    key: device.key,
    deviceInfo: description(device.label, `${kilobytes.toLocaleString('en-US')} KB`),
    backing,
    controllerKey: device.controllerKey,
    unitNumber: device.unitNumber,
    capacityInKB: kilobytes,
    capacityInBytes: device.capacityBytes,
    diskObjectId: `${vm.moref}-${device.key}`,
    nativeUnmanagedLinkedClone: false,
  });
}

function flatBacking(
  world: World,
  vm: VmState,
  device: DiskDevice,
  at: { layers: readonly LayerState[]; layer: string; changeId: string | undefined },
  top: boolean,
): Data {
  const layer = at.layers.find((entry) => entry.id === at.layer);
  const parent = layer?.parent;
  return new Data('VirtualDiskFlatVer2BackingInfo', {
    fileName: datastorePath(vm, layer?.fileName ?? ''),
    datastore: datastoreRef(world, vm),
    backingObjectId: '',
    diskMode: device.mode,
    split: false,
    writeThrough: false,
    thinProvisioned: device.thin,
    eagerlyScrub: parent === undefined ? !device.thin : undefined,
    uuid: device.uuid,
    contentId: contentId(`${device.uuid}/${at.layer}`),
    changeId: top ? at.changeId : undefined,
    parent: parent === undefined ? undefined : flatBacking(world, vm, device, { ...at, layer: parent }, false),
    deltaDiskFormat: parent === undefined ? undefined : 'seSparseFormat',
    digestEnabled: false,
    sharing: device.sharing,
  });
}

function rawMapping(
  world: World,
  vm: VmState,
  device: DiskDevice,
  at: { layers: readonly LayerState[]; layer: string },
): Data {
  return new Data('VirtualDiskRawDiskMappingVer1BackingInfo', {
    fileName: datastorePath(vm, at.layers.find((entry) => entry.id === at.layer)?.fileName ?? ''),
    datastore: datastoreRef(world, vm),
    lunUuid: `0200000000${device.uuid.replaceAll('-', '').toLowerCase()}`,
    deviceName: `vml.${device.uuid.replaceAll('-', '').toLowerCase()}`,
    compatibilityMode: 'physicalMode',
    diskMode: device.mode,
    sharing: device.sharing,
  });
}

function networkCard(vm: VmState): Data {
  return new Data('VirtualVmxnet3', {
    key: 4000,
    deviceInfo: description('Network adapter 1', 'VM Network'),
    backing: new Data('VirtualEthernetCardNetworkBackingInfo', {
      deviceName: 'VM Network',
      useAutoDetect: false,
      network: new Ref('Network', 'network-10'),
    }),
    connectable: new Data('VirtualDeviceConnectInfo', {
      startConnected: true,
      allowGuestControl: true,
      connected: vm.powerState === 'poweredOn',
      status: 'ok',
    }),
    controllerKey: 100,
    unitNumber: 7,
    addressType: 'assigned',
    macAddress: vm.macAddress,
    wakeOnLanEnabled: true,
  });
}

export function description(label: string, summary: string): Data {
  return new Data('Description', { label, summary });
}

export function datastorePath(vm: VmState, fileName: string): string {
  return `[${vm.datastore}] ${vm.directory}/${fileName}`;
}

export function datastoreRef(world: World, vm: VmState): Ref {
  return new Ref('Datastore', world.datastore(vm.datastore)?.moref ?? 'datastore-11');
}

/** Eight hex digits that stand for the content id of a layer. */
export function contentId(text: string): string {
  let value = 0x811c_9dc5;
  for (const char of text) value = Math.imul(value ^ (char.codePointAt(0) ?? 0), 0x0100_0193) >>> 0;
  return value.toString(16).padStart(8, '0');
}
