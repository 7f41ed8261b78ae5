/**
 * One negotiated NBD connection: sends requests as they come, at most `maxRequests` and `maxInFlightBytes` ahead, and
 * matches replies by handle in whatever order they arrive. Once a request's promise has settled its memory is never
 * touched again, neither by a late payload nor by the sending side. It does not reconnect.
 */
import { SendenseError } from '#/lib/errors.ts';
import { AbortWatch } from './abort-watch.ts';
import { encodeRequest, errnoName, protocolError } from './codec.ts';
import type { StatusExtent } from './codec.ts';
import { NBD_CMD_BLOCK_STATUS, NBD_CMD_DISC, NBD_CMD_READ, NBD_CMD_WRITE, NBD_REQUEST_BYTES } from './constants.ts';
import { Coverage } from './coverage.ts';
import type { Negotiated } from './handshake.ts';
import { ReplyParser } from './replies.ts';
import type { ReplyEvents } from './replies.ts';
import type { Wire } from './wire.ts';

const ABORT_GRACE_MS = 1000;
const CLOSE_GRACE_MS = 2000;
const COMMAND_NAMES = ['READ', 'WRITE', 'DISC', 'FLUSH', 'TRIM', 'CACHE', 'WRITE_ZEROES', 'BLOCK_STATUS'];

export interface NbdRequest {
  command: number;
  flags: number;
  offset: number;
  length: number;
  /** Payload of a WRITE, or the memory a READ fills; exactly `length` long. */
  data?: Buffer | undefined;
  /** For BLOCK_STATUS: the context wanted; `extents` is filled by the reply. */
  status?: { contextId: number; extents: StatusExtent[] | undefined } | undefined;
  signal?: AbortSignal | undefined;
}

export interface Limits {
  maxRequests: number;
  maxInFlightBytes: number;
  /** Requests in flight and not a byte moving for so long ends the connection; 0 = never. */
  stallTimeoutMs: number;
}

interface Pending {
  readonly request: NbdRequest;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  header: Buffer | undefined;
  coverage: Coverage | undefined;
  failure: SendenseError | undefined;
  contextsSeen: number[] | undefined;
  settled: boolean;
}

export class Connection implements ReplyEvents {
  readonly negotiated: Negotiated;
  /** Requests accepted and not yet answered; what a caller with several connections balances by. */
  load = 0;
  readonly #wire: Wire;
  readonly #limits: Limits;
  readonly #parser: ReplyParser;
  readonly #contextIds: ReadonlySet<number>;
  readonly #queue: Pending[] = [];
  readonly #sent = new Map<number, Pending>();
  readonly #headers: Buffer[] = [];
  readonly #watch = new AbortWatch((signal) => this.#aborted(signal));
  #handle = 0;
  #inFlightBytes = 0;
  #closing = false;
  #onIdle: (() => void) | undefined;

  constructor(wire: Wire, negotiated: Negotiated, limits: Limits) {
    this.negotiated = negotiated;
    this.#wire = wire;
    this.#limits = limits;
    this.#contextIds = new Set(negotiated.contexts.values());
    const headers = Buffer.allocUnsafeSlow(limits.maxRequests * NBD_REQUEST_BYTES);
    for (let at = 0; at < headers.length; at += NBD_REQUEST_BYTES) {
      this.#headers.push(headers.subarray(at, at + NBD_REQUEST_BYTES));
    }
    this.#parser = new ReplyParser(this, negotiated.structured);
    wire.receiver = this.#parser;
    wire.established(limits.stallTimeoutMs, () => this.#stalled());
  }

  /** Called once when the connection is over. */
  set onClosed(listener: (error: SendenseError) => void) {
    this.#wire.onClosed = (error) => {
      this.#rejectAll(error);
      listener(error);
    };
  }

  /** Queues one request that is within the export and the server's limits; length 0 only where the command has none. */
  async submit(request: NbdRequest): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#wire.error) throw closedError(this.#wire.error);
      if (this.#closing) throw new SendenseError('NBD_CLOSED', 'the NBD client is closed');
      request.signal?.throwIfAborted();
      if (request.signal) this.#watch.add(request.signal);
      const coverage =
        request.command === NBD_CMD_READ && this.negotiated.structured
          ? new Coverage(request.offset, request.length)
          : undefined;
      this.load++;
      this.#queue.push({
        request,
        resolve,
        reject,
        header: undefined,
        coverage,
        failure: undefined,
        contextsSeen: undefined,
        settled: false,
      });
      this.#pump();
    });
  }

  /** Waits for the answers still due, takes leave of the server and closes; bounded in time, never throws. */
  async close(): Promise<void> {
    if (this.#wire.error) return;
    this.#closing = true;
    if (this.load > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#onIdle = resolve;
      await promise;
    }
    if (this.#wire.error) return;
    const closed = Promise.withResolvers<void>();
    this.#wire.onClosed = () => closed.resolve();
    if (this.#sent.size > 0) return this.destroy(); // only given-up requests are left: nothing worth waiting for
    const header = Buffer.alloc(NBD_REQUEST_BYTES);
    encodeRequest(header, { command: NBD_CMD_DISC, flags: 0, handle: 0, offset: 0, length: 0 });
    this.#wire.send(header);
    this.#wire.end();
    AbortSignal.timeout(CLOSE_GRACE_MS).addEventListener('abort', () => this.destroy(), { once: true });
    await closed.promise;
  }

  destroy(error: SendenseError = new SendenseError('NBD_CLOSED', 'the NBD client was closed')): void {
    this.#wire.destroy(error);
  }

  simple(handle: number): number | undefined {
    const { request } = this.#find(handle);
    if (request.command === NBD_CMD_BLOCK_STATUS || (request.command === NBD_CMD_READ && this.negotiated.structured)) {
      throw protocolError('a simple reply where only a structured one is allowed');
    }
    return request.command === NBD_CMD_READ ? request.length : undefined;
  }

  data(handle: number, offset: number | undefined, length: number): Buffer | undefined {
    const pending = this.#read(handle);
    const { request } = pending;
    if (offset !== undefined) pending.coverage?.add(offset, length);
    if (pending.settled) return undefined;
    const at = (offset ?? request.offset) - request.offset;
    return request.data?.subarray(at, at + length);
  }

  hole(handle: number, offset: number, length: number): void {
    const pending = this.#read(handle);
    pending.coverage?.add(offset, length);
    const at = offset - pending.request.offset;
    if (!pending.settled) pending.request.data?.fill(0, at, at + length);
  }

  status(handle: number, contextId: number, extents: StatusExtent[]): void {
    const pending = this.#find(handle);
    const wanted = pending.request.status;
    if (!wanted || !this.#contextIds.has(contextId)) {
      throw protocolError('block status of a context that was not asked for');
    }
    pending.contextsSeen ??= [];
    if (pending.contextsSeen.includes(contextId)) throw protocolError('block status of one context came twice');
    pending.contextsSeen.push(contextId);
    if (wanted.contextId === contextId) wanted.extents = extents;
  }

  failed(handle: number, errno: number, message: string): void {
    const pending = this.#find(handle);
    pending.failure ??= ioError(pending.request, errno, message);
  }

  done(handle: number): void {
    const pending = this.#find(handle);
    const { request } = pending;
    if (!pending.failure) checkComplete(pending);
    this.#sent.delete(handle);
    if (pending.header) this.#headers.push(pending.header);
    this.#inFlightBytes -= payloadBytes(request);
    this.#settle(pending, request.signal?.aborted ? request.signal.reason : pending.failure);
    this.#pump();
  }

  #pump(): void {
    for (let next = this.#queue[0]; next; next = this.#queue[0]) {
      const bytes = payloadBytes(next.request);
      const header = this.#headers.at(-1);
      if (!header || (this.#inFlightBytes > 0 && this.#inFlightBytes + bytes > this.#limits.maxInFlightBytes)) return;
      this.#headers.pop();
      this.#queue.shift();
      this.#inFlightBytes += bytes;
      this.#transmit(next, header);
    }
  }

  #transmit(pending: Pending, header: Buffer): void {
    const { request } = pending;
    const handle = ++this.#handle;
    pending.header = header;
    this.#sent.set(handle, pending);
    const { command, flags, offset, length } = request;
    encodeRequest(header, { command, flags, handle, offset, length });
    this.#wire.send(header, command === NBD_CMD_WRITE ? request.data : undefined);
  }

  #find(handle: number): Pending {
    const pending = this.#sent.get(handle);
    if (!pending) throw protocolError('a reply carries a handle that is not in use');
    return pending;
  }

  #read(handle: number): Pending {
    const pending = this.#find(handle);
    if (pending.request.command !== NBD_CMD_READ) throw protocolError('data came for a request that is not a read');
    return pending;
  }

  #settle(pending: Pending, error?: unknown): void {
    if (pending.settled) return;
    pending.settled = true;
    this.load--;
    if (pending.request.signal) this.#watch.remove(pending.request.signal);
    if (error === undefined) pending.resolve();
    else pending.reject(error);
    if (this.load === 0) this.#onIdle?.();
  }

  #aborted(signal: AbortSignal): void {
    for (const pending of this.#queue.filter(({ request }) => request.signal === signal)) {
      this.#queue.splice(this.#queue.indexOf(pending), 1);
      this.#settle(pending, signal.reason);
    }
    let busy = false;
    for (const [handle, pending] of this.#sent) {
      if (pending.request.signal !== signal || pending.settled) continue;
      // Memory that the system is sending from or receiving into right now is given back only after the reply.
      if (pending.request.command === NBD_CMD_WRITE || this.#parser.receiving === handle) busy = true;
      else this.#settle(pending, signal.reason);
    }
    if (busy)
      AbortSignal.timeout(ABORT_GRACE_MS).addEventListener('abort', () => this.#enforce(signal), { once: true });
    this.#pump();
  }

  #enforce(signal: AbortSignal): void {
    const late = [...this.#sent.values()].some(({ request, settled }) => request.signal === signal && !settled);
    if (late) this.destroy(new SendenseError('NBD_CLOSED', 'a cancelled request was not answered in time'));
  }

  #stalled(): void {
    if (this.#sent.size === 0) return;
    const message = `the NBD server was silent for ${this.#limits.stallTimeoutMs} ms with requests in flight`;
    this.destroy(new SendenseError('TIMEOUT', message));
  }

  #rejectAll(error: SendenseError): void {
    const all = [...this.#sent.values(), ...this.#queue];
    this.#sent.clear();
    this.#queue.length = 0;
    for (const pending of all) {
      const { signal } = pending.request;
      this.#settle(pending, signal?.aborted ? signal.reason : closedError(error));
    }
  }
}

function payloadBytes(request: NbdRequest): number {
  return request.data ? request.length : 0;
}

function checkComplete(pending: Pending): void {
  if (pending.coverage && !pending.coverage.complete) throw protocolError('the reply to a read leaves bytes out');
  if (pending.request.status && !pending.request.status.extents) {
    throw protocolError('the reply to a block status request leaves the context out');
  }
}

/** Each request gets an error of its own: they may be thrown in different places. */
function closedError(cause: SendenseError): SendenseError {
  return new SendenseError(cause.code, cause.message, { details: cause.details, cause });
}

function ioError(request: NbdRequest, errno: number, said: string): SendenseError {
  const { offset, length } = request;
  const command = COMMAND_NAMES[request.command] ?? '';
  const name = errnoName(errno);
  const text = said === '' ? '' : `: ${said}`;
  const message = `the NBD server answered ${command} of ${length} bytes at ${offset} with ${name}${text}`;
  return new SendenseError('NBD_IO', message, { details: { errno: name, command, offset, length } });
}
