/**
 * The one public port: NBD over TLS 1.3 for clients with a certificate of our authority. The certificate's common
 * name is the identity; an export opens only to the identity its file names, and a writable one only once at a time.
 * After that the session is a plain pipe to the export's own socket, and both ends go together.
 *
 * Guaranteed: nothing but the greeting and refusals leaves before the certificate is verified. Not guaranteed:
 * anything about what an authorised client does inside its export.
 */
import { constants } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import type { Server as TlsServer, TLSSocket, TlsOptions } from 'node:tls';
import { elapsedMs } from '#/lib/clock.ts';
import { SendenseError, hasCode, toSendenseError } from '#/lib/errors.ts';
import type { Logger } from '#/lib/log.ts';
import { negotiatePlain } from './negotiation.ts';
import type { ServedExport } from './served-export.ts';
import { Session, feedFrom } from './session.ts';

const HANDSHAKE_MS = 10_000;
const MAX_CONNECTIONS = 1024;
const MAX_HANDSHAKES = 64;
const MAX_HANDSHAKES_PER_ADDRESS = 16;
const KEEP_ALIVE_MS = 30_000;
const MAX_REFUSALS_LOGGED = 30;
const REFUSALS_PER_MS = 60_000;

export interface FrontDoorOptions {
  /** `HOST:PORT`, `[ADDRESS]:PORT`; port 0 takes any. */
  listen: string;
  /** Holds ca-cert.pem, server-cert.pem, server-key.pem and perhaps ca-crl.pem. */
  tlsDir: string;
  find: (name: string) => ServedExport | undefined;
  log: Logger;
}

export interface FrontDoor extends AsyncDisposable {
  /** `HOST:PORT` as in a URI, with the port really taken. */
  readonly address: string;
  /** Reads the certificates again, for connections from now on. CONFIG_INVALID keeps the former ones. */
  reload(): Promise<void>;
}

/** Listens when it returns. CONFIG_INVALID when the address or the certificates are of no use. */
export async function openFrontDoor(options: FrontDoorOptions): Promise<FrontDoor> {
  const { host, port } = parseListen(options.listen);
  const door = new Door(options, await readCredentials(options.tlsDir));
  const address = await door.listen(host, port);
  return {
    address,
    reload: async () => door.renew(await readCredentials(options.tlsDir)),
    [Symbol.asyncDispose]: async () => door.close(),
  };
}

export function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9A-Fa-f:.%]+)\]|([^:[\]]+)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65_535) throw invalid(`${text} is not HOST:PORT`);
  return { host: match[1] ?? match[2] ?? '', port };
}

class Door {
  readonly #options: FrontDoorOptions;
  readonly #log: Logger;
  readonly #tls: TlsServer;
  readonly #plain: Server;
  readonly #open = new Set<Socket>();
  /** Running handshakes by address of the peer. */
  readonly #handshakes = new Map<string, number>();
  /** Connections inside the TLS handshake, by peer address and port. */
  readonly #securing = new Map<string, PromiseWithResolvers<TLSSocket>>();
  #handshaking = 0;
  #refusals = 0;
  #refusedSince = 0;

  constructor(options: FrontDoorOptions, credentials: TlsOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#tls = createTlsServer(credentials, (secure) => this.#verify(secure));
    this.#tls.on('tlsClientError', (error, secure) => {
      this.#settle(secure)?.reject(tlsError(error));
    });
    this.#plain = createServer({ keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS, noDelay: true });
    this.#plain.maxConnections = MAX_CONNECTIONS;
    this.#plain.on('connection', (raw) => void this.#serve(raw));
  }

  async listen(host: string, port: number): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#plain.once('error', reject);
    this.#plain.listen({ host, port }, resolve);
    try {
      await promise;
    } catch (cause) {
      throw invalid(`cannot listen on ${host}:${port}: ${(cause as Error).message}`, cause);
    }
    this.#plain.off('error', reject);
    this.#plain.on('error', (error) => this.#log.error({ err: error }, 'front door cannot accept a connection'));
    const taken = (this.#plain.address() as AddressInfo).port;
    return host.includes(':') ? `[${host}]:${taken}` : `${host}:${taken}`;
  }

  renew(credentials: TlsOptions): void {
    try {
      this.#tls.setSecureContext(credentials);
    } catch (cause) {
      throw invalid(`the certificates do not fit: ${(cause as Error).message}`, cause);
    }
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#plain.close(resolve));
    for (const socket of this.#open) socket.destroy();
    await closed;
  }

  async #serve(raw: Socket): Promise<void> {
    const address = raw.remoteAddress ?? '';
    raw.on('error', () => undefined); // every end is seen as a close
    const count = this.#handshakes.get(address) ?? 0;
    if (this.#handshaking >= MAX_HANDSHAKES || count >= MAX_HANDSHAKES_PER_ADDRESS) {
      this.#tellRefusal(address, new SendenseError('BUSY', 'too many handshakes at once'));
      return void raw.destroy();
    }
    this.#open.add(raw);
    raw.on('close', () => this.#open.delete(raw));
    this.#handshaking++;
    this.#handshakes.set(address, count + 1);
    let session: Session | undefined;
    try {
      session = await this.#handshake(raw, address);
    } catch (error) {
      if (!hasCode(error, 'CANCELLED')) this.#tellRefusal(address, error);
      raw.destroy();
    } finally {
      this.#handshaking--;
      const left = (this.#handshakes.get(address) ?? 1) - 1;
      if (left > 0) this.#handshakes.set(address, left);
      else this.#handshakes.delete(address);
    }
    await session?.run();
  }

  async #handshake(raw: Socket, address: string): Promise<Session> {
    const timer = new AbortController();
    const late = setTimeout(() => {
      timer.abort();
      raw.destroy();
    }, HANDSHAKE_MS);
    let secure: TLSSocket | undefined;
    try {
      await this.#startTls(raw);
      secure = await this.#secure(raw);
      const session = new Session({ secure, address, find: this.#options.find, log: this.#log });
      timer.signal.addEventListener('abort', () => session.cut(), { once: true });
      await session.negotiate();
      return session;
    } catch (error) {
      secure?.destroy();
      if (timer.signal.aborted) throw new SendenseError('TIMEOUT', 'the handshake took too long', { cause: error });
      throw error;
    } finally {
      clearTimeout(late);
    }
  }

  /** Whoever reaches the port can cause refusals; they must not be able to fill the log. */
  #tellRefusal(address: string, error: unknown): void {
    if (elapsedMs() - this.#refusedSince > REFUSALS_PER_MS) {
      this.#refusedSince = elapsedMs();
      this.#refusals = 0;
    }
    this.#refusals++;
    if (this.#refusals > MAX_REFUSALS_LOGGED) return;
    const { code, message } = toSendenseError(error);
    this.#log.warn({ address, code, reason: message }, 'front door refused a client');
    if (this.#refusals === MAX_REFUSALS_LOGGED) this.#log.warn('further refusals are not logged for a minute');
  }

  async #startTls(raw: Socket): Promise<void> {
    const peer = feedFrom(raw);
    try {
      await negotiatePlain(peer);
    } finally {
      peer.stop();
    }
  }

  async #secure(raw: Socket): Promise<TLSSocket> {
    const waiting = Promise.withResolvers<TLSSocket>();
    const key = keyOf(raw);
    this.#securing.set(key, waiting);
    raw.once('close', () =>
      waiting.reject(new SendenseError('TLS_FAILED', 'the client left during the TLS handshake')),
    );
    this.#tls.emit('connection', raw);
    try {
      return await waiting.promise;
    } finally {
      this.#securing.delete(key);
    }
  }

  /** The only place where a certificate is accepted. */
  #verify(secure: TLSSocket): void {
    const waiting = this.#settle(secure);
    if (secure.authorized && waiting) return waiting.resolve(secure);
    waiting?.reject(new SendenseError('TLS_FAILED', `client certificate: ${String(secure.authorizationError)}`));
    secure.destroy();
  }

  #settle(secure: TLSSocket): PromiseWithResolvers<TLSSocket> | undefined {
    secure.on('error', () => undefined); // every end is seen as a close
    return this.#securing.get(keyOf(secure));
  }
}

function keyOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}

/** OpenSSL's messages carry addresses and line ends; its codes say the same. */
function tlsError(cause: NodeJS.ErrnoException): SendenseError {
  return new SendenseError('TLS_FAILED', `TLS handshake: ${cause.code ?? cause.message}`, { cause });
}

async function readCredentials(dir: string): Promise<TlsOptions> {
  const read = async (name: string): Promise<Buffer> => {
    try {
      return await readFile(join(dir, name));
    } catch (cause) {
      throw invalid(`${join(dir, name)} cannot be read`, cause);
    }
  };
  const crl = await readFile(join(dir, 'ca-crl.pem')).catch(() => undefined);
  return {
    ca: await read('ca-cert.pem'),
    cert: await read('server-cert.pem'),
    key: await read('server-key.pem'),
    ...(crl && { crl }),
    requestCert: true,
    // Refused all the same, in `#verify`: the TLS server itself would not tell whom and why.
    rejectUnauthorized: false,
    minVersion: 'TLSv1.3',
    handshakeTimeout: HANDSHAKE_MS,
    // Every connection shows its certificate anew, so a renewed authority counts at once.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

function invalid(message: string, cause?: unknown): SendenseError {
  return new SendenseError('CONFIG_INVALID', `front door: ${message}`, { cause });
}
