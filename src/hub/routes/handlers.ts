import { agentRoutes } from './agents.ts';
import { backupRoutes } from './backups.ts';
import type { HubContext } from './context.ts';
import { jobRoutes } from './jobs.ts';
import { repositoryRoutes } from './repositories.ts';
import { sourceRoutes } from './sources.ts';
import { vmRoutes } from './vms.ts';
import type { Routes } from '#/api/routes.ts';
import type { Handlers } from '#/http/server.ts';
import { VERSION } from '#/lib/version.ts';

export function handlers(hub: HubContext): Handlers<Routes> {
  return {
    getStatus: async () => ({
      hubId: hub.hubId,
      version: VERSION,
      catalog: hub.catalog.kind,
      openJobs: (await hub.catalog.jobs.listOpen()).length,
    }),
    ...sourceRoutes(hub),
    ...vmRoutes(hub),
    ...repositoryRoutes(hub),
    ...agentRoutes(hub),
    ...backupRoutes(hub),
    ...jobRoutes(hub),
  };
}
