import { SendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import type { Database } from './database.ts';
import type { Repository } from './records.ts';
import { REPOSITORY } from './tables.ts';

export type NewRepository = Pick<Repository, 'name' | 'kind' | 'root' | 'settings' | 'identity'> &
  Partial<Pick<Repository, 'capacityBytes' | 'freeBytes'>>;
export type RepositoryPatch = Partial<Omit<Repository, 'id' | 'identity' | 'createdAt'>>;

export class Repositories {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  /** Online from the start. ALREADY_EXISTS when the name or the identity is taken. */
  async create(given: NewRepository): Promise<Repository> {
    const createdAt = this.#on.now();
    const repository: Repository = {
      capacityBytes: null,
      freeBytes: null,
      ...given,
      id: newId(),
      state: 'online',
      problem: null,
      checkedAt: createdAt,
      createdAt,
    };
    await this.#on.db.insertInto('repositories').values(REPOSITORY.row(repository)).execute();
    return repository;
  }

  /** By id or name. */
  async find(ref: string): Promise<Repository | undefined> {
    const rows = await this.#on.db
      .selectFrom('repositories')
      .select(REPOSITORY.names)
      .where((eb) => eb.or([eb('id', '=', ref), eb('name', '=', ref)]))
      .execute();
    const row = rows.find(({ id }) => id === ref) ?? rows[0];
    return row && REPOSITORY.record(row);
  }

  /** By id or name; REPOSITORY_NOT_FOUND. */
  async get(ref: string): Promise<Repository> {
    const repository = await this.find(ref);
    if (repository) return repository;
    throw new SendenseError('REPOSITORY_NOT_FOUND', `no repository ${ref}`, { details: { repository: ref } });
  }

  /** All, by name. */
  async list(): Promise<Repository[]> {
    const rows = await this.#on.db.selectFrom('repositories').select(REPOSITORY.names).orderBy('name').execute();
    return rows.map((row) => REPOSITORY.record(row));
  }

  /** What a check found belongs here: state with its problem, capacity and free bytes, `checkedAt`. */
  async update(id: string, patch: RepositoryPatch): Promise<Repository> {
    const columns = REPOSITORY.patch(patch);
    if (Object.keys(columns).length > 0) {
      await this.#on.db.updateTable('repositories').set(columns).where('id', '=', id).execute();
    }
    return this.get(id);
  }

  /** Forgets it; what lies there is not touched. WRONG_STATE while restore points name it. */
  async remove(id: string): Promise<void> {
    await this.#on.db.deleteFrom('repositories').where('id', '=', id).execute();
  }
}
