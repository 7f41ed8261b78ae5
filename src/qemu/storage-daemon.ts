/**
 * One qemu-storage-daemon that serves one QCOW2 image as one NBD export on a unix socket. It is started in a session
 * of its own and outlives us, so whoever comes next can find it by its command line and take it over.
 *
 * Guaranteed: the export shows the virtual disk, never the container's bytes (the format is always named); a writable
 * export takes one connection. Not guaranteed: that acknowledged writes survive the death of the process before a FLUSH.
 */
import type { ChildProcess } from 'node:child_process';
import { constants } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { sleep } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import { retry, waitFor } from '#/lib/retry.ts';
import { ended, start } from '#/lib/run.ts';
import { KILL_TIMEOUT_MS, goneWithin, processIdentity, processesOf, sendSignal } from './processes.ts';
import type { ProcessIdentity } from './processes.ts';
import { connectQmp } from './qmp.ts';
import type { Qmp } from './qmp.ts';

const PROGRAM = 'qemu-storage-daemon';
const START_TIMEOUT_MS = 20_000;
const LAST_WORDS_BYTES = 2048;
/** Longest name the kernel takes for a unix socket. */
export const MAX_SOCKET_PATH_BYTES = 107;

export interface StorageDaemonFiles {
  socket: string;
  qmp: string;
  pidFile: string;
  log: string;
}

export interface StorageDaemonSpec {
  exportName: string;
  imagePath: string;
  readOnly: boolean;
  /** More wait, unserved, until one leaves. */
  maxConnections: number;
  files: StorageDaemonFiles;
}

export interface StorageDaemonExit {
  /** Null when a signal ended it or when it was not our child. */
  exitCode: number | null;
  /** The signal that ended it, when we could see that. */
  signal: string | null;
  lastWords: string;
}

export interface StorageDaemonStop extends StorageDaemonExit {
  /** clean: ended on request, flushed. killed: had to be forced. died: ended before, or with an error. */
  outcome: 'clean' | 'killed' | 'died';
}

export interface StorageDaemon {
  readonly pid: number;
  readonly virtualSizeBytes: number;
  /** Resolves, never rejects, when the process is gone. */
  readonly exited: Promise<StorageDaemonExit>;
  /** Ends the process: with a flush if it manages within `graceMs`, by force after that. Never rejects. */
  stop(graceMs: number): Promise<StorageDaemonStop>;
}

export function storageDaemonArgs(spec: StorageDaemonSpec): string[] {
  const file = { driver: 'file', filename: spec.imagePath };
  const node = spec.readOnly
    ? { driver: 'qcow2', 'node-name': 'n', 'read-only': true, file: { ...file, 'read-only': true } }
    : { driver: 'qcow2', 'node-name': 'n', discard: 'unmap', 'detect-zeroes': 'unmap', file };
  return [
    '--blockdev',
    JSON.stringify(node),
    '--nbd-server',
    `addr.type=unix,addr.path=${value(spec.files.socket)},max-connections=${spec.maxConnections}`,
    '--export',
    `type=nbd,id=e,node-name=n,name=${spec.exportName},writable=${spec.readOnly ? 'off' : 'on'}`,
    '--chardev',
    `socket,id=m0,path=${value(spec.files.qmp)},server=on,wait=off`,
    '--monitor',
    'chardev=m0',
    '--pidfile',
    spec.files.pidFile,
  ];
}

/** Ready when it returns. TOOL_FAILED with the daemon's last words when it refuses, TIMEOUT, or the signal's reason. */
export async function startStorageDaemon(spec: StorageDaemonSpec, signal?: AbortSignal): Promise<StorageDaemon> {
  signal?.throwIfAborted();
  await removeStorageDaemonFiles(spec.files);
  const child = await spawnDetached(spec);
  const gone = ended(PROGRAM, child);
  const exited = gone.then(
    async ({ code, signal }) => ({ exitCode: code, signal, lastWords: await lastWords(spec.files.log) }),
    (error: Error) => ({ exitCode: null, signal: null, lastWords: error.message }),
  );
  const tooEarly = exited.then(async ({ exitCode, signal, lastWords }) => {
    await gone; // says TOOL_MISSING when the program could not be started at all
    const why = lastWords || `exit ${exitCode ?? signal}`;
    throw new SendenseError('TOOL_FAILED', `${PROGRAM} refused: ${why}`, { details: { program: PROGRAM } });
  });
  tooEarly.catch(() => undefined); // after the start nobody waits for it any more
  try {
    const qmp = await Promise.race([ready(spec, signal), tooEarly]);
    const daemon = new RunningDaemon(await identify(child), spec, exited, qmp);
    daemon.virtualSizeBytes = await Promise.race([provenSize(spec, qmp), tooEarly]);
    return daemon;
  } catch (error) {
    child.kill('SIGKILL');
    await exited; // until then it may hold the image's lock
    throw error;
  }
}

/** A running daemon of ours that nobody holds. */
export interface FoundStorageDaemon {
  identity: ProcessIdentity;
  args: string[];
  pidFile: string;
}

/** Every storage daemon of this user whose pid file lies in `folder`, whoever started it and however far it came. */
export async function findStorageDaemons(folder: string): Promise<FoundStorageDaemon[]> {
  const found: FoundStorageDaemon[] = [];
  for (const { identity, args } of await processesOf(PROGRAM)) {
    const pidFile = args[args.indexOf('--pidfile') + 1];
    if (pidFile?.startsWith(`${folder}/`)) found.push({ identity, args, pidFile });
  }
  return found;
}

/**
 * Takes over a running daemon: its command line must be the one we would use and its control socket must confirm
 * image, mode and export. TOOL_FAILED or TIMEOUT when it does not; the daemon is left as it is then.
 */
export async function adoptStorageDaemon(
  spec: StorageDaemonSpec,
  found: FoundStorageDaemon,
  signal?: AbortSignal,
): Promise<StorageDaemon> {
  const expected = storageDaemonArgs(spec);
  if (found.args.length !== expected.length || found.args.some((arg, i) => arg !== expected[i])) {
    throw refused('its command line is another one');
  }
  const qmp = await connectQmp(spec.files.qmp, { timeoutMs: 3000, ...(signal && { signal }) });
  try {
    const size = await provenSize(spec, qmp);
    const daemon = new RunningDaemon(found.identity, spec, watchForeign(found.identity, spec, qmp), qmp);
    daemon.virtualSizeBytes = size;
    return daemon;
  } catch (error) {
    qmp.close();
    throw error;
  }
}

/** Sockets, pid file and log; none of them may belong to a running daemon. */
export async function removeStorageDaemonFiles(files: StorageDaemonFiles): Promise<void> {
  for (const path of [...namesOf(files), files.log]) await rm(path, { force: true });
}

function namesOf(files: StorageDaemonFiles): string[] {
  return [files.socket, files.qmp, files.pidFile];
}

class RunningDaemon implements StorageDaemon {
  readonly pid: number;
  readonly exited: Promise<StorageDaemonExit>;
  virtualSizeBytes = 0;
  readonly #identity: ProcessIdentity;
  #gone = false;
  #givenUp = false;

  constructor(
    identity: ProcessIdentity,
    spec: StorageDaemonSpec,
    exited: Promise<StorageDaemonExit>,
    /** Held open: nobody else can then give the daemon orders. */
    qmp: Qmp,
  ) {
    this.pid = identity.pid;
    this.#identity = identity;
    this.exited = exited.then(async (exit) => {
      this.#gone = true;
      qmp.close();
      // A process that did not even obey SIGKILL may end when its successor already uses these names.
      if (!this.#givenUp) for (const path of namesOf(spec.files)) await rm(path, { force: true });
      return exit;
    });
  }

  async stop(graceMs: number): Promise<StorageDaemonStop> {
    if (this.#gone) return { outcome: 'died', ...(await this.exited) };
    sendSignal(this.#identity, 'SIGTERM');
    const exit = await within(this.exited, graceMs);
    if (exit) return { outcome: exit.exitCode === 0 || exit.exitCode === null ? 'clean' : 'died', ...exit };
    sendSignal(this.#identity, 'SIGKILL');
    const forced = await within(this.exited, KILL_TIMEOUT_MS);
    this.#givenUp = forced === undefined;
    return {
      outcome: 'killed',
      ...(forced ?? { exitCode: null, signal: null, lastWords: `process ${this.pid} does not end even by force` }),
    };
  }
}

async function spawnDetached(spec: StorageDaemonSpec): Promise<ChildProcess> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_APPEND;
  const log = await open(spec.files.log, flags, 0o600);
  try {
    return start(PROGRAM, storageDaemonArgs(spec), { stdio: ['ignore', log.fd, log.fd], detached: true });
  } finally {
    await log.close();
  }
}

/** The control socket is there before the export is; the pid file is written when everything is up. */
async function ready(spec: StorageDaemonSpec, signal: AbortSignal | undefined): Promise<Qmp> {
  const probe = async (): Promise<true | undefined> => {
    const file = await open(spec.files.pidFile).catch(() => undefined);
    await file?.close();
    return file && true;
  };
  const options = { timeoutMs: START_TIMEOUT_MS, everyMs: 4, ...(signal && { signal }) };
  await waitFor(`${PROGRAM} to serve ${spec.exportName}`, probe, options);
  return retry(async () => connectQmp(spec.files.qmp, signal ? { signal } : {}), {
    attempts: 3,
    delayMs: 20,
    shouldRetry: () => true,
    ...(signal && { signal }),
  });
}

async function identify(child: ChildProcess): Promise<ProcessIdentity> {
  const identity = child.pid === undefined ? undefined : await processIdentity(child.pid);
  if (!identity) throw refused('the process is gone');
  return identity;
}

/** The virtual size, after the daemon has confirmed that it serves this image, this way, as its one export. */
async function provenSize(spec: StorageDaemonSpec, qmp: Qmp): Promise<number> {
  const exports = (await qmp.execute('query-block-exports')) as Record<string, unknown>[];
  const [only] = exports;
  if (exports.length !== 1 || only?.['id'] !== 'e' || only['node-name'] !== 'n' || only['shutting-down'] !== false) {
    throw refused('it does not serve exactly the one export');
  }
  const nodes = (await qmp.execute('query-named-block-nodes', { flat: true })) as Record<string, unknown>[];
  const node = nodes.find((candidate) => candidate['node-name'] === 'n');
  const image = node?.['image'] as Record<string, unknown> | undefined;
  const size = image?.['virtual-size'];
  if (node?.['drv'] !== 'qcow2' || node['file'] !== spec.imagePath || node['ro'] !== spec.readOnly) {
    throw refused('it has another image open, or in another mode');
  }
  if (typeof size !== 'number' || !Number.isSafeInteger(size)) throw refused('it tells no size');
  return size;
}

/** For a process that is not our child: the end of its control connection is the first sign of its end. */
async function watchForeign(identity: ProcessIdentity, spec: StorageDaemonSpec, qmp: Qmp): Promise<StorageDaemonExit> {
  await qmp.closed;
  // A daemon without its monitor is of no use to anybody; most often it is just ending.
  if (!(await goneWithin(identity, KILL_TIMEOUT_MS))) {
    sendSignal(identity, 'SIGKILL');
    await goneWithin(identity, KILL_TIMEOUT_MS);
  }
  return { exitCode: null, signal: null, lastWords: await lastWords(spec.files.log) };
}

async function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  const timer = new AbortController();
  try {
    return await Promise.race([promise, sleep(ms, timer.signal).then(() => undefined)]);
  } finally {
    timer.abort();
  }
}

async function lastWords(path: string): Promise<string> {
  const file = await open(path).catch(() => undefined);
  if (!file) return '';
  try {
    const { size } = await file.stat();
    const from = Math.max(0, size - LAST_WORDS_BYTES);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(LAST_WORDS_BYTES), 0, LAST_WORDS_BYTES, from);
    return buffer.toString('utf8', 0, bytesRead).trim().split('\n').slice(-5).join(' / ');
  } finally {
    await file.close();
  }
}

function refused(why: string): SendenseError {
  return new SendenseError('TOOL_FAILED', `${PROGRAM}: ${why}`, { details: { program: PROGRAM } });
}

/** Commas separate fields in QEMU's option strings. */
function value(text: string): string {
  return text.replaceAll(',', ',,');
}
