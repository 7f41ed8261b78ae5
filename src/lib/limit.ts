/** A counting semaphore whose permits are disposable: `await using permit = await limit.take(n, signal)`. */
export class Limit {
  readonly capacity: number;
  #free: number;
  readonly #waiting: { amount: number; resolve: () => void }[] = [];

  constructor(capacity: number) {
    this.capacity = capacity;
    this.#free = capacity;
  }

  /** Permits in use, for tests and status pages. */
  get used(): number {
    return this.capacity - this.#free;
  }

  /** Waits, first come first served, until `amount` permits are free; an amount over the capacity takes all of it. */
  async take(amount = 1, signal?: AbortSignal): Promise<Permit> {
    signal?.throwIfAborted();
    const wanted = Math.min(amount, this.capacity);
    if (this.#waiting.length === 0 && this.#free >= wanted) {
      this.#free -= wanted;
      return new Permit(() => this.#give(wanted));
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const entry = { amount: wanted, resolve };
    this.#waiting.push(entry);
    const onAbort = (): void => {
      const index = this.#waiting.indexOf(entry);
      if (index >= 0) this.#waiting.splice(index, 1);
      reject(signal?.reason as Error);
      this.#grant();
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await promise;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
    return new Permit(() => this.#give(wanted));
  }

  #give(amount: number): void {
    this.#free += amount;
    this.#grant();
  }

  #grant(): void {
    for (let first = this.#waiting[0]; first && this.#free >= first.amount; first = this.#waiting[0]) {
      this.#waiting.shift();
      this.#free -= first.amount;
      first.resolve();
    }
  }
}

/** Returned by Limit.take; releasing twice is harmless. */
export class Permit implements Disposable {
  #release: (() => void) | undefined;

  constructor(release: () => void) {
    this.#release = release;
  }

  release(): void {
    this.#release?.();
    this.#release = undefined;
  }

  [Symbol.dispose](): void {
    this.release();
  }
}
