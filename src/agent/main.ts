/** `sendense agent`: the capture agent. It keeps nothing on disk; the hub tells it everything and pays for its lease. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import type { FastifyRequest } from 'fastify';
import { Agent as HttpAgent, fetch as httpFetch } from 'undici';
import { Replications } from './replications.ts';
import { createAgentServer } from './server.ts';
import { Sources } from './sources.ts';
import { bearer, listenOn, sameToken } from '#/http/server.ts';
import type { ServerTls } from '#/http/server.ts';
import { SendenseError } from '#/lib/errors.ts';
import { writeFileDurably } from '#/lib/files.ts';
import type { Logger } from '#/lib/log.ts';
import { VERSION } from '#/lib/version.ts';

export interface AgentOptions {
  /** The name it was registered by; also the common name of its certificate. */
  name: string;
  /** `HOST:PORT`; port 0 lets the system choose. */
  listen: string;
  /** Secret shared with a hub on this machine; null when certificates do that. */
  tokenFile: string | null;
  /** ca-cert.pem, client-cert.pem and client-key.pem as issued by the hub; null on the hub's own machine. */
  tlsDir: string | null;
  /** Where to write `{url, pid}` once the agent answers. */
  readyFile?: string;
  log: Logger;
  signal: AbortSignal;
}

/** Common name of the hub's client certificate. */
const HUB_IDENTITY = 'hub';

/** Resolves when the agent has stopped: running replications cancelled, their snapshots removed, sessions ended. */
export async function runAgent(options: AgentOptions): Promise<void> {
  const { log, signal, tlsDir } = options;
  const tls = tlsDir === null ? null : await readTls(tlsDir);
  await using sources = new Sources(log);
  const replications = new Replications({ sources, tlsDir, fetch: hubFetch(tls), log });
  const authorise = await authoriser(options);
  const app = createAgentServer({ name: options.name, version: VERSION, sources, replications, authorise, tls, log });
  const url = await listenOn(app, options.listen, tls !== null);
  if (options.readyFile !== undefined) {
    await writeFileDurably(options.readyFile, `${JSON.stringify({ url, pid: process.pid })}\n`);
  }
  log.info({ url, name: options.name }, 'capture agent ready');
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  await replications.stop();
  await app.close();
}

async function authoriser({
  tokenFile,
  tlsDir,
  listen,
}: AgentOptions): Promise<(operation: unknown, request: FastifyRequest) => void> {
  if (tlsDir !== null) {
    return (_, request) => {
      const name = (request.raw.socket as TLSSocket).getPeerCertificate().subject?.CN;
      if (name !== HUB_IDENTITY) throw new SendenseError('NOT_ALLOWED', 'only the hub may call an agent');
    };
  }
  const host = listen.slice(0, listen.lastIndexOf(':'));
  if (tokenFile === null || !['127.0.0.1', '[::1]', 'localhost'].includes(host)) {
    throw new SendenseError(
      'CONFIG_INVALID',
      'an agent without certificates needs a token file and a loopback address',
    );
  }
  const token = (await readFile(tokenFile, 'utf8')).trim();
  return (_, request) => {
    if (!sameToken(bearer(request), token)) throw new SendenseError('UNAUTHENTICATED', 'wrong or missing token');
  };
}

async function readTls(dir: string): Promise<ServerTls> {
  const [ca, cert, key] = await Promise.all(
    ['ca-cert.pem', 'client-cert.pem', 'client-key.pem'].map((file) => readFile(join(dir, file), 'utf8')),
  );
  return { ca: ca ?? '', cert: cert ?? '', key: key ?? '', clientCertificates: true };
}

function hubFetch(tls: ServerTls | null): typeof fetch {
  if (tls === null) return fetch;
  const { ca, cert, key } = tls;
  const dispatcher = new HttpAgent({ connect: { ca, cert, key, timeout: 10_000 } });
  return ((input: string, init: RequestInit) => httpFetch(input, { ...init, dispatcher })) as unknown as typeof fetch;
}
