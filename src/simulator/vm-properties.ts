import { now } from '#/lib/clock.ts';
import type { SnapshotState, VmState } from './state.ts';
import { canTrack, FIRST_TRACKING_HARDWARE } from './tracking.ts';
import { Data, Ref, Typed } from './values.ts';
import type { Value } from './values.ts';
import { contentId, datastorePath, datastoreRef, devicesOf } from './vm-devices.ts';
import { layoutOf } from './vm-layout.ts';
import type { World } from './world.ts';

const CREATED = '2026-01-01T00:00:00Z';
const HOST = new Ref('HostSystem', 'host-9');

type Provider = (world: World, vm: VmState) => Value | undefined;

/** Properties of a VirtualMachine beside those every entity has. */
export const VM_PROPERTIES: Readonly<Record<string, Provider>> = {
  capability,
  config: (world, vm) => (isReadable(vm) ? configOf(world, vm) : undefined),
  environmentBrowser: (_world, vm) => new Ref('EnvironmentBrowser', `envbrowser-${vm.moref}`),
  resourcePool: (_world, vm) => (vm.template ? undefined : new Ref('ResourcePool', 'resgroup-8')),
  runtime,
  guest,
  summary,
  datastore: (world, vm) => [datastoreRef(world, vm)],
  network: () => [new Ref('Network', 'network-10')],
  snapshot: (_world, vm) => snapshotInfo(vm),
  rootSnapshot: (_world, vm) => roots(vm).map(snapshotRef),
  layoutEx: (world, vm) => (isReadable(vm) ? layoutOf(world, vm) : undefined),
  storage,
  guestHeartbeatStatus: (_world, vm) => (isToolsRunning(vm) ? 'green' : 'gray'),
};

export function vmRef(vm: VmState): Ref {
  return new Ref('VirtualMachine', vm.moref);
}

export function snapshotRef(snapshot: SnapshotState): Ref {
  return new Ref('VirtualMachineSnapshot', snapshot.moref);
}

/** Inventory names come with the three characters escaped that paths are made of. */
export function escapeName(name: string): string {
  return name.replaceAll('%', '%25').replaceAll('/', '%2f').replaceAll('\\', '%5c');
}

export function configOf(world: World, vm: VmState, snapshot?: SnapshotState): Data {
  const tracking = snapshot ? snapshot.changeTracking : vm.changeTracking;
  const option = (key: string, value: string): Data =>
    new Data('OptionValue', { key, value: new Typed('string', value) });
  return new Data('VirtualMachineConfigInfo', {
    changeVersion: String(vm.changeVersion),
    modified: CREATED,
    name: escapeName(vm.name),
    guestFullName: vm.guestFullName,
    version: hardwareName(vm),
    uuid: vm.uuid,
    createDate: CREATED,
    instanceUuid: vm.instanceUuid,
    template: vm.template,
    guestId: vm.guestId,
    alternateGuestName: vm.guestFullName,
    annotation: vm.annotation,
    files: new Data('VirtualMachineFileInfo', {
      vmPathName: datastorePath(vm, `${vm.directory}.vmx`),
      snapshotDirectory: `[${vm.datastore}] ${vm.directory}/`,
      suspendDirectory: `[${vm.datastore}] ${vm.directory}/`,
      logDirectory: `[${vm.datastore}] ${vm.directory}/`,
    }),
    tools: new Data('ToolsConfigInfo', {
      toolsVersion: vm.tools === 'notInstalled' ? 0 : 12_389,
      afterPowerOn: true,
      syncTimeWithHost: false,
    }),
    flags: new Data('VirtualMachineFlagInfo', { enableLogging: true, diskUuidEnabled: true, snapshotDisabled: false }),
    defaultPowerOps: new Data('VirtualMachineDefaultPowerOpInfo', { powerOffType: 'soft' }),
    rebootPowerOff: false,
    hardware: new Data('VirtualHardware', {
      numCPU: vm.numCpu,
      numCoresPerSocket: 1,
      memoryMB: vm.memoryMb,
      device: devicesOf(world, vm, snapshot),
    }),
    memoryHotAddEnabled: false,
    cpuHotAddEnabled: false,
    extraConfig: [
      option('nvram', `${vm.directory}.nvram`),
      option('svga.present', 'TRUE'),
      ...(tracking ? [option('ctkEnabled', 'TRUE'), ...diskOptions(vm, option)] : []),
    ],
    swapPlacement: 'inherit',
    bootOptions: new Data('VirtualMachineBootOptions', { efiSecureBootEnabled: false }),
    changeTrackingEnabled: tracking,
    firmware: vm.firmware,
    keyId: vm.encrypted ? new Data('CryptoKeyId', { keyId: contentId(vm.instanceUuid) }) : undefined,
    migrateEncryption: 'opportunistic',
  });
}

function diskOptions(vm: VmState, option: (key: string, value: string) => Data): Data[] {
  return vm.disks
    .filter((disk) => canTrack(vm, disk))
    .map((disk) => {
      const bus = vm.controllers.find((controller) => controller.key === disk.controllerKey)?.busNumber ?? 0;
      return option(`scsi${bus}:${disk.unitNumber}.ctkEnabled`, 'TRUE');
    });
}

function capability(_world: World, vm: VmState): Data {
  const snapshots = !vm.template;
  return new Data('VirtualMachineCapability', {
    snapshotOperationsSupported: snapshots,
    multipleSnapshotsSupported: snapshots,
    snapshotConfigSupported: snapshots,
    poweredOffSnapshotsSupported: snapshots,
    memorySnapshotsSupported: snapshots,
    revertToSnapshotSupported: snapshots,
    quiescedSnapshotsSupported: vm.tools !== 'notInstalled',
    disableSnapshotsSupported: false,
    lockSnapshotsSupported: false,
    changeTrackingSupported: vm.hardwareVersion >= FIRST_TRACKING_HARDWARE,
  });
}

function runtime(_world: World, vm: VmState): Data {
  return new Data('VirtualMachineRuntimeInfo', {
    host: HOST,
    connectionState: vm.connectionState,
    powerState: vm.powerState,
    faultToleranceState: 'notConfigured',
    toolsInstallerMounted: false,
    numMksConnections: 0,
    onlineStandby: false,
    consolidationNeeded: vm.consolidationNeeded,
    cryptoState: vm.encrypted ? 'unlocked' : undefined,
  });
}

const TOOLS_STATUS = { running: 'toolsOk', notRunning: 'toolsNotRunning', notInstalled: 'toolsNotInstalled' } as const;

function isToolsRunning(vm: VmState): boolean {
  return vm.powerState === 'poweredOn' && vm.tools === 'running';
}

function toolsFields(vm: VmState): { toolsStatus: string; toolsVersionStatus2: string; toolsRunningStatus: string } {
  const installed = vm.tools !== 'notInstalled';
  return {
    toolsStatus: isToolsRunning(vm) ? 'toolsOk' : installed ? TOOLS_STATUS.notRunning : TOOLS_STATUS.notInstalled,
    toolsVersionStatus2: installed ? 'guestToolsCurrent' : 'guestToolsNotInstalled',
    toolsRunningStatus: isToolsRunning(vm) ? 'guestToolsRunning' : 'guestToolsNotRunning',
  };
}

function guest(_world: World, vm: VmState): Data {
  return new Data('GuestInfo', {
    ...toolsFields(vm),
    guestId: vm.guestId,
    guestFamily: 'linuxGuest',
    guestFullName: vm.guestFullName,
    hostName: isToolsRunning(vm) ? vm.directory : undefined,
    ipAddress: isToolsRunning(vm) ? '192.0.2.10' : undefined,
    guestState: isToolsRunning(vm) ? 'running' : 'notRunning',
  });
}

function summary(world: World, vm: VmState): Data {
  return new Data('VirtualMachineSummary', {
    vm: vmRef(vm),
    runtime: runtime(world, vm),
    guest: new Data('VirtualMachineGuestSummary', {
      guestId: vm.guestId,
      guestFullName: vm.guestFullName,
      ...toolsFields(vm),
      hostName: isToolsRunning(vm) ? vm.directory : undefined,
    }),
    config: new Data('VirtualMachineConfigSummary', {
      name: escapeName(vm.name),
      template: vm.template,
      vmPathName: datastorePath(vm, `${vm.directory}.vmx`),
      memorySizeMB: vm.memoryMb,
      numCpu: vm.numCpu,
      numEthernetCards: 1,
      numVirtualDisks: vm.disks.filter((disk) => disk.present).length,
      uuid: vm.uuid,
      instanceUuid: vm.instanceUuid,
      guestId: vm.guestId,
      guestFullName: vm.guestFullName,
      annotation: vm.annotation,
      hwVersion: hardwareName(vm),
    }),
    storage: new Data('VirtualMachineStorageSummary', { ...usage(vm), timestamp: now().toString() }),
    quickStats: new Data('VirtualMachineQuickStats', {
      guestHeartbeatStatus: isToolsRunning(vm) ? 'green' : 'gray',
    }),
    overallStatus: 'green',
  });
}

function usage(vm: VmState): { committed: number; uncommitted: number; unshared: number } {
  const bytes = vm.disks.reduce((sum, disk) => sum + disk.capacityBytes, 0);
  return { committed: bytes, uncommitted: 0, unshared: bytes };
}

function storage(world: World, vm: VmState): Data {
  return new Data('VirtualMachineStorageInfo', {
    perDatastoreUsage: [
      new Data('VirtualMachineUsageOnDatastore', { datastore: datastoreRef(world, vm), ...usage(vm) }),
    ],
    timestamp: now().toString(),
  });
}

function roots(vm: VmState): SnapshotState[] {
  return vm.snapshots.filter((snapshot) => snapshot.parent === undefined);
}

function snapshotInfo(vm: VmState): Data | undefined {
  if (vm.snapshots.length === 0) return undefined;
  return new Data('VirtualMachineSnapshotInfo', {
    currentSnapshot:
      vm.currentSnapshot === undefined ? undefined : new Ref('VirtualMachineSnapshot', vm.currentSnapshot),
    rootSnapshotList: roots(vm).map((snapshot) => tree(vm, snapshot)),
  });
}

function tree(vm: VmState, snapshot: SnapshotState): Data {
  return new Data('VirtualMachineSnapshotTree', {
    snapshot: snapshotRef(snapshot),
    vm: vmRef(vm),
    name: snapshot.name,
    description: snapshot.description,
    id: snapshot.id,
    createTime: snapshot.createTime,
    state: snapshot.powerState,
    quiesced: snapshot.quiesced,
    childSnapshotList: vm.snapshots.filter((entry) => entry.parent === snapshot.moref).map((entry) => tree(vm, entry)),
    replaySupported: false,
  });
}

function isReadable(vm: VmState): boolean {
  return vm.connectionState === 'connected' || vm.connectionState === 'disconnected';
}

function hardwareName(vm: VmState): string {
  return `vmx-${String(vm.hardwareVersion).padStart(2, '0')}`;
}
