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
  /** TLS asked for, and nothing heard through it yet, or something. */
  #tls: 'none' | 'silent' | 'heard' = 'none';
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

  /** The negotiation is over; `stallMs` 0 = no limit. */
  established(stallMs: number, onStall: () => void): void {
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
    const socket = connectTls({
      socket: this.#socket,
      host: hostname,
      ...(isIP(hostname) === 0 && { servername: hostname }),
      ...(ca !== undefined && { ca }),
      ...(cert !== undefined && { cert }),
      ...(key !== undefined && { key }),
      minVersion: 'TLSv1.2',
    });
    this.#socket = socket;
    this.#tls = 'silent';
    socket.once('secureConnect', () => {
      if (!this.#error) onSecure();
    });
    // Node takes no `onread` for TLS over an existing socket; the bytes are fresh copies out of OpenSSL anyway.
    socket.on('data', (chunk: Buffer) => this.#distribute(chunk));
    this.#listen(socket);
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

  #distribute(chunk: Buffer): void {
    this.#tls = 'heard';
    for (let at = 0; at < chunk.length && !this.#error; ) {
      const count = chunk.copy(this.receiver.buffer(), 0, at);
      this.#received(count);
      at += count;
    }
  }

  #received(count: number): void {
    try {
      if (!this.#error) this.receiver.received(count);
    } catch (error) {
      this.destroy(toSendenseError(error));
    }
  }

  #onread(): { buffer: () => Buffer; callback: (count: number) => boolean } {
    return {
      buffer: () => this.receiver.buffer(),
      callback: (count) => {
        this.#received(count);
        return true;
      },
    };
  }

  #listen(socket: Socket): void {
    socket.on('error', (cause: NodeJS.ErrnoException) => this.destroy(this.#explain(cause.message, cause)));
    socket.on('close', () => this.destroy(this.#explain('the server closed it')));
  }

  #explain(said: string, cause?: NodeJS.ErrnoException): SendenseError {
    const options = { details: { errno: cause?.code ?? '' }, cause };
    if (!this.#connected) return new SendenseError('NBD_UNREACHABLE', `no NBD server answers: ${said}`, options);
    // A server that does not like our certificate only says so, or just leaves, after we think all is well.
    if (this.#tls === 'silent')
      return new SendenseError('TLS_FAILED', `TLS with the NBD server failed: ${said}`, options);
    return new SendenseError('NBD_CLOSED', `the NBD connection ended: ${said}`, options);
  }
}
