/** Sends the state of a replication to the hub: at once when it changes, once a second while it runs, one at a time. */
import type { Replication } from '#/api/replication.ts';
import type { Logger } from '#/lib/log.ts';

const EVERY_MS = 1_000;
const TIMEOUT_MS = 10_000;
/** Changes that come together are told together. */
const GATHER_MS = 5;

export interface ReporterOptions {
  url: string;
  token: string;
  fetch: typeof fetch;
  log: Logger;
}

export class Reporter {
  readonly #options: ReporterOptions;
  #view: (() => Replication) | undefined;
  #accepted: () => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> | undefined;
  #dirty = false;
  #failing = false;

  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  /** `accepted` is called each time the hub has taken a report. */
  start(view: () => Replication, accepted: () => void): void {
    this.#view = view;
    this.#accepted = accepted;
    this.#schedule(EVERY_MS);
  }

  changed(): void {
    this.#dirty = true;
    this.#schedule(GATHER_MS);
  }

  /** The last report; what it does not deliver the hub finds out by asking. */
  async finish(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#sending;
    await this.#send();
    this.#view = undefined;
    clearTimeout(this.#timer);
  }

  #schedule(delayMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#turn(), delayMs);
    this.#timer.unref();
  }

  #turn(): void {
    if (this.#sending) return; // the sender schedules the next turn itself
    this.#dirty = false;
    this.#sending = this.#send().finally(() => {
      this.#sending = undefined;
      if (this.#view) this.#schedule(this.#dirty ? GATHER_MS : EVERY_MS);
    });
  }

  async #send(): Promise<void> {
    if (!this.#view) return;
    const { url, token, log } = this.#options;
    try {
      const response = await this.#options.fetch(url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
        body: JSON.stringify(this.#view()),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      await response.text();
      if (!response.ok) throw new Error(`the hub answered ${response.status}`);
      this.#accepted();
      this.#failing = false;
    } catch (error) {
      // A hub that is being restarted is no reason to stop: the lease decides. One line per outage is enough.
      if (!this.#failing) log.warn({ err: error }, 'could not report to the hub');
      this.#failing = true;
    }
  }
}
