/** From a kind to its implementation; the only list of kinds. */
import { initialise } from './initialise.ts';
import { LocalRepository } from './local.ts';
import type { Repository, RepositoryIdentity, RepositorySettings } from './repository.ts';

/** REPOSITORY_UNAVAILABLE when the place is not there or is not the repository with this id; REPOSITORY_INVALID when its identity cannot be read. */
export async function openRepository(settings: RepositorySettings, id: string): Promise<Repository> {
  switch (settings.kind) {
    case 'local':
      return LocalRepository.open(settings.root, id);
  }
}

/** Makes the place a repository and says which id it got. See initialise.ts for what it refuses. */
export async function createRepository(settings: RepositorySettings, name: string): Promise<RepositoryIdentity> {
  switch (settings.kind) {
    case 'local':
      return initialise(settings.root, name);
  }
}
