/** The agent's HTTP server: thin handlers over Replications and Sources. Only the hub may call. */
import type { FastifyInstance } from 'fastify';
import type { Replications } from './replications.ts';
import type { Sources } from './sources.ts';
import { listVms, loadVm } from './vsphere/inventory.ts';
import { removeOwnSnapshots } from './vsphere/snapshot-removal.ts';
import { fetchThumbprint } from './vsphere/tls.ts';
import { agentRoutes } from '#/api/agent-routes.ts';
import type { AgentRoutes } from '#/api/agent-routes.ts';
import type { Replication } from '#/api/replication.ts';
import { createServer } from '#/http/server.ts';
import type { Handlers, ServerOptions } from '#/http/server.ts';
import { now } from '#/lib/clock.ts';
import { isFault } from './vsphere/soap.ts';

export interface AgentServerOptions {
  name: string;
  version: string;
  sources: Sources;
  replications: Replications;
  authorise: ServerOptions<AgentRoutes>['authorise'];
  tls: ServerOptions<AgentRoutes>['tls'];
  log: ServerOptions<AgentRoutes>['log'];
}

const EVENT_INTERVAL_MS = 1_000;

export function createAgentServer(options: AgentServerOptions): FastifyInstance {
  const { authorise, tls, log } = options;
  const app = createServer(agentRoutes, { handlers: handlers(options), authorise, tls, log });
  addEvents(app, options);
  return app;
}

function handlers({ name, version, sources, replications }: AgentServerOptions): Handlers<AgentRoutes> {
  const startedAt = now().toString();
  return {
    getStatus: async () => ({ name, version, startedAt, replications: replications.running }),
    probeSource: async ({ body }) => {
      const { validUntil, ...certificate } = await fetchThumbprint(body.address);
      return { ...certificate, validUntil: validUntil.toString() };
    },
    putSource: async ({ params, body }) => {
      sources.put(params.source, body);
      return { known: true };
    },
    getInventory: async ({ query }) => {
      const session = await sources.session(query.source);
      const { instanceUuid, fullName, apiVersion } = session.about;
      const about = { instanceUuid: instanceUuid ?? null, product: fullName, apiVersion };
      if (query.vm === undefined) return { ...about, ...(await listVms(session)) };
      try {
        return { ...about, vms: [await loadVm(session, query.vm)], problems: [] };
      } catch (error) {
        if (!isFault(error, 'ManagedObjectNotFound')) throw error;
        return { ...about, vms: [], problems: [] };
      }
    },
    replicate: async ({ body }) => (await replications.start(body)).view(),
    getReplication: async ({ params }) => {
      const run = replications.get(params.replication);
      run.heard();
      return run.view();
    },
    getVmConfig: async ({ params }) => ({ xml: replications.get(params.replication).vmConfigXml }),
    putTarget: async ({ params, body }) => {
      const run = replications.get(params.replication);
      const disk = run.disk(params.disk);
      disk.newTarget.resolve(body);
      return run.view();
    },
    cancelReplication: async ({ params }) => {
      const run = replications.get(params.replication);
      run.cancel();
      return run.view();
    },
    removeSnapshot: async ({ body }) => {
      const session = await sources.session(body.sourceId);
      const own = { name: body.name, moref: body.moref ?? undefined };
      return { removed: await removeOwnSnapshots(session, body.vmMoref, own) };
    },
  };
}

/** Server-sent events: the state of a replication once a second and when it ends. */
function addEvents(app: FastifyInstance, { replications, authorise }: AgentServerOptions): void {
  app.get('/api/v1/replications/:replication/events', async (request, reply) => {
    authorise('getReplication', request);
    const run = replications.get((request.params as { replication: string }).replication);
    reply.hijack();
    const out = reply.raw;
    out.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    const tell = (): void => {
      const state: Replication = run.view();
      out.write(`event: replication\ndata: ${JSON.stringify(state)}\n\n`);
      if (run.ended) out.end();
    };
    tell();
    const timer = setInterval(tell, EVENT_INTERVAL_MS);
    out.on('close', () => clearInterval(timer));
  });
}
