/**
 * A logged-in session with a vCenter or ESXi host. It stays alive while idle, logs in anew when the server forgot it,
 * and logs out when disposed, because servers cap sessions. The password lives in memory only.
 */
import type { Pool } from 'undici';
import { sleep } from '#/lib/clock.ts';
import { SendenseError, hasCode } from '#/lib/errors.ts';
import { silentLogger } from '#/lib/log.ts';
import type { Logger } from '#/lib/log.ts';
import { Connection } from './connection.ts';
import type { MethodName } from './schema.ts';
import { isFault, moRef, readMoRef } from './soap.ts';
import type { Fields, MoRef } from './soap.ts';
import { chooseVersion } from './version.ts';
import { child, textOf } from './xml.ts';
import type { XmlNode } from './xml.ts';

const SERVICE_INSTANCE = moRef('ServiceInstance', 'ServiceInstance');
/** Servers forget a session after 30 minutes without a call, or less where somebody set it so. */
const KEEP_ALIVE_MS = 120_000;
const LOGOUT_TIMEOUT_MS = 10_000;
const DEFAULT_RETRY_DELAY_MS = 2000;
/** A connection that broke is back sooner than a server that has something else to do. */
export const NETWORK_IS_FASTER = 8;

export interface SessionOptions {
  /** `host`, `host:port` or `https://host[:port]`. */
  address: string;
  username: string;
  password: string;
  /** SHA-1 or SHA-256 of the server's certificate; without it the certificate must be vouched for by an authority. */
  thumbprint?: string;
  log?: Logger;
  signal?: AbortSignal;
  keepAliveMs?: number;
  /** First wait before something is tried again that the server was too busy for; doubles. Default 2 s. */
  retryDelayMs?: number;
}

export interface About {
  fullName: string;
  apiType: 'VirtualCenter' | 'HostAgent';
  apiVersion: string;
  build: string;
  /** Only vCenter has one. */
  instanceUuid: string | undefined;
}

export interface ServiceContent {
  about: About;
  rootFolder: MoRef;
  propertyCollector: MoRef;
  sessionManager: MoRef;
  viewManager: MoRef;
}

export type Call = (target: MoRef, method: MethodName, args: Fields, signal?: AbortSignal) => Promise<XmlNode>;

/** What the rest of this folder needs of a session. */
export interface Caller {
  readonly content: ServiceContent;
  /** API version that answers are shaped in, such as `8.0.3.0`. */
  readonly version: string;
  readonly retryDelayMs: number;

  /** One call, repeated once after a new login when the session had expired. Rejects with SOURCE_FAULT and others. */
  readonly call: Call;

  /**
   * Work that holds objects which die with a session (views, page tokens): repeated once, whole, after a new login
   * when it fails with the fault NotAuthenticated. It uses the call it is given.
   */
  renewing<T>(work: (call: Call) => Promise<T>, signal?: AbortSignal): Promise<T>;
}

/**
 * Connects, negotiates the API version and logs in. Rejects with SOURCE_UNREACHABLE, THUMBPRINT_MISMATCH or
 * TLS_FAILED before anything secret was sent, and with SOURCE_LOGIN_FAILED when user name or password are refused.
 */
export async function openSession(options: SessionOptions): Promise<Session> {
  const { retryDelayMs = DEFAULT_RETRY_DELAY_MS } = options;
  const connection = new Connection(options.address, options.thumbprint, retryDelayMs / NETWORK_IS_FASTER);
  try {
    connection.version = await chooseVersion(connection, options.signal);
    const answer = await connection.call('RetrieveServiceContent', SERVICE_INSTANCE, {}, options.signal);
    const session = new Session(connection, readContent(answer), options);
    await session.login(options.signal);
    session.startKeepAlive();
    return session;
  } catch (error) {
    await connection[Symbol.asyncDispose]();
    throw error;
  }
}

export class Session implements Caller, AsyncDisposable {
  readonly content: ServiceContent;
  readonly retryDelayMs: number;
  readonly #connection: Connection;
  readonly #options: SessionOptions;
  readonly #log: Logger;
  readonly #life = new AbortController();
  #generation = 0;
  #renewal: Promise<void> | undefined;

  constructor(connection: Connection, content: ServiceContent, options: SessionOptions) {
    this.#connection = connection;
    this.#options = options;
    this.content = content;
    this.retryDelayMs = options.retryDelayMs ?? DEFAULT_RETRY_DELAY_MS;
    this.#log = options.log ?? silentLogger();
  }

  get about(): About {
    return this.content.about;
  }

  get version(): string {
    return this.#connection.version;
  }

  /** Grows with every login: tells whether a cookie that was refused is still the present one. */
  get generation(): number {
    return this.#generation;
  }

  /** The session cookie as a header value. A secret: only for requests to this very server. */
  get cookie(): string {
    return this.#connection.cookie ?? '';
  }

  /** Connections of their own for disk data, to be destroyed by the caller. */
  newDataPool(connections: number, timeoutMs: number): Pool {
    return this.#connection.newPool(connections, timeoutMs);
  }

  readonly call: Call = async (target, method, args, signal) =>
    this.renewing((call) => call(target, method, args, signal), signal);

  async renewing<T>(work: (call: Call) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const once: Call = async (target, method, args, inner) => this.#connection.call(method, target, args, inner);
    if (this.#renewal) await abortable(this.#renewal, signal);
    const generation = this.#generation;
    try {
      return await work(once);
    } catch (error) {
      if (!isFault(error, 'NotAuthenticated')) throw error;
      await this.renew(generation, signal);
      return work(once);
    }
  }

  /** Logs in anew unless somebody did since `generation`; many callers at once share one login. */
  async renew(generation: number, signal?: AbortSignal): Promise<void> {
    if (generation === this.#generation) {
      if (!this.#renewal) {
        this.#log.info({ address: this.#connection.origin }, 'the session has expired, logging in anew');
        this.#renewal = this.login(this.#life.signal).finally(() => (this.#renewal = undefined));
      }
      await abortable(this.#renewal, signal);
    }
  }

  async login(signal?: AbortSignal): Promise<void> {
    const { username, password } = this.#options;
    // A server refuses a login on a session that is logged in, with the same fault as a wrong password.
    this.#connection.cookie = undefined;
    try {
      await this.#connection.call('Login', this.content.sessionManager, { userName: username, password }, signal);
    } catch (error) {
      if (!isFault(error, 'InvalidLogin')) throw error;
      const message = `${this.#connection.origin} refused the login of ${username}`;
      throw new SendenseError('SOURCE_LOGIN_FAILED', message, { details: { username }, cause: error });
    }
    if (this.#connection.cookie === undefined) {
      throw new SendenseError('SOURCE_LOGIN_FAILED', `${this.#connection.origin} gave no session cookie`);
    }
    this.#generation += 1;
  }

  startKeepAlive(): void {
    void this.#keepAlive();
  }

  async #keepAlive(): Promise<void> {
    const { signal } = this.#life;
    while (!signal.aborted) {
      try {
        await sleep(this.#options.keepAliveMs ?? KEEP_ALIVE_MS, signal);
        await this.call(SERVICE_INSTANCE, 'CurrentTime', {}, signal);
      } catch (error) {
        if (!signal.aborted) this.#log.warn({ err: error }, 'the session could not be kept alive, will try again');
      }
    }
  }

  /** Logs out and closes the control connections. Never throws: a session that cannot be ended ends by itself. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#life.signal.aborted) return;
    this.#life.abort(new SendenseError('WRONG_STATE', 'the session is closed'));
    try {
      const signal = AbortSignal.timeout(LOGOUT_TIMEOUT_MS);
      await this.#connection.call('Logout', this.content.sessionManager, {}, signal);
    } catch (error) {
      const gone = isFault(error, 'NotAuthenticated') || hasCode(error, 'SOURCE_UNREACHABLE');
      this.#log[gone ? 'debug' : 'warn']({ err: error }, 'could not log out');
    } finally {
      await this.#connection[Symbol.asyncDispose]();
    }
  }
}

/** Waits for shared work, or rejects with the reason of our own signal while the work goes on for the others. */
async function abortable(work: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return work;
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

function readContent(answer: XmlNode): ServiceContent {
  const content = child(answer, 'returnval');
  const ref = (name: string): MoRef => readMoRef(child(content, name), 'RetrieveServiceContent');
  const about = child(content, 'about');
  return {
    about: {
      fullName: textOf(about, 'fullName') ?? '',
      apiType: textOf(about, 'apiType') === 'HostAgent' ? 'HostAgent' : 'VirtualCenter',
      apiVersion: textOf(about, 'apiVersion') ?? '',
      build: textOf(about, 'build') ?? '',
      instanceUuid: textOf(about, 'instanceUuid'),
    },
    rootFolder: ref('rootFolder'),
    propertyCollector: ref('propertyCollector'),
    sessionManager: ref('sessionManager'),
    viewManager: ref('viewManager'),
  };
}
