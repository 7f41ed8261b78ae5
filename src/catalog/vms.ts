import { SendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import type { Database } from './database.ts';
import { pageLimit, pageOf, pairCursor, readPairCursor } from './paging.ts';
import type { Page, PageOptions } from './paging.ts';
import type { Vm, VmDisk } from './records.ts';
import { VM } from './tables.ts';
import { recordDisks } from './vm-disks.ts';

export type SeenDisk = Pick<VmDisk, 'diskUuid' | 'key' | 'label' | 'capacityBytes'>;
export type SeenVm = Omit<Vm, 'id' | 'firstSeenAt' | 'lastSeenAt'> & { disks: readonly SeenDisk[] };
export interface VmFilter extends PageOptions {
  sourceId?: string;
  /** Part of the name, in any case. */
  name?: string;
}

export class Vms {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  /**
   * Keeps what the source says of a VM now. Identity is source and instance uuid; a disk that is no longer there stays
   * with `present` false. Call it in a transaction when the VM and its disks must change together.
   */
  async record(seen: SeenVm): Promise<Vm> {
    const { disks, ...facts } = seen;
    const lastSeenAt = this.#on.now();
    const row = await this.#on.db
      .insertInto('vms')
      .values(VM.row({ ...facts, id: newId(), firstSeenAt: lastSeenAt, lastSeenAt }))
      .onConflict((conflict) =>
        conflict.columns(['source_id', 'instance_uuid']).doUpdateSet(VM.patch({ ...facts, lastSeenAt })),
      )
      .returning(VM.names)
      .executeTakeFirstOrThrow();
    await recordDisks(this.#on, row.id, disks);
    return VM.record(row);
  }

  /** By id, instance uuid or name; AMBIGUOUS when several VMs have the name. */
  async find(ref: string, sourceId?: string): Promise<Vm | undefined> {
    let query = this.#on.db
      .selectFrom('vms')
      .select(VM.names)
      .where((eb) => eb.or([eb('id', '=', ref), eb('instance_uuid', '=', ref), eb('name', '=', ref)]));
    if (sourceId !== undefined) query = query.where('source_id', '=', sourceId);
    const rows = await query.orderBy('id').limit(100).execute();
    const byId = rows.find(({ id }) => id === ref);
    if (byId) return VM.record(byId);
    if (rows.length > 1) {
      throw new SendenseError('AMBIGUOUS', `${rows.length} VMs are called ${ref}`, {
        details: { vm: ref, ids: rows.map(({ id }) => id) },
      });
    }
    return rows[0] && VM.record(rows[0]);
  }

  /** Like find; VM_NOT_FOUND. */
  async get(ref: string, sourceId?: string): Promise<Vm> {
    const vm = await this.find(ref, sourceId);
    if (!vm) throw new SendenseError('VM_NOT_FOUND', `no VM ${ref}`, { details: { vm: ref } });
    return vm;
  }

  async byIds(ids: readonly string[]): Promise<Map<string, Vm>> {
    if (ids.length === 0) return new Map();
    const rows = await this.#on.db.selectFrom('vms').select(VM.names).where('id', 'in', ids).execute();
    return new Map(rows.map((row) => [row.id, VM.record(row)]));
  }

  /** By name. */
  async list(filter: VmFilter = {}): Promise<Page<Vm>> {
    let query = this.#on.db.selectFrom('vms').select(VM.names);
    if (filter.sourceId !== undefined) query = query.where('source_id', '=', filter.sourceId);
    if (filter.name !== undefined) {
      const position = this.#on.kind === 'postgres' ? 'strpos' : 'instr';
      const part = filter.name.toLowerCase();
      query = query.where((eb) => eb(eb.fn<number>(position, [eb.fn('lower', ['name']), eb.val(part)]), '>', 0));
    }
    if (filter.cursor !== undefined) {
      const [name, id] = readPairCursor(filter.cursor);
      query = query.where((eb) => eb(eb.refTuple('name', 'id'), '>', eb.tuple(name, id)));
    }
    const rows = await query
      .orderBy('name')
      .orderBy('id')
      .limit(pageLimit(filter) + 1)
      .execute();
    return pageOf(
      rows.map((row) => VM.record(row)),
      filter,
      (vm) => pairCursor(vm.name, vm.id),
    );
  }
}
