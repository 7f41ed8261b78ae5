import { SendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import type { Database } from './database.ts';
import type { Source } from './records.ts';
import { SOURCE } from './tables.ts';

export type NewSource = Omit<Source, 'id' | 'createdAt' | 'checkedAt'>;
export type SourcePatch = Partial<Omit<Source, 'id' | 'createdAt'>>;

export class Sources {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  /** ALREADY_EXISTS when the name is taken. */
  async create(given: NewSource): Promise<Source> {
    const source: Source = { ...given, id: newId(), createdAt: this.#on.now(), checkedAt: null };
    await this.#on.db.insertInto('sources').values(SOURCE.row(source)).execute();
    return source;
  }

  /** By id or name. */
  async find(ref: string): Promise<Source | undefined> {
    const rows = await this.#on.db
      .selectFrom('sources')
      .select(SOURCE.names)
      .where((eb) => eb.or([eb('id', '=', ref), eb('name', '=', ref)]))
      .execute();
    const row = rows.find(({ id }) => id === ref) ?? rows[0];
    return row && SOURCE.record(row);
  }

  /** By id or name; SOURCE_NOT_FOUND. */
  async get(ref: string): Promise<Source> {
    const source = await this.find(ref);
    if (!source) throw new SendenseError('SOURCE_NOT_FOUND', `no source ${ref}`, { details: { source: ref } });
    return source;
  }

  /** All, by name. */
  async list(): Promise<Source[]> {
    const rows = await this.#on.db.selectFrom('sources').select(SOURCE.names).orderBy('name').execute();
    return rows.map((row) => SOURCE.record(row));
  }

  async update(id: string, patch: SourcePatch): Promise<Source> {
    const columns = SOURCE.patch(patch);
    if (Object.keys(columns).length > 0) {
      await this.#on.db.updateTable('sources').set(columns).where('id', '=', id).execute();
    }
    return this.get(id);
  }

  /** WRONG_STATE while VMs of it are known. */
  async remove(id: string): Promise<void> {
    await this.#on.db.deleteFrom('sources').where('id', '=', id).execute();
  }
}
