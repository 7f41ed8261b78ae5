import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { elapsedMs, now } from '#/lib/clock.ts';
import { seededUuid, SeededRandom } from './random.ts';
import { Data } from './values.ts';

const MAX_SESSIONS = 2000;

export interface Session {
  key: string;
  token: string;
  userName: string;
  loginTime: string;
  lastActiveTime: string;
  userAgent: string;
  usedAtMs: number;
  calls: number;
  /** Views, page tokens and collectors that live as long as the session. */
  objects: Map<string, unknown>;
}

/** Logged-in clients. Sessions do not survive a restart, as with a real vCenter. */
export class Sessions {
  readonly #byToken = new Map<string, Session>();
  readonly #userName: string;
  readonly #passwordHash: Buffer;

  constructor(userName: string, password: string) {
    this.#userName = userName;
    this.#passwordHash = hash(password);
  }

  accepts(userName: string, password: string): boolean {
    const same = timingSafeEqual(hash(password), this.#passwordHash);
    return same && userName.toLowerCase() === this.#userName.toLowerCase();
  }

  /** The session of a cookie header; using it renews it, one idle for too long is dropped. */
  find(cookieHeader: string | undefined, timeoutMs: number): Session | undefined {
    const token = cookieToken(cookieHeader);
    const session = token === undefined ? undefined : this.#byToken.get(token);
    if (!session) return undefined;
    if (elapsedMs() - session.usedAtMs > timeoutMs) {
      this.end(session);
      return undefined;
    }
    session.usedAtMs = elapsedMs();
    session.lastActiveTime = now().toString();
    return session;
  }

  begin(userName: string, userAgent: string): Session | undefined {
    if (this.#byToken.size >= MAX_SESSIONS) return undefined;
    const time = now().toString();
    const session: Session = {
      key: seededUuid(new SeededRandom(randomBytes(16).toString('hex'))),
      token: randomBytes(20).toString('hex'),
      userName,
      loginTime: time,
      lastActiveTime: time,
      userAgent,
      usedAtMs: elapsedMs(),
      calls: 0,
      objects: new Map(),
    };
    this.#byToken.set(session.token, session);
    return session;
  }

  end(session: Session): void {
    this.#byToken.delete(session.token);
  }

  endAll(): void {
    this.#byToken.clear();
  }

  live(timeoutMs: number): Session[] {
    return [...this.#byToken.values()].filter((session) => elapsedMs() - session.usedAtMs <= timeoutMs);
  }
}

export function userSession(session: Session): Data {
  return new Data('UserSession', {
    key: session.key,
    userName: session.userName,
    fullName: session.userName,
    loginTime: session.loginTime,
    lastActiveTime: session.lastActiveTime,
    locale: 'en',
    messageLocale: 'en',
    extensionSession: false,
    userAgent: session.userAgent,
    callCount: session.calls,
  });
}

/** The token of the session cookie, whose value servers put in quotes and some clients send back without. */
function cookieToken(header: string | undefined): string | undefined {
  for (const part of (header ?? '').split(';')) {
    const match = /^\s*vmware_soap_session="?([0-9a-f]{40})"?\s*$/.exec(part);
    if (match) return match[1];
  }
  return undefined;
}

function hash(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
