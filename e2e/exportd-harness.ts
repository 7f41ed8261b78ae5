/** A real export daemon in a folder of its own, certificates for its front door, and raw NBD for rude clients. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ExportStatus } from '#/api/export-status.ts';
import type { ExportEntry } from '#/api/export-status.ts';
import { waitFor } from '#/lib/retry.ts';
import { ended, run, start } from '#/lib/run.ts';
import { encodeGo, encodeOption } from '#/nbd/codec.ts';
import { NBD_OPT_GO } from '#/nbd/constants.ts';
import { findStorageDaemons } from '#/qemu/storage-daemon.ts';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));

export interface ExportConfig {
  name?: string;
  image: string;
  readOnly?: boolean;
  agent?: string;
  size?: number;
}

export class ExportDaemon {
  readonly dir: string;
  readonly configDir: string;
  readonly runDir: string;
  #child: ChildProcess | undefined;
  #end: Promise<{ code: number | null; signal: string | null }> | undefined;
  readonly #args: string[];

  private constructor(dir: string, args: string[]) {
    this.dir = dir;
    this.configDir = join(dir, 'config.d');
    this.runDir = join(dir, 'run');
    this.#args = args;
  }

  /** With `tlsDir` it has a front door. When the test is over nothing of it may be left. */
  static async start(t: TestContext, tlsDir?: string): Promise<ExportDaemon> {
    const dir = await mkdtemp(join(tmpdir(), 'sd-exp-'));
    const daemon = new ExportDaemon(dir, tlsDir === undefined ? [] : ['--listen', '127.0.0.1:0', '--tls', tlsDir]);
    t.after(async () => {
      try {
        await daemon.stop();
        assert.deepEqual(await daemon.leftovers(), []);
      } finally {
        for (const { identity } of await findStorageDaemons(join(daemon.runDir, 'e')))
          process.kill(identity.pid, 'SIGKILL');
        await rm(dir, { recursive: true, force: true });
      }
    });
    await mkdir(daemon.configDir);
    await daemon.up();
    return daemon;
  }

  async up(): Promise<void> {
    const log = await open(join(this.dir, 'log'), 'a');
    const args = [MAIN, 'exportd', '--config', this.configDir, '--run', this.runDir, ...this.#args];
    this.#child = start(process.execPath, args, { stdio: ['ignore', 'ignore', log.fd] });
    await log.close();
    this.#end = ended('exportd', this.#child);
    const { pid } = this.#child;
    await this.until('the daemon is up', (status) => status.pid === pid && status.generation > 0);
  }

  get pid(): number {
    assert.ok(this.#child?.pid);
    return this.#child.pid;
  }

  async kill(): Promise<void> {
    process.kill(this.pid, 'SIGKILL');
    await this.#end;
    this.#child = undefined;
  }

  async stop(): Promise<void> {
    this.#child?.kill('SIGTERM');
    const end = await this.#end;
    if (this.#child) assert.equal(end?.code, 0, await this.log());
    this.#child = undefined;
  }

  async log(): Promise<string> {
    return readFile(join(this.dir, 'log'), 'utf8');
  }

  /** Storage daemons of this run folder that still run, by process id. */
  async leftovers(): Promise<number[]> {
    return (await findStorageDaemons(join(this.runDir, 'e'))).map(({ identity }) => identity.pid);
  }

  async status(): Promise<ExportStatus> {
    return ExportStatus.parse(JSON.parse(await readFile(join(this.runDir, 'status.json'), 'utf8')));
  }

  async until(what: string, holds: (status: ExportStatus) => boolean, timeoutMs = 20_000): Promise<ExportStatus> {
    try {
      return await waitFor(
        what,
        async () => {
          const status = await this.status().catch(() => undefined);
          return status && holds(status) ? status : undefined;
        },
        { timeoutMs, everyMs: 10 },
      );
    } catch (error) {
      throw new Error(`${String(error)}\n${JSON.stringify(await this.status().catch(String))}\n${await this.log()}`, {
        cause: error,
      });
    }
  }

  async serving(name: string): Promise<ExportEntry & { pid: number; socket: string }> {
    const status = await this.until(`${name} is served`, (now) => entry(now, name)?.state === 'serving');
    const found = entry(status, name);
    assert.ok(found?.pid && found.socket);
    return { ...found, pid: found.pid, socket: found.socket };
  }

  /** As an administrator should: written aside, renamed. */
  async write(file: string, content: string | ExportConfig): Promise<void> {
    const text = typeof content === 'string' ? content : configText(file.replace(/\.conf$/, ''), content);
    await writeFile(join(this.configDir, `${file}.new`), text);
    await rename(join(this.configDir, `${file}.new`), join(this.configDir, file));
  }

  async remove(file: string): Promise<void> {
    await rm(join(this.configDir, file));
  }

  /** SIGHUP, and waits until the folder has been read. */
  async reload(): Promise<ExportStatus> {
    const { generation } = await this.status();
    process.kill(this.pid, 'SIGHUP');
    return this.until('the reload', (status) => status.generation > generation);
  }

  async image(name: string, size: string, ...options: string[]): Promise<string> {
    const path = join(this.dir, name);
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, size]);
    return path;
  }
}

export function entry(status: ExportStatus, name: string): ExportEntry | undefined {
  return status.exports.find((one) => one.name === name);
}

function configText(name: string, config: ExportConfig): string {
  return [
    `[${config.name ?? name}]`,
    `exportname = ${config.image}`,
    `readonly = ${config.readOnly ?? false}`,
    ...(config.readOnly && config.agent === undefined ? [] : [`agent = ${config.agent ?? 'agent-1'}`]),
    ...(config.size === undefined ? [] : [`size = ${config.size}`]),
    '',
  ].join('\n');
}

/** A folder per holder, as NBD clients and the front door want them; `other` is an authority nobody trusts. */
export async function makeCertificates(dir: string): Promise<void> {
  const openssl = async (...args: string[]): Promise<void> => void (await run('openssl', args, { cwd: dir }));
  const key = async (path: string): Promise<void> =>
    openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', path);
  for (const ca of ['ca', 'other']) {
    await key(`${ca}-key.pem`);
    const usage = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign,cRLSign'];
    const extensions = usage.flatMap((text) => ['-addext', text]);
    const subject = ['-subj', `/O=sendense/CN=${ca}`];
    await openssl(
      'req',
      '-x509',
      '-new',
      '-key',
      `${ca}-key.pem`,
      '-days',
      '2',
      ...subject,
      ...extensions,
      '-out',
      `${ca}-cert.pem`,
    );
  }
  const leaf = async (ca: string, folder: string, role: 'server' | 'client', name: string): Promise<void> => {
    await mkdir(join(dir, folder), { recursive: true });
    const stem = join(folder, role);
    await key(`${stem}-key.pem`);
    await openssl('req', '-new', '-key', `${stem}-key.pem`, '-subj', `/O=sendense/CN=${name}`, '-out', `${stem}.csr`);
    const lines = [
      'basicConstraints=critical,CA:FALSE',
      'keyUsage=critical,digitalSignature',
      `extendedKeyUsage=${role}Auth`,
      `subjectAltName=DNS:${name},IP:127.0.0.1`,
    ];
    await writeFile(join(dir, `${stem}.ext`), `${lines.join('\n')}\n`);
    const signing = ['-CA', `${ca}-cert.pem`, '-CAkey', `${ca}-key.pem`, '-CAcreateserial', '-days', '2'];
    await openssl(
      'x509',
      '-req',
      '-in',
      `${stem}.csr`,
      ...signing,
      '-extfile',
      `${stem}.ext`,
      '-out',
      `${stem}-cert.pem`,
    );
    await writeFile(join(dir, folder, 'ca-cert.pem'), await readFile(join(dir, `${ca}-cert.pem`)));
  };
  await leaf('ca', 'server', 'server', 'localhost');
  await leaf('ca', 'agent-1', 'client', 'agent-1');
  await leaf('ca', 'agent-2', 'client', 'agent-2');
  await leaf('other', 'other-server', 'server', 'localhost');
  await leaf('other', 'other-agent-1', 'client', 'agent-1');
  await mkdir(join(dir, 'nobody'));
  await writeFile(join(dir, 'nobody/ca-cert.pem'), await readFile(join(dir, 'ca-cert.pem')));
}

/** Opens an export by hand and returns right after GO was acknowledged; nobody reads the socket from then on. */
export async function openByHand(path: string, name: string): Promise<Socket> {
  const socket = connect({ path });
  socket.on('error', () => undefined);
  socket.write(Buffer.concat([Buffer.from([0, 0, 0, 3]), encodeOption(NBD_OPT_GO, encodeGo(name, []))]));
  await new Promise<void>((resolve, reject) => {
    socket.once('close', () => reject(new Error('closed during the negotiation')));
    let bytes = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      // The acknowledgement is the last reply and has no payload.
      if (bytes.length >= 38 && bytes.readUInt32BE(bytes.length - 8) === 1) resolve();
    });
  });
  socket.removeAllListeners('data');
  socket.pause();
  return socket;
}

/** Requests to read, of 1 MiB each, as bytes. */
export function readRequests(count: number): Buffer {
  const requests = Buffer.alloc(28 * count);
  for (let i = 0; i < count; i++) {
    requests.writeUInt32BE(0x25609513, i * 28);
    requests.writeUInt32BE(i, i * 28 + 12);
    requests.writeUInt32BE(1024 * 1024, i * 28 + 24);
  }
  return requests;
}
