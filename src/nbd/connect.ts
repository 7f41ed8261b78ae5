import { SendenseError } from '#/lib/errors.ts';
import { protocolError } from './codec.ts';
import { NBD_OPTION_REPLY_HEADER_BYTES } from './constants.ts';
import { negotiate } from './handshake.ts';
import type { Negotiated, Step, Wanted } from './handshake.ts';
import { Wire } from './wire.ts';
import type { NbdEndpoint, Receiver } from './wire.ts';

const STAGING_BYTES = 64 * 1024;
const NOTHING = Buffer.alloc(0);

export interface ConnectOptions {
  metaContexts: readonly string[];
  /** For connecting and negotiating together. */
  timeoutMs: number;
  signal?: AbortSignal | undefined;
}

/** Connects and negotiates. `established` is called in the same turn, so that the new receiver misses no byte. */
export async function openWire<T>(
  endpoint: NbdEndpoint,
  options: ConnectOptions,
  established: (wire: Wire, negotiated: Negotiated) => T,
): Promise<T> {
  options.signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const wanted = {
    exportName: endpoint.exportName,
    tls: endpoint.tls !== undefined,
    metaContexts: options.metaContexts,
  };
  const handshake = new HandshakeReceiver(wanted, (negotiated) => {
    resolve(established(wire, negotiated));
  });
  const wire = new Wire(endpoint, handshake);
  handshake.wire = wire;
  wire.onClosed = reject;
  const overdue = AbortSignal.timeout(options.timeoutMs);
  const stop = options.signal ? AbortSignal.any([options.signal, overdue]) : overdue;
  const onStop = (): void => {
    const message = `the NBD server did not open the export within ${options.timeoutMs} ms`;
    const reason: unknown = options.signal?.aborted ? options.signal.reason : new SendenseError('TIMEOUT', message);
    reject(reason instanceof Error ? reason : new SendenseError('CANCELLED', 'connecting was cancelled'));
    wire.destroy(new SendenseError('NBD_CLOSED', 'connecting was given up'));
  };
  stop.addEventListener('abort', onStop);
  try {
    return await promise;
  } finally {
    stop.removeEventListener('abort', onStop);
  }
}

/** Feeds the negotiation with received bytes and does what it asks for. */
export class HandshakeReceiver implements Receiver {
  wire: Pick<Wire, 'send' | 'startTls'> | undefined;
  readonly #steps: Generator<Step, Negotiated, Buffer>;
  readonly #finished: (negotiated: Negotiated) => void;
  readonly #staging = Buffer.allocUnsafeSlow(STAGING_BYTES);
  #need = 0;
  #filled = 0;

  constructor(wanted: Wanted, finished: (negotiated: Negotiated) => void) {
    this.#steps = negotiate(wanted);
    this.#finished = finished;
    this.#advance(NOTHING);
  }

  /** Never empty: while TLS is being set up nothing is expected, and anything that comes is a breach. */
  buffer(): Buffer {
    return this.#staging.subarray(this.#filled, this.#need || NBD_OPTION_REPLY_HEADER_BYTES);
  }

  received(count: number): void {
    if (this.#need === 0) throw protocolError('the server speaks out of turn');
    this.#filled += count;
    if (this.#filled < this.#need) return;
    const bytes = Buffer.from(this.#staging.subarray(0, this.#need));
    this.#need = 0;
    this.#filled = 0;
    this.#advance(bytes);
  }

  #advance(input: Buffer): void {
    for (let next = this.#steps.next(input); ; next = this.#steps.next(NOTHING)) {
      if (next.done) return this.#finished(next.value);
      const step = next.value;
      if (step.kind === 'receive') {
        this.#need = step.length;
        return;
      }
      if (step.kind === 'startTls') {
        this.wire?.startTls(() => this.#advance(NOTHING));
        return;
      }
      this.wire?.send(step.bytes);
    }
  }
}
