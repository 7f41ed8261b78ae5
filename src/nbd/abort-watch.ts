/** One listener per abort signal however many requests share it: a listener per request would cost more than the request. */
export class AbortWatch {
  readonly #onAbort: (signal: AbortSignal) => void;
  readonly #watched = new Map<AbortSignal, { users: number; listener: () => void }>();

  constructor(onAbort: (signal: AbortSignal) => void) {
    this.#onAbort = onAbort;
  }

  add(signal: AbortSignal): void {
    const entry = this.#watched.get(signal);
    if (entry) {
      entry.users++;
      return;
    }
    const listener = (): void => this.#onAbort(signal);
    this.#watched.set(signal, { users: 1, listener });
    signal.addEventListener('abort', listener);
  }

  remove(signal: AbortSignal): void {
    const entry = this.#watched.get(signal);
    if (!entry || --entry.users > 0) return;
    this.#watched.delete(signal);
    signal.removeEventListener('abort', entry.listener);
  }
}
