/**
 * `sendense demo`: the whole product in a minute, without a vCenter. Everything it does to sendense goes through the
 * commands that a user has; only the comparison at the end looks at the files themselves.
 */
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Job } from '#/api/job.ts';
import type { RestorePoint } from '#/api/restore-point.ts';
import type { Vm } from '#/api/vm.ts';
import { elapsedMs } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import type { Context, SimulatorFacts } from './context.ts';
import { allIdentical, reportDisk, reportTable, secondsOf } from './demo-report.ts';
import type { PointReport } from './demo-report.ts';
import { clean } from './format.ts';
import { Part } from './part.ts';
import { say } from './progress.ts';
import { simulatorReady } from './simulator.ts';
import { command } from './spec.ts';
import { both, shellWord, untilStopped, Up } from './up.ts';

export const demoCommands = [
  command({
    words: 'demo',
    summary: 'Show the whole product in a minute, without a vCenter',
    about:
      'Starts the simulator, hub, export daemon and agent on loopback in a fresh folder, backs up a VM with two disks in ' +
      'full, lets its guest change one percent, backs it up incrementally, restores both points and compares every disk ' +
      'with what it was at that snapshot. On a terminal everything stays up to be looked at until Ctrl-C.',
    options: {
      dir: {
        value: 'DIR',
        help: 'folder for everything, empty or not there yet; default a new one for temporary files',
      },
      once: { help: 'end after the comparison and remove the folder' },
      keep: { help: 'with --once: keep the folder' },
    },
    examples: ['sendense demo', 'sendense demo --once --json'],
    async run(context, { options }) {
      const stays = !options.once && context.io.stdout.isTTY === true;
      const dir = await freshFolder(context, options.dir);
      const demo = new Demo(context, dir, { stays, keeps: stays || !options.once || options.keep });
      let identical = false;
      try {
        await using stack = new AsyncDisposableStack();
        identical = await demo.run(stack);
        if (stays) await untilStopped(context.signal);
      } finally {
        // A folder that shows what went wrong is kept.
        if (!demo.keeps && (identical || context.signal.aborted)) await rm(dir, { recursive: true });
        else context.io.stderr.write(`${stays ? '\n' : ''}everything is kept in ${dir}\n`);
      }
      if (!identical)
        throw new SendenseError('IMAGE_DAMAGED', 'a restored disk differs from what it was at its snapshot');
    },
  }),
];

class Demo {
  readonly keeps: boolean;
  readonly #context: Context;
  readonly #dir: string;
  readonly #state: string;
  readonly #vcenter: string;
  readonly #startedMs = elapsedMs();

  readonly #stays: boolean;

  constructor(context: Context, dir: string, ending: { stays: boolean; keeps: boolean }) {
    this.keeps = ending.keeps;
    this.#stays = ending.stays;
    this.#context = context;
    this.#dir = dir;
    this.#state = join(dir, 'state');
    this.#vcenter = join(dir, 'vcenter');
  }

  /** True when every disk of every point came back identical. What it starts is put on the stack. */
  async run(stack: AsyncDisposableStack): Promise<boolean> {
    this.#say('starting a simulated vCenter, then hub, export daemon and agent');
    const [simulator, up] = await both(this.#startSimulator(), Up.start(this.#context, this.#state, '127.0.0.1:0'));
    stack.use(simulator);
    stack.use(up);
    const vm = await this.#prepare(simulator);
    const first = await this.#backup(vm, '--type', 'full');
    const changedBytes = await this.#letGuestWrite(vm);
    const second = await this.#backup(vm);
    const points: PointReport[] = [];
    for (const [index, { point, kept }] of [first, second].entries()) {
      points.push(await this.#restore(point, kept, join(this.#dir, 'restored', `point-${index + 1}`)));
    }
    return this.#report(vm, points, changedBytes);
  }

  async #startSimulator(): Promise<Part<SimulatorFacts>> {
    const { io, self, signal } = this.#context;
    const logs = join(this.#state, 'logs');
    await mkdir(this.#vcenter, { mode: 0o700 });
    await mkdir(logs, { recursive: true, mode: 0o700 });
    return Part.start<SimulatorFacts>(
      {
        name: 'simulator',
        self,
        args: () => ['simulator', 'run', '--exit-with-parent', '--listen', '127.0.0.1:0', '--dir', this.#vcenter],
        logFile: join(logs, 'simulator.log'),
        notice: (line) => say(io.stderr, clean(line)),
        ready: async (pid) => simulatorReady(this.#vcenter, pid),
      },
      signal,
    );
  }

  async #prepare({ facts }: Part<SimulatorFacts>): Promise<Vm> {
    if (!facts) throw new SendenseError('SOURCE_UNREACHABLE', 'the simulator has ended');
    // The copies that restored disks are compared with later.
    await this.#sendense('simulator', 'set', 'keepSnapshots', 'true', '--dir', this.#vcenter);
    const login = ['--username', facts.username, '--password-file', facts.passwordFile];
    await this.#sendense('source', 'add', 'demo', '--address', facts.url, ...login, '--thumbprint', facts.thumbprint);
    const repository = join(this.#dir, 'repository');
    await mkdir(repository, { mode: 0o700 });
    await this.#sendense('repository', 'add', 'main', repository);
    const { items } = (await this.#sendense('vm', 'ls', '--refresh')) as { items: Vm[] };
    const fits = ({ disks, powerState }: Vm): boolean =>
      powerState === 'poweredOn' && disks.length > 1 && disks.every((disk) => disk.diskMode === 'persistent');
    const vm = items.find(fits);
    if (!vm) throw new SendenseError('VM_NOT_FOUND', 'the simulated vCenter has no running VM with two disks');
    return vm;
  }

  /** Backs up and finds the copies that the vCenter kept of the snapshot this made. */
  async #backup(vm: Vm, ...options: string[]): Promise<{ point: RestorePoint; kept: string }> {
    const before = new Set(await this.#keptSnapshots(vm));
    const job = (await this.#sendense('backup', 'run', vm.name, ...options, '--wait')) as Job;
    const made = (await this.#keptSnapshots(vm)).filter((name) => !before.has(name));
    const [kept] = made;
    if (kept === undefined || made.length > 1) {
      throw new SendenseError('INTERNAL', `a backup makes one snapshot of all disks, the vCenter saw ${made.length}`);
    }
    const point = (await this.#invoke(['backup', 'show', job.restorePointId ?? ''])) as RestorePoint;
    return { point, kept: join(this.#vcenter, 'kept', encodeURIComponent(vm.name), kept) };
  }

  async #keptSnapshots(vm: Vm): Promise<string[]> {
    try {
      return await readdir(join(this.#vcenter, 'kept', encodeURIComponent(vm.name)));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  }

  async #letGuestWrite(vm: Vm): Promise<number> {
    let bytes = 0;
    for (const index of vm.disks.keys()) {
      const where = ['--dir', this.#vcenter, '--disk', String(index)];
      const written = await this.#sendense('simulator', 'write', vm.name, '--percent', '1', ...where);
      bytes += (written as { bytes: number }).bytes;
    }
    return bytes;
  }

  async #restore(point: RestorePoint, kept: string, into: string): Promise<PointReport> {
    await mkdir(into, { recursive: true, mode: 0o700 });
    const disks = [];
    for (const disk of point.disks) {
      const name = `disk-${disk.diskIndex}.raw`;
      const [restored, reference] = [join(into, name), join(kept, name)];
      await this.#sendense('restore', 'disk', point.id, '--disk', String(disk.diskIndex), '--to', restored);
      this.#say(`$ qemu-img compare -f raw -F raw ${restored} ${reference}`);
      const compared = await this.#context.parts.compareDisks(restored, reference, this.#context.signal);
      disks.push(reportDisk(point, disk, { ...compared, restored, reference }));
    }
    return { point: point.id, seconds: secondsOf(point), disks };
  }

  #report(vm: Vm, points: PointReport[], changedBytes: number): boolean {
    const identical = allIdentical(points);
    const seconds = Math.round((elapsedMs() - this.#startedMs) / 100) / 10;
    const places = {
      dir: this.#dir,
      state: this.#state,
      repository: join(this.#dir, 'repository'),
      vcenter: this.#vcenter,
      restored: join(this.#dir, 'restored'),
      logs: join(this.#state, 'logs'),
    };
    const verdict = identical
      ? `All ${points.length} restore points came back identical, ${seconds} s in total.`
      : 'A RESTORED DISK DIFFERS FROM WHAT IT WAS AT ITS SNAPSHOT.';
    const text = [`\n${reportTable(points)}`, verdict, ...this.#whereToLook(vm, points, places), ''].join('\n');
    this.#context.answer({ document: { identical, seconds, vm: vm.name, changedBytes, points, places }, text });
    return identical;
  }

  #whereToLook(vm: Vm, points: readonly PointReport[], places: Record<string, string>): string[] {
    if (!this.keeps) return [];
    const lines = ['', ...Object.entries(places).map(([name, path]) => `${name.padEnd(12)}${path}`)];
    if (!this.#stays) return lines;
    const shown = points.at(-1)?.disks.at(-1)?.restored ?? '';
    return [
      ...lines,
      '',
      'To look further, in another shell while this runs (Ctrl-C ends it):',
      `  export SENDENSE_STATE=${shellWord(this.#state)}`,
      `  sendense backup ls; sendense chain show ${shellWord(vm.name)}; sendense job ls`,
      `  sendense simulator write ${shellWord(vm.name)} --dir ${shellWord(this.#vcenter)}`,
      `  sendense backup run ${shellWord(vm.name)} --wait`,
      `  qemu-img info ${shellWord(shown)}`,
    ];
  }

  async #sendense(...argv: string[]): Promise<unknown> {
    this.#say(`$ sendense ${argv.map(shellWord).join(' ')}`);
    return this.#invoke(argv);
  }

  async #invoke(argv: readonly string[]): Promise<unknown> {
    // The simulator's own commands do not speak with the hub.
    const connection = argv[0] === 'simulator' ? {} : { state: this.#state };
    return this.#context.invoke(argv, connection);
  }

  #say(line: string): void {
    const { json, io } = this.#context;
    if (!json || io.stderr.isTTY === true) say(io.stderr, line);
  }
}

async function freshFolder(context: Context, wanted: string | undefined): Promise<string> {
  if (wanted === undefined) return mkdtemp(join(tmpdir(), 'sendense-demo-'));
  const dir = resolve(context.cwd, wanted);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  if ((await readdir(dir)).length > 0) throw new SendenseError('ALREADY_EXISTS', `${dir} is not empty`);
  return dir;
}
