import { join } from 'node:path';
import { now } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import type { Logger } from '#/lib/log.ts';
import { Limit } from '#/lib/limit.ts';
import { Counters } from './counters.ts';
import { Pace } from './pace.ts';
import { Sessions } from './sessions.ts';
import type { Settings } from './settings.ts';
import type { DatastoreState, DiskState, LayerState, SnapshotState, Store, VmState } from './state.ts';
import { Tasks } from './tasks.ts';
import { VirtualDisk } from './virtual-disk.ts';

const MAX_EVENTS = 1000;

export interface WorldOptions {
  store: Store;
  password: string;
  log: Logger;
  signal: AbortSignal;
}

/** All that a running simulator shares: the kept state, the opened disks, sessions, tasks and counters. */
export class World implements AsyncDisposable {
  readonly store: Store;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly counters = new Counters();
  readonly sessions: Sessions;
  readonly tasks: Tasks;
  /** How many downloads are open on each layer, by its path. */
  readonly openLayers = new Map<string, number>();
  readonly #pace = new Pace();
  readonly #disks = new Map<string, VirtualDisk>();
  readonly #locks = new Map<string, Limit>();

  constructor(options: WorldOptions) {
    this.store = options.store;
    this.log = options.log;
    this.signal = options.signal;
    this.sessions = new Sessions(options.store.state.username, options.password);
    this.tasks = new Tasks(options.store.state.settings, options.log, options.signal);
  }

  get settings(): Settings {
    return this.store.state.settings;
  }

  get vms(): readonly VmState[] {
    return this.store.state.vms;
  }

  vm(moref: string): VmState | undefined {
    return this.vms.find((vm) => vm.moref === moref);
  }

  /** By name or moref, for the control interface. */
  vmNamed(name: string): VmState {
    const vm = this.vms.find((entry) => entry.name === name) ?? this.vm(name);
    if (!vm) throw new SendenseError('VM_NOT_FOUND', `the simulator has no VM ${name}`, { details: { vm: name } });
    return vm;
  }

  snapshot(moref: string): { vm: VmState; snapshot: SnapshotState } | undefined {
    for (const vm of this.vms) {
      const snapshot = vm.snapshots.find((entry) => entry.moref === moref);
      if (snapshot) return { vm, snapshot };
    }
    return undefined;
  }

  datastore(name: string): DatastoreState | undefined {
    return this.store.state.datastores.find((entry) => entry.name === name);
  }

  vmDir(vm: VmState): string {
    return join(this.store.dir, 'vms', vm.moref);
  }

  disk(vm: VmState, state: DiskState): VirtualDisk {
    const id = `${vm.moref}/${state.uuid}`;
    let disk = this.#disks.get(id);
    if (!disk) this.#disks.set(id, (disk = new VirtualDisk(this.vmDir(vm), state)));
    return disk;
  }

  async forgetDisk(vm: VmState, state: DiskState): Promise<void> {
    const disk = this.disk(vm, state);
    this.#disks.delete(`${vm.moref}/${state.uuid}`);
    await disk[Symbol.asyncDispose]();
  }

  /** One operation at a time changes a VM or writes to its disks. */
  async locked<T>(vm: VmState, work: () => Promise<T>): Promise<T> {
    let limit = this.#locks.get(vm.moref);
    if (!limit) this.#locks.set(vm.moref, (limit = new Limit(1)));
    using permit = await limit.take(1, this.signal);
    void permit;
    return await work();
  }

  newDelta(vm: VmState, disk: DiskState): LayerState {
    const base = disk.layers.find((layer) => layer.parent === undefined);
    const stem = (base?.fileName ?? `${vm.directory}.vmdk`).replace(/\.vmdk$/, '');
    const number = String(vm.nextDelta).padStart(6, '0');
    return {
      id: this.store.newLayerId(),
      parent: disk.head,
      fileName: `${stem}-${number}.vmdk`,
      capacityBytes: disk.capacityBytes,
    };
  }

  /** Waits so that all downloads together keep to the rate that is set. */
  async pace(bytes: number): Promise<void> {
    await this.#pace.wait(bytes, this.settings.folderBytesPerSecond, this.signal);
  }

  recordEvent(vm: VmState, userName: string, descriptionId: string): void {
    const { events } = this.store.state;
    const key = (events.at(-1)?.key ?? 0) + 1;
    events.push({ key, time: now().toString(), userName, vm: vm.moref, vmName: vm.name, descriptionId });
    if (events.length > MAX_EVENTS) events.splice(0, events.length - MAX_EVENTS);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.tasks.settle();
    for (const vm of this.vms) {
      const limit = this.#locks.get(vm.moref);
      if (limit) (await limit.take(1)).release();
    }
    for (const disk of this.#disks.values()) await disk[Symbol.asyncDispose]();
    this.#disks.clear();
  }
}
