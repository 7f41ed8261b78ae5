import { SendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import type { Database } from './database.ts';
import type { BackupChain, BackupJob } from './records.ts';
import { readStatistics } from './statistics.ts';
import type { Statistics, StatisticsScope } from './statistics.ts';
import { BACKUP_CHAIN, BACKUP_JOB } from './tables.ts';

export interface ChainFilter {
  vmId?: string;
  repositoryId?: string;
  diskUuid?: string;
  state?: BackupChain['state'];
}

type Place = Pick<BackupChain, 'vmId' | 'diskUuid' | 'vmDiskId' | 'repositoryId'>;

/** Chains are opened and moved by commitRestorePoint only. */
export class BackupChains {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  async activeFor(vmDiskId: string, repositoryId: string): Promise<BackupChain | undefined> {
    const row = await this.#on.db
      .selectFrom('backup_chains')
      .select(BACKUP_CHAIN.names)
      .where('vm_disk_id', '=', vmDiskId)
      .where('repository_id', '=', repositoryId)
      .where('state', '=', 'active')
      .executeTakeFirst();
    return row && BACKUP_CHAIN.record(row);
  }

  /** NOT_FOUND. */
  async get(id: string): Promise<BackupChain> {
    const query = this.#on.db.selectFrom('backup_chains').select(BACKUP_CHAIN.names).where('id', '=', id);
    const row = await query.executeTakeFirst();
    if (!row) throw new SendenseError('NOT_FOUND', `no chain ${id}`, { details: { chain: id } });
    return BACKUP_CHAIN.record(row);
  }

  /** Newest first. */
  async list(filter: ChainFilter = {}): Promise<BackupChain[]> {
    let query = this.#on.db.selectFrom('backup_chains').select(BACKUP_CHAIN.names);
    if (filter.vmId !== undefined) query = query.where('vm_id', '=', filter.vmId);
    if (filter.repositoryId !== undefined) query = query.where('repository_id', '=', filter.repositoryId);
    if (filter.diskUuid !== undefined) query = query.where('disk_uuid', '=', filter.diskUuid);
    if (filter.state !== undefined) query = query.where('state', '=', filter.state);
    const rows = await query.orderBy('created_at', 'desc').orderBy('id', 'desc').execute();
    return rows.map((row) => BACKUP_CHAIN.record(row));
  }

  /** Its completed backups from the full to the latest. */
  async backups(id: string): Promise<BackupJob[]> {
    const rows = await this.#on.db
      .selectFrom('backup_jobs')
      .select(BACKUP_JOB.names)
      .where('chain_id', '=', id)
      .where('status', '=', 'completed')
      .orderBy('completed_at')
      .orderBy('id')
      .execute();
    return rows.map((row) => BACKUP_JOB.record(row));
  }

  /** Takes a chain out of use: the next backup of its disk there is a full. WRONG_STATE unless active or quarantined. */
  async retire(id: string, state: 'closed' | 'quarantined' | 'broken'): Promise<BackupChain> {
    const row = await this.#on.db
      .updateTable('backup_chains')
      .set(BACKUP_CHAIN.patch({ state, updatedAt: this.#on.now() }))
      .where('id', '=', id)
      .where('state', 'in', ['active', 'quarantined'])
      .returning(BACKUP_CHAIN.names)
      .executeTakeFirst();
    if (row) return BACKUP_CHAIN.record(row);
    const { state: present } = await this.get(id);
    throw new SendenseError('WRONG_STATE', `chain ${id} is ${present}`, { details: { from: present, to: state } });
  }

  /** For commitRestorePoint: closes the active chain of the place and starts one with this full. */
  async open(place: Place, full: { backupId: string; storedBytes: number }): Promise<BackupChain> {
    const now = this.#on.now();
    await this.#on.db
      .updateTable('backup_chains')
      .set(BACKUP_CHAIN.patch({ state: 'closed', updatedAt: now }))
      .where('vm_disk_id', '=', place.vmDiskId)
      .where('repository_id', '=', place.repositoryId)
      .where('state', '=', 'active')
      .execute();
    const chain: BackupChain = {
      ...place,
      id: newId(),
      fullBackupId: full.backupId,
      latestBackupId: full.backupId,
      totalBackups: 1,
      totalBytes: full.storedBytes,
      state: 'active',
      createdAt: now,
      updatedAt: now,
    };
    await this.#on.db.insertInto('backup_chains').values(BACKUP_CHAIN.row(chain)).execute();
    return chain;
  }

  /** For commitRestorePoint: moves the active chain on; WRONG_STATE unless `parentBackupId` is its latest. */
  async extend(
    place: Place,
    next: { backupId: string; parentBackupId: string; storedBytes: number },
  ): Promise<BackupChain> {
    const row = await this.#on.db
      .updateTable('backup_chains')
      .set(BACKUP_CHAIN.patch({ latestBackupId: next.backupId, updatedAt: this.#on.now() }))
      .set((eb) => ({
        total_backups: eb('total_backups', '+', 1),
        total_bytes: eb('total_bytes', '+', next.storedBytes),
      }))
      .where('vm_disk_id', '=', place.vmDiskId)
      .where('repository_id', '=', place.repositoryId)
      .where('state', '=', 'active')
      .where('latest_backup_id', '=', next.parentBackupId)
      .returning(BACKUP_CHAIN.names)
      .executeTakeFirst();
    if (row) return BACKUP_CHAIN.record(row);
    throw new SendenseError('WRONG_STATE', `backup ${next.parentBackupId} is not the latest of an active chain`, {
      details: { backup: next.backupId, parent: next.parentBackupId, diskUuid: place.diskUuid },
    });
  }

  /** Of everything, or of what the scope names. Only completed backups count. */
  async statistics(scope: StatisticsScope = {}): Promise<Statistics> {
    return readStatistics(this.#on, scope);
  }
}
