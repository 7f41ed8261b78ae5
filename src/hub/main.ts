/**
 * `sendense hub`: puts the hub together and runs it until it is told to stop. Stopping leaves running jobs as they are:
 * agent and storage daemons go on copying, and the next start takes the jobs up again.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { FastifyRequest } from 'fastify';
import { Agents } from './agents.ts';
import { DEFAULT_LIMITS, executeBackup } from './backup/engine.ts';
import type { BackupContext, BackupLimits } from './backup/engine.ts';
import { Exports } from './export/exports.ts';
import { Janitor } from './janitor.ts';
import { JobRunner } from './jobs.ts';
import { Pki } from './pki.ts';
import { ProgressBoard } from './progress.ts';
import { recover } from './recover.ts';
import { Repositories } from './repositories.ts';
import { executeDiskRestore } from './restore/disks.ts';
import { handlers } from './routes/handlers.ts';
import { KeyRing } from './secrets.ts';
import { routes } from '#/api/routes.ts';
import type { Routes } from '#/api/routes.ts';
import { openCatalog } from '#/catalog/catalog.ts';
import type { Catalog, CatalogPlace } from '#/catalog/catalog.ts';
import { bearer, createServer, listenOn, sameToken } from '#/http/server.ts';
import type { ServerTls } from '#/http/server.ts';
import { SendenseError } from '#/lib/errors.ts';
import { writeFileDurably, writeSecretFile } from '#/lib/files.ts';
import { newId } from '#/lib/ids.ts';
import type { Logger } from '#/lib/log.ts';

export interface HubOptions {
  /** Catalog, keys, certificates and token live here; made when missing, 0700. */
  stateDir: string;
  /** `HOST:PORT`; port 0 lets the system choose. */
  listen: string;
  exportsConfigDir: string;
  exportsRunDir: string;
  /** `HOST:PORT` at which agents on other machines reach the export daemon; null when there is none. */
  frontDoor: string | null;
  /** File with a PostgreSQL URL; null for SQLite in the state folder. */
  catalogUrlFile: string | null;
  /** The agent on this machine that `sendense up` has started. */
  localAgent: { url: string; tokenFile: string } | null;
  /** ca-cert.pem, server-cert.pem and server-key.pem for the API; null for loopback without TLS. */
  tlsDir: string | null;
  limits?: Partial<BackupLimits>;
  log: Logger;
  signal: AbortSignal;
}

const PARALLEL_JOBS = 8;

export async function runHub(options: HubOptions): Promise<void> {
  const { stateDir, log, signal } = options;
  await mkdir(stateDir, { recursive: true, mode: 0o700 });
  await using catalog = await openCatalog(await catalogPlace(options), { signal });
  const hubId = String(await catalog.settings.setOnce('hub-id', newId()));
  const keys = await KeyRing.open(join(stateDir, 'secret.key'));
  const pki = await Pki.open(join(stateDir, 'pki'));
  await using agents = await openAgents(options, catalog, keys, pki);
  const repositories = new Repositories(catalog);
  const progress = new ProgressBoard();
  const exports = new Exports({
    configDir: options.exportsConfigDir,
    runDir: options.exportsRunDir,
    frontDoor: options.frontDoor,
    log,
  });
  let url = '';
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const backup: BackupContext = {
    catalog,
    repositories,
    exports,
    agents,
    progress,
    keys,
    limits,
    callbackUrl: () => url,
  };
  const runner = new JobRunner({
    catalog,
    owner: hubId,
    executors: {
      backup: (run) => executeBackup(run, backup),
      restore: (run) => executeDiskRestore(run, backup),
    },
    parallel: PARALLEL_JOBS,
    log,
  });
  const janitor = new Janitor({ catalog, agents, exports, repositories, log });
  const token = await tokenOf(stateDir);
  const tls = await readTls(options.tlsDir, options.listen);
  const app = createServer(routes, {
    handlers: handlers({ hubId, catalog, keys, pki, agents, repositories, progress, runner, log }),
    authorise: (operation, request) => authorise(operation, request, { token, keys }),
    tls,
    log,
  });
  await recover({ catalog, runner, hubId, log });
  url = await listenOn(app, options.listen, tls !== null);
  await writeFileDurably(join(stateDir, 'hub.json'), `${JSON.stringify({ url, pid: process.pid })}\n`);
  runner.start();
  janitor.start();
  log.info({ url, catalog: catalog.kind }, 'hub ready');
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  await app.close();
  await janitor.stop();
  await runner.stop(signal.reason === 'cancel' ? 'cancel' : 'detach');
  await rm(join(stateDir, 'hub.json'), { force: true });
}

async function openAgents(options: HubOptions, catalog: Catalog, keys: KeyRing, pki: Pki): Promise<Agents> {
  const { localAgent, frontDoor } = options;
  const tlsDir = await pki.ensureFolder('hub', 'hub', 'client');
  if (frontDoor !== null) {
    const host = frontDoor.slice(0, frontDoor.lastIndexOf(':')).replaceAll(/[[\]]/g, '');
    await pki.ensureFolder('front-door', 'sendense-front-door', 'server', [host]);
  }
  if (localAgent) await catalog.agents.register({ name: 'local', url: localAgent.url, certificateSha256: null });
  return new Agents({ catalog, keys, tlsDir, local: localAgent });
}

/** Agents prove themselves with the token of their replication and may do nothing but report on it. */
function authorise(
  operation: keyof Routes,
  request: FastifyRequest,
  { token, keys }: { token: string; keys: KeyRing },
): void {
  const given = bearer(request);
  if (operation === 'reportReplication') {
    const { job } = request.params as { job?: string };
    if (job !== undefined && sameToken(given, keys.token('callback', job))) return;
    throw new SendenseError('UNAUTHENTICATED', 'not the token of this replication');
  }
  if (!sameToken(given, token)) throw new SendenseError('UNAUTHENTICATED', 'wrong or missing token');
}

/** The administrator's token, in a file that only the owner may read. */
async function tokenOf(stateDir: string): Promise<string> {
  const path = join(stateDir, 'token');
  const existing = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
  if (existing.trim() !== '') return existing.trim();
  const token = randomBytes(32).toString('base64url');
  await writeSecretFile(path, `${token}\n`);
  return token;
}

async function catalogPlace({ catalogUrlFile, stateDir }: HubOptions): Promise<CatalogPlace> {
  if (catalogUrlFile === null) return { kind: 'sqlite', path: join(stateDir, 'catalog.db') };
  return { kind: 'postgres', url: (await readFile(catalogUrlFile, 'utf8')).trim() };
}

async function readTls(dir: string | null, listen: string): Promise<ServerTls | null> {
  if (dir === null) {
    if (/^(127\.0\.0\.1|\[::1\]|localhost):/.test(listen)) return null;
    throw new SendenseError(
      'CONFIG_INVALID',
      `listening on ${listen} needs certificates: only loopback goes without TLS`,
    );
  }
  const [ca, cert, key] = await Promise.all(
    ['ca-cert.pem', 'server-cert.pem', 'server-key.pem'].map((file) => readFile(join(dir, file), 'utf8')),
  );
  return { ca: ca ?? '', cert: cert ?? '', key: key ?? '', clientCertificates: false };
}
