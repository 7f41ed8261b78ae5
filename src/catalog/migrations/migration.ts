import type { Kysely } from 'kysely';
import type { DatabaseKind } from '../database.ts';

/** One step of the schema. Once released it is never edited; a change is a new step with the next number. */
export interface Migration {
  name: string;
  up(context: MigrationContext): Promise<void>;
}

export interface MigrationContext {
  /** A transaction: either the whole step happens or none of it. The tables of that day are not known to the compiler. */
  db: Kysely<unknown>;
  kind: DatabaseKind;
}
