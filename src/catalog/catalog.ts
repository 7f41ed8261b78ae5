/**
 * The catalog: what sendense knows, in SQLite or PostgreSQL with the same tables and the same behaviour. What a method
 * has acknowledged is on disk. One hub at a time opens a SQLite catalog; several may share one on PostgreSQL.
 */
import { Kysely } from 'kysely';
import { now } from '#/lib/clock.ts';
import { Agents } from './agents.ts';
import { BackupChains } from './backup-chains.ts';
import { BackupJobs } from './backup-jobs.ts';
import { CbtHistory } from './cbt-history.ts';
import { transaction, TransactionGuard } from './database.ts';
import type { Database, DatabaseKind, StatementListener } from './database.ts';
import { JobLog } from './job-log.ts';
import { Jobs } from './jobs.ts';
import { migrate } from './migrate.ts';
import { postgresDialect } from './postgres.ts';
import { Repositories } from './repositories.ts';
import { RestorePoints } from './restore-points.ts';
import { Settings } from './settings.ts';
import { Snapshots } from './snapshots.ts';
import { Sources } from './sources.ts';
import { sqliteDialect } from './sqlite.ts';
import type { Tables } from './tables.ts';
import { VmDisks } from './vm-disks.ts';
import { Vms } from './vms.ts';

export type CatalogPlace = { kind: 'sqlite'; path: string } | { kind: 'postgres'; url: string };

export interface OpenOptions {
  signal?: AbortSignal;
  /** Where the time comes from, for leases and stamps. */
  clock?: () => Temporal.Instant;
  onStatement?: StatementListener;
}

/** Opens the catalog and brings its schema up to date. SCHEMA_TOO_NEW, CATALOG_UNAVAILABLE. */
export async function openCatalog(place: CatalogPlace, options: OpenOptions = {}): Promise<Catalog> {
  options.signal?.throwIfAborted();
  const dialect =
    place.kind === 'sqlite'
      ? sqliteDialect(place.path, options.onStatement)
      : postgresDialect(place.url, options.onStatement);
  const guard = new TransactionGuard();
  const database: Database = {
    db: new Kysely<Tables>({ dialect, plugins: [guard] }),
    kind: place.kind,
    guard,
    // What is returned now must equal what is read later, and the columns hold milliseconds.
    now: () => (options.clock ?? now)().round('millisecond'),
  };
  try {
    await migrate(database);
    options.signal?.throwIfAborted();
    return new Catalog(database);
  } catch (error) {
    await database.db.destroy();
    throw error;
  }
}

export class Catalog implements AsyncDisposable {
  readonly kind: DatabaseKind;
  readonly sources: Sources;
  readonly agents: Agents;
  readonly vms: Vms;
  readonly vmDisks: VmDisks;
  readonly cbtHistory: CbtHistory;
  readonly repositories: Repositories;
  readonly restorePoints: RestorePoints;
  readonly backupJobs: BackupJobs;
  readonly backupChains: BackupChains;
  readonly jobs: Jobs;
  readonly jobLog: JobLog;
  readonly snapshots: Snapshots;
  readonly settings: Settings;
  /** For the files of this folder only. */
  readonly database: Database;

  constructor(on: Database) {
    this.database = on;
    this.kind = on.kind;
    this.sources = new Sources(on);
    this.agents = new Agents(on);
    this.vms = new Vms(on);
    this.vmDisks = new VmDisks(on);
    this.cbtHistory = new CbtHistory(on);
    this.repositories = new Repositories(on);
    this.restorePoints = new RestorePoints(on);
    this.backupJobs = new BackupJobs(on);
    this.backupChains = new BackupChains(on);
    this.jobs = new Jobs(on);
    this.jobLog = new JobLog(on);
    this.snapshots = new Snapshots(on);
    this.settings = new Settings(on);
  }

  /**
   * All that `work` does through the catalog it is given happens, or nothing. Use that catalog and no other inside, and
   * wait for nothing but SQL: on SQLite everybody else waits meanwhile. Inside a transaction it joins it.
   */
  async transaction<T>(work: (catalog: Catalog) => Promise<T>): Promise<T> {
    if (!this.database.guard) return work(this);
    return transaction(this.database, async (inside) => work(new Catalog(inside)));
  }

  /** Waits for what is under way. A transaction's catalog needs no closing. */
  async close(): Promise<void> {
    if (this.database.guard) await this.database.db.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
