/** The schema as text, for the golden files beside this one: what a fresh catalog has after all migrations. */
import { sql } from 'kysely';
import type { Catalog } from './catalog.ts';
import type { Database } from './database.ts';

export async function dumpSchema(catalog: Catalog): Promise<string> {
  return catalog.kind === 'sqlite' ? dumpSqlite(catalog.database) : dumpPostgres(catalog.database);
}

async function dumpSqlite({ db }: Database): Promise<string> {
  const { rows } = await sql<{ sql: string }>`SELECT sql FROM sqlite_schema
    WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY tbl_name, type DESC, name`.execute(db);
  return rows.map((row) => `${row.sql.replaceAll(/\n {6}/g, '\n  ')};\n`).join('\n');
}

async function dumpPostgres({ db }: Database): Promise<string> {
  const columns = await sql<{ tab: string; line: string }>`
    SELECT c.relname AS tab, a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
      || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
      || coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '') AS line
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname, a.attnum`.execute(db);
  const constraints = await sql<{ tab: string; line: string }>`
    SELECT c.relname AS tab, 'CONSTRAINT ' || k.conname || ' ' || pg_get_constraintdef(k.oid) AS line
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND k.contype IN ('c', 'f', 'p', 'u')
    ORDER BY c.relname, k.contype, k.conname COLLATE "C"`.execute(db);
  const indexes = await sql<{ tab: string; line: string }>`
    SELECT tablename AS tab, replace(indexdef, schemaname || '.', '') AS line FROM pg_indexes i
    WHERE schemaname = current_schema() AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conname = i.indexname)
    ORDER BY tablename, indexname COLLATE "C"`.execute(db);
  return [...new Set(columns.rows.map(({ tab }) => tab))]
    .map((tab) => {
      const of = (lines: { rows: { tab: string; line: string }[] }): string[] =>
        lines.rows.filter((row) => row.tab === tab).map(({ line }) => line);
      const table = `CREATE TABLE ${tab} (\n  ${[...of(columns), ...of(constraints)].join(',\n  ')}\n);\n`;
      return [table, ...of(indexes).map((line) => `${line};\n`)].join('\n');
    })
    .join('\n');
}
