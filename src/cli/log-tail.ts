/**
 * Watches the log file of a part: passes on what a person at the terminal should see (warnings, errors, words that are
 * not log lines) and keeps the file from growing without bound. The part writes to the file itself, so that its last
 * words are kept even when nobody watches.
 */
import { copyFile, open, rename, stat, truncate } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { sleep } from '#/lib/clock.ts';

const MAX_LOG_BYTES = 32 * 1024 * 1024;
const MAX_LINE_BYTES = 16 * 1024;
const POLL_MS = 250;

/** Moves a log that has become large aside; one older generation is kept. */
export async function rotateLog(file: string): Promise<void> {
  const facts = await stat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (facts && facts.size > MAX_LOG_BYTES) await rename(file, `${file}.1`);
}

export class LogTail implements AsyncDisposable {
  readonly #file: string;
  readonly #onLine: (line: string) => void;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #offset: number;
  #rest = '';

  private constructor(file: string, offset: number, onLine: (line: string) => void) {
    this.#file = file;
    this.#offset = offset;
    this.#onLine = onLine;
    this.#running = this.#watch();
  }

  /** From the present end of the file on. */
  static async open(file: string, onLine: (line: string) => void): Promise<LogTail> {
    return new LogTail(file, (await stat(file)).size, onLine);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #watch(): Promise<void> {
    const handle = await open(this.#file, 'r');
    try {
      while (!this.#stop.signal.aborted) {
        await this.#drain(handle);
        await sleep(POLL_MS, this.#stop.signal).catch(() => undefined); // stopped: one last look follows
      }
      await this.#drain(handle);
    } finally {
      await handle.close();
    }
  }

  async #drain(handle: FileHandle): Promise<void> {
    const buffer = Buffer.alloc(64 * 1024);
    for (;;) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, this.#offset);
      if (bytesRead === 0) break;
      this.#offset += bytesRead;
      this.#take(buffer.toString('utf8', 0, bytesRead));
    }
    if (this.#offset <= MAX_LOG_BYTES) return;
    // The part holds the file open for appending: copied and emptied in place, it writes on at the start.
    await copyFile(this.#file, `${this.#file}.1`);
    await truncate(this.#file, 0);
    this.#offset = 0;
  }

  #take(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = (lines.pop() ?? '').slice(0, MAX_LINE_BYTES);
    for (const line of lines) {
      const shown = important(line.slice(0, MAX_LINE_BYTES));
      if (shown !== undefined) this.#onLine(shown);
    }
  }
}

/** What a person should see of a log line; undefined for routine ones. */
export function important(line: string): string | undefined {
  if (line.trim() === '') return undefined;
  try {
    const entry = JSON.parse(line) as { level?: unknown; msg?: unknown; err?: { message?: unknown } } | null;
    if (typeof entry === 'object' && typeof entry?.level === 'string') {
      if (!['warn', 'error', 'fatal'].includes(entry.level)) return undefined;
      const cause = typeof entry.err?.message === 'string' ? `: ${entry.err.message}` : '';
      return `${entry.level}: ${typeof entry.msg === 'string' ? entry.msg : ''}${cause}`;
    }
  } catch {
    // Not a log line: a crash speaks in plain text.
  }
  return line;
}
