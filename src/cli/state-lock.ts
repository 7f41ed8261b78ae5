/** Lets one `sendense up` at a time use a state folder, and knows a process from a later one with the same pid. */
import { open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import { waitFor } from '#/lib/retry.ts';

interface Holder {
  pid: number;
  /** Boot id and start time: together with the pid they name one process for ever. */
  started: string;
}

export class StateLock implements AsyncDisposable {
  readonly #file: string;

  private constructor(file: string) {
    this.#file = file;
  }

  /** BUSY when another `up` holds the folder; a file left by one that was killed is taken over. */
  static async take(state: string): Promise<StateLock> {
    const file = join(state, 'up.json');
    for (;;) {
      const holder = await readJson<Holder>(file);
      if (holder && (await startOf(holder.pid)) === holder.started) {
        throw new SendenseError('BUSY', `another \`sendense up\` (pid ${holder.pid}) uses ${state}`, {
          details: { pid: holder.pid },
        });
      }
      await rm(file, { force: true });
      try {
        const handle = await open(file, 'wx', 0o600);
        const own: Holder = { pid: process.pid, started: (await startOf(process.pid)) ?? '' };
        await handle.writeFile(JSON.stringify(own));
        await handle.close();
        return new StateLock(file);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#file, { force: true });
  }
}

/** Parts of an `up` that was killed stop by themselves; this waits for those named in the given files. */
export async function waitForLeftovers(state: string, files: readonly string[], signal: AbortSignal): Promise<void> {
  for (const file of files) {
    const pid = (await readJson<{ pid?: number | null }>(file))?.pid;
    if (typeof pid !== 'number') continue;
    await waitFor(
      `the earlier part with pid ${pid} to stop`,
      async () => ((await isPartOf(pid, state)) ? undefined : true),
      { timeoutMs: 60_000, everyMs: 100, signal },
    );
  }
}

export async function readJson<T>(file: string): Promise<T | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as T;
  } catch {
    return undefined; // not there, or not whole yet: asked for again by whoever waits for it
  }
}

async function isPartOf(pid: number, state: string): Promise<boolean> {
  const words = (await readOptional(`/proc/${pid}/cmdline`))?.split('\0') ?? [];
  return words.some((word) => word === state || word.startsWith(`${state}/`));
}

async function startOf(pid: number): Promise<string | undefined> {
  const stat = await readOptional(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The second field is the program's name in parentheses and may hold anything; the start time is the 22nd.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const bootId = await readOptional('/proc/sys/kernel/random/boot_id');
  return `${(bootId ?? '').trim()} ${fields[19] ?? ''}`;
}

async function readOptional(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
}
