import { repositoryView } from '../views.ts';
import type { HubContext, Some } from './context.ts';
import { SendenseError } from '#/lib/errors.ts';
import { createRepository, openRepository } from '#/repository/open.ts';

export function repositoryRoutes({ catalog }: HubContext): Some<'listRepositories' | 'addRepository'> {
  return {
    listRepositories: async () => {
      const items = await catalog.repositories.list();
      return { items: await Promise.all(items.map((one) => repositoryView(catalog, one))), nextCursor: null };
    },

    addRepository: async ({ body }) => {
      const { name, kind, root } = body;
      if (await catalog.repositories.find(name)) {
        throw new SendenseError('ALREADY_EXISTS', `there is a repository called ${name}`);
      }
      const identity = await createRepository({ kind, root }, name);
      await using repository = await openRepository({ kind, root }, identity.id);
      const space = await repository.space();
      const record = await catalog.repositories.create({
        name,
        kind,
        root,
        settings: {},
        identity: identity.id,
        ...space,
      });
      return await repositoryView(catalog, record);
    },
  };
}
