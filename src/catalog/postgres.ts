/** PostgreSQL through pg: a pool of connections, integers as numbers (or an error beyond 2^53), bytea as Uint8Array. */
import { Pool, types } from 'pg';
import { PostgresDialect } from 'kysely';
import { SendenseError } from '#/lib/errors.ts';
import { bindable } from './database.ts';
import type { StatementListener } from './database.ts';

const CONNECTIONS = 10;
const CONNECT_TIMEOUT_MS = 10_000;
const STATEMENT_TIMEOUT_MS = 60_000;

const OID_BYTEA = 17;
const OID_INT8 = 20;

export function postgresDialect(url: string, onStatement?: StatementListener): PostgresDialect {
  const pool = new Pool({
    connectionString: url,
    application_name: 'sendense',
    max: CONNECTIONS,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    types: { getTypeParser },
  });
  // An idle connection that dies is dropped by the pool and replaced at the next query, which reports what is wrong.
  pool.on('error', () => undefined);
  return new PostgresDialect({
    pool: {
      options: pool.options,
      end: async () => pool.end(),
      connect: async () => {
        const client = await translated(async () => pool.connect());
        return {
          release: (discard) => client.release(discard),
          // Kysely's type also covers cursors, which are never used here.
          query: (async (sql: string, parameters: readonly unknown[]) => {
            onStatement?.(sql);
            return translated(async () => client.query(sql, parameters.map(bindable)));
          }) as never,
        };
      },
    },
  });
}

function getTypeParser(oid: number, format?: 'text' | 'binary'): (text: string) => unknown {
  if (oid === OID_INT8) return safeInteger;
  if (oid === OID_BYTEA) return (text) => Uint8Array.fromHex(text.slice(2));
  return types.getTypeParser(oid, format);
}

function safeInteger(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value))
    throw new SendenseError('INTERNAL', `the catalog holds a number too large: ${text}`);
  return value;
}

async function translated<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof SendenseError || !(cause instanceof Error)) throw cause;
    const code = 'code' in cause && typeof cause.code === 'string' ? cause.code : '';
    switch (code) {
      case '23505':
        throw new SendenseError('ALREADY_EXISTS', `the catalog has it already (${cause.message})`, { cause });
      case '23503':
        throw new SendenseError('WRONG_STATE', 'the catalog misses what this refers to, or still needs it', { cause });
      case '23502':
      case '23514':
        throw new SendenseError('INTERNAL', `the catalog refused a statement (${cause.message})`, { cause });
      default:
        // Class 42 is wrong SQL: ours.
        if (code.startsWith('42')) throw new SendenseError('INTERNAL', `PostgreSQL: ${cause.message}`, { cause });
        throw new SendenseError('CATALOG_UNAVAILABLE', `PostgreSQL: ${cause.message}`, { cause });
    }
  }
}
