/** Bytes that arrive in pieces, taken out in exact lengths. Bounded: a peer that sends ahead of the talk is refused. */
import { SendenseError } from '#/lib/errors.ts';

/** Nobody has reason to send more than this before the negotiation is over. */
const MAX_AHEAD_BYTES = 256 * 1024;

export class ByteFeed {
  #bytes: Buffer = Buffer.alloc(0);
  #waiting: { length: number; resolve: (bytes: Buffer) => void; reject: (error: unknown) => void } | undefined;
  #ended: unknown;

  feed(chunk: Buffer): void {
    if (this.#ended !== undefined) return;
    if (this.#bytes.length + chunk.length > MAX_AHEAD_BYTES) {
      this.#bytes = Buffer.alloc(0);
      return this.end(new SendenseError('NBD_PROTOCOL', 'the peer sends more than the negotiation needs'));
    }
    this.#bytes = this.#bytes.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#bytes, chunk]);
    const waiting = this.#waiting;
    if (!waiting || this.#bytes.length < waiting.length) return;
    this.#waiting = undefined;
    waiting.resolve(this.#take(waiting.length));
  }

  /** No more comes: whoever wants more than what is here gets the error. */
  end(error: unknown): void {
    this.#ended ??= error;
    this.#waiting?.reject(this.#ended);
    this.#waiting = undefined;
  }

  /** Exactly `length` bytes. One read at a time. */
  async read(length: number): Promise<Buffer> {
    if (this.#bytes.length >= length) return this.#take(length);
    if (this.#ended !== undefined) throw this.#ended;
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    this.#waiting = { length, resolve, reject };
    return promise;
  }

  /** Everything that is here and not yet read. */
  rest(): Buffer {
    return this.#take(this.#bytes.length);
  }

  #take(length: number): Buffer {
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }
}
