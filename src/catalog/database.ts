/** What the record classes of this folder work on: a Kysely (or one transaction of it), its kind and a clock. */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { Kysely, KyselyPlugin } from 'kysely';
import { assert } from '#/lib/errors.ts';
import type { Tables } from './tables.ts';

export type DatabaseKind = 'sqlite' | 'postgres';

export interface Database {
  db: Kysely<Tables>;
  kind: DatabaseKind;
  /** Of the outer database; undefined inside a transaction. */
  guard: TransactionGuard | undefined;
  now: () => Temporal.Instant;
}

/** Told the text of every statement, for tests and for finding slow ones; parameters are never shown. */
export type StatementListener = (statement: string) => void;

const open = new AsyncLocalStorage<{ guard: TransactionGuard; ended: boolean }>();

/**
 * Refuses the outer catalog inside one of its own transactions: on SQLite it would wait for itself forever, on
 * PostgreSQL it would silently work outside the transaction.
 */
export class TransactionGuard implements KyselyPlugin {
  transformQuery: KyselyPlugin['transformQuery'] = ({ node }) => {
    this.check();
    return node;
  };

  transformResult: KyselyPlugin['transformResult'] = async ({ result }) => result;

  check(): void {
    const current = open.getStore();
    const inside = current?.guard === this && !current.ended;
    assert(!inside, 'the outer catalog was used inside its own transaction');
  }

  async inside<T>(work: () => Promise<T>): Promise<T> {
    const state = { guard: this, ended: false };
    try {
      return await open.run(state, work);
    } finally {
      state.ended = true;
    }
  }
}

/** Runs `work` in a transaction: the one that `on` is of already, or a new one. */
export async function transaction<T>(on: Database, work: (inside: Database) => Promise<T>): Promise<T> {
  const { guard } = on;
  if (!guard) return work(on);
  guard.check();
  return on.db.transaction().execute(async (trx) => {
    return guard.inside(async () => work({ ...on, db: trx.withoutPlugins(), guard: undefined }));
  });
}

/** Text as both databases can hold it: PostgreSQL refuses NUL, and neither takes half a surrogate pair. */
export function bindable(value: unknown): unknown {
  if (typeof value === 'string') return value.replaceAll('\0', '\uFFFD').toWellFormed();
  if (typeof value === 'boolean') return Number(value);
  return value === undefined ? null : value;
}
