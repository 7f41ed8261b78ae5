/** Questions to a person at a terminal, asked on standard error so that standard output stays an answer. */
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { text as readAll } from 'node:stream/consumers';
import { resolve } from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import type { Context } from './context.ts';

export function isInteractive(context: Context): boolean {
  return context.io.stdin.isTTY && context.io.stderr.isTTY === true;
}

/** Yes or no; anything but `y` or `yes` is a no. */
export async function confirm(context: Context, question: string): Promise<boolean> {
  const answer = await ask(context, `${question} [y/N] `, { echo: true });
  return /^y(es)?$/i.test(answer.trim());
}

/** A password from a file, from standard input (`-`) or typed without echo; never from the command line. */
export async function password(context: Context, file: string | undefined, what: string): Promise<string> {
  let text: string;
  if (file === '-') text = await readAll(context.io.stdin);
  else if (file !== undefined) text = await readSecret(resolve(context.cwd, file));
  else if (isInteractive(context)) text = await ask(context, `${what}: `, { echo: false });
  else throw new SendenseError('USAGE', 'without a terminal the password comes from --password-file FILE or -');
  // Files and pipes end in a line end that is not part of the password.
  const secret = text.replace(/\r?\n$/, '');
  if (secret === '') throw new SendenseError('USAGE', 'the password is empty');
  return secret;
}

async function readSecret(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new SendenseError('USAGE', `the password file ${file} cannot be read: ${String(code)}`, { cause });
  }
}

async function ask(context: Context, question: string, options: { echo: boolean }): Promise<string> {
  context.signal.throwIfAborted();
  const { io, signal } = context;
  // readline echoes what is typed into its output; without echo that output leads nowhere.
  const output = options.echo ? echoTo(context) : new Writable({ write: (_chunk, _encoding, done) => done() });
  if (!options.echo) io.stderr.write(question);
  const lines = createInterface({ input: io.stdin, output, terminal: true });
  const { promise, resolve: answered, reject } = Promise.withResolvers<string>();
  const stopped = (): void => reject(new SendenseError('CANCELLED', 'stopped at the question'));
  lines.once('SIGINT', stopped);
  lines.once('close', stopped);
  signal.addEventListener('abort', stopped, { once: true });
  lines.question(options.echo ? question : '', answered);
  try {
    return await promise;
  } finally {
    signal.removeEventListener('abort', stopped);
    lines.close();
    if (!options.echo) io.stderr.write('\n');
  }
}

function echoTo(context: Context): Writable {
  return new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      context.io.stderr.write(chunk.toString('utf8'));
      done();
    },
  });
}
