/** Real NBD servers, each in the foreground, on sockets in the test's own folder, and ended by their own process. */
import type { ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hasCode } from '#/lib/errors.ts';
import { waitFor } from '#/lib/retry.ts';
import { ended, run, start } from '#/lib/run.ts';

/** A folder for one test, removed after it. */
export class Scratch implements AsyncDisposable {
  readonly dir: string;

  constructor(dir: string) {
    this.dir = dir;
  }

  path(name: string): string {
    return join(this.dir, name);
  }

  uri(socket: string, exportName = ''): string {
    return `nbd+unix:///${exportName}?socket=${this.path(socket)}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.dir, { recursive: true, force: true });
  }
}

export async function scratch(): Promise<Scratch> {
  return new Scratch(await mkdtemp(join(tmpdir(), 'sendense-e2e-nbd-')));
}

export class ServerProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #stderr = '';
  #over = false;

  constructor(program: string, args: readonly string[]) {
    this.#child = start(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child.stderr?.on('data', (text: Buffer) => (this.#stderr += text.toString()));
    this.#ended = ended(program, this.#child).finally(() => (this.#over = true));
    this.#ended.catch(() => undefined); // thrown where it is waited for
  }

  /** Waits until something accepts connections there. */
  async listening(where: { path: string } | { host: string; port: number }): Promise<void> {
    await waitFor(
      'the NBD server',
      async () => {
        if (this.#over) throw new Error(`the server ended: ${this.#stderr}`);
        return (await accepts(where)) ? true : undefined;
      },
      { timeoutMs: 20_000 },
    );
  }

  /** kill -9, and wait until it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  /** Orderly end; one that does not end by itself in time is a failure, but is killed all the same. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#over) return;
    this.#child.kill('SIGTERM');
    try {
      await waitFor('the NBD server to end', () => this.#over || undefined, { timeoutMs: 10_000 });
    } catch (error) {
      await this.kill();
      if (hasCode(error, 'TIMEOUT')) throw new Error(`the server had to be killed: ${this.#stderr}`, { cause: error });
      throw error;
    }
  }
}

async function accepts(where: { path: string } | { host: string; port: number }): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(where, () => resolve(true));
  socket.on('error', () => resolve(false));
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}

export async function nbdkit(dir: Scratch, socket: string, ...args: string[]): Promise<ServerProcess> {
  const server = new ServerProcess('nbdkit', ['--foreground', '--unix', dir.path(socket), ...args]);
  await server.listening({ path: dir.path(socket) });
  return server;
}

export interface StorageDaemonOptions {
  image: string;
  writable?: boolean;
  /** Folder of TLS certificates; clients must then show theirs. */
  tls?: string;
}

/** One qcow2 image as export `disk`, set up as sendense does it. */
export async function storageDaemon(
  dir: Scratch,
  socket: string,
  options: StorageDaemonOptions,
): Promise<ServerProcess> {
  const { image, writable = false, tls } = options;
  const node = {
    driver: 'qcow2',
    'node-name': 'disk',
    'read-only': !writable,
    discard: 'unmap',
    'detect-zeroes': 'unmap',
    file: { driver: 'file', filename: dir.path(image) },
  };
  const credentials =
    tls === undefined ? [] : ['--object', `tls-creds-x509,id=tls,endpoint=server,verify-peer=yes,dir=${tls}`];
  const listen = `addr.type=unix,addr.path=${dir.path(socket)},max-connections=16${tls === undefined ? '' : ',tls-creds=tls'}`;
  const exported = `type=nbd,id=e,node-name=disk,name=disk,allocation-depth=on,writable=${writable ? 'on' : 'off'}`;
  const args = ['--blockdev', JSON.stringify(node), ...credentials, '--nbd-server', listen, '--export', exported];
  const server = new ServerProcess('qemu-storage-daemon', args);
  await server.listening({ path: dir.path(socket) });
  return server;
}

export async function qemuNbd(dir: Scratch, socket: string, ...args: string[]): Promise<ServerProcess> {
  const server = new ServerProcess('qemu-nbd', ['--persistent', '--shared=8', `--socket=${dir.path(socket)}`, ...args]);
  await server.listening({ path: dir.path(socket) });
  return server;
}

/** The classic server with one raw file as export `disk`. It serves more than one client only as a daemon of its own. */
export async function nbdServer(dir: Scratch, socket: string, file: string): Promise<AsyncDisposable> {
  const generic = ['[generic]', `unixsock = ${dir.path(socket)}`, 'duallisten = false', 'allowlist = false'];
  const section = ['[disk]', `exportname = ${dir.path(file)}`, 'flush = true', 'fua = true', 'trim = true'];
  await writeFile(dir.path('nbd-server.conf'), `${[...generic, ...section].join('\n')}\n`);
  const pidFile = dir.path('nbd-server.pid');
  await run('nbd-server', ['-C', dir.path('nbd-server.conf'), '-p', pidFile]);
  const started = async (): Promise<number | undefined> =>
    Number(await readFile(pidFile, 'utf8').catch(() => '')) || undefined;
  const pid = await waitFor('nbd-server to write its pid', started, { timeoutMs: 10_000 });
  await waitFor('nbd-server', async () => (await accepts({ path: dir.path(socket) })) || undefined, {
    timeoutMs: 10_000,
  });
  return {
    [Symbol.asyncDispose]: async () => {
      process.kill(pid, 'SIGTERM');
      await waitFor('nbd-server to end', () => !alive(pid) || undefined, { timeoutMs: 10_000 });
    },
  };
}

function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

export async function freePort(): Promise<number> {
  const probe = createServer();
  const { promise, resolve } = Promise.withResolvers<void>();
  probe.listen(0, '127.0.0.1', resolve);
  await promise;
  const address = probe.address();
  probe.close();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** A CA with a server certificate (localhost, 127.0.0.1) and a client certificate, all in one folder. */
export async function certificates(folder: string): Promise<void> {
  const file = (name: string): string => join(folder, name);
  const openssl = async (...args: string[]): Promise<unknown> => run('openssl', args);
  const key = async (name: string): Promise<unknown> =>
    openssl(
      'genpkey',
      '-quiet',
      '-algorithm',
      'EC',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-out',
      file(`${name}-key.pem`),
    );
  await key('ca');
  const ca = ['-subj', '/CN=test CA', '-addext', 'basicConstraints=critical,CA:TRUE', '-out', file('ca-cert.pem')];
  await openssl('req', '-x509', '-new', '-days', '2', '-key', file('ca-key.pem'), ...ca);
  for (const [name, extensions] of [
    ['server', 'extendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n'],
    ['client', 'extendedKeyUsage=clientAuth\nsubjectAltName=DNS:agent-1\n'],
  ] as const) {
    await key(name);
    await writeFile(file(`${name}.ext`), extensions);
    await openssl('req', '-new', '-key', file(`${name}-key.pem`), '-subj', `/CN=${name}`, '-out', file(`${name}.csr`));
    const issuer = ['-CA', file('ca-cert.pem'), '-CAkey', file('ca-key.pem'), '-CAcreateserial', '-days', '2'];
    const output = ['-extfile', file(`${name}.ext`), '-out', file(`${name}-cert.pem`)];
    await openssl('x509', '-req', '-in', file(`${name}.csr`), ...issuer, ...output);
  }
}
