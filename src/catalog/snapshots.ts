import { SendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import type { Database } from './database.ts';
import type { Snapshot } from './records.ts';
import { SNAPSHOT } from './tables.ts';

export class Snapshots {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  /** Written before the hypervisor is asked, so that a crash in between leaves a trace to clean up by. */
  async intend(given: Pick<Snapshot, 'jobId' | 'sourceId' | 'vmMoref' | 'name'>): Promise<Snapshot> {
    const snapshot: Snapshot = {
      ...given,
      id: newId(),
      moref: null,
      state: 'intended',
      createdAt: this.#on.now(),
      removedAt: null,
    };
    await this.#on.db.insertInto('snapshots').values(SNAPSHOT.row(snapshot)).execute();
    return snapshot;
  }

  /** The hypervisor made it. Does nothing once it is recorded as removed. */
  async markLive(id: string, moref: string): Promise<Snapshot> {
    const columns = SNAPSHOT.patch({ moref, state: 'live' });
    await this.#on.db
      .updateTable('snapshots')
      .set(columns)
      .where('id', '=', id)
      .where('state', '<>', 'removed')
      .execute();
    return this.get(id);
  }

  /** It is gone, or was never made. Repeats are harmless. */
  async markRemoved(id: string): Promise<Snapshot> {
    const columns = SNAPSHOT.patch({ state: 'removed', removedAt: this.#on.now() });
    await this.#on.db
      .updateTable('snapshots')
      .set(columns)
      .where('id', '=', id)
      .where('state', '<>', 'removed')
      .execute();
    return this.get(id);
  }

  /** NOT_FOUND. */
  async get(id: string): Promise<Snapshot> {
    const query = this.#on.db.selectFrom('snapshots').select(SNAPSHOT.names).where('id', '=', id);
    const row = await query.executeTakeFirst();
    if (!row) throw new SendenseError('NOT_FOUND', `no snapshot ${id}`);
    return SNAPSHOT.record(row);
  }

  /** Those that may still exist at the hypervisor, oldest first. */
  async listOpen(filter: { jobId?: string; sourceId?: string } = {}): Promise<Snapshot[]> {
    let query = this.#on.db.selectFrom('snapshots').select(SNAPSHOT.names).where('state', '<>', 'removed');
    if (filter.jobId !== undefined) query = query.where('job_id', '=', filter.jobId);
    if (filter.sourceId !== undefined) query = query.where('source_id', '=', filter.sourceId);
    const rows = await query.orderBy('id').execute();
    return rows.map((row) => SNAPSHOT.record(row));
  }
}
