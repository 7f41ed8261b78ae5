/**
 * A PostgreSQL of our own for tests: Debian's binaries, a folder of its own, a unix socket only, no durability. As root
 * it runs as the user postgres. It ends with the lease, and with this process whatever becomes of it.
 */
import { readdirSync } from 'node:fs';
import { chown, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { SendenseError } from '#/lib/errors.ts';
import { waitFor } from '#/lib/retry.ts';
import { ended, run, start } from '#/lib/run.ts';

const DEBIAN = '/usr/lib/postgresql';
const SETTINGS = { fsync: 'off', full_page_writes: 'off', autovacuum: 'off', shared_buffers: '32MB' };

/** Where the newest installed server's programs are; undefined when there is none. */
export function postgresBinaries(): string | undefined {
  let versions: string[];
  try {
    versions = readdirSync(DEBIAN);
  } catch {
    return undefined;
  }
  const newest = versions.sort((a, b) => Number(b) - Number(a))[0];
  return newest === undefined ? undefined : join(DEBIAN, newest, 'bin');
}

export class ThrowawayPostgres implements AsyncDisposable {
  readonly #folder: string;
  readonly #stop: () => Promise<void>;
  #databases = 0;

  constructor(folder: string, stop: () => Promise<void>) {
    this.#folder = folder;
    this.#stop = stop;
  }

  /** URL of a new, empty database. */
  async createDatabase(): Promise<string> {
    const name = `catalog_${++this.#databases}`;
    const admin = new Client({ connectionString: this.#url('postgres') });
    await admin.connect();
    try {
      await admin.query(`CREATE DATABASE ${name}`);
    } finally {
      await admin.end();
    }
    return this.#url(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
  }

  #url(database: string): string {
    return `postgres://postgres@/${database}?host=${encodeURIComponent(this.#folder)}`;
  }
}

/** TOOL_MISSING when no PostgreSQL is installed. */
export async function startThrowawayPostgres(): Promise<ThrowawayPostgres> {
  const binaries = postgresBinaries();
  if (binaries === undefined) {
    throw new SendenseError('TOOL_MISSING', 'PostgreSQL is not installed', { details: { package: 'postgresql' } });
  }
  const folder = await mkdtemp(join(tmpdir(), 'sendense-pg-'));
  const removeFolder = async (): Promise<void> => rm(folder, { recursive: true, force: true });
  try {
    const stop = await startServer(binaries, folder);
    return new ThrowawayPostgres(folder, async () => {
      await stop();
      await removeFolder();
    });
  } catch (error) {
    await removeFolder();
    throw error;
  }
}

async function startServer(binaries: string, folder: string): Promise<() => Promise<void>> {
  const asUser = await userOptions(folder);
  const data = join(folder, 'data');
  const init = ['-D', data, '-A', 'trust', '-U', 'postgres', '-E', 'UTF8', '--locale=C.UTF-8', '--no-sync'];
  await run('setpriv', [...asUser, join(binaries, 'initdb'), ...init], { cwd: folder });
  const settings = { ...SETTINGS, listen_addresses: '', unix_socket_directories: folder };
  const options = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const program = [join(binaries, 'postgres'), '-D', data, ...options];
  // SIGQUIT, also sent by the kernel should we die, ends it at once; nothing in it is worth keeping.
  const server = start('setpriv', [...asUser, '--pdeathsig', 'QUIT', ...program], { cwd: folder });
  const end = ended('postgres', server);
  const ready = async (): Promise<true | undefined> => {
    const text = await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => '');
    return text.includes('\nready') ? true : undefined;
  };
  const early = end.then(({ code }) => {
    throw new SendenseError('TOOL_FAILED', `postgres ended with ${code} instead of starting`);
  });
  await Promise.race([waitFor('PostgreSQL', ready, { timeoutMs: 30_000 }), early]);
  early.catch(() => undefined); // from now on its end is what stop() waits for
  return async () => {
    server.kill('SIGQUIT');
    await end;
  };
}

/** The server refuses to run as root. */
async function userOptions(folder: string): Promise<string[]> {
  if (process.getuid?.() !== 0) return [];
  const [uid, gid] = await Promise.all(
    ['-u', '-g'].map(async (flag) => Number((await run('id', [flag, 'postgres'])).stdout)),
  );
  await chown(folder, uid ?? 0, gid ?? 0);
  return ['--reuid=postgres', '--regid=postgres', '--init-groups'];
}
