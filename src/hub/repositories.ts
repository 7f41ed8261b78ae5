/** Repositories by their catalog record: opened with the identity checked, their state kept up to date. */
import type { Catalog } from '#/catalog/catalog.ts';
import type { Repository as RepositoryRecord } from '#/catalog/records.ts';
import { now } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import { openRepository } from '#/repository/open.ts';
import type { Repository, RepositorySettings } from '#/repository/repository.ts';

export class Repositories {
  readonly #catalog: Catalog;

  constructor(catalog: Catalog) {
    this.#catalog = catalog;
  }

  /** REPOSITORY_UNAVAILABLE when it is not there or not the one that was registered; then it is shown as frozen. */
  async open(record: RepositoryRecord): Promise<Repository> {
    try {
      const repository = await openRepository(settingsOf(record), record.identity);
      const space = await repository.space();
      await this.#catalog.repositories.update(record.id, {
        state: 'online',
        problem: null,
        checkedAt: now(),
        ...space,
      });
      return repository;
    } catch (error) {
      const problem = error instanceof SendenseError ? error.message : String(error);
      await this.#catalog.repositories.update(record.id, { state: 'frozen', problem, checkedAt: now() });
      throw error;
    }
  }
}

/** RepositorySettings of a record; a kind that this version does not know is CONFIG_INVALID. */
function settingsOf({ kind, root }: RepositoryRecord): RepositorySettings {
  if (kind === 'local') return { kind, root };
  throw new SendenseError('CONFIG_INVALID', `this version knows no repositories of kind ${kind}`);
}
