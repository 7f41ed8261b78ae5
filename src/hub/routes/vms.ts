import { refreshSource } from '../inventory.ts';
import { vmViews } from '../views.ts';
import type { HubContext, Some } from './context.ts';
import { SendenseError } from '#/lib/errors.ts';

export function vmRoutes(hub: HubContext): Some<'listVms' | 'getVm'> {
  const { catalog, agents } = hub;
  return {
    listVms: async ({ query }) => {
      const source = query.source === undefined ? undefined : await catalog.sources.get(query.source);
      if (query.refresh) {
        const agent = await agents.choose();
        for (const one of source ? [source] : await catalog.sources.list()) await refreshSource(hub, agent, one);
      }
      const { items, nextCursor } = await catalog.vms.list({
        limit: 1000,
        ...(source && { sourceId: source.id }),
        ...(query.name !== undefined && { name: query.name }),
      });
      return { items: await vmViews(catalog, items), nextCursor };
    },

    getVm: async ({ params }) => {
      const [vm] = await vmViews(catalog, [await catalog.vms.get(params.vm)]);
      if (!vm) throw new SendenseError('VM_NOT_FOUND', `no VM ${params.vm}`);
      return vm;
    },
  };
}
