import type { Dispatcher } from 'undici';
import { SendenseError } from '#/lib/errors.ts';

type Headers = Record<string, string | string[] | undefined>;

export interface RangedGet {
  pool: Dispatcher;
  path: string;
  cookie: string;
  offset: number;
  /** Filled whole with the bytes of the range, straight from the socket's buffers. */
  target: Buffer;
  signal: AbortSignal;
}

/**
 * One range of a file by HTTP; resolves with the length of the whole file. Rejects with READ_FAILED, whose details
 * say `retryable` and `status`, for anything but exactly the range asked for, and ends the connection rather than
 * let a server send a whole disk. Never touches `target` after it has settled.
 */
export async function rangedGet({ pool, path, cookie, offset, target, signal }: RangedGet): Promise<number> {
  signal.throwIfAborted();
  const receiver = new Receiver(offset, target);
  const onAbort = (): void => receiver.fail(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    const range = `bytes=${offset}-${offset + target.length - 1}`;
    pool.dispatch({ method: 'GET', path, headers: { range, cookie, 'accept-encoding': 'identity' } }, receiver);
    return await receiver.done;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

class Receiver implements Dispatcher.DispatchHandler {
  readonly done: Promise<number>;
  readonly #offset: number;
  readonly #target: Buffer;
  readonly #resolve: (totalBytes: number) => void;
  readonly #reject: (error: Error) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #failure: Error | undefined;
  #filled = 0;
  #totalBytes = 0;

  constructor(offset: number, target: Buffer) {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.done = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#offset = offset;
    this.#target = target;
  }

  fail(error: Error): void {
    if (this.#failure) return;
    this.#failure = error;
    this.#reject(error);
    // Waiting in the queue there is no controller yet; it is aborted when its turn comes.
    this.#controller?.abort(error);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#failure) controller.abort(this.#failure);
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: Headers): void {
    if (status < 200) return;
    const refusal = this.#check(status, headers);
    if (refusal) this.fail(refusal);
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#failure) return;
    if (this.#filled + chunk.length > this.#target.length) {
      this.fail(this.#failed('the server sent more than was asked for', false));
      return;
    }
    chunk.copy(this.#target, this.#filled);
    this.#filled += chunk.length;
  }

  onResponseEnd(): void {
    if (this.#failure) return;
    if (this.#filled === this.#target.length) this.#resolve(this.#totalBytes);
    else this.fail(this.#failed(`the answer ended after ${this.#filled} of ${this.#target.length} bytes`, true));
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    // A connection refused for its certificate keeps the code that says so.
    const own = error instanceof SendenseError && error.code !== 'SOURCE_UNREACHABLE';
    this.fail(own ? error : this.#failed(`the connection failed: ${error.message}`, true, error));
  }

  #check(status: number, headers: Headers): SendenseError | undefined {
    if (status === 200) return this.#failed('the server ignored the range and began to send the whole file', false);
    if (status !== 206) return this.#refused(status);
    const [, first, last, total] =
      /^bytes ([0-9]{1,16})-([0-9]{1,16})\/([0-9]{1,16})$/.exec(text(headers, 'content-range')) ?? [];
    const end = this.#offset + this.#target.length - 1;
    if (Number(first) !== this.#offset || Number(last) !== end || Number(total) <= end) {
      return this.#failed(`the server sent another range: "${text(headers, 'content-range')}"`, false);
    }
    const length = text(headers, 'content-length');
    if (length !== '' && Number(length) !== this.#target.length) {
      return this.#failed(`the server announced ${length} bytes`, false);
    }
    if (!['', 'identity'].includes(text(headers, 'content-encoding'))) {
      return this.#failed('the server encoded the content', false);
    }
    this.#totalBytes = Number(total);
    return undefined;
  }

  #refused(status: number): SendenseError {
    const message =
      status === 416 ? 'the file ends before the range' : `the server answered with HTTP status ${status}`;
    const error = this.#failed(message, [429, 500, 502, 503, 504].includes(status));
    error.details['status'] = status;
    return error;
  }

  #failed(why: string, retryable: boolean, cause?: Error): SendenseError {
    const details = { offset: this.#offset, length: this.#target.length, retryable };
    const message = `reading ${this.#target.length} bytes at ${this.#offset}: ${why}`;
    return new SendenseError('READ_FAILED', message, { details, cause });
  }
}

function text(headers: Headers, name: string): string {
  return [headers[name] ?? ''].flat().join(', ').trim();
}
