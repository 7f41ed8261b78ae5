/** Processes as the kernel shows them in /proc, told apart by start time so that a reused number is never taken for them. */
import { readFile, readdir, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { hasCode } from '#/lib/errors.ts';
import { waitFor } from '#/lib/retry.ts';

/** How long a process may take to go after SIGKILL before it counts as stuck in the kernel. */
export const KILL_TIMEOUT_MS = 5_000;

export interface ProcessIdentity {
  pid: number;
  /** Clock ticks between boot and the start of the process. */
  startTicks: string;
}

/** Undefined when there is no such process or it has ended and only waits for its parent. */
export async function processIdentity(pid: number): Promise<ProcessIdentity | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  // The second field is the program's name in parentheses and may itself hold blanks and parentheses.
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ');
  const state = fields?.[0];
  const startTicks = fields?.[19];
  if (startTicks === undefined || state === 'Z' || state === 'X') return undefined;
  return { pid, startTicks };
}

export async function isRunning(identity: ProcessIdentity): Promise<boolean> {
  return (await processIdentity(identity.pid))?.startTicks === identity.startTicks;
}

/** Running processes of this user whose first word is `program`, with the arguments after it. */
export async function processesOf(program: string): Promise<{ identity: ProcessIdentity; args: string[] }[]> {
  const found: { identity: ProcessIdentity; args: string[] }[] = [];
  for (const entry of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(entry)) continue;
    const owner = await stat(`/proc/${entry}`).catch(() => undefined);
    if (owner?.uid !== process.getuid?.()) continue;
    const line = await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '');
    const [name = '', ...args] = line.split('\0');
    if (basename(name) !== program) continue;
    const identity = await processIdentity(Number(entry));
    if (identity) found.push({ identity, args: args.slice(0, -1) });
  }
  return found;
}

/** True as soon as the process is gone, false when it is still there after `timeoutMs`. */
export async function goneWithin(identity: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  const probe = async (): Promise<true | undefined> => ((await isRunning(identity)) ? undefined : true);
  try {
    return await waitFor('the process to end', probe, { timeoutMs, everyMs: 5 });
  } catch (error) {
    if (hasCode(error, 'TIMEOUT')) return false;
    throw error;
  }
}

/** A process that has ended meanwhile is no error. */
export function sendSignal(identity: ProcessIdentity, signal: NodeJS.Signals): void {
  try {
    process.kill(identity.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Ends a process that is not held: SIGTERM, and SIGKILL when it is still there after `graceMs`. */
export async function endProcess(identity: ProcessIdentity, graceMs: number): Promise<'clean' | 'killed'> {
  sendSignal(identity, 'SIGTERM');
  if (await goneWithin(identity, graceMs)) return 'clean';
  sendSignal(identity, 'SIGKILL');
  await goneWithin(identity, KILL_TIMEOUT_MS);
  return 'killed';
}
