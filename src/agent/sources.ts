/**
 * Sessions with sources. The hub hands over address and credentials; they live in memory only, so after a restart the
 * agent knows no source and says SOURCE_NOT_FOUND until the hub hands them over again.
 */
import { openSession } from './vsphere/session.ts';
import type { Session } from './vsphere/session.ts';
import type { SourceLogin } from '#/api/replication.ts';
import { SendenseError } from '#/lib/errors.ts';
import type { Logger } from '#/lib/log.ts';

interface Entry {
  login: SourceLogin;
  session: Promise<Session> | undefined;
}

export class Sources implements AsyncDisposable {
  readonly #entries = new Map<string, Entry>();
  readonly #log: Logger;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** The same login again changes nothing; another one ends the old session once nobody can ask for it any more. */
  put(id: string, login: SourceLogin): void {
    const known = this.#entries.get(id);
    if (known && JSON.stringify(known.login) === JSON.stringify(login)) return;
    this.#entries.set(id, { login, session: undefined });
    if (known) void this.#end(known);
  }

  /** One session per source, shared by all replications: servers cap sessions, and it renews itself. */
  async session(id: string): Promise<Session> {
    const entry = this.#entries.get(id);
    if (!entry) throw new SendenseError('SOURCE_NOT_FOUND', `this agent does not hold the credentials of source ${id}`);
    const { address, username, password, thumbprint } = entry.login;
    entry.session ??= openSession({ address, username, password, thumbprint, log: this.#log });
    try {
      return await entry.session;
    } catch (error) {
      entry.session = undefined; // the next caller tries anew
      throw error;
    }
  }

  async #end(entry: Entry): Promise<void> {
    try {
      const session = await entry.session;
      await session?.[Symbol.asyncDispose]();
    } catch (error) {
      this.#log.warn({ err: error }, 'a session could not be ended');
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#entries.values()].map((entry) => this.#end(entry)));
    this.#entries.clear();
  }
}
