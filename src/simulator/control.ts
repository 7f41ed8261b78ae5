/** `/simulator/…`: what a person or a test does to the simulated world, as JSON, with the same credentials as `/folder`. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { ERRORS, SendenseError, toSendenseError } from '#/lib/errors.ts';
import {
  bodyOf,
  extendRequest,
  guestWriteRequest,
  newDiskRequest,
  powerRequest,
  workloadRequest,
} from './control-requests.ts';
import { addDisk, takeSlot } from './create.ts';
import { VimFault } from './faults.ts';
import { mayRead } from './folder.ts';
import { diskOf, Workload, writeAsGuest } from './guest.ts';
import type { WorkloadRequest } from './guest.ts';
import { extendDisk, removeDisk } from './reconfigure.ts';
import type { ScenarioDisk } from './scenario.ts';
import { changeSettings } from './settings.ts';
import { readBody } from './soap.ts';
import type { VmState } from './state.ts';
import { applyTracking, startEpoch } from './tracking.ts';
import type { World } from './world.ts';
import { XmlError } from './xml.ts';

export class Control {
  readonly #world: World;
  readonly #workloads = new Map<string, Workload>();

  constructor(world: World) {
    this.#world = world;
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      if (!mayRead(this.#world, request))
        throw new SendenseError('UNAUTHENTICATED', 'user name and password are needed');
      const body = bodyOf(await readBody(request));
      const result = await this.#run(request.method ?? '', (request.url ?? '').split('?')[0] ?? '', body);
      response.writeHead(200, { 'content-type': 'application/json' }).end(`${JSON.stringify(result)}\n`);
    } catch (error) {
      const known = translate(error);
      response
        .writeHead(ERRORS[known.code].status, { 'content-type': 'application/json' })
        .end(JSON.stringify(known.toWire()));
    }
  }

  async stop(): Promise<void> {
    for (const workload of this.#workloads.values()) await workload.stop();
  }

  async #run(method: string, path: string, body: Record<string, unknown>): Promise<unknown> {
    const world = this.#world;
    const [, , noun, name, verb, which] = path.split('/').map(decodePart);
    const what = [method, noun, verb].filter((part) => part !== undefined).join(' ');
    const vm = (): VmState => world.vmNamed(name ?? '');
    switch (what) {
      case 'GET status':
        return this.#status();
      case 'PUT settings':
        changeSettings(world.settings, body);
        world.store.save();
        return world.settings;
      case 'DELETE counters':
        world.counters.reset();
        return {};
      case 'DELETE sessions':
        world.sessions.endAll();
        return {};
      case 'POST vms write':
        return writeAsGuest(world, vm(), guestWriteRequest(body));
      case 'POST vms workload':
        return this.#startWorkload(vm(), workloadRequest(body));
      case 'DELETE vms workload':
        return this.#stopWorkload(vm());
      case 'POST vms extend':
        return this.#extend(vm(), extendRequest(body));
      case 'POST vms disks':
        return this.#addDisk(vm(), newDiskRequest(body));
      case 'DELETE vms disks':
        return this.#removeDisk(vm(), which ?? '');
      case 'POST vms power':
        return this.#power(vm(), powerRequest(body));
      case 'POST vms crash':
        return this.#crash(vm());
      default:
        throw new SendenseError('NOT_FOUND', `no such operation: ${method} ${path}`);
    }
  }

  #status(): unknown {
    const world = this.#world;
    return {
      vms: world.vms.map((vm) => ({
        name: vm.name,
        moref: vm.moref,
        powerState: vm.powerState,
        changeTracking: vm.changeTracking,
        consolidationNeeded: vm.consolidationNeeded,
        snapshots: vm.snapshots.map(({ name, moref }) => ({ name, moref })),
        disks: vm.disks
          .filter((disk) => disk.present)
          .map(({ uuid, key, label, capacityBytes }) => ({ uuid, key, label, capacityBytes })),
        workload: this.#workloads.get(vm.moref)?.writtenBytes ?? null,
      })),
      settings: world.settings,
      sessions: world.sessions.live(world.settings.sessionTimeoutMs).length,
      snapshots: world.vms.reduce((sum, vm) => sum + vm.snapshots.length, 0),
      tasks: world.tasks.running,
      openStreams: world.counters.openStreams,
      requests: Object.fromEntries(world.counters.requests),
      folderBytes: Object.fromEntries(world.counters.folderBytes),
    };
  }

  async #startWorkload(vm: VmState, request: WorkloadRequest): Promise<unknown> {
    await this.#workloads.get(vm.moref)?.stop();
    this.#workloads.set(vm.moref, new Workload(this.#world, vm, request));
    return { vm: vm.name, running: true };
  }

  async #stopWorkload(vm: VmState): Promise<unknown> {
    const workload = this.#workloads.get(vm.moref);
    await workload?.stop();
    this.#workloads.delete(vm.moref);
    return { vm: vm.name, writtenBytes: workload?.writtenBytes ?? 0 };
  }

  async #extend(vm: VmState, to: { disk: number | string; capacityBytes: number }): Promise<unknown> {
    const disk = diskOf(vm, to.disk);
    await this.#change(vm, () => extendDisk(this.#world, vm, disk, { sizeBytes: to.capacityBytes, index: 0 }));
    return { disk: disk.uuid, capacityBytes: disk.capacityBytes };
  }

  async #addDisk(vm: VmState, spec: ScenarioDisk): Promise<unknown> {
    if (vm.disks.some((disk) => disk.uuid === spec.uuid)) {
      throw new SendenseError('ALREADY_EXISTS', `${vm.name} has a disk ${spec.uuid}`);
    }
    const { store, signal } = this.#world;
    const disk = await this.#change(vm, async () => {
      const slot = takeSlot(vm, vm.controllers[0]?.type ?? 'ParaVirtualSCSIController');
      return addDisk(store, vm, { disk: spec, slot, seed: `${vm.moref}/added/${vm.changeVersion}`, signal });
    });
    return { disk: disk.uuid, key: disk.key };
  }

  async #removeDisk(vm: VmState, which: string): Promise<unknown> {
    const disk = diskOf(vm, which);
    await this.#change(vm, () => removeDisk(this.#world, vm, disk));
    return { disk: disk.uuid };
  }

  async #power(vm: VmState, state: 'poweredOn' | 'poweredOff'): Promise<unknown> {
    if (vm.template) throw new SendenseError('WRONG_STATE', `${vm.name} is a template`);
    await this.#change(vm, async () => {
      vm.powerState = state;
      await applyTracking(this.#world, vm);
    });
    return { vm: vm.name, powerState: vm.powerState };
  }

  /** The host failed: tracking was not closed, so every change id given out is worthless. The VM is started again. */
  async #crash(vm: VmState): Promise<unknown> {
    await this.#change(vm, async () => {
      for (const disk of vm.disks) if (disk.tracking) await startEpoch(this.#world, vm, disk);
    });
    return { vm: vm.name };
  }

  async #change<T>(vm: VmState, work: () => Promise<T>): Promise<T> {
    return this.#world.locked(vm, async () => {
      const result = await work();
      vm.changeVersion++;
      this.#world.store.save();
      return result;
    });
  }
}

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (cause) {
    throw new SendenseError('INVALID_REQUEST', 'the path is not well-formed', { cause });
  }
}

function translate(error: unknown): SendenseError {
  if (error instanceof XmlError) return new SendenseError('INVALID_REQUEST', error.message);
  if (error instanceof VimFault) {
    return new SendenseError('WRONG_STATE', error.message, { details: { fault: error.data.type } });
  }
  return toSendenseError(error);
}
