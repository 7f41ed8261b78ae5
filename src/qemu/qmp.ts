/**
 * A client for QEMU's control socket (QMP). One client at a time is served by QEMU: whoever holds this connection is
 * the only one, and the connection's end is the end of the process or of its monitor. Replies are matched by id;
 * events may come between them. Lines, the number of open commands and the time of each are bounded.
 */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { SendenseError, toSendenseError } from '#/lib/errors.ts';

const MAX_LINE_BYTES = 16 * 1024 * 1024;
const DEFAULT_TIMEOUT_MS = 10_000;

export interface QmpOptions {
  signal?: AbortSignal;
  /** For the connection and its greeting, and for each command that names no other; default 10 s. */
  timeoutMs?: number;
  onEvent?: (event: string, data: unknown) => void;
}

interface Pending {
  resolve: (value: unknown) => void;
  reject: (error: SendenseError) => void;
  command: string;
  timer: NodeJS.Timeout;
}

/**
 * Connects and negotiates. TOOL_FAILED when nobody listens or the peer does not speak QMP, TIMEOUT when another
 * client holds the socket (QEMU then accepts and stays silent).
 */
export async function connectQmp(path: string, options: QmpOptions = {}): Promise<Qmp> {
  options.signal?.throwIfAborted();
  const qmp = new Qmp(connect({ path }), path, options);
  const abort = (): void => qmp.close(toSendenseError(options.signal?.reason));
  options.signal?.addEventListener('abort', abort, { once: true });
  try {
    await qmp.greeted;
    await qmp.execute('qmp_capabilities');
    return qmp;
  } catch (error) {
    qmp.close();
    throw error;
  } finally {
    options.signal?.removeEventListener('abort', abort);
  }
}

export class Qmp implements AsyncDisposable {
  /** Resolves, never rejects, when the connection has ended, whoever ended it. */
  readonly closed: Promise<void>;
  /** Resolves with the greeting; rejects when the connection ends before. */
  readonly greeted: Promise<void>;
  readonly #socket: Socket;
  readonly #path: string;
  readonly #timeoutMs: number;
  readonly #onEvent: (event: string, data: unknown) => void;
  readonly #pending = new Map<number, Pending>();
  readonly #greeting = Promise.withResolvers<void>();
  #parts: Buffer[] = [];
  #partBytes = 0;
  #nextId = 1;
  #ended: SendenseError | undefined;

  constructor(socket: Socket, path: string, options: QmpOptions) {
    this.#socket = socket;
    this.#path = path;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#onEvent = options.onEvent ?? ((): void => undefined);
    this.greeted = this.#greeting.promise;
    this.greeted.catch(() => undefined); // an end before the greeting is reported to whoever awaits it
    const timer = setTimeout(() => this.close(this.#timeout('greeting')), this.#timeoutMs);
    this.greeted.then(
      () => clearTimeout(timer),
      () => clearTimeout(timer),
    );
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (cause) => this.#end(this.#failed(cause.message, cause)));
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#end(this.#failed('the control socket was closed'));
        resolve();
      });
    });
  }

  /** Runs one command. TOOL_FAILED with QEMU's own words when it refuses or the connection ends, TIMEOUT otherwise. */
  async execute(command: string, args?: Record<string, unknown>, timeoutMs = this.#timeoutMs): Promise<unknown> {
    if (this.#ended) throw this.#ended;
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const timer = setTimeout(() => {
      this.#pending.delete(id);
      reject(this.#timeout(command));
    }, timeoutMs);
    this.#pending.set(id, { resolve, reject, command, timer });
    this.#socket.write(`${JSON.stringify({ execute: command, id, ...(args && { arguments: args }) })}\n`);
    return promise;
  }

  close(reason?: SendenseError): void {
    if (reason) this.#end(reason);
    this.#socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    await this.closed;
  }

  #receive(chunk: Buffer): void {
    let rest = chunk;
    for (let at = rest.indexOf(10); at >= 0; at = rest.indexOf(10)) {
      const line = Buffer.concat([...this.#parts, rest.subarray(0, at)]).toString('utf8');
      this.#parts = [];
      this.#partBytes = 0;
      rest = rest.subarray(at + 1);
      if (line.trim() !== '') this.#line(line);
    }
    if (rest.length === 0) return;
    this.#parts.push(rest);
    this.#partBytes += rest.length;
    if (this.#partBytes > MAX_LINE_BYTES) this.close(this.#failed('a line is longer than 16 MiB'));
  }

  #line(line: string): void {
    let message: Record<string, unknown>;
    try {
      message = JSON.parse(line) as Record<string, unknown>;
    } catch (cause) {
      return this.close(this.#failed('a line is not JSON', cause));
    }
    if ('QMP' in message) return this.#greeting.resolve();
    if (typeof message['event'] === 'string') return this.#onEvent(message['event'], message['data']);
    const pending = this.#pending.get(message['id'] as number);
    if (!pending) return; // an answer that came after its time was over
    this.#pending.delete(message['id'] as number);
    clearTimeout(pending.timer);
    if ('return' in message) return pending.resolve(message['return']);
    const error = message['error'] as { desc?: string } | undefined;
    pending.reject(this.#failed(`${pending.command}: ${error?.desc ?? 'refused without a reason'}`));
  }

  #end(reason: SendenseError): void {
    if (this.#ended) return;
    this.#ended = reason;
    this.#greeting.reject(reason);
    for (const pending of this.#pending.values()) {
      clearTimeout(pending.timer);
      pending.reject(reason);
    }
    this.#pending.clear();
  }

  #timeout(what: string): SendenseError {
    return new SendenseError('TIMEOUT', `QEMU did not answer ${what} in time`, { details: { socket: this.#path } });
  }

  #failed(why: string, cause?: unknown): SendenseError {
    return new SendenseError('TOOL_FAILED', `QEMU control: ${why}`, { details: { socket: this.#path }, cause });
  }
}
