import { SendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import type { Database } from './database.ts';
import type { VmDisk } from './records.ts';
import { VM_DISK } from './tables.ts';

/** Disks as backups see them. Replication's change id in the same table is out of reach of every method here. */
export class VmDisks {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  /** DISK_NOT_FOUND. */
  async get(id: string): Promise<VmDisk> {
    const query = this.#on.db.selectFrom('vm_disks').select(VM_DISK.names).where('id', '=', id);
    const row = await query.executeTakeFirst();
    if (!row) throw new SendenseError('DISK_NOT_FOUND', `no disk ${id}`, { details: { disk: id } });
    return VM_DISK.record(row);
  }

  async findByUuid(vmId: string, diskUuid: string): Promise<VmDisk | undefined> {
    const row = await this.#on.db
      .selectFrom('vm_disks')
      .select(VM_DISK.names)
      .where('vm_id', '=', vmId)
      .where('disk_uuid', '=', diskUuid)
      .executeTakeFirst();
    return row && VM_DISK.record(row);
  }

  /** The disks of one or more VMs by VM and key; those that are gone only when asked for. */
  async list(vmIds: string | readonly string[], options: { gone?: boolean } = {}): Promise<VmDisk[]> {
    const ids = typeof vmIds === 'string' ? [vmIds] : vmIds;
    if (ids.length === 0) return [];
    let query = this.#on.db.selectFrom('vm_disks').select(VM_DISK.names).where('vm_id', 'in', ids);
    if (options.gone !== true) query = query.where('present', '=', 1);
    const rows = await query.orderBy('vm_id').orderBy('key').orderBy('id').execute();
    return rows.map((row) => VM_DISK.record(row));
  }
}

type SeenDisk = Pick<VmDisk, 'diskUuid' | 'key' | 'label' | 'capacityBytes'>;

/** Makes `disks` the present disks of the VM. */
export async function recordDisks(on: Database, vmId: string, disks: readonly SeenDisk[]): Promise<void> {
  const uuids = disks.map(({ diskUuid }) => diskUuid);
  let gone = on.db.updateTable('vm_disks').set({ present: 0 }).where('vm_id', '=', vmId).where('present', '=', 1);
  if (uuids.length > 0) gone = gone.where('disk_uuid', 'not in', uuids);
  await gone.execute();
  for (const { diskUuid, key, label, capacityBytes } of disks) {
    const facts = { key, label, capacityBytes, present: true };
    await on.db
      .insertInto('vm_disks')
      .values({ ...VM_DISK.row({ ...facts, id: newId(), vmId, diskUuid }) })
      .onConflict((conflict) => conflict.columns(['vm_id', 'disk_uuid']).doUpdateSet(VM_DISK.patch(facts)))
      .execute();
  }
}
