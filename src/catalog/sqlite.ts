/**
 * SQLite through node:sqlite. One process (the hub) opens the file; every commit is on disk before it is acknowledged.
 * A transaction takes the write lock at its start, so that it never fails half-way for want of it.
 */
import { chmodSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import type { SQLInputValue, StatementSync } from 'node:sqlite';
import { SqliteDialect } from 'kysely';
import type { SqliteDatabase, SqliteStatement } from 'kysely';
import { SendenseError } from '#/lib/errors.ts';
import { bindable } from './database.ts';
import type { StatementListener } from './database.ts';

const BUSY_TIMEOUT_MS = 5000;
const CACHED_STATEMENTS = 256;

// Extended result codes of sqlite3.h.
const DEFECT = 1; // wrong SQL: ours
const CONSTRAINT_CHECK = 275;
const CONSTRAINT_FOREIGN_KEY = 787;
const CONSTRAINT_NOT_NULL = 1299;
const CONSTRAINT_PRIMARY_KEY = 1555;
const CONSTRAINT_UNIQUE = 2067;

export function sqliteDialect(path: string, onStatement?: StatementListener): SqliteDialect {
  return new SqliteDialect({ database: new NodeSqlite(path, onStatement) });
}

class NodeSqlite implements SqliteDatabase {
  readonly #raw: DatabaseSync;
  readonly #cache = new Map<string, Statement>();
  readonly #onStatement: StatementListener | undefined;

  constructor(path: string, onStatement?: StatementListener) {
    this.#onStatement = onStatement;
    this.#raw = translated(() => openFile(path));
  }

  prepare(text: string): SqliteStatement {
    const sql = text === 'begin' ? 'begin immediate' : text;
    this.#onStatement?.(sql);
    const known = this.#cache.get(sql);
    if (known) this.#cache.delete(sql);
    const statement = known ?? translated(() => new Statement(this.#raw.prepare(sql)));
    this.#cache.set(sql, statement);
    if (this.#cache.size > CACHED_STATEMENTS) this.#cache.delete(this.#cache.keys().next().value ?? '');
    return statement;
  }

  close(): void {
    this.#cache.clear();
    this.#raw.close();
  }
}

function openFile(path: string): DatabaseSync {
  const raw = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: BUSY_TIMEOUT_MS });
  try {
    // It holds sealed credentials; SQLite gives its -wal and -shm files the mode of the database.
    if (path !== ':memory:') chmodSync(path, 0o600);
    raw.exec('PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536');
    return raw;
  } catch (error) {
    raw.close();
    throw error;
  }
}

class Statement implements SqliteStatement {
  readonly reader: boolean;
  readonly #statement: StatementSync;

  constructor(statement: StatementSync) {
    this.#statement = statement;
    this.reader = statement.columns().length > 0;
  }

  all(parameters: readonly unknown[]): unknown[] {
    return translated(() => this.#statement.all(...bound(parameters)));
  }

  run(parameters: readonly unknown[]): { changes: number | bigint; lastInsertRowid: number | bigint } {
    return translated(() => this.#statement.run(...bound(parameters)));
  }

  iterate(parameters: readonly unknown[]): IterableIterator<unknown> {
    return this.#statement.iterate(...bound(parameters));
  }
}

function bound(parameters: readonly unknown[]): SQLInputValue[] {
  return parameters.map((value) => bindable(value) as SQLInputValue);
}

function translated<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (!(cause instanceof Error) || !('errcode' in cause)) throw cause;
    const message = cause.message;
    switch (cause.errcode) {
      case CONSTRAINT_UNIQUE:
      case CONSTRAINT_PRIMARY_KEY:
        throw new SendenseError('ALREADY_EXISTS', `the catalog has it already (${message})`, { cause });
      case CONSTRAINT_FOREIGN_KEY:
        throw new SendenseError('WRONG_STATE', 'the catalog misses what this refers to, or still needs it', { cause });
      case DEFECT:
      case CONSTRAINT_CHECK:
      case CONSTRAINT_NOT_NULL:
        throw new SendenseError('INTERNAL', `the catalog refused a statement (${message})`, { cause });
      default:
        throw new SendenseError('CATALOG_UNAVAILABLE', `SQLite: ${message}`, { cause });
    }
  }
}
