/** What a simulated vCenter holds when it starts for the first time; see docs/simulator.md for the file's form. */
import { readFile } from 'node:fs/promises';
import { SendenseError } from '#/lib/errors.ts';
import { contentProblem, isGuestContent } from './guest-disk.ts';
import type { GuestContent } from './guest-disk.ts';
import { changeSettings, DEFAULT_SETTINGS } from './settings.ts';
import type { Settings } from './settings.ts';
import type { ConnectionState, ControllerState, DiskDevice, PowerState, ToolsState } from './state.ts';

const MAX_DISK_BYTES = 64 * 1024 ** 4;
const MAX_DISKS = 60;

export interface ScenarioDisk {
  sizeBytes: number;
  content: GuestContent;
  label?: string;
  thin: boolean;
  mode: DiskDevice['mode'];
  sharing: DiskDevice['sharing'];
  backing: DiskDevice['backing'];
  uuid?: string;
}

export interface ScenarioVm {
  name: string;
  moref?: string;
  folder: string;
  datastore?: string;
  powerState: PowerState;
  connectionState: ConnectionState;
  tools: ToolsState;
  hardwareVersion: number;
  guestId: string;
  guestFullName: string;
  firmware: 'bios' | 'efi';
  controller: ControllerState['type'];
  numCpu: number;
  memoryMb: number;
  annotation: string;
  template: boolean;
  encrypted: boolean;
  changeTracking: boolean;
  disks: ScenarioDisk[];
}

export interface Scenario {
  datacenter: string;
  seed: string;
  settings: Settings;
  datastores: { name: string; type: 'NFS' | 'VMFS' }[];
  vms: ScenarioVm[];
}

export async function readScenario(path: string): Promise<Scenario> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new SendenseError('CONFIG_INVALID', `the scenario ${path} cannot be read`, { details: { path }, cause });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SendenseError('CONFIG_INVALID', `${path} is not JSON: ${reason}`, { details: { path }, cause });
  }
  return parseScenario(value);
}

/** Checks a scenario and fills in what it leaves out; CONFIG_INVALID names the place of the first fault. */
export function parseScenario(value: unknown): Scenario {
  const root = new Section(value, 'scenario');
  const scenario: Scenario = {
    datacenter: root.text('datacenter', 'dc01'),
    seed: root.text('seed', 'sendense'),
    settings: readSettings(root.optional('settings')),
    datastores: root.list('datastores', [{}]).map(readDatastore),
    vms: root.list('vms').map(readVm),
  };
  root.end();
  checkUnique(
    'vms',
    'name',
    scenario.vms.map((vm) => vm.name),
  );
  checkUnique(
    'vms',
    'moref',
    scenario.vms.flatMap((vm) => (vm.moref === undefined ? [] : [vm.moref])),
  );
  checkUnique(
    'datastores',
    'name',
    scenario.datastores.map((datastore) => datastore.name),
  );
  for (const vm of scenario.vms) {
    const known =
      vm.datastore === undefined || scenario.datastores.some((datastore) => datastore.name === vm.datastore);
    if (!known) throw invalid(`vms "${vm.name}".datastore`, `there is no datastore ${vm.datastore}`);
  }
  return scenario;
}

function readSettings(value: unknown): Settings {
  const settings = structuredClone(DEFAULT_SETTINGS);
  if (value === undefined) return settings;
  try {
    changeSettings(settings, value);
  } catch (cause) {
    throw invalid('scenario.settings', cause instanceof Error ? cause.message : String(cause));
  }
  return settings;
}

function readDatastore(value: unknown, index: number): Scenario['datastores'][number] {
  const section = new Section(value, `datastores[${index}]`);
  const datastore = {
    name: section.text('name', `datastore${index + 1}`, /^[^/[\]]{1,42}$/),
    type: section.choice('type', ['NFS', 'VMFS'], 'NFS'),
  };
  section.end();
  return datastore;
}

function readVm(value: unknown, index: number): ScenarioVm {
  const section = new Section(value, `vms[${index}]`);
  const moref = section.optionalText('moref', /^[\w.-]{1,60}$/);
  const datastore = section.optionalText('datastore', /^.{1,42}$/);
  const vm: ScenarioVm = {
    name: section.text('name', undefined, /^.{1,80}$/u),
    ...(moref !== undefined && { moref }),
    folder: section.text('folder', '', /^.{0,400}$/u),
    ...(datastore !== undefined && { datastore }),
    powerState: section.choice('powerState', ['poweredOn', 'poweredOff', 'suspended'], 'poweredOn'),
    connectionState: section.choice(
      'connectionState',
      ['connected', 'disconnected', 'inaccessible', 'orphaned', 'invalid'],
      'connected',
    ),
    tools: section.choice('tools', ['running', 'notRunning', 'notInstalled'], 'running'),
    hardwareVersion: section.number('hardwareVersion', 19, 3, 30),
    guestId: section.text('guestId', 'debian12_64Guest', /^\w{1,60}$/),
    guestFullName: section.text('guestFullName', 'Debian GNU/Linux 12 (64-bit)'),
    firmware: section.choice('firmware', ['bios', 'efi'], 'efi'),
    controller: section.choice(
      'controller',
      ['ParaVirtualSCSIController', 'VirtualLsiLogicController', 'VirtualAHCIController', 'VirtualNVMEController'],
      'ParaVirtualSCSIController',
    ),
    numCpu: section.number('numCpu', 2, 1, 768),
    memoryMb: section.number('memoryMb', 2048, 4, 25_165_824),
    annotation: section.text('annotation', '', /^[\s\S]{0,4000}$/),
    template: section.flag('template', false),
    encrypted: section.flag('encrypted', false),
    changeTracking: section.flag('changeTracking', false),
    disks: section.list('disks').map((disk, at) => readDisk(disk, `vms[${index}].disks[${at}]`)),
  };
  section.end();
  if (vm.disks.length > MAX_DISKS) throw invalid(`vms[${index}].disks`, `a VM has at most ${MAX_DISKS} disks`);
  checkUnique(
    `vms[${index}].disks`,
    'uuid',
    vm.disks.flatMap((disk) => (disk.uuid === undefined ? [] : [disk.uuid.toLowerCase()])),
  );
  return vm;
}

export function readDisk(value: unknown, path: string): ScenarioDisk {
  const section = new Section(value, path);
  const label = section.optionalText('label', /^.{1,80}$/u);
  const uuid = section.optionalText('uuid', /^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$/);
  const content = section.optional('content') ?? 'blank';
  if (!isGuestContent(content)) {
    throw invalid(`${path}.content`, 'must be "ext4", "partitioned", "blank" or "random:PERCENT"');
  }
  const disk: ScenarioDisk = {
    sizeBytes: section.number('sizeBytes', undefined, 512, MAX_DISK_BYTES),
    content,
    ...(label !== undefined && { label }),
    thin: section.flag('thin', true),
    mode: section.choice('mode', ['persistent', 'independent_persistent', 'independent_nonpersistent'], 'persistent'),
    sharing: section.choice('sharing', ['sharingNone', 'sharingMultiWriter'], 'sharingNone'),
    backing: section.choice('backing', ['flat', 'physicalRdm'], 'flat'),
    ...(uuid !== undefined && { uuid }),
  };
  section.end();
  if (disk.sizeBytes % 512 !== 0) throw invalid(`${path}.sizeBytes`, 'must be a multiple of 512');
  const problem = contentProblem(content, disk.sizeBytes);
  if (problem !== undefined) throw invalid(path, problem);
  return disk;
}

function invalid(path: string, problem: string): SendenseError {
  return new SendenseError('CONFIG_INVALID', `${path}: ${problem}`, { details: { path } });
}

function checkUnique(path: string, field: string, values: string[]): void {
  const twice = values.find((value, index) => values.indexOf(value) !== index);
  if (twice !== undefined) throw invalid(path, `two entries have the ${field} ${JSON.stringify(twice)}`);
}

/** One object of the file: every read takes a key away, `end` refuses what is left over. */
class Section {
  readonly #path: string;
  readonly #left: Map<string, unknown>;

  constructor(value: unknown, path: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(path, 'must be an object');
    this.#path = path;
    this.#left = new Map(Object.entries(value));
  }

  optional(key: string): unknown {
    const value = this.#left.get(key);
    this.#left.delete(key);
    return value;
  }

  text(key: string, fallback?: string, pattern: RegExp = /^.{1,200}$/): string {
    const value = this.optional(key) ?? fallback;
    if (typeof value !== 'string' || !pattern.test(value)) {
      throw invalid(`${this.#path}.${key}`, `must be text that fits ${pattern.source}`);
    }
    return value;
  }

  optionalText(key: string, pattern: RegExp): string | undefined {
    return this.#left.has(key) ? this.text(key, undefined, pattern) : undefined;
  }

  number(key: string, fallback: number | undefined, min: number, max: number): number {
    const value = this.optional(key) ?? fallback;
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
      throw invalid(`${this.#path}.${key}`, `must be a whole number from ${min} to ${max}`);
    }
    return value;
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.optional(key) ?? fallback;
    if (typeof value !== 'boolean') throw invalid(`${this.#path}.${key}`, 'must be true or false');
    return value;
  }

  choice<T extends string>(key: string, allowed: readonly T[], fallback: T): T {
    const value = this.optional(key) ?? fallback;
    const found = allowed.find((entry) => entry === value);
    if (found === undefined) throw invalid(`${this.#path}.${key}`, `must be one of ${allowed.join(', ')}`);
    return found;
  }

  list(key: string, fallback?: unknown[]): unknown[] {
    const value = this.optional(key) ?? fallback;
    if (!Array.isArray(value) || value.length > 5000) throw invalid(`${this.#path}.${key}`, 'must be a list');
    return value as unknown[];
  }

  end(): void {
    const [unknown] = this.#left.keys();
    if (unknown !== undefined) throw invalid(`${this.#path}.${unknown}`, 'is not known here');
  }
}
