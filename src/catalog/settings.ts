import type { Database } from './database.ts';
import { SETTING } from './tables.ts';

/** Small things the hub must remember; each value is any JSON, checked by whoever reads it. */
export class Settings {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  async get(key: string): Promise<unknown> {
    const query = this.#on.db.selectFrom('settings').select(SETTING.names).where('key', '=', key);
    const row = await query.executeTakeFirst();
    return row && SETTING.record(row).value;
  }

  async set(key: string, value: unknown): Promise<void> {
    const row = rowOf(key, value);
    await this.#on.db
      .insertInto('settings')
      .values(row)
      .onConflict((conflict) => conflict.column('key').doUpdateSet({ value: row.value }))
      .execute();
  }

  /** Sets it unless it is set, and returns what holds now: hubs that start together agree on one value. */
  async setOnce(key: string, value: unknown): Promise<unknown> {
    await this.#on.db
      .insertInto('settings')
      .values(rowOf(key, value))
      .onConflict((conflict) => conflict.column('key').doNothing())
      .execute();
    return this.get(key);
  }

  async remove(key: string): Promise<void> {
    await this.#on.db.deleteFrom('settings').where('key', '=', key).execute();
  }
}

/** Unlike other columns of JSON this one is never empty: `null` is a value like any other. */
function rowOf(key: string, value: unknown): ReturnType<typeof SETTING.row> {
  return { ...SETTING.row({ key, value }), value: JSON.stringify(value) };
}
