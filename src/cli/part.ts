/**
 * One part of sendense as a child process that is kept running: started again when it dies, told to stop in order, and
 * never left behind, because it watches its standard input, which closes with us however we end.
 */
import { open } from 'node:fs/promises';
import type { ChildProcess } from 'node:child_process';
import { sleep } from '#/lib/clock.ts';
import { isErrorCode, SendenseError } from '#/lib/errors.ts';
import { waitFor } from '#/lib/retry.ts';
import { ended, start } from '#/lib/run.ts';
import { LogTail, rotateLog } from './log-tail.ts';

const READY_MS = 60_000;
const STOP_MS = 30_000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30_000;
/** A part that ran this long before it died gets the short wait again. */
const SETTLED_MS = 60_000;
const LAST_WORDS = 8;

export interface PartSpec<T> {
  name: string;
  self: readonly [program: string, ...args: string[]];
  /** Asked anew for every start. */
  args: () => readonly string[];
  logFile: string;
  /** What the process has to say once it serves; undefined until then. */
  ready: (pid: number) => Promise<T | undefined>;
  /** A line for the person at the terminal. */
  notice: (line: string) => void;
}

type Ending = { code: number | null; signal: string | null };

interface Running<T> {
  child: ChildProcess;
  pid: number;
  facts: T;
  end: Promise<Ending>;
  startedMs: number;
}

export class Part<T> implements AsyncDisposable {
  readonly #spec: PartSpec<T>;
  readonly #tail: LogTail;
  readonly #stop = new AbortController();
  readonly #lastWords: string[];
  #running: Running<T> | undefined;
  #guard: Promise<void> = Promise.resolve();

  private constructor(spec: PartSpec<T>, tail: LogTail, lastWords: string[]) {
    this.#spec = spec;
    this.#tail = tail;
    this.#lastWords = lastWords;
  }

  /** Resolves when the part serves. When it ends before that, throws what it said. */
  static async start<T>(spec: PartSpec<T>, signal: AbortSignal): Promise<Part<T>> {
    await rotateLog(spec.logFile);
    await (await open(spec.logFile, 'a', 0o600)).close();
    const lastWords: string[] = [];
    const tail = await LogTail.open(spec.logFile, (line) => {
      lastWords.push(line);
      if (lastWords.length > LAST_WORDS) lastWords.shift();
      spec.notice(`${spec.name}: ${line}`);
    });
    const part = new Part(spec, tail, lastWords);
    try {
      part.#running = await part.#launch(signal);
    } catch (error) {
      await tail[Symbol.asyncDispose]();
      throw part.#explained(error);
    }
    part.#guard = part.#keepRunning();
    return part;
  }

  /** What the present process said when it was ready. */
  get facts(): T | undefined {
    return this.#running?.facts;
  }

  /** Null between its death and the next start. */
  get pid(): number | null {
    return this.#running?.pid ?? null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    const { name, notice } = this.#spec;
    if (this.#running) await stopChild(this.#running, () => notice(`${name} did not stop in time and was killed`));
    await this.#guard;
    await this.#tail[Symbol.asyncDispose]();
  }

  async #launch(signal: AbortSignal): Promise<Running<T>> {
    const { name, self, args, logFile, ready } = this.#spec;
    const log = await open(logFile, 'a', 0o600);
    let child: ChildProcess;
    try {
      // A part says what it has to say in its log and its ready file; what it prints is for a person who starts it alone.
      // A group of its own: Ctrl-C at the terminal reaches only us, and we stop the parts in order.
      child = start(self[0], [...self.slice(1), ...args()], { stdio: ['pipe', 'ignore', log.fd], detached: true });
    } finally {
      await log.close();
    }
    child.stdin?.on('error', () => undefined); // nothing is ever written; the pipe only shows that we live
    const end = ended(name, child);
    const pid = child.pid ?? 0;
    let ending: Ending | undefined;
    end.then(
      (value) => (ending = value),
      () => (ending = { code: null, signal: null }),
    );
    const running = { child, pid, end, startedMs: performance.now() };
    try {
      const facts = await waitFor(
        `${name} to be ready`,
        async () => {
          if (ending) throw new SendenseError('TOOL_FAILED', `${name} ended before it was ready (${how(ending)})`);
          return ready(pid);
        },
        { timeoutMs: READY_MS, everyMs: 25, signal },
      );
      return { ...running, facts };
    } catch (error) {
      await stopChild(running, () => undefined);
      throw error;
    }
  }

  async #keepRunning(): Promise<void> {
    const { name, notice } = this.#spec;
    const stopped = this.#stop.signal;
    for (let backoffMs = BACKOFF_FIRST_MS; ; ) {
      if (this.#running) {
        const { end, startedMs } = this.#running;
        const ending = await end;
        this.#running = undefined;
        if (stopped.aborted) return;
        if (performance.now() - startedMs > SETTLED_MS) backoffMs = BACKOFF_FIRST_MS;
        notice(`${name} ended (${how(ending)}); starting it again in ${backoffMs / 1000} s`);
      }
      try {
        await sleep(backoffMs, stopped);
        backoffMs = Math.min(backoffMs * 2, BACKOFF_MAX_MS);
        this.#running = await this.#launch(stopped);
        notice(`${name} runs again (pid ${this.#running.pid})`);
      } catch (error) {
        if (stopped.aborted) return;
        notice(`${name} could not be started: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }

  /** The error of a failed start in the part's own words and with its own code, where it left any. */
  #explained(error: unknown): unknown {
    if (!(error instanceof SendenseError) || error.code === 'CANCELLED') return error;
    const { name, logFile } = this.#spec;
    const details = { part: name, log: logFile };
    for (const line of this.#lastWords.toReversed()) {
      const [, code, message] = /^sendense: ([A-Z_]+): (.*)$/.exec(line) ?? [];
      if (isErrorCode(code)) return new SendenseError(code, `${name}: ${message ?? ''}`, { details, cause: error });
    }
    const words = this.#lastWords.join(' / ');
    return new SendenseError(error.code, words ? `${error.message}: ${words}` : error.message, {
      details,
      cause: error,
    });
  }
}

async function stopChild(running: { child: ChildProcess; end: Promise<unknown> }, killed: () => void): Promise<void> {
  running.child.kill('SIGTERM');
  const timeout = new AbortController();
  const late = sleep(STOP_MS, timeout.signal).then(
    () => true,
    () => false,
  );
  const gone = running.end.then(
    () => false,
    () => false,
  );
  if (await Promise.race([gone, late])) {
    killed();
    running.child.kill('SIGKILL');
  }
  await gone;
  timeout.abort();
}

function how(ending: Ending): string {
  return ending.signal === null ? `exit code ${ending.code ?? 'unknown'}` : ending.signal;
}
