/**
 * The socket under one NBD connection: connects, upgrades to TLS, and hands received bytes to whoever is the receiver
 * at the moment, in memory the receiver chose. After `destroy` no receiver memory is written any more.
 */
import { connect as connectTcp, isIP } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { SendenseError, toSendenseError } from '#/lib/errors.ts';

const KEEP_ALIVE_MS = 30_000;

export interface Receiver {
  /** Where the next bytes shall go; never empty. */
  buffer(): Buffer;
  /** That many bytes went into the last `buffer()`; throwing ends the connection. */
  received(count: number): void;
}

/** What TLS needs, as PEM text; `ca` left out means the system's authorities. */
export interface TlsMaterial {
  ca?: string | Buffer;
  cert?: string | Buffer;
  key?: string | Buffer;
  /** Name or IP address the server's certificate must carry; default is the host, 'localhost' for a unix socket. */
  hostname?: string;
}

export interface NbdEndpoint {
  exportName: string;
  socketPath?: string;
  host?: string;
  port?: number;
  tls?: TlsMaterial;
}

export class Wire {
  receiver: Receiver;
  /** Called once, with the reason, when the connection is over for whatever cause. */
  onClosed: (error: SendenseError) => void = () => undefined;
  #socket: Socket;
  #connected = false;
  #established = false;
  #tls = false;
  #error: SendenseError | undefined;
  #corked = false;
  readonly #endpoint: NbdEndpoint;
  readonly #uncork = (): void => {
    this.#corked = false;
    this.#socket.uncork();
  };

  constructor(endpoint: NbdEndpoint, receiver: Receiver) {
    this.#endpoint = endpoint;
    this.receiver = receiver;
    const { socketPath, host = 'localhost', port = 0 } = endpoint;
    const onread = this.#onread();
    this.#socket = connectTcp(socketPath === undefined ? { host, port, onread } : { path: socketPath, onread });
    this.#socket.once('connect', () => {
      this.#connected = true;
    });
    this.#listen(this.#socket);
  }

  /** The reason of the end, once it has ended. */
  get error(): SendenseError | undefined {
    return this.#error;
  }

  /** The negotiation is over: from now on an end of the stream is a loss, not a refusal. `stallMs` 0 = no limit. */
  established(stallMs: number, onStall: () => void): void {
    this.#established = true;
    this.#socket.setKeepAlive(true, KEEP_ALIVE_MS);
    this.#socket.setNoDelay(true);
    if (stallMs > 0) this.#socket.setTimeout(stallMs, onStall);
  }

  /** Sends without copying: the memory must stay as it is until the peer has answered. Calls of one turn go out together. */
  send(header: Buffer, payload?: Buffer): void {
    if (this.#error) return;
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
      process.nextTick(this.#uncork);
    }
    this.#socket.write(header);
    if (payload) this.#socket.write(payload);
  }

  startTls(onSecure: () => void): void {
    const { ca, cert, key, hostname = this.#endpoint.host ?? 'localhost' } = this.#endpoint.tls ?? {};
    this.#tls = true;
    const raw = this.#socket;
    const options = {
      socket: raw,
      onread: this.#onread(), // Node takes it here too, only its types do not say so
      host: hostname,
      ...(isIP(hostname) === 0 && { servername: hostname }),
      ...(ca !== undefined && { ca }),
      ...(cert !== undefined && { cert }),
      ...(key !== undefined && { key }),
      minVersion: 'TLSv1.2' as const,
    };
    this.#socket = connectTls(options);
    this.#socket.once('secureConnect', () => {
      if (!this.#error) onSecure();
    });
    this.#listen(this.#socket);
  }

  /** Sends the end of our stream after everything queued; the peer is expected to close. */
  end(): void {
    if (!this.#error) this.#socket.end();
  }

  destroy(error: SendenseError): void {
    if (this.#error) return;
    this.#error = error;
    this.#socket.destroy();
    this.onClosed(error);
  }

  #onread(): { buffer: () => Buffer; callback: (count: number) => boolean } {
    return {
      buffer: () => this.receiver.buffer(),
      callback: (count) => {
        try {
          if (!this.#error) this.receiver.received(count);
        } catch (error) {
          this.destroy(toSendenseError(error));
        }
        return true;
      },
    };
  }

  #listen(socket: Socket): void {
    socket.on('error', (cause: NodeJS.ErrnoException) => this.destroy(this.#explain(cause)));
    socket.on('close', () => this.destroy(new SendenseError('NBD_CLOSED', 'the NBD server closed the connection')));
  }

  #explain(cause: NodeJS.ErrnoException): SendenseError {
    const details = { errno: cause.code ?? '' };
    const system = cause.syscall !== undefined;
    if (!this.#connected) {
      return new SendenseError('NBD_UNREACHABLE', `no NBD server answers: ${cause.message}`, { details, cause });
    }
    if (this.#tls && !this.#established && !system) {
      return new SendenseError('TLS_FAILED', `TLS with the NBD server failed: ${cause.message}`, { details, cause });
    }
    return new SendenseError('NBD_CLOSED', `the NBD connection broke: ${cause.message}`, { details, cause });
  }
}
