import { SendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import type { Database } from './database.ts';
import { OPEN } from './job-states.ts';
import type { BackupJob } from './records.ts';
import { BACKUP_JOB } from './tables.ts';

export type NewBackupJob = Pick<
  BackupJob,
  | 'restorePointId'
  | 'vmDiskId'
  | 'diskUuid'
  | 'diskIndex'
  | 'diskKey'
  | 'label'
  | 'type'
  | 'typeReason'
  | 'virtualBytes'
> &
  Partial<Pick<BackupJob, 'id' | 'status' | 'parentBackupId' | 'previousChangeId' | 'imagePath' | 'exportName'>>;
export type BackupJobPatch = Partial<
  Omit<
    BackupJob,
    'id' | 'restorePointId' | 'vmDiskId' | 'diskUuid' | 'diskIndex' | 'status' | 'chainId' | 'completedAt'
  >
> & { status?: 'queued' | 'preparing' | 'snapshotting' | 'copying' | 'committing' };

/** No chain is longer than this; a longer walk is a loop. */
const MAX_CHAIN = 10_000;

/** One disk of one restore point. They complete only through commitRestorePoint. */
export class BackupJobs {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  /** ALREADY_EXISTS when the restore point has this disk or index already. */
  async create(given: NewBackupJob): Promise<BackupJob> {
    const backup: BackupJob = {
      id: newId(),
      status: 'queued',
      parentBackupId: null,
      previousChangeId: null,
      imagePath: null,
      exportName: null,
      ...given,
      chainId: null,
      changeTracking: true,
      changeId: null,
      changedBytes: 0,
      readBytes: 0,
      transferredBytes: 0,
      zeroBytes: 0,
      skippedBytes: 0,
      storedBytes: 0,
      transport: null,
      transportReason: null,
      startedAt: this.#on.now(),
      completedAt: null,
      errorCode: null,
      errorMessage: null,
    };
    await this.#on.db.insertInto('backup_jobs').values(BACKUP_JOB.row(backup)).execute();
    return backup;
  }

  /** Of an unfinished disk; WRONG_STATE when it has ended. */
  async update(id: string, patch: BackupJobPatch): Promise<BackupJob> {
    const row = await this.#on.db
      .updateTable('backup_jobs')
      .set({ id, ...BACKUP_JOB.patch(patch) })
      .where('id', '=', id)
      .where('status', 'in', OPEN)
      .returning(BACKUP_JOB.names)
      .executeTakeFirst();
    if (row) return BACKUP_JOB.record(row);
    const { status } = await this.get(id);
    throw new SendenseError('WRONG_STATE', `backup ${id} is ${status} already`, { details: { backup: id, status } });
  }

  /** For commitRestorePoint only. */
  async complete(
    id: string,
    facts: Partial<BackupJob> & Pick<BackupJob, 'chainId' | 'imagePath' | 'completedAt'>,
  ): Promise<BackupJob> {
    const row = await this.#on.db
      .updateTable('backup_jobs')
      .set(BACKUP_JOB.patch({ ...facts, status: 'completed' }))
      .where('id', '=', id)
      .where('status', 'in', OPEN)
      .returning(BACKUP_JOB.names)
      .executeTakeFirstOrThrow();
    return BACKUP_JOB.record(row);
  }

  /** NOT_FOUND. */
  async get(id: string): Promise<BackupJob> {
    const row = await this.#one(id);
    if (!row) throw new SendenseError('NOT_FOUND', `no backup ${id}`, { details: { backup: id } });
    return row;
  }

  /** The disks of one or more restore points, by point and disk index. */
  async listFor(restorePointIds: string | readonly string[]): Promise<BackupJob[]> {
    const ids = typeof restorePointIds === 'string' ? [restorePointIds] : restorePointIds;
    if (ids.length === 0) return [];
    const rows = await this.#on.db
      .selectFrom('backup_jobs')
      .select(BACKUP_JOB.names)
      .where('restore_point_id', 'in', ids)
      .orderBy('restore_point_id')
      .orderBy('disk_index')
      .execute();
    return rows.map((row) => BACKUP_JOB.record(row));
  }

  /** The latest backup of the disk's active chain there: what an incremental builds on. Undefined: only a full will do. */
  async latestForDisk(vmId: string, diskUuid: string, repositoryId: string): Promise<BackupJob | undefined> {
    const row = await this.#on.db
      .selectFrom('backup_jobs')
      .select(BACKUP_JOB.names)
      .where('status', '=', 'completed')
      .where('id', '=', (eb) =>
        eb
          .selectFrom('backup_chains')
          .select('latest_backup_id')
          .where('vm_id', '=', vmId)
          .where('disk_uuid', '=', diskUuid)
          .where('repository_id', '=', repositoryId)
          .where('state', '=', 'active'),
      )
      .executeTakeFirst();
    return row && BACKUP_JOB.record(row);
  }

  /**
   * The backup and all it builds on, the full first: every image that a restore of it needs. CHAIN_BROKEN, with the
   * offending `backup` in the details, when a link is missing, was never completed or does not lead to a full.
   */
  async parentsToFull(id: string): Promise<BackupJob[]> {
    const rows = await this.#on.db
      .withRecursive('walk(id, parent_backup_id, depth)', (db) =>
        db
          .selectFrom('backup_jobs')
          .select((eb) => ['id', 'parent_backup_id', eb.lit(0).as('depth')])
          .where('id', '=', id)
          .unionAll(
            db
              .selectFrom('walk')
              .innerJoin('backup_jobs', 'backup_jobs.id', 'walk.parent_backup_id')
              .select((eb) => ['backup_jobs.id', 'backup_jobs.parent_backup_id', eb('walk.depth', '+', 1).as('depth')])
              .where('walk.depth', '<', MAX_CHAIN),
          ),
      )
      .selectFrom('walk')
      .innerJoin('backup_jobs', 'backup_jobs.id', 'walk.id')
      .select(BACKUP_JOB.names.map((name) => `backup_jobs.${name}` as const))
      .orderBy('walk.depth', 'desc')
      .execute();
    const links = rows.map((row) => BACKUP_JOB.record(row));
    const first = links[0] ?? (await this.get(id));
    const incomplete = links.find(({ status }) => status !== 'completed');
    if (incomplete) throw broken(id, incomplete.id, `backup ${incomplete.id} is ${incomplete.status}`);
    if (first.parentBackupId !== null) throw broken(id, first.id, `backup ${first.parentBackupId} is missing`);
    if (first.type !== 'full') throw broken(id, first.id, `its first backup ${first.id} is not a full`);
    return links;
  }

  /** The backups that build directly on this one, whatever their status, oldest first. */
  async children(id: string): Promise<BackupJob[]> {
    const rows = await this.#on.db
      .selectFrom('backup_jobs')
      .select(BACKUP_JOB.names)
      .where('parent_backup_id', '=', id)
      .orderBy('id')
      .execute();
    return rows.map((row) => BACKUP_JOB.record(row));
  }

  async #one(id: string): Promise<BackupJob | undefined> {
    const query = this.#on.db.selectFrom('backup_jobs').select(BACKUP_JOB.names).where('id', '=', id);
    const row = await query.executeTakeFirst();
    return row && BACKUP_JOB.record(row);
  }
}

function broken(id: string, link: string, why: string): SendenseError {
  return new SendenseError('CHAIN_BROKEN', `the chain of backup ${id} is broken: ${why}`, {
    details: { backup: link },
  });
}
