/** The simulated vCenter: running it and acting on it as its guests and its operator. */
import { join, resolve } from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import { createLogger } from '#/lib/log.ts';
import type { Context, SimulatorFacts } from './context.ts';
import { byteCount, rate, size } from './format.ts';
import { facts, table } from './output.ts';
import { address, EXIT_WITH_PARENT, partSignal } from './parts.ts';
import { command } from './spec.ts';
import { readJson } from './state-lock.ts';

const DIR = {
  dir: { value: 'DIR', required: true, help: 'folder that the simulator keeps its world in' },
} as const;
const DISK = { disk: { value: 'DISK', default: '0', help: 'index, key, uuid or label of the disk' } } as const;
const VM = { vm: { help: 'name or moref of the VM' } } as const;

interface SimulatorStatus {
  vms: {
    name: string;
    powerState: string;
    changeTracking: boolean;
    snapshots: unknown[];
    disks: { capacityBytes: number }[];
    workload: number | null;
  }[];
  settings: Record<string, unknown>;
  sessions: number;
}

export const simulatorCommands = [
  command({
    words: 'simulator run',
    summary: 'Run a simulated vCenter',
    isDefault: true,
    about:
      'A vCenter on HTTPS, on loopback only, with VMs whose disks are real files with file systems, and with change ' +
      'tracking. Its world is made when the folder is empty and survives a restart. User name, password file and ' +
      'thumbprint to add it as a source are printed when it is ready.',
    options: {
      ...DIR,
      listen: { value: 'HOST:PORT', default: '127.0.0.1:8989', help: 'where it listens; port 0 takes a free one' },
      scenario: { value: 'FILE', help: 'what a new world holds, as JSON; default a few ordinary and odd VMs' },
      username: { value: 'USER', help: 'user that may log in, in a new world' },
      passwordFile: { value: 'FILE', help: 'file with the password; default one is made up' },
      ...EXIT_WITH_PARENT,
    },
    examples: ['sendense simulator run --dir /tmp/vcenter'],
    async run(context, { options }) {
      const path = (file: string): string => resolve(context.cwd, file);
      await context.parts.simulator({
        dir: path(options.dir),
        listen: address('--listen', options.listen),
        ...(options.scenario !== undefined && { scenario: path(options.scenario) }),
        ...(options.username !== undefined && { username: options.username }),
        ...(options.passwordFile !== undefined && { passwordFile: path(options.passwordFile) }),
        log: createLogger('simulator'),
        signal: partSignal(context, options.exitWithParent),
        ready: (ready) => context.answer({ document: ready, text: readyText(ready) }),
      });
    },
  }),
  command({
    words: 'simulator status',
    summary: 'Show the VMs and settings of a running simulator',
    options: DIR,
    async run(context, { options }) {
      const status = (await call(context, options.dir, 'GET', 'status')) as SimulatorStatus;
      const vms = table(
        status.vms,
        [
          { title: 'vm', cell: (row) => row.name },
          { title: 'power', cell: (row) => row.powerState },
          { title: 'tracking', cell: (row) => (row.changeTracking ? 'on' : 'off') },
          { title: 'snapshots', right: true, cell: (row) => String(row.snapshots.length) },
          { title: 'disks', cell: (row) => row.disks.map((disk) => size(disk.capacityBytes)).join(', ') },
          { title: 'workload', right: true, cell: (row) => (row.workload === null ? '-' : size(row.workload)) },
        ],
        'no VMs',
      );
      const settings = Object.entries(status.settings).map(([key, value]) => [key, JSON.stringify(value)] as const);
      context.answer({ document: status, text: `${vms}\n${facts([['sessions', `${status.sessions}`], ...settings])}` });
    },
  }),
  command({
    words: 'simulator write',
    summary: 'Let the guest of a simulated VM write to a disk',
    about: 'The blocks are chosen and filled by a seed; what is written is tracked as on a real host.',
    args: VM,
    options: {
      ...DIR,
      ...DISK,
      percent: { value: 'N', default: '1', help: 'share of the blocks of the disk, in percent' },
      blockSize: { value: 'BYTES', default: '64K', help: 'size of a block' },
      seed: { value: 'TEXT', help: 'the same seed writes the same blocks with the same bytes' },
      zero: { help: 'write zeroes' },
    },
    examples: ['sendense simulator write web01 --dir /tmp/vcenter --percent 1'],
    async run(context, { args, options }) {
      const body = {
        disk: options.disk,
        percent: percentOf(options.percent),
        blockBytes: byteCount('--block-size', options.blockSize),
        zero: options.zero,
        ...(options.seed !== undefined && { seed: options.seed }),
      };
      const written = (await call(context, options.dir, 'POST', `${vmPath(args.vm)}/write`, body)) as {
        bytes: number;
        extents: unknown[];
      };
      const text = `${args.vm} wrote ${size(written.bytes)} in ${written.extents.length} places\n`;
      context.answer({ document: written, text });
    },
  }),
  command({
    words: 'simulator workload',
    summary: 'Let the guest of a simulated VM go on writing, or stop that',
    args: VM,
    options: {
      ...DIR,
      ...DISK,
      rate: { value: 'BYTES', default: '1M', help: 'how much it writes per second' },
      stop: { help: 'stop the workload of this VM' },
    },
    async run(context, { args, options }) {
      const path = `${vmPath(args.vm)}/workload`;
      if (options.stop) {
        const stopped = (await call(context, options.dir, 'DELETE', path)) as { writtenBytes: number };
        context.answer({ document: stopped, text: `${args.vm} wrote ${size(stopped.writtenBytes)}\n` });
        return;
      }
      const bytesPerSecond = byteCount('--rate', options.rate);
      const started = await call(context, options.dir, 'POST', path, { disk: options.disk, bytesPerSecond });
      context.answer({ document: started, text: `${args.vm} writes ${rate(bytesPerSecond)}\n` });
    },
  }),
  command({
    words: 'simulator set',
    summary: 'Change a setting of a running simulator',
    about: 'The settings and their present values are in `sendense simulator status`.',
    args: {
      setting: { help: 'name of the setting' },
      value: { help: 'its new value, as JSON: a number, true, false, or a list' },
    },
    options: DIR,
    examples: ['sendense simulator set keepSnapshots true --dir /tmp/vcenter'],
    async run(context, { args, options }) {
      const settings = await call(context, options.dir, 'PUT', 'settings', { [args.setting]: parseValue(args.value) });
      context.answer({ document: settings, text: `${args.setting} is ${args.value}\n` });
    },
  }),
];

/** What a running simulator with this pid says of itself; undefined until it is ready. */
export async function simulatorReady(dir: string, pid: number): Promise<SimulatorFacts | undefined> {
  const found = await readJson<SimulatorFacts>(join(dir, 'simulator.json'));
  return found?.pid === pid ? found : undefined;
}

async function call(context: Context, dir: string, method: string, path: string, body?: unknown): Promise<unknown> {
  return context.parts.simulatorControl(resolve(context.cwd, dir), method, path, body);
}

function vmPath(vm: string): string {
  return `vms/${encodeURIComponent(vm)}`;
}

function readyText(ready: SimulatorFacts): string {
  return (
    `simulated vCenter ready at ${ready.url}, user ${ready.username}\n` +
    `password file ${ready.passwordFile}\nthumbprint    ${ready.thumbprint}\n`
  );
}

function percentOf(text: string): number {
  const value = /^\d{1,3}(\.\d{1,4})?$/.test(text) ? Number(text) : Number.NaN;
  if (value > 0 && value <= 100) return value;
  throw new SendenseError('USAGE', `--percent takes a number above 0 and up to 100, not ${text}`);
}

function parseValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new SendenseError('USAGE', `the value ${text} is not JSON`, { cause });
  }
}
