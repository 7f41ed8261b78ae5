/** Finds the hub that a client command talks to: command line, then environment, then the state folder. */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { createClient } from '#/api/client.ts';
import type { Client } from '#/api/client.ts';
import { routes } from '#/api/routes.ts';
import type { Routes } from '#/api/routes.ts';
import { SendenseError } from '#/lib/errors.ts';
import type { Context } from './context.ts';

export type HubClient = Client<Routes>;

export interface HubAddress {
  url: string;
  token: string | undefined;
}

type Where = Pick<Context, 'connection' | 'env' | 'cwd'> & { isRoot?: boolean };

/** Where hub and `up` keep their state: `--state`, SENDENSE_STATE, /var/lib/sendense for root, else the home folder. */
export function stateDir(where: Where): string {
  const given = where.connection.state ?? (where.env['SENDENSE_STATE'] || undefined);
  if (given !== undefined) return resolve(where.cwd, given);
  if (where.isRoot ?? process.getuid?.() === 0) return '/var/lib/sendense';
  return join(where.env['HOME'] ?? homedir(), '.local/share/sendense');
}

export async function findHub(where: Where): Promise<HubAddress> {
  const given = where.connection.hub ?? (where.env['SENDENSE_HUB'] || undefined);
  const url = given === undefined ? await recordedUrl(stateDir(where)) : checked(given);
  return { url, token: await readToken(where, given === undefined, url) };
}

/** A client for the hub; reads the token file once. */
export async function connect(context: Context): Promise<HubClient> {
  const { url, token } = await findHub(context);
  return createClient(routes, { baseUrl: url, token: () => token, unreachable: 'HUB_UNREACHABLE' });
}

async function recordedUrl(state: string): Promise<string> {
  const file = join(state, 'hub.json');
  const text = await readOptional(file);
  if (text === undefined) {
    throw new SendenseError(
      'HUB_UNREACHABLE',
      `no hub runs with the state folder ${state}: start one with \`sendense up\`, or name one with --hub or --state`,
      { details: { file } },
    );
  }
  try {
    const { url } = JSON.parse(text) as { url?: unknown };
    if (typeof url === 'string') return checked(url);
  } catch (cause) {
    if (cause instanceof SendenseError) throw cause;
  }
  throw new SendenseError('CONFIG_INVALID', `${file} does not name the address of a hub`, { details: { file } });
}

async function readToken(where: Where, recorded: boolean, url: string): Promise<string | undefined> {
  const given = where.connection.tokenFile ?? (where.env['SENDENSE_TOKEN_FILE'] || undefined);
  // This machine's own token is no business of a hub elsewhere; a token for that one is named with --token-file.
  if (given === undefined && !recorded && !isLoopback(url)) return undefined;
  const file = given === undefined ? join(stateDir(where), 'token') : resolve(where.cwd, given);
  const text = await readOptional(file);
  if (text !== undefined) return text.trim();
  if (given !== undefined) throw new SendenseError('USAGE', `the token file ${file} does not exist`);
  if (recorded) throw new SendenseError('HUB_UNREACHABLE', `the hub has left no token in ${file}`);
  return undefined;
}

export function isLoopback(url: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(new URL(url).hostname);
}

async function readOptional(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    if (code === 'EACCES') throw new SendenseError('NOT_ALLOWED', `${file} may not be read by this user`, { cause });
    throw new SendenseError('CONFIG_INVALID', `${file} cannot be read: ${String(code)}`, { cause });
  }
}

function checked(text: string): string {
  const url = URL.parse(text);
  if (url && (url.protocol === 'http:' || url.protocol === 'https:')) return text;
  throw new SendenseError('USAGE', `the hub's address is http://HOST:PORT or https://HOST:PORT, not ${text}`);
}
