/** What the simulator keeps in `state.json`: replaced whole and at once by every change, so that it survives a kill. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import type { TrackingState } from './changed-blocks.ts';
import type { Settings } from './settings.ts';

export type PowerState = 'poweredOn' | 'poweredOff' | 'suspended';
export type ToolsState = 'running' | 'notRunning' | 'notInstalled';
export type DiskMode = 'persistent' | 'independent_persistent' | 'independent_nonpersistent';
export type ConnectionState = 'connected' | 'disconnected' | 'inaccessible' | 'orphaned' | 'invalid';

export interface LayerState {
  id: string;
  parent?: string;
  /** Name of the descriptor in the VM's folder, such as `web01-000001.vmdk`. */
  fileName: string;
  capacityBytes: number;
}

/** What a virtual device says of a disk, live or in a snapshot. */
export interface DiskDevice {
  uuid: string;
  key: number;
  controllerKey: number;
  unitNumber: number;
  label: string;
  capacityBytes: number;
  mode: DiskMode;
  sharing: 'sharingNone' | 'sharingMultiWriter';
  thin: boolean;
  backing: 'flat' | 'physicalRdm';
}

export interface DiskState extends DiskDevice {
  /** False once it was taken from the VM while snapshots still need it. */
  present: boolean;
  layers: LayerState[];
  /** The layer the guest writes to. */
  head: string;
  tracking?: TrackingState;
}

export interface FrozenDisk extends DiskDevice {
  layer: string;
  changeId?: string;
}

export interface SnapshotState {
  moref: string;
  id: number;
  name: string;
  description: string;
  createTime: string;
  powerState: PowerState;
  quiesced: boolean;
  parent?: string;
  changeTracking: boolean;
  disks: FrozenDisk[];
}

export interface ControllerState {
  key: number;
  type: 'ParaVirtualSCSIController' | 'VirtualLsiLogicController' | 'VirtualAHCIController' | 'VirtualNVMEController';
  busNumber: number;
  sharedBus: 'noSharing' | 'virtualSharing' | 'physicalSharing';
}

export interface VmState {
  moref: string;
  name: string;
  folder: string;
  datastore: string;
  /** Folder on the datastore. */
  directory: string;
  uuid: string;
  instanceUuid: string;
  powerState: PowerState;
  connectionState: ConnectionState;
  tools: ToolsState;
  hardwareVersion: number;
  guestId: string;
  guestFullName: string;
  firmware: 'bios' | 'efi';
  numCpu: number;
  memoryMb: number;
  annotation: string;
  template: boolean;
  encrypted: boolean;
  changeTracking: boolean;
  changeVersion: number;
  macAddress: string;
  controllers: ControllerState[];
  disks: DiskState[];
  snapshots: SnapshotState[];
  currentSnapshot?: string;
  consolidationNeeded: boolean;
  nextSnapshotId: number;
  nextDelta: number;
}

export interface FolderState {
  moref: string;
  name: string;
  parent: string;
}

export interface DatastoreState {
  moref: string;
  name: string;
  type: 'NFS' | 'VMFS';
  capacityBytes: number;
}

export interface RecordedEvent {
  key: number;
  time: string;
  userName: string;
  vm: string;
  vmName: string;
  descriptionId: string;
}

export interface InventoryState {
  format: 1;
  instanceUuid: string;
  datacenter: string;
  username: string;
  nextMoref: number;
  nextLayer: number;
  settings: Settings;
  folders: FolderState[];
  datastores: DatastoreState[];
  vms: VmState[];
  events: RecordedEvent[];
}

export class Store {
  readonly dir: string;
  readonly state: InventoryState;

  constructor(dir: string, state: InventoryState) {
    this.dir = dir;
    this.state = state;
  }

  static load(dir: string): InventoryState | undefined {
    let text: string;
    try {
      text = readFileSync(join(dir, 'state.json'), 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    const state = JSON.parse(text) as InventoryState;
    if (state.format !== 1) {
      throw new SendenseError('CONFIG_INVALID', `${dir} was written by another version of the simulator`);
    }
    return state;
  }

  save(): void {
    const path = join(this.dir, 'state.json');
    writeFileSync(`${path}.new`, JSON.stringify(this.state, undefined, 1));
    renameSync(`${path}.new`, path);
  }

  newMoref(prefix: string): string {
    return `${prefix}-${this.state.nextMoref++}`;
  }

  newLayerId(): string {
    return `l${this.state.nextLayer++}`;
  }
}
