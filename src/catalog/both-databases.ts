/** Every test of the catalog runs twice through here, because it promises the same behaviour on both databases. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { sql } from 'kysely';
import { now } from '#/lib/clock.ts';
import { openCatalog } from './catalog.ts';
import type { Catalog, CatalogPlace } from './catalog.ts';
import { postgresBinaries, startThrowawayPostgres } from './throwaway-postgres.ts';
import type { ThrowawayPostgres } from './throwaway-postgres.ts';

export interface GivenCatalog {
  catalog: Catalog;
  place: CatalogPlace;
  /** What it has executed so far. */
  statements: string[];
  /** Turns the catalog's clock forward. */
  turnClock: (ms: number) => void;
}

type Place<K extends CatalogPlace['kind']> = Extract<CatalogPlace, { kind: K }>;

/** An empty, migrated catalog on each database. Without PostgreSQL that half is skipped, but never in CI. */
export function onBothDatabases(name: string, work: (given: GivenCatalog) => Promise<void>): void {
  const inCatalog = async (place: CatalogPlace): Promise<void> => {
    const statements: string[] = [];
    let aheadMs = 0;
    await using catalog = await openCatalog(place, {
      clock: () => now().add({ milliseconds: aheadMs }),
      onStatement: (statement) => statements.push(statement),
    });
    await work({ catalog, place, statements, turnClock: (ms) => void (aheadMs += ms) });
  };
  test(`${name} [SQLite]`, async () => withSqlite(inCatalog));
  test(`${name} [PostgreSQL]`, { skip: skipReason() }, async () => inCatalog(await emptiedDatabase()));
}

/** Like onBothDatabases, with an empty place that nobody has opened yet. */
export function onBothPlaces(name: string, work: (place: CatalogPlace) => Promise<void>): void {
  test(`${name} [SQLite]`, async () => withSqlite(work));
  onPostgres(`${name} [PostgreSQL]`, work);
}

export function onPostgres(name: string, work: (place: Place<'postgres'>) => Promise<void>): void {
  test(name, { skip: skipReason() }, async () => {
    const server = await theServer();
    await work({ kind: 'postgres', url: await server.createDatabase() });
  });
}

export async function withSqlite<T>(work: (place: Place<'sqlite'>) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'sendense-catalog-'));
  try {
    return await work({ kind: 'sqlite', path: join(folder, 'catalog.db') });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

let server: Promise<ThrowawayPostgres> | undefined;
let shared: Promise<Place<'postgres'>> | undefined;

/** Making and migrating a database takes ten times as long as emptying one, so the tests of a file share theirs. */
async function emptiedDatabase(): Promise<Place<'postgres'>> {
  shared ??= theServer().then(async (running) => ({ kind: 'postgres', url: await running.createDatabase() }));
  const place = await shared;
  await using catalog = await openCatalog(place);
  const { db } = catalog.database;
  const tables = await sql<{ name: string }>`SELECT tablename AS name FROM pg_tables
    WHERE schemaname = current_schema() AND tablename <> 'schema_steps'`.execute(db);
  const names = sql.join(tables.rows.map(({ name }) => sql.table(name)));
  await sql`TRUNCATE ${names} RESTART IDENTITY`.execute(db);
  return place;
}

async function theServer(): Promise<ThrowawayPostgres> {
  server ??= startThrowawayPostgres();
  return server;
}

after(async () => {
  if (server) await (await server)[Symbol.asyncDispose]();
});

function skipReason(): string | false {
  if (process.env['CI'] || postgresBinaries() !== undefined) return false;
  return 'PostgreSQL is not installed (Debian package postgresql)';
}
