import type { JobStatus } from '#/api/common.ts';
import { SendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import type { Database } from './database.ts';
import { OPEN } from './job-states.ts';
import { pageLimit, pageOf } from './paging.ts';
import type { Page, PageOptions } from './paging.ts';
import type { RestorePoint } from './records.ts';
import { RESTORE_POINT } from './tables.ts';

export type NewRestorePoint = Pick<RestorePoint, 'vmId' | 'repositoryId' | 'jobId' | 'requestedType'> &
  Partial<Pick<RestorePoint, 'id' | 'status' | 'diskCount' | 'virtualBytes' | 'folder'>>;
export type RestorePointPatch = Partial<
  Omit<RestorePoint, 'id' | 'vmId' | 'repositoryId' | 'jobId' | 'status' | 'completedAt'>
> & { status?: 'queued' | 'preparing' | 'snapshotting' | 'copying' | 'committing' };
export interface RestorePointFilter extends PageOptions {
  vmId?: string;
  repositoryId?: string;
  jobId?: string;
  status?: JobStatus;
}

/** Restore points end only through commitRestorePoint, failRestorePoint or the end of their job. */
export class RestorePoints {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  /** ALREADY_EXISTS when the job has an unfinished one. */
  async create(given: NewRestorePoint): Promise<RestorePoint> {
    const point: RestorePoint = {
      id: newId(),
      status: 'queued',
      folder: null,
      diskCount: 0,
      virtualBytes: 0,
      ...given,
      consistency: null,
      transferredBytes: 0,
      storedBytes: 0,
      snapshotAt: null,
      startedAt: this.#on.now(),
      completedAt: null,
      errorCode: null,
      errorMessage: null,
    };
    await this.#on.db.insertInto('restore_points').values(RESTORE_POINT.row(point)).execute();
    return point;
  }

  /** Of an unfinished restore point; WRONG_STATE when it has ended. */
  async update(id: string, patch: RestorePointPatch): Promise<RestorePoint> {
    const row = await this.#on.db
      .updateTable('restore_points')
      .set({ id, ...RESTORE_POINT.patch(patch) })
      .where('id', '=', id)
      .where('status', 'in', OPEN)
      .returning(RESTORE_POINT.names)
      .executeTakeFirst();
    if (row) return RESTORE_POINT.record(row);
    const { status } = await this.get(id);
    throw new SendenseError('WRONG_STATE', `restore point ${id} is ${status} already`, { details: { status } });
  }

  /** For commitRestorePoint only. */
  async complete(
    id: string,
    facts: Partial<RestorePoint> & Pick<RestorePoint, 'consistency' | 'folder' | 'completedAt'>,
  ): Promise<RestorePoint> {
    const row = await this.#on.db
      .updateTable('restore_points')
      .set(RESTORE_POINT.patch({ ...facts, status: 'completed' }))
      .where('id', '=', id)
      .where('status', 'in', OPEN)
      .returning(RESTORE_POINT.names)
      .executeTakeFirstOrThrow();
    return RESTORE_POINT.record(row);
  }

  /** NOT_FOUND. */
  async get(id: string): Promise<RestorePoint> {
    const query = this.#on.db.selectFrom('restore_points').select(RESTORE_POINT.names).where('id', '=', id);
    const row = await query.executeTakeFirst();
    if (!row) throw new SendenseError('NOT_FOUND', `no restore point ${id}`, { details: { restorePoint: id } });
    return RESTORE_POINT.record(row);
  }

  /** Newest first. */
  async list(filter: RestorePointFilter = {}): Promise<Page<RestorePoint>> {
    let query = this.#on.db.selectFrom('restore_points').select(RESTORE_POINT.names);
    if (filter.vmId !== undefined) query = query.where('vm_id', '=', filter.vmId);
    if (filter.repositoryId !== undefined) query = query.where('repository_id', '=', filter.repositoryId);
    if (filter.jobId !== undefined) query = query.where('job_id', '=', filter.jobId);
    if (filter.status !== undefined) query = query.where('status', '=', filter.status);
    if (filter.cursor !== undefined) query = query.where('id', '<', filter.cursor);
    const rows = await query
      .orderBy('id', 'desc')
      .limit(pageLimit(filter) + 1)
      .execute();
    return pageOf(
      rows.map((row) => RESTORE_POINT.record(row)),
      filter,
      (point) => point.id,
    );
  }

  /** The job's unfinished restore point. */
  async openForJob(jobId: string): Promise<RestorePoint | undefined> {
    const row = await this.#on.db
      .selectFrom('restore_points')
      .select(RESTORE_POINT.names)
      .where('job_id', '=', jobId)
      .where('status', 'in', OPEN)
      .executeTakeFirst();
    return row && RESTORE_POINT.record(row);
  }

  async latestCompleted(vmId: string, repositoryId: string): Promise<RestorePoint | undefined> {
    const row = await this.#on.db
      .selectFrom('restore_points')
      .select(RESTORE_POINT.names)
      .where('vm_id', '=', vmId)
      .where('repository_id', '=', repositoryId)
      .where('status', '=', 'completed')
      .orderBy('completed_at', 'desc')
      .orderBy('id', 'desc')
      .limit(1)
      .executeTakeFirst();
    return row && RESTORE_POINT.record(row);
  }

  /** When each of these VMs was last backed up to the end; VMs never backed up are left out. */
  async lastCompletedAt(vmIds: readonly string[]): Promise<Map<string, Temporal.Instant>> {
    if (vmIds.length === 0) return new Map();
    const rows = await this.#on.db
      .selectFrom('restore_points')
      .select(['vm_id', (eb) => eb.fn.max('completed_at').as('last')])
      .where('vm_id', 'in', vmIds)
      .where('status', '=', 'completed')
      .groupBy('vm_id')
      .execute();
    return new Map(
      rows.flatMap(({ vm_id, last }) => (last === null ? [] : [[vm_id, Temporal.Instant.fromEpochMilliseconds(last)]])),
    );
  }
}
