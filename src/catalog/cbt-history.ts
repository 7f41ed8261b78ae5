import { newId } from '#/lib/ids.ts';
import type { Database } from './database.ts';
import type { CbtUse } from './records.ts';
import { CBT_USE } from './tables.ts';

/**
 * Change ids of replication, and of replication only: backups keep theirs with the backup. Neither workflow reads the
 * other's, because a change id is only good for whoever holds the copy that belongs to it.
 */
export class CbtHistory {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  /** The change id that replication's next pass over this disk starts from; null before its first. */
  async current(vmDiskId: string): Promise<string | null> {
    const row = await this.#on.db
      .selectFrom('vm_disks')
      .select('disk_change_id')
      .where('id', '=', vmDiskId)
      .executeTakeFirst();
    return row?.disk_change_id ?? null;
  }

  /** Makes it the current one and keeps it in the history. Call it in a transaction. */
  async record(vmDiskId: string, changeId: string, workflow: string): Promise<CbtUse> {
    const use: CbtUse = { id: newId(), vmDiskId, changeId, workflow, recordedAt: this.#on.now() };
    await this.#on.db.insertInto('cbt_history').values(CBT_USE.row(use)).execute();
    await this.#on.db.updateTable('vm_disks').set({ disk_change_id: changeId }).where('id', '=', vmDiskId).execute();
    return use;
  }

  /** Newest first. */
  async list(vmDiskId: string, limit = 100): Promise<CbtUse[]> {
    const rows = await this.#on.db
      .selectFrom('cbt_history')
      .select(CBT_USE.names)
      .where('vm_disk_id', '=', vmDiskId)
      .orderBy('recorded_at', 'desc')
      .orderBy('id', 'desc')
      .limit(limit)
      .execute();
    return rows.map((row) => CBT_USE.record(row));
  }
}
