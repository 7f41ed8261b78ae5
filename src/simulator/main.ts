/**
 * `sendense simulator`: a vCenter on HTTPS with VMs, real disks and change tracking, for demo, training and tests. Its
 * world lies in one folder and survives a restart; sessions and running tasks do not, as with a real vCenter.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import { writeFileDurably, writeSecretFile } from '#/lib/files.ts';
import { silentLogger } from '#/lib/log.ts';
import type { Logger } from '#/lib/log.ts';
import { serverCertificate } from './certificate.ts';
import { Control } from './control.ts';
import { createInventory } from './create.ts';
import { DEFAULT_SCENARIO } from './default-scenario.ts';
import { answerFolder } from './folder.ts';
import { parseScenario, readScenario } from './scenario.ts';
import { answerSoap, VERSIONS_XML } from './soap.ts';
import { Store } from './state.ts';
import { World } from './world.ts';

export const DEFAULT_USERNAME = 'administrator@vsphere.local';

export interface SimulatorOptions {
  /** Everything lies here; made when missing. */
  dir: string;
  /** Port 0 or none: any free one. Only ever on loopback. */
  port?: number;
  /** A file or a parsed document; read only when `dir` holds no world yet. */
  scenario?: string | object;
  username?: string;
  /** Made up and kept in `<dir>/password` when neither this nor that file is there. */
  password?: string;
  log?: Logger;
  signal?: AbortSignal;
}

export class Simulator implements AsyncDisposable {
  readonly url: string;
  readonly thumbprint: string;
  readonly username: string;
  readonly password: string;
  readonly dir: string;
  readonly #stop: () => Promise<void>;
  #stopped: Promise<void> | undefined;

  constructor(
    facts: Pick<Simulator, 'url' | 'thumbprint' | 'username' | 'password' | 'dir'>,
    stop: () => Promise<void>,
  ) {
    this.url = facts.url;
    this.thumbprint = facts.thumbprint;
    this.username = facts.username;
    this.password = facts.password;
    this.dir = facts.dir;
    this.#stop = stop;
  }

  async close(): Promise<void> {
    this.#stopped ??= this.#stop();
    await this.#stopped;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

export async function startSimulator(options: SimulatorOptions): Promise<Simulator> {
  const { dir } = options;
  const life = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, life.signal]) : life.signal;
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const store = await openStore(options, signal);
  const { username } = store.state;
  const password = await passwordOf(options);
  const certificate = await serverCertificate(dir);
  const world = new World({ store, password, log: options.log ?? silentLogger(), signal });
  const control = new Control(world);
  const server = createServer({ cert: certificate.cert, key: certificate.key }, (request, response) => {
    answer(world, control, request, response).catch((error: unknown) => {
      if (!response.destroyed && !signal.aborted) world.log.warn({ err: error, url: request.url }, 'a request failed');
      response.destroy();
    });
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(options.port ?? 0, '127.0.0.1', resolve);
  await promise;
  const { port } = server.address() as AddressInfo;
  const url = `https://127.0.0.1:${port}`;
  return new Simulator({ url, thumbprint: certificate.thumbprint, username, password, dir }, async () => {
    await control.stop();
    const closed = new Promise((done) => server.close(done));
    life.abort();
    server.closeAllConnections();
    await closed;
    await world[Symbol.asyncDispose]();
    store.save();
  });
}

async function answer(
  world: World,
  control: Control,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const path = (request.url ?? '/').split('?')[0] ?? '/';
  if (path === '/sdk' || path === '/sdk/') return answerSoap(world, request, response);
  if (path === '/sdk/vimServiceVersions.xml') {
    response.writeHead(200, { 'content-type': 'text/xml' }).end(VERSIONS_XML);
    return;
  }
  if (path.startsWith('/folder/')) return answerFolder(world, request, response);
  if (path.startsWith('/simulator/')) return control.answer(request, response);
  response.writeHead(404).end();
}

async function openStore(options: SimulatorOptions, signal: AbortSignal): Promise<Store> {
  const state = Store.load(options.dir);
  if (state) return new Store(options.dir, state);
  const { scenario } = options;
  const parsed =
    typeof scenario === 'string' ? await readScenario(scenario) : parseScenario(scenario ?? DEFAULT_SCENARIO);
  return createInventory(options.dir, parsed, { username: options.username ?? DEFAULT_USERNAME, signal });
}

async function passwordOf({ dir, password }: SimulatorOptions): Promise<string> {
  const path = join(dir, 'password');
  const kept = (await readFile(path, 'utf8').catch(() => '')).trim();
  const chosen = password ?? (kept === '' ? randomBytes(12).toString('base64url') : kept);
  if (chosen !== kept) await writeSecretFile(path, `${chosen}\n`);
  return chosen;
}

export interface RunSimulatorOptions {
  dir: string;
  /** `127.0.0.1:PORT`; nothing but loopback. */
  listen: string;
  scenario?: string;
  username?: string;
  passwordFile?: string;
  log: Logger;
  signal: AbortSignal;
  /** Called once it serves. */
  ready: (facts: SimulatorFacts) => void;
}

export interface SimulatorFacts {
  url: string;
  thumbprint: string;
  username: string;
  passwordFile: string;
  dir: string;
  pid: number;
}

/** Runs until the signal is aborted. `<dir>/simulator.json` tells the control commands where it is. */
export async function runSimulator(options: RunSimulatorOptions): Promise<void> {
  const port = /^(?:127\.0\.0\.1|localhost):(\d{1,5})$/.exec(options.listen)?.[1];
  if (port === undefined) {
    throw new SendenseError('CONFIG_INVALID', 'the simulator listens on loopback only: 127.0.0.1:PORT');
  }
  const { dir, scenario, username, passwordFile, log, signal } = options;
  const password = passwordFile === undefined ? undefined : (await readFile(passwordFile, 'utf8')).trim();
  await using simulator = await startSimulator({
    dir,
    port: Number(port),
    log,
    ...(scenario !== undefined && { scenario }),
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
  });
  const facts: SimulatorFacts = {
    url: simulator.url,
    thumbprint: simulator.thumbprint,
    username: simulator.username,
    passwordFile: join(dir, 'password'),
    dir,
    pid: process.pid,
  };
  await writeFileDurably(join(dir, 'simulator.json'), `${JSON.stringify(facts)}\n`);
  options.ready(facts);
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
}
