/**
 * Brings a database to the schema of this version, all of it in one transaction under a lock, so that two hubs that
 * start together do it once. A database that is already newer is refused untouched: its rows may mean something else.
 */
import { sql } from 'kysely';
import type { Kysely } from 'kysely';
import { SendenseError } from '#/lib/errors.ts';
import type { Database } from './database.ts';
import { firstTables } from './migrations/0001-first-tables.ts';
import type { Migration } from './migrations/migration.ts';

/** In order; the version of the schema is the number of steps taken. */
export const MIGRATIONS: readonly Migration[] = [firstTables];

/** Any fixed number of our own; claims use another. */
const MIGRATION_LOCK = 7_363_401;

/** Returns the names of the steps it took; none when the schema was up to date. */
export async function migrate(database: Database, migrations = MIGRATIONS): Promise<string[]> {
  const db = database.db as unknown as Kysely<unknown>;
  return db.transaction().execute(async (trx) => {
    if (database.kind === 'postgres') await sql`SELECT pg_advisory_xact_lock(${sql.lit(MIGRATION_LOCK)})`.execute(trx);
    await sql`CREATE TABLE IF NOT EXISTS schema_steps
      (version integer PRIMARY KEY NOT NULL, name text NOT NULL, applied_at bigint NOT NULL)`.execute(trx);
    const known = await schemaVersion(trx);
    if (known > migrations.length) {
      throw new SendenseError(
        'SCHEMA_TOO_NEW',
        `the catalog has schema ${known}, this version knows ${migrations.length}`,
        { details: { schema: known, known: migrations.length } },
      );
    }
    const taken: string[] = [];
    for (const [index, migration] of migrations.entries()) {
      if (index < known) continue;
      await migration.up({ db: trx, kind: database.kind });
      await sql`INSERT INTO schema_steps (version, name, applied_at)
        VALUES (${index + 1}, ${migration.name}, ${database.now().epochMilliseconds})`.execute(trx);
      taken.push(migration.name);
    }
    return taken;
  });
}

async function schemaVersion(db: Kysely<unknown>): Promise<number> {
  const { rows } = await sql<{
    version: number;
  }>`SELECT coalesce(max(version), 0) AS version FROM schema_steps`.execute(db);
  return rows[0]?.version ?? 0;
}
