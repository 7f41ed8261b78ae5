/** One verified client, from the first option after TLS to the end of its pipe. */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { elapsedMs } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import type { Logger } from '#/lib/log.ts';
import { ByteFeed } from './byte-feed.ts';
import { negotiateSecure, unknownExport } from './negotiation.ts';
import type { Denial, Peer } from './negotiation.ts';
import type { ServedExport } from './served-export.ts';
import { splice } from './splice.ts';
import { openUpstream } from './upstream.ts';
import type { Upstream } from './upstream.ts';

export interface SessionOptions {
  secure: TLSSocket;
  /** Of the peer, for the log. */
  address: string;
  find: (name: string) => ServedExport | undefined;
  log: Logger;
}

export class Session {
  readonly #secure: TLSSocket;
  readonly #identity: string;
  readonly #find: (name: string) => ServedExport | undefined;
  readonly #log: Logger;
  readonly #cut = new AbortController();
  #place: Disposable | undefined;
  #upstream: Upstream | undefined;
  #rest: Buffer = Buffer.alloc(0);

  /** TLS_FAILED when the certificate names nobody. */
  constructor(options: SessionOptions) {
    this.#secure = options.secure;
    this.#identity = identityOf(options.secure);
    this.#find = options.find;
    this.#log = options.log.child({ identity: this.#identity, address: options.address });
    this.#secure.once('close', () => this.cut());
  }

  cut(): void {
    this.#cut.abort();
    this.#secure.destroy();
    this.#place?.[Symbol.dispose]();
  }

  async negotiate(): Promise<void> {
    const peer = feedFrom(this.#secure);
    try {
      this.#upstream = await negotiateSecure(peer, async (name, structured) => this.#enter(name, structured));
      this.#rest = peer.feed.rest();
    } catch (error) {
      this.cut();
      throw error;
    } finally {
      peer.stop();
    }
  }

  async run(): Promise<void> {
    if (!this.#upstream) return;
    const begun = elapsedMs();
    this.#log.info('session opened');
    const { up, down } = await splice(this.#secure, this.#upstream, this.#rest);
    this.cut();
    this.#log.info({ up, down, ms: Math.round(elapsedMs() - begun) }, 'session closed');
  }

  async #enter(name: string, structured: boolean): Promise<Upstream | Denial> {
    const served = this.#find(name);
    if (!served || served.section.agent !== this.#identity) {
      this.#log.warn({ export: name.slice(0, 64), exists: served !== undefined }, 'front door: not its export');
      return unknownExport();
    }
    const place = served.enter(() => this.cut());
    if (typeof place === 'string') {
      this.#log.warn({ export: name, state: served.state, reason: place }, 'front door: no further session');
      if (place === 'down') return { type: 'down', text: 'the export is not being served at the moment' };
      return { type: 'busy', text: served.section.readOnly ? 'too many readers' : 'the export has its one writer' };
    }
    this.#place = place;
    this.#log.setBindings({ export: name });
    return openUpstream(served.socket, structured, this.#cut.signal);
  }
}

/** Bytes of a socket as a feed; after `stop` the socket is paused and its bytes stay in it. */
export function feedFrom(socket: Socket): Peer & { stop: () => void } {
  const feed = new ByteFeed();
  const onData = (chunk: Buffer): void => feed.feed(chunk);
  const onClose = (): void => feed.end(new SendenseError('NBD_CLOSED', 'the client left during the negotiation'));
  socket.on('data', onData);
  socket.on('close', onClose);
  return {
    feed,
    send: (bytes) => void socket.write(bytes),
    stop: () => {
      socket.pause();
      socket.off('data', onData);
      socket.off('close', onClose);
    },
  };
}

/** The common name of the verified certificate. TLS_FAILED unless there is exactly one. */
function identityOf(secure: TLSSocket): string {
  const name: unknown = secure.authorized ? secure.getPeerCertificate().subject.CN : undefined;
  if (typeof name === 'string' && name !== '') return name;
  throw new SendenseError('TLS_FAILED', 'the client certificate carries no single common name');
}
