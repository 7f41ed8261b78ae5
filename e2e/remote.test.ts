/** An agent as on another machine: mutual TLS with the hub, and into the exports through the front door. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createClient } from '#/api/client.ts';
import { isFinal } from '#/api/common.ts';
import { routes } from '#/api/routes.ts';
import { waitFor } from '#/lib/retry.ts';
import { ended, start } from '#/lib/run.ts';
import { compareImages } from '#/qemu/img.ts';
import { DEFAULT_SCENARIO } from '#/simulator/default-scenario.ts';
import { startSimulator } from '#/simulator/main.ts';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));

async function freeAddress(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `127.0.0.1:${port}`;
}

class Part implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #end: Promise<unknown>;

  constructor(...args: string[]) {
    this.#child = start(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'inherit', 'ignore'] });
    this.#end = ended(args[0] ?? '', this.#child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.#end;
  }
}

async function fileAt(path: string): Promise<string> {
  return waitFor(path, () => readFile(path, 'utf8').catch(() => undefined), { timeoutMs: 30_000 });
}

test('an agent with a certificate of the hub backs a VM up through the front door, and nobody else gets in', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'sd-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const at = (name: string): string => join(dir, name);
  for (const folder of ['config', 'run', 'agent']) await mkdir(at(folder), { mode: 0o700 });
  const [door, hubAddress, agentAddress] = [await freeAddress(), await freeAddress(), await freeAddress()];
  const simulator = stack.use(
    await startSimulator({ dir: at('sim'), scenario: { ...DEFAULT_SCENARIO, settings: { keepSnapshots: true } } }),
  );

  const places = ['--exports-config', at('config'), '--exports-run', at('run'), '--front-door', door];
  stack.use(new Part('hub', '--state', at('state'), '--listen', hubAddress, ...places));
  await fileAt(at('state/hub.json'));
  const token = (await fileAt(at('state/token'))).trim();
  const frontDoor = ['--listen', door, '--tls', at('state/pki/front-door')];
  stack.use(new Part('exportd', '--config', at('config'), '--run', at('run'), ...frontDoor));
  const hub = createClient(routes, {
    baseUrl: `http://${hubAddress}`,
    token: () => token,
    unreachable: 'HUB_UNREACHABLE',
  });
  const issued = await hub.addAgent({ body: { name: 'agent-1', url: `https://${agentAddress}` } });
  await writeFile(at('agent/ca-cert.pem'), issued.caCert);
  await writeFile(at('agent/client-cert.pem'), issued.cert);
  await writeFile(at('agent/client-key.pem'), issued.key, { mode: 0o600 });
  const identity = [
    '--name',
    'agent-1',
    '--listen',
    agentAddress,
    '--tls',
    at('agent'),
    '--ready-file',
    at('agent.json'),
  ];
  stack.use(new Part('agent', 'run', ...identity));
  await fileAt(at('agent.json'));
  await fileAt(at('run/status.json'));

  await assert.rejects(fetch(`https://${agentAddress}/api/v1/status`), 'the agent talks to the hub only');
  const { url: address, username, password, thumbprint } = simulator;
  await hub.addSource({ body: { name: 'vc', address, username, password, thumbprint } });
  await hub.addRepository({ body: { name: 'main', root: at('repo') } });
  for (const type of ['full', 'incremental']) {
    const { id } = await hub.runBackup({ body: { vm: 'db01' } });
    const job = await waitFor(
      'the job',
      async () => {
        const state = await hub.getJob({ params: { job: id } });
        return isFinal(state.status) ? state : undefined;
      },
      { timeoutMs: 60_000, everyMs: 50 },
    );
    assert.equal(job.status, 'completed', JSON.stringify(job.error));
    const point = await hub.getRestorePoint({ params: { point: job.restorePointId ?? '' } });
    assert.equal(point.disks[0]?.type, type);
    const path = join(at('repo'), point.disks[0]?.imagePath ?? '');
    const truth = at(`sim/kept/db01/sendense-${id}/disk-0.raw`);
    const { identical } = await compareImages({ path, format: 'qcow2' }, { path: truth, format: 'raw' });
    assert.ok(identical, 'the image holds what the disk held at the snapshot');
  }
});
