import { refreshSource } from '../inventory.ts';
import { sourceView } from '../views.ts';
import type { HubContext, Some } from './context.ts';
import { SendenseError } from '#/lib/errors.ts';

export function sourceRoutes(hub: HubContext): Some<'listSources' | 'addSource' | 'probeSource'> {
  const { catalog, agents, keys } = hub;
  return {
    listSources: async () => ({ items: (await catalog.sources.list()).map(sourceView), nextCursor: null }),

    /** Kept only if it can be logged in to and read: a source that cannot is removed again. */
    addSource: async ({ body }) => {
      const { password, ...facts } = body;
      if (await catalog.sources.find(body.name)) {
        throw new SendenseError('ALREADY_EXISTS', `there is a source called ${body.name}`);
      }
      const agent = await agents.choose();
      // The row's id is part of what is sealed, so the password comes in with a second write.
      const source = await catalog.sources.create({ ...facts, sealedPassword: Buffer.alloc(0), instanceUuid: null });
      try {
        const sealed = await catalog.sources.update(source.id, { sealedPassword: keys.seal(password, source.id) });
        for (const problem of await refreshSource(hub, agent, sealed))
          hub.log.warn({ source: body.name, problem }, 'a VM cannot be read');
      } catch (error) {
        await catalog.sources.remove(source.id);
        throw error;
      }
      return sourceView(await catalog.sources.get(source.id));
    },

    probeSource: async ({ body }) => {
      const client = await agents.client(await agents.choose());
      return client.probeSource({ body });
    },
  };
}
