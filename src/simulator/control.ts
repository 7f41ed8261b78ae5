/** `/simulator/…`: what a person or a test does to the simulated world, as JSON, with the same credentials as `/folder`. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { ERRORS, SendenseError, toSendenseError } from '#/lib/errors.ts';
import { mayRead } from './folder.ts';
import { diskOf, Workload, writeAsGuest } from './guest.ts';
import type { GuestWriteRequest, WorkloadRequest } from './guest.ts';
import { extendDisk } from './reconfigure.ts';
import { changeSettings } from './settings.ts';
import { readBody } from './soap.ts';
import type { World } from './world.ts';

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
      const text = await readBody(request);
      const body: unknown = text === '' ? {} : parseJson(text);
      const result = await this.#run(request.method ?? '', (request.url ?? '').split('?')[0] ?? '', body);
      response.writeHead(200, { 'content-type': 'application/json' }).end(`${JSON.stringify(result)}\n`);
    } catch (error) {
      const known = toSendenseError(error);
      response
        .writeHead(ERRORS[known.code].status, { 'content-type': 'application/json' })
        .end(JSON.stringify(known.toWire()));
    }
  }

  async stop(): Promise<void> {
    for (const workload of this.#workloads.values()) await workload.stop();
  }

  async #run(method: string, path: string, body: unknown): Promise<unknown> {
    const world = this.#world;
    const [, , noun, name, verb] = path.split('/').map((part) => decodeURIComponent(part));
    const what = `${method} ${noun ?? ''}${verb === undefined ? '' : ` ${verb}`}`;
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
        return writeAsGuest(world, world.vmNamed(name ?? ''), body as GuestWriteRequest);
      case 'POST vms workload':
        return this.#startWorkload(name ?? '', body as WorkloadRequest);
      case 'DELETE vms workload':
        return this.#stopWorkload(name ?? '');
      case 'POST vms extend':
        return this.#extend(name ?? '', body as { disk?: number | string; capacityBytes: number });
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
        snapshots: vm.snapshots.map(({ name, moref }) => ({ name, moref })),
        disks: vm.disks
          .filter((disk) => disk.present)
          .map(({ uuid, key, label, capacityBytes }) => ({ uuid, key, label, capacityBytes })),
        workload: this.#workloads.get(vm.moref)?.writtenBytes ?? null,
      })),
      settings: world.settings,
      sessions: world.sessions.live(world.settings.sessionTimeoutMs).length,
      openStreams: world.counters.openStreams,
      requests: Object.fromEntries(world.counters.requests),
      folderBytes: Object.fromEntries(world.counters.folderBytes),
    };
  }

  async #startWorkload(name: string, request: WorkloadRequest): Promise<unknown> {
    const vm = this.#world.vmNamed(name);
    if (!(request.bytesPerSecond > 0)) throw new SendenseError('INVALID_REQUEST', 'bytesPerSecond must be above zero');
    await this.#workloads.get(vm.moref)?.stop();
    this.#workloads.set(vm.moref, new Workload(this.#world, vm, request));
    return { vm: vm.name, running: true };
  }

  async #stopWorkload(name: string): Promise<unknown> {
    const vm = this.#world.vmNamed(name);
    const workload = this.#workloads.get(vm.moref);
    await workload?.stop();
    this.#workloads.delete(vm.moref);
    return { vm: vm.name, writtenBytes: workload?.writtenBytes ?? 0 };
  }

  async #extend(
    name: string,
    { disk, capacityBytes }: { disk?: number | string; capacityBytes: number },
  ): Promise<unknown> {
    const vm = this.#world.vmNamed(name);
    const state = diskOf(vm, disk ?? 0);
    await this.#world.locked(vm, () => extendDisk(this.#world, vm, state, { sizeBytes: capacityBytes, index: 0 }));
    this.#world.store.save();
    return { disk: state.uuid, capacityBytes: state.capacityBytes };
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new SendenseError('INVALID_REQUEST', 'the body is not JSON', { cause });
  }
}
