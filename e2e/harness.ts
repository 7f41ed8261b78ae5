/** The whole product in a folder of its own: simulator in this process, `sendense up` as a child, and the typed client. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createClient } from '#/api/client.ts';
import type { Client } from '#/api/client.ts';
import { isFinal } from '#/api/common.ts';
import type { Job } from '#/api/job.ts';
import type { RestorePoint } from '#/api/restore-point.ts';
import { routes } from '#/api/routes.ts';
import type { Routes } from '#/api/routes.ts';
import { waitFor } from '#/lib/retry.ts';
import { ended, start } from '#/lib/run.ts';
import { compareImages, mapImage } from '#/qemu/img.ts';
import { processesOf } from '#/qemu/processes.ts';
import { startSimulator } from '#/simulator/main.ts';
import type { Simulator } from '#/simulator/main.ts';
import { control } from '#/simulator/client.ts';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const JOB_TIMEOUT_MS = 120_000;

export interface SimulatedVm {
  name: string;
  snapshots: { name: string; moref: string }[];
  disks: { uuid: string; key: number; label: string; capacityBytes: number }[];
}

export interface SimulatorStatus {
  vms: SimulatedVm[];
  sessions: number;
  openStreams: number;
  requests: Record<string, number>;
}

export interface StackOptions {
  scenario?: object;
  /** Environment of `sendense up`. */
  env?: Record<string, string>;
}

export class Stack implements AsyncDisposable {
  readonly dir: string;
  readonly simulator: Simulator;
  readonly stateDir: string;
  readonly repositoryDir: string;
  #up: ChildProcess | undefined;
  #client: Client<Routes> | undefined;
  #upEnded: Promise<unknown> = Promise.resolve();

  private constructor(dir: string, simulator: Simulator) {
    this.dir = dir;
    this.simulator = simulator;
    this.stateDir = join(dir, 'state');
    this.repositoryDir = join(dir, 'repo');
  }

  /** Everything started, a source `vc` and a repository `main` added. */
  static async start(options: StackOptions = {}): Promise<Stack> {
    const dir = await mkdtemp(join(tmpdir(), 'sd-'));
    const simulator = await startSimulator({
      dir: join(dir, 'sim'),
      ...(options.scenario && { scenario: options.scenario }),
    });
    const stack = new Stack(dir, simulator);
    try {
      await stack.settings({ keepSnapshots: true });
      await stack.up(options.env);
      await stack.hub.addSource({
        body: {
          name: 'vc',
          address: simulator.url,
          username: simulator.username,
          password: simulator.password,
          thumbprint: simulator.thumbprint,
        },
      });
      await stack.hub.addRepository({ body: { name: 'main', root: stack.repositoryDir } });
      return stack;
    } catch (error) {
      await stack[Symbol.asyncDispose]();
      throw error;
    }
  }

  get hub(): Client<Routes> {
    assert.ok(this.#client, 'the stack is up');
    return this.#client;
  }

  async up(env: Record<string, string> = {}): Promise<void> {
    const args = [MAIN, 'up', '--state', this.stateDir, '--listen', '127.0.0.1:0', '--json'];
    const child = start(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'], env });
    this.#up = child;
    this.#upEnded = ended('sendense up', child);
    let output = '';
    child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
    await waitFor('sendense up', () => (output.includes('\n') || child.exitCode !== null ? true : undefined), {
      timeoutMs: 60_000,
    });
    assert.equal(child.exitCode, null, `sendense up ended: ${output}`);
    const token = (await readFile(join(this.stateDir, 'token'), 'utf8')).trim();
    const { url } = JSON.parse(await readFile(join(this.stateDir, 'hub.json'), 'utf8')) as { url: string };
    this.#client = createClient(routes, { baseUrl: url, token: () => token, unreachable: 'HUB_UNREACHABLE' });
  }

  async down(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.#up?.kill(signal);
    await this.#upEnded;
    this.#up = undefined;
  }

  /** Process id of a part, as it says itself. */
  async pid(part: 'hub' | 'agent' | 'exportd'): Promise<number> {
    const file = { hub: 'hub.json', agent: 'agent.json', exportd: 'exports/run/status.json' }[part];
    return (JSON.parse(await readFile(join(this.stateDir, file), 'utf8')) as { pid: number }).pid;
  }

  async settings(changes: Record<string, unknown>): Promise<void> {
    await this.control('PUT', 'settings', changes);
  }

  async control(method: string, path: string, body?: unknown): Promise<unknown> {
    const { url, username, password, dir } = this.simulator;
    const cert = await readFile(join(dir, 'cert.pem'), 'utf8');
    return control({ url, username, password, cert }, method, path, body);
  }

  async simulated(): Promise<SimulatorStatus> {
    return (await this.control('GET', 'status')) as SimulatorStatus;
  }

  async guestWrite(
    vm: string,
    request: object,
  ): Promise<{ bytes: number; extents: { offset: number; length: number }[] }> {
    const path = `vms/${encodeURIComponent(vm)}/write`;
    return (await this.control('POST', path, request)) as Awaited<ReturnType<Stack['guestWrite']>>;
  }

  async startBackup(vm: string, type: 'auto' | 'full' | 'incremental' = 'auto', repository = 'main'): Promise<Job> {
    return this.hub.runBackup({ body: { vm, type, repository } });
  }

  /** Waits for the end of a job, also across a restart of the hub. */
  async finished(jobId: string): Promise<Job> {
    return waitFor(
      `job ${jobId}`,
      async () => {
        const job = await this.hub.getJob({ params: { job: jobId } }).catch(() => undefined);
        return job && isFinal(job.status) ? job : undefined;
      },
      { timeoutMs: JOB_TIMEOUT_MS, everyMs: 50 },
    );
  }

  /** A backup that must succeed. */
  async backup(vm: string, type: 'auto' | 'full' | 'incremental' = 'auto'): Promise<RestorePoint> {
    const job = await this.finished((await this.startBackup(vm, type)).id);
    assert.equal(job.status, 'completed', JSON.stringify(job.error));
    return this.hub.getRestorePoint({ params: { point: job.restorePointId ?? '' } });
  }

  /** Waits until bytes of the job have moved. */
  async copying(jobId: string): Promise<Job> {
    return waitFor(
      'bytes to move',
      async () => {
        const job = await this.hub.getJob({ params: { job: jobId } });
        assert.ok(!isFinal(job.status), `the job ended early: ${job.status} ${JSON.stringify(job.error)}`);
        return job.status === 'copying' && (job.progress?.doneBytes ?? 0) > 0 ? job : undefined;
      },
      { timeoutMs: 60_000, everyMs: 10 },
    );
  }

  /** Restores every disk of a point and compares it with the disk as it was at the snapshot. */
  async restoreAndCompare(point: RestorePoint, format: 'raw' | 'qcow2' = 'raw'): Promise<void> {
    const vm = encodeURIComponent(point.vm);
    const kept = join(this.simulator.dir, 'kept', vm, encodeURIComponent(`sendense-${point.jobId}`));
    for (const disk of point.disks) {
      const path = join(this.dir, `restored-${point.id}-${disk.diskIndex}.${format}`);
      const job = await this.hub.restoreDisk({
        body: { restorePoint: point.id, disk: String(disk.diskIndex), path, format },
      });
      const done = await this.finished(job.id);
      assert.equal(done.status, 'completed', JSON.stringify(done.error));
      const truth = join(kept, `disk-${disk.diskIndex}.raw`);
      const { identical } = await compareImages({ path: truth, format: 'raw' }, { path, format });
      assert.ok(identical, `disk ${disk.diskIndex} of ${point.id} differs from the disk at its snapshot`);
      await rm(path);
    }
  }

  /** Everything of ours that should not be there while no job runs. */
  async leftovers(): Promise<string[]> {
    const found: string[] = [];
    for (const vm of (await this.simulated()).vms) {
      for (const snapshot of vm.snapshots) found.push(`snapshot ${snapshot.name} of ${vm.name}`);
    }
    const configs = await readdir(join(this.stateDir, 'exports/config.d'));
    for (const file of configs.filter((name) => name.endsWith('.conf'))) found.push(`export ${file}`);
    for (const { identity } of await this.storageDaemons()) found.push(`storage daemon ${identity.pid}`);
    const folders = await readdir(this.repositoryDir, { recursive: true }).catch(() => [] as string[]);
    for (const folder of folders.filter((name) => name.endsWith('.unfinished'))) found.push(`folder ${folder}`);
    const { items } = await this.hub.listJobs({ query: { open: 'true' } });
    for (const job of items) found.push(`job ${job.id} is ${job.status}`);
    return found;
  }

  async nothingIsLeft(timeoutMs = 60_000): Promise<void> {
    let last: string[] = [];
    await waitFor(
      'everything to be cleared up',
      async () => {
        last = await this.leftovers().catch((error: unknown) => [String(error)]);
        return last.length === 0 ? true : undefined;
      },
      { timeoutMs, everyMs: 200 },
    ).catch(() => assert.deepEqual(last, []));
  }

  /** The storage daemons of this stack only. */
  async storageDaemons(): Promise<Awaited<ReturnType<typeof processesOf>>> {
    const all = await processesOf('qemu-storage-daemon');
    return all.filter(({ args }) => args.some((argument) => argument.includes(this.stateDir)));
  }

  async mapOf(point: RestorePoint, index: number): Promise<Awaited<ReturnType<typeof mapImage>>> {
    const disk = point.disks.find((one) => one.diskIndex === index);
    return mapImage({ path: join(this.repositoryDir, disk?.imagePath ?? ''), format: 'qcow2' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.down();
    await this.simulator.close();
    await rm(this.dir, { recursive: true, force: true });
  }
}
