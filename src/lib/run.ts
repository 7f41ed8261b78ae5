/**
 * The only place that starts other programs. No shell, arguments as a list, no secret in them; the environment is
 * passed through with C locale so that messages can be read by us.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess, StdioOptions } from 'node:child_process';
import { delimiter } from 'node:path';
import { SendenseError } from './errors.ts';

const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

export interface RunOptions {
  cwd?: string;
  input?: string | Buffer;
  signal?: AbortSignal;
  /** Kill with SIGKILL and throw TIMEOUT after this time; default 120 s. */
  timeoutMs?: number;
  /** Exit codes that are answers rather than failures; default only 0. */
  okCodes?: readonly number[];
  env?: Record<string, string>;
}

export interface RunResult {
  code: number;
  stdout: string;
  stderr: string;
}

/**
 * Runs a program to its end. Throws TOOL_MISSING when it is not installed, TOOL_FAILED with its last words for any
 * exit code outside `okCodes`, TIMEOUT, or the signal's reason.
 */
export async function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  options.signal?.throwIfAborted();
  const child = start(program, args, {
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    ...pick(options),
  });
  const stdout = collect(child, 'stdout');
  const stderr = collect(child, 'stderr');
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    child.kill('SIGKILL');
  }, options.timeoutMs ?? 120_000);
  const onAbort = (): void => void child.kill('SIGKILL');
  options.signal?.addEventListener('abort', onAbort, { once: true });
  if (options.input !== undefined) {
    child.stdin?.on('error', () => undefined); // the program may end without reading; its exit code tells
    child.stdin?.end(options.input);
  }
  try {
    const { code, signal } = await ended(program, child);
    options.signal?.throwIfAborted();
    if (timedOut) {
      throw new SendenseError('TIMEOUT', `${program} did not end within ${options.timeoutMs ?? 120_000} ms`);
    }
    const result = { code: code ?? -1, stdout: stdout(), stderr: stderr() };
    if (code === null || !(options.okCodes ?? [0]).includes(code)) {
      throw new SendenseError('TOOL_FAILED', `${program} failed: ${lastWords(result) || `exit ${code ?? signal}`}`, {
        details: { program, exitCode: code ?? -1, signal: signal ?? '' },
      });
    }
    return result;
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', onAbort);
  }
}

export interface StartOptions {
  cwd?: string;
  stdio?: StdioOptions;
  env?: Record<string, string>;
  /** Own process group, not ended with ours. */
  detached?: boolean;
}

/** Starts a program that is meant to go on; the caller owns it. `error` events must be handled (see `ended`). */
export function start(program: string, args: readonly string[], options: StartOptions = {}): ChildProcess {
  return spawn(program, [...args], {
    stdio: options.stdio ?? 'ignore',
    ...(options.cwd !== undefined && { cwd: options.cwd }),
    detached: options.detached ?? false,
    env: { ...process.env, PATH: searchPath(), LC_ALL: 'C.UTF-8', ...options.env },
  });
}

/** Debian keeps mke2fs and its like in folders that are on root's PATH only, though anybody may run them. */
function searchPath(): string {
  return [process.env['PATH'] || '/usr/local/bin:/usr/bin:/bin', '/usr/sbin', '/sbin'].join(delimiter);
}

/** Resolves when the process has ended and its pipes are drained; TOOL_MISSING when it could not be started. */
export async function ended(
  program: string,
  child: ChildProcess,
): Promise<{ code: number | null; signal: string | null }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ code: number | null; signal: string | null }>();
  child.once('error', (cause: NodeJS.ErrnoException) => {
    const missing = cause.code === 'ENOENT';
    const message = missing ? `${program} is not installed` : `${program} could not be started: ${cause.message}`;
    reject(new SendenseError(missing ? 'TOOL_MISSING' : 'TOOL_FAILED', message, { details: { program }, cause }));
  });
  child.once('close', (code, signal) => resolve({ code, signal }));
  return promise;
}

function pick(options: RunOptions): StartOptions {
  return {
    ...(options.cwd !== undefined && { cwd: options.cwd }),
    ...(options.env !== undefined && { env: options.env }),
  };
}

function collect(child: ChildProcess, stream: 'stdout' | 'stderr'): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  child[stream]?.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size <= MAX_OUTPUT_BYTES) chunks.push(chunk);
    else child.kill('SIGKILL');
  });
  return () => Buffer.concat(chunks).toString('utf8');
}

function lastWords(result: RunResult): string {
  return (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-3).join(' / ').slice(0, 1000);
}
