import assert from 'node:assert/strict';
import { stat, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { sql } from 'kysely';
import type { Kysely } from 'kysely';
import { onBothPlaces, withSqlite } from './both-databases.ts';
import { openCatalog } from './catalog.ts';
import { migrate, MIGRATIONS } from './migrate.ts';
import { dumpSchema } from './schema.ts';

onBothPlaces('a migrated catalog opens again without another step and with what it held', async (place) => {
  {
    await using catalog = await openCatalog(place);
    await catalog.settings.set('kept', true);
  }
  await using catalog = await openCatalog(place);
  assert.deepEqual(await migrate(catalog.database), []);
  assert.equal(await catalog.settings.get('kept'), true);
});

onBothPlaces('a catalog of a newer version is refused and left as it is', async (place) => {
  const newer = {
    name: '9999-later',
    up: async ({ db }: { db: Kysely<unknown> }) => void (await sql`CREATE TABLE later (id text)`.execute(db)),
  };
  let before: string;
  {
    await using catalog = await openCatalog(place);
    assert.deepEqual(await migrate(catalog.database, [...MIGRATIONS, newer]), ['9999-later']);
    before = await dumpSchema(catalog);
    assert.match(before, /TABLE later/);
    const known = MIGRATIONS.length;
    await assert.rejects(migrate(catalog.database), { code: 'SCHEMA_TOO_NEW', details: { schema: known + 1, known } });
    assert.equal(await dumpSchema(catalog), before);
  }
  await assert.rejects(openCatalog(place), { code: 'SCHEMA_TOO_NEW' });
});

onBothPlaces('a step that fails takes all steps of its run back', async (place) => {
  await using catalog = await openCatalog(place);
  const before = await dumpSchema(catalog);
  const good = {
    name: 'good',
    up: async ({ db }: { db: Kysely<unknown> }) => void (await sql`CREATE TABLE good (id text)`.execute(db)),
  };
  const bad = {
    name: 'bad',
    up: async ({ db }: { db: Kysely<unknown> }) => void (await sql`CREATE nonsense`.execute(db)),
  };
  await assert.rejects(migrate(catalog.database, [...MIGRATIONS, good, bad]), { code: 'INTERNAL' });
  assert.equal(await dumpSchema(catalog), before);
  assert.deepEqual(await migrate(catalog.database), []);
});

onBothPlaces('hubs that open an empty catalog together migrate it once', async (place) => {
  const hubs = place.kind === 'postgres' ? 4 : 1;
  const catalogs = await Promise.all(Array.from({ length: hubs }, async () => openCatalog(place)));
  const counts = await Promise.all(catalogs.map(async (catalog) => (await catalog.jobs.listOpen()).length));
  await Promise.all(catalogs.map(async (catalog) => catalog.close()));
  assert.deepEqual(
    counts,
    Array.from({ length: hubs }, () => 0),
  );
});

test('the file of a SQLite catalog can be read by its owner only', async () => {
  await withSqlite(async (place) => {
    await using catalog = await openCatalog(place);
    await catalog.settings.set('a', 1);
    for (const suffix of ['', '-wal', '-shm']) {
      assert.equal((await stat(`${place.path}${suffix}`)).mode & 0o777, 0o600, suffix);
    }
  });
});

test('a catalog that cannot be opened says so', async () => {
  await assert.rejects(openCatalog({ kind: 'sqlite', path: '/nonexistent/catalog.db' }), {
    code: 'CATALOG_UNAVAILABLE',
  });
  await withSqlite(async ({ path }) => {
    await writeFile(path, 'this is no database at all, '.repeat(100));
    await assert.rejects(openCatalog({ kind: 'sqlite', path }), { code: 'CATALOG_UNAVAILABLE' });
  });
  const url = 'postgres://nobody@/none?host=/nonexistent';
  await assert.rejects(openCatalog({ kind: 'postgres', url }), { code: 'CATALOG_UNAVAILABLE' });
  const aborted = AbortSignal.abort(new Error('no more'));
  await assert.rejects(openCatalog({ kind: 'postgres', url }, { signal: aborted }), /no more/);
});
