/**
 * NBD client. Guarantees: a request that resolved was answered without error by the server; bytes of a read are all
 * from the server and in place; offsets are checked before anything is sent; once a promise has settled its memory is
 * free for reuse; everything in flight is rejected when the connection is lost. Not guaranteed: that a write survives
 * the server without a later flush (or `fua`), and any reconnect, which is the caller's decision.
 */
import { SendenseError, toSendenseError } from '#/lib/errors.ts';
import type { ErrorDetails } from '#/lib/errors.ts';
import type { Extent } from '#/lib/extents.ts';
import type { BlockSize } from './codec.ts';
import { protocolError } from './codec.ts';
import { Connection } from './connection.ts';
import type { Limits, NbdRequest } from './connection.ts';
import { openWire } from './connect.ts';
import type { ConnectOptions } from './connect.ts';
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from './constants.ts';
import { resolveEndpoint } from './endpoint.ts';
import type { NbdEndpoint } from './wire.ts';

const DEFAULT_TIMEOUT_MS = 10_000;
const DEFAULT_STALL_MS = 300_000;
const DEFAULT_REQUESTS = 16;
const DEFAULT_IN_FLIGHT_BYTES = 16 * 1024 * 1024;
const MAX_CONNECTIONS = 16;
/** Commands without payload may be longer than the server's maximum; this keeps a single one from taking minutes. */
const EFFECT_STEP_BYTES = 1024 * 1024 * 1024;
/** More runs than this in one answer list means a list too large to hold. */
const MAX_STATUS_EXTENTS = 4 * 1024 * 1024;

export interface NbdConnectOptions {
  /** Ends connecting and negotiating; has no effect on the client afterwards. */
  signal?: AbortSignal | undefined;
  /** Names to ask for, such as BASE_ALLOCATION; the server may leave some out, see `contexts`. */
  metaContexts?: readonly string[];
  /** Per connection, for connecting and negotiating together; default 10 s. */
  timeoutMs?: number;
  /** Payload sent or asked for and not yet answered, per connection; default 16 MiB. */
  maxInFlightBytes?: number;
  /** Requests in flight per connection; default 16, more than servers serve at a time. */
  maxRequests?: number;
  /** Wanted connections, 1 to 16; more than one is used only where the server allows it. Default 1. */
  connections?: number;
  /** Nothing received or sent for so long with requests in flight ends the client with TIMEOUT; default 5 min, 0 = never. */
  stallTimeoutMs?: number;
}

export interface CallOptions {
  /** Rejects the call with the signal's reason; what was already sent may still take effect on the server. */
  signal?: AbortSignal | undefined;
}

export interface WriteOptions extends CallOptions {
  /** Resolve only when these bytes are durable; on a server without FUA a flush is sent after the write. */
  fua?: boolean;
}

export interface ZeroOptions extends WriteOptions {
  /** Keep the space allocated. */
  noHole?: boolean;
  /** Fail with errno ENOTSUP rather than write zeroes one by one. */
  fastZero?: boolean;
}

export interface StatusRange extends Extent {
  flags: number;
}

/**
 * Offsets and lengths are bytes, inside the export and multiples of `blockSize.minimum`, otherwise INVALID_REQUEST before
 * anything is sent. Errors of the server are NBD_IO with `details.errno` (`'ENOSPC'`, …); a lost connection is NBD_CLOSED,
 * a breach of the protocol NBD_PROTOCOL; both end the client. Calls may overlap without limit: they queue, first come
 * first served, but are answered in any order.
 */
export interface NbdClient extends AsyncDisposable {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly canMultiConn: boolean;
  readonly canFlush: boolean;
  readonly canTrim: boolean;
  readonly canZero: boolean;
  readonly canFastZero: boolean;
  /** The contexts the server agreed to, of those asked for. */
  readonly contexts: readonly string[];
  readonly blockSize: BlockSize;
  /** Open connections, at most as many as were asked for. */
  readonly connections: number;
  /** Fills `target` from `offset`; `dontFragment` makes the server answer in one piece or fail with EOVERFLOW. */
  read(offset: number, target: Buffer, options?: CallOptions & { dontFragment?: boolean }): Promise<void>;
  /** Writes all of `data`, which must not change until the promise settles. */
  write(offset: number, data: Buffer, options?: WriteOptions): Promise<void>;
  writeZeroes(offset: number, length: number, options?: ZeroOptions): Promise<void>;
  /** Gives space back; what is read there afterwards is undefined. */
  trim(offset: number, length: number, options?: WriteOptions): Promise<void>;
  /** Makes every write that has resolved before durable, on whichever connection it went. */
  flush(options?: CallOptions): Promise<void>;
  /** Covers exactly the range in order, neighbours with different flags; NOT_FOUND for a context not in `contexts`. */
  blockStatus(context: string, offset: number, length: number, options?: CallOptions): Promise<StatusRange[]>;
  /** One request's worth of `blockStatus`: covers a beginning of the range, at least its first bytes. */
  blockStatusOnce(context: string, offset: number, length: number, options?: CallOptions): Promise<StatusRange[]>;
  /** Waits for what is in flight, says goodbye and closes. Does not flush. Never throws. */
  close(): Promise<void>;
  /** Closes at once; everything in flight is rejected with `error` (default NBD_CLOSED). */
  destroy(error?: unknown): void;
}

/** Opens an export; `where` is an NBD URI or says the same in parts, with TLS material as PEM text. */
export async function connectNbd(
  where: { uri: string } | NbdEndpoint,
  options: NbdConnectOptions = {},
): Promise<NbdClient> {
  const endpoint = await resolveEndpoint(where);
  const wanted = options.connections ?? 1;
  if (!Number.isInteger(wanted) || wanted < 1 || wanted > MAX_CONNECTIONS) {
    throw new SendenseError('CONFIG_INVALID', `an NBD client has 1 to ${MAX_CONNECTIONS} connections, not ${wanted}`);
  }
  const first = await openConnection(endpoint, options);
  const multi = (first.negotiated.flags & NBD_FLAG_CAN_MULTI_CONN) !== 0;
  const others = await Promise.allSettled(
    Array.from({ length: multi ? wanted - 1 : 0 }, () => openConnection(endpoint, options)),
  );
  const connections = [first, ...others.flatMap((other) => (other.status === 'fulfilled' ? [other.value] : []))];
  const failed = others.find((other) => other.status === 'rejected');
  const differs = connections.some(({ negotiated }) => negotiated.sizeBytes !== first.negotiated.sizeBytes);
  if (!failed && !differs) return new Client(connections);
  for (const connection of connections) connection.destroy();
  throw failed ? failed.reason : protocolError('the export has another size on another connection');
}

async function openConnection(endpoint: NbdEndpoint, options: NbdConnectOptions): Promise<Connection> {
  const limits: Limits = {
    maxRequests: options.maxRequests ?? DEFAULT_REQUESTS,
    maxInFlightBytes: options.maxInFlightBytes ?? DEFAULT_IN_FLIGHT_BYTES,
    stallTimeoutMs: options.stallTimeoutMs ?? DEFAULT_STALL_MS,
  };
  const { signal, timeoutMs = DEFAULT_TIMEOUT_MS, metaContexts = [] } = options;
  const connect: ConnectOptions = { signal, timeoutMs, metaContexts };
  return openWire(endpoint, connect, (wire, negotiated) => new Connection(wire, negotiated, limits));
}

class Client implements NbdClient {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly canMultiConn: boolean;
  readonly canFlush: boolean;
  readonly canTrim: boolean;
  readonly canZero: boolean;
  readonly canFastZero: boolean;
  readonly contexts: readonly string[];
  readonly blockSize: BlockSize;
  readonly connections: number;
  readonly #all: readonly Connection[];
  readonly #first: Connection;
  readonly #flags: number;

  constructor(all: readonly Connection[]) {
    const [first] = all;
    if (!first) throw new SendenseError('INTERNAL', 'an NBD client without a connection');
    const { flags, sizeBytes, blockSize, contexts } = first.negotiated;
    this.#all = all;
    this.#first = first;
    this.#flags = flags;
    this.sizeBytes = sizeBytes;
    this.blockSize = blockSize;
    this.connections = all.length;
    this.contexts = [...contexts.keys()];
    this.readOnly = this.#has(NBD_FLAG_READ_ONLY);
    this.canMultiConn = this.#has(NBD_FLAG_CAN_MULTI_CONN);
    this.canFlush = this.#has(NBD_FLAG_SEND_FLUSH);
    this.canTrim = this.#has(NBD_FLAG_SEND_TRIM);
    this.canZero = this.#has(NBD_FLAG_SEND_WRITE_ZEROES);
    this.canFastZero = this.#has(NBD_FLAG_SEND_FAST_ZERO);
    for (const connection of all) connection.onClosed = (error) => this.destroy(error);
  }

  async read(offset: number, target: Buffer, options: CallOptions & { dontFragment?: boolean } = {}): Promise<void> {
    const { dontFragment = false, signal } = options;
    if (dontFragment && !this.#has(NBD_FLAG_SEND_DF)) throw unsupported('READ', 'unfragmented reads');
    const flags = dontFragment ? NBD_CMD_FLAG_DF : 0;
    return this.#split({ command: NBD_CMD_READ, flags, offset, length: target.length, data: target, signal });
  }

  async write(offset: number, data: Buffer, options: WriteOptions = {}): Promise<void> {
    return this.#effect({ command: NBD_CMD_WRITE, flags: 0, offset, length: data.length, data }, options);
  }

  async writeZeroes(offset: number, length: number, options: ZeroOptions = {}): Promise<void> {
    if (!this.canZero) throw unsupported('WRITE_ZEROES', 'writing zeroes');
    if (options.fastZero && !this.canFastZero) throw unsupported('WRITE_ZEROES', 'fast zeroes');
    const flags = (options.noHole ? NBD_CMD_FLAG_NO_HOLE : 0) | (options.fastZero ? NBD_CMD_FLAG_FAST_ZERO : 0);
    return this.#effect({ command: NBD_CMD_WRITE_ZEROES, flags, offset, length }, options);
  }

  async trim(offset: number, length: number, options: WriteOptions = {}): Promise<void> {
    if (!this.canTrim) throw unsupported('TRIM', 'trimming');
    return this.#effect({ command: NBD_CMD_TRIM, flags: 0, offset, length }, options);
  }

  async flush(options: CallOptions = {}): Promise<void> {
    if (!this.canFlush) throw unsupported('FLUSH', 'flushing');
    return this.#pick().submit({ command: NBD_CMD_FLUSH, flags: 0, offset: 0, length: 0, signal: options.signal });
  }

  async blockStatus(
    context: string,
    offset: number,
    length: number,
    options: CallOptions = {},
  ): Promise<StatusRange[]> {
    const all: StatusRange[] = [];
    const end = offset + length;
    for (let at = offset; at < end; ) {
      for (const range of await this.blockStatusOnce(context, at, end - at, options)) {
        const last = all.at(-1);
        if (last?.flags === range.flags) last.length += range.length;
        else all.push(range);
        at += range.length;
      }
      if (all.length > MAX_STATUS_EXTENTS) throw protocolError('the block status has too many extents to hold');
    }
    return all;
  }

  async blockStatusOnce(
    context: string,
    offset: number,
    length: number,
    options: CallOptions = {},
  ): Promise<StatusRange[]> {
    this.#check(offset, length);
    const connection = this.#pick();
    const contextId = connection.negotiated.contexts.get(context);
    if (contextId === undefined) throw new SendenseError('NOT_FOUND', `the NBD server offers no context ${context}`);
    const status: NbdRequest['status'] = { contextId, extents: undefined };
    const asked = Math.min(length, EFFECT_STEP_BYTES);
    const { signal } = options;
    await connection.submit({ command: NBD_CMD_BLOCK_STATUS, flags: 0, offset, length: asked, status, signal });
    const ranges: StatusRange[] = [];
    let at = offset;
    for (const extent of status.extents ?? []) {
      if (at >= offset + asked) throw protocolError('the block status goes on past the request');
      const covered = Math.min(extent.length, offset + asked - at);
      ranges.push({ offset: at, length: covered, flags: extent.flags });
      at += covered;
    }
    return ranges;
  }

  async close(): Promise<void> {
    await Promise.all(this.#all.map((connection) => connection.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  destroy(error: unknown = new SendenseError('NBD_CLOSED', 'the NBD client was closed')): void {
    for (const connection of this.#all) connection.destroy(toSendenseError(error));
  }

  #has(flag: number): boolean {
    return (this.#flags & flag) !== 0;
  }

  async #effect(request: NbdRequest, { fua = false, signal }: WriteOptions): Promise<void> {
    if (this.readOnly) throw new SendenseError('NBD_IO', 'the export is read-only', { details: { errno: 'EPERM' } });
    if (!fua) return this.#split({ ...request, signal });
    if (this.#has(NBD_FLAG_SEND_FUA))
      return this.#split({ ...request, flags: request.flags | NBD_CMD_FLAG_FUA, signal });
    await this.#split({ ...request, signal });
    await this.flush({ signal });
  }

  async #split(request: NbdRequest): Promise<void> {
    const { offset, length, data } = request;
    this.#check(offset, length);
    const most = data ? this.blockSize.maximum : EFFECT_STEP_BYTES;
    if (length <= most) return this.#pick().submit(request);
    const step = most - (most % this.blockSize.minimum);
    const parts: Promise<void>[] = [];
    for (let at = 0; at < length; at += step) {
      const size = Math.min(step, length - at);
      const part = { ...request, offset: offset + at, length: size, data: data?.subarray(at, at + size) };
      parts.push(this.#pick().submit(part));
    }
    // All of them must have settled before the caller gets the memory back, also when one fails early.
    const failed = (await Promise.allSettled(parts)).find((part) => part.status === 'rejected');
    if (failed) throw failed.reason;
  }

  /** The connection with the fewest requests waiting for an answer. */
  #pick(): Connection {
    let best = this.#first;
    for (const connection of this.#all) if (connection.load < best.load) best = connection;
    return best;
  }

  #check(offset: number, length: number): void {
    const { minimum } = this.blockSize;
    const details: ErrorDetails = { offset, length, sizeBytes: this.sizeBytes };
    const inside = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length > 0;
    if (!inside || offset + length > this.sizeBytes) {
      const message = `${length} bytes at ${offset} are not inside the export of ${this.sizeBytes} bytes`;
      throw new SendenseError('INVALID_REQUEST', message, { details });
    }
    if (minimum > 1 && (offset % minimum !== 0 || length % minimum !== 0)) {
      const message = `${length} bytes at ${offset} do not lie on the export's blocks of ${minimum} bytes`;
      throw new SendenseError('INVALID_REQUEST', message, { details: { ...details, blockBytes: minimum } });
    }
  }
}

function unsupported(command: string, what: string): SendenseError {
  const details = { errno: 'ENOTSUP', command };
  return new SendenseError('NBD_IO', `the NBD server does not support ${what} on this export`, { details });
}
