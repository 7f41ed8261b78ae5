/** The golden files of the schema, made anew from an empty database of each kind. */
import { openCatalog } from './catalog.ts';
import type { CatalogPlace } from './catalog.ts';
import { dumpSchema } from './schema.ts';
import { startThrowawayPostgres } from './throwaway-postgres.ts';

export interface SchemaFile {
  /** Relative to the root of the project. */
  path: string;
  text: string;
}

/** TOOL_MISSING without PostgreSQL. */
export async function schemaFiles(): Promise<SchemaFile[]> {
  await using postgres = await startThrowawayPostgres();
  return [
    await schemaFile({ kind: 'sqlite', path: ':memory:' }),
    await schemaFile({ kind: 'postgres', url: await postgres.createDatabase() }),
  ];
}

/** `place` must be empty. */
export async function schemaFile(place: CatalogPlace): Promise<SchemaFile> {
  await using catalog = await openCatalog(place);
  return { path: `src/catalog/schema.${place.kind}.sql`, text: await dumpSchema(catalog) };
}
