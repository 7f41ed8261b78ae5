/**
 * The `datastore` transport: a frozen disk read by ranges over HTTPS from the vCenter or host. Works for flat disks
 * whose file the host lets go of: powered-off VMs, NFS datastores. Everything else is refused when opening, with the
 * reason, so that another transport can be tried. It cannot tell what is allocated.
 */
import type { Pool } from 'undici';
import { SendenseError } from '#/lib/errors.ts';
import { retry } from '#/lib/retry.ts';
import { transportError } from '../vsphere/connection.ts';
import { folderUrl, hex, parseDatastorePath, parseDescriptor, sibling, unsupported } from '../vsphere/datastore.ts';
import { NETWORK_IS_FASTER } from '../vsphere/session.ts';
import type { Session } from '../vsphere/session.ts';
import { rangedGet } from './ranged-get.ts';
import { readFailed } from './read-failed.ts';
import type { DiskSource } from './source.ts';

const CONNECTIONS = 6;
const MAX_READ_BYTES = 4 * 1024 * 1024;
const DATA_TIMEOUT_MS = 60_000;
const MAX_DESCRIPTOR_BYTES = 64 * 1024;
const READ_ATTEMPTS = 5;
const OPEN_ATTEMPTS = 3;

export interface VsphereHttpsOptions {
  session: Session;
  /** The disk in the configuration of the snapshot. */
  disk: { fileName: string; capacityBytes: number; uuid: string | null };
  /** Of the VM, from the inventory. */
  datacenterPath: string;
  signal: AbortSignal;
}

/**
 * Opens a disk for reading. TRANSPORT_UNSUPPORTED, with the type or reason in the details, when its bytes cannot be
 * had this way; DISK_MISMATCH when the file is another disk or shorter than the disk; READ_FAILED otherwise.
 */
export async function openVsphereHttps(options: VsphereHttpsOptions): Promise<DiskSource> {
  const { session, disk, datacenterPath, signal } = options;
  const descriptorFile = parseDatastorePath(disk.fileName);
  const pool = session.newDataPool(CONNECTIONS, DATA_TIMEOUT_MS);
  try {
    const text = await readDescriptor(session, pool, folderUrl(descriptorFile, datacenterPath), signal);
    const extent = parseDescriptor(text, disk.fileName);
    const [ours, theirs] = [hex(disk.uuid), extent.uuid];
    const sameDisk = ours === undefined || theirs === undefined || ours === theirs;
    if (extent.sizeBytes !== disk.capacityBytes || !sameDisk) {
      throw mismatch(disk.fileName, `says ${extent.sizeBytes} bytes, uuid ${theirs ?? 'unknown'}`, disk);
    }
    const path = folderUrl(sibling(descriptorFile, extent.fileName), datacenterPath);
    const source = new VsphereHttpsSource({
      session,
      pool,
      path,
      sizeBytes: disk.capacityBytes,
      base: extent.offsetBytes,
    });
    await source.probe(disk, signal);
    return source;
  } catch (error) {
    await pool.destroy();
    throw error;
  }
}

/** Descriptors are about 500 bytes; a file by that name that is longer holds the data itself. */
async function readDescriptor(session: Session, pool: Pool, path: string, signal: AbortSignal): Promise<string> {
  return retry(() => withLogin(session, signal, () => fetchDescriptor(session, pool, path, signal)), {
    attempts: OPEN_ATTEMPTS,
    delayMs: delayOf(session),
    signal,
    shouldRetry: isRetryable,
  });
}

async function fetchDescriptor(session: Session, pool: Pool, path: string, signal: AbortSignal): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    const headers = { cookie: session.cookie, 'accept-encoding': 'identity' };
    const { statusCode, body } = await pool.request({ method: 'GET', path, headers, signal });
    if (statusCode !== 200) {
      await body.dump({ limit: MAX_DESCRIPTOR_BYTES });
      throw statusError(statusCode, path);
    }
    for await (const chunk of body as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      size += chunk.length;
      if (size > MAX_DESCRIPTOR_BYTES) break;
    }
  } catch (error) {
    signal.throwIfAborted();
    const translated = transportError(error, 'GET descriptor');
    if (translated.code !== 'SOURCE_UNREACHABLE') throw translated;
    throw new SendenseError('READ_FAILED', translated.message, { details: { retryable: true }, cause: error });
  }
  return Buffer.concat(chunks).toString('utf8');
}

interface Opened {
  session: Session;
  pool: Pool;
  path: string;
  sizeBytes: number;
  /** Where in the file the disk begins. */
  base: number;
}

class VsphereHttpsSource implements DiskSource {
  readonly transport = 'datastore';
  readonly parallel = CONNECTIONS;
  readonly maxReadBytes = MAX_READ_BYTES;
  readonly sizeBytes: number;
  readonly #opened: Opened;
  readonly #closing = new AbortController();

  constructor(opened: Opened) {
    this.sizeBytes = opened.sizeBytes;
    this.#opened = opened;
  }

  async read(offset: number, target: Buffer, signal: AbortSignal): Promise<void> {
    const inside = offset >= 0 && target.length <= this.maxReadBytes && offset + target.length <= this.sizeBytes;
    if (!Number.isSafeInteger(offset) || !inside) {
      const details = { offset, length: target.length, retryable: false };
      throw new SendenseError('READ_FAILED', `cannot read ${target.length} bytes at ${offset}`, { details });
    }
    if (target.length > 0) await this.#range(offset, target, signal, READ_ATTEMPTS);
  }

  /** Reads the last sector: shows that ranges are honoured, the file is whole and nobody holds a lock on it. */
  async probe(disk: VsphereHttpsOptions['disk'], signal: AbortSignal): Promise<void> {
    try {
      await this.#range(this.sizeBytes - 512, Buffer.alloc(512), signal, OPEN_ATTEMPTS);
    } catch (error) {
      const status = error instanceof SendenseError ? error.details['status'] : undefined;
      if (status === 416) throw mismatch(disk.fileName, 'is shorter than the disk', disk);
      if (status !== 500) throw error;
      const reason = 'the host refuses to open the file, most likely because the running VM keeps it locked';
      throw unsupported(`${disk.fileName}: ${reason}`, { fileName: disk.fileName, status, reason });
    }
  }

  async #range(offset: number, target: Buffer, signal: AbortSignal, attempts: number): Promise<void> {
    const { session, pool, path, base } = this.#opened;
    const either = AbortSignal.any([signal, this.#closing.signal]);
    const get = (): Promise<number> =>
      rangedGet({ pool, path, cookie: session.cookie, offset: base + offset, target, signal: either });
    const delayMs = delayOf(session);
    try {
      await retry(() => withLogin(session, either, get), {
        attempts,
        delayMs,
        signal: either,
        shouldRetry: isRetryable,
      });
    } catch (cause) {
      signal.throwIfAborted();
      throw readFailed(cause, offset, target.length);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing.signal.aborted) return;
    const closed = new SendenseError('READ_FAILED', 'the source was closed while it was read');
    this.#closing.abort(closed);
    await this.#opened.pool.destroy(closed);
  }
}

/** Repeats a request once with a new login when the server says that it does not know the session any more. */
async function withLogin<T>(session: Session, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const { generation } = session;
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof SendenseError) || error.details['status'] !== 401) throw error;
    await session.renew(generation, signal);
    return work();
  }
}

function delayOf(session: Session): number {
  return session.retryDelayMs / NETWORK_IS_FASTER;
}

function isRetryable(error: unknown): boolean {
  return error instanceof SendenseError && error.code === 'READ_FAILED' && error.details['retryable'] === true;
}

function statusError(status: number, path: string): SendenseError {
  if (status === 500) {
    return unsupported('the host refuses to open the descriptor of the disk', { status, path });
  }
  const details = { status, path, retryable: [429, 502, 503, 504].includes(status) };
  return new SendenseError('READ_FAILED', `the descriptor of the disk: HTTP status ${status}`, { details });
}

function mismatch(fileName: string, found: string, disk: VsphereHttpsOptions['disk']): SendenseError {
  const expected = `${disk.capacityBytes} bytes, uuid ${disk.uuid ?? 'unknown'}`;
  return new SendenseError('DISK_MISMATCH', `${fileName} ${found}; expected ${expected}`, {
    details: { fileName, found, expected },
  });
}
