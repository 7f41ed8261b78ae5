import { refreshSource } from '../inventory.ts';
import { chainView, jobViews, restorePointViews } from '../views.ts';
import type { HubContext, Some } from './context.ts';
import type { BackupPayload } from '#/api/payload.ts';
import type { NewBackup } from '#/api/restore-point.ts';
import type { Repository, Vm } from '#/catalog/records.ts';
import { SendenseError } from '#/lib/errors.ts';

/** Most backups at once through one agent and into one repository. */
const AGENT_CAP = 4;
const REPOSITORY_CAP = 4;

type Names = 'runBackup' | 'listRestorePoints' | 'getRestorePoint' | 'listChains' | 'getStatistics';

export function backupRoutes(hub: HubContext): Some<Names> {
  const { catalog, agents, runner, progress } = hub;
  return {
    runBackup: async ({ body }) => {
      const repository = await chooseRepository(hub, body.repository);
      const agent = await agents.choose();
      const vm = await findVm(hub, body);
      const payload: BackupPayload = {
        vmId: vm.id,
        repositoryId: repository.id,
        agentId: agent.id,
        type: body.type,
        quiesce: body.quiesce,
        bytesPerSecond: body.bytesPerSecond ?? null,
      };
      const job = await catalog.jobs.enqueue({
        kind: 'backup',
        payload,
        createdBy: 'api',
        subjectKey: vm.id,
        vmId: vm.id,
        resources: [
          { resource: `agent:${agent.id}`, cap: AGENT_CAP },
          { resource: `repository:${repository.id}`, cap: REPOSITORY_CAP },
        ],
      });
      runner.wake();
      return one(await jobViews(catalog, progress, [job]));
    },

    listRestorePoints: async ({ query }) => {
      const { items, nextCursor } = await catalog.restorePoints.list({
        limit: query.limit,
        ...(query.vm !== undefined && { vmId: (await catalog.vms.get(query.vm)).id }),
        ...(query.repository !== undefined && { repositoryId: (await catalog.repositories.get(query.repository)).id }),
        ...(query.status !== undefined && { status: query.status }),
        ...(query.cursor !== undefined && { cursor: query.cursor }),
      });
      return { items: await restorePointViews(catalog, items), nextCursor };
    },

    getRestorePoint: async ({ params }) =>
      one(await restorePointViews(catalog, [await catalog.restorePoints.get(params.point)])),

    listChains: async ({ query }) => {
      const chains = await catalog.backupChains.list({
        vmId: (await catalog.vms.get(query.vm)).id,
        ...(query.repository !== undefined && { repositoryId: (await catalog.repositories.get(query.repository)).id }),
      });
      return { items: await Promise.all(chains.map((chain) => chainView(catalog, chain))), nextCursor: null };
    },

    getStatistics: async ({ query }) =>
      catalog.backupChains.statistics({
        ...(query.vm !== undefined && { vmId: (await catalog.vms.get(query.vm)).id }),
        ...(query.repository !== undefined && { repositoryId: (await catalog.repositories.get(query.repository)).id }),
      }),
  };
}

async function chooseRepository({ catalog }: HubContext, ref: string | undefined): Promise<Repository> {
  if (ref !== undefined) return catalog.repositories.get(ref);
  const all = await catalog.repositories.list();
  const [only] = all;
  if (!only) throw new SendenseError('REPOSITORY_NOT_FOUND', 'there is no repository yet; add one first');
  if (all.length > 1) throw new SendenseError('AMBIGUOUS', 'there is more than one repository: name the one to use');
  return only;
}

/** A VM that the catalog does not know may be new: the sources are asked once before it is called unknown. */
async function findVm(hub: HubContext, body: NewBackup): Promise<Vm> {
  const { catalog } = hub;
  const source = body.source === undefined ? undefined : await catalog.sources.get(body.source);
  const known = await catalog.vms.find(body.vm, source?.id);
  if (known) return known;
  const agent = await hub.agents.choose();
  for (const each of source ? [source] : await catalog.sources.list()) await refreshSource(hub, agent, each);
  return catalog.vms.get(body.vm, source?.id);
}

function one<T>(items: readonly T[]): T {
  const [first] = items;
  if (first === undefined) throw new SendenseError('INTERNAL', 'a record without a view');
  return first;
}
