/** Full or incremental for one disk, and the areas to read. What decide.ts answers purely is asked for here. */
import { blockAreas } from './copy/plan.ts';
import { queryChangedAreas } from './vsphere/changed-areas.ts';
import type { CaptureDecision } from './vsphere/decide.ts';
import type { SnapshotDisk } from './vsphere/devices.ts';
import type { VmRecord } from './vsphere/inventory.ts';
import { planCapture } from './vsphere/plan-capture.ts';
import type { Caller } from './vsphere/session.ts';
import { hasCode, SendenseError } from '#/lib/errors.ts';
import type { Extent } from '#/lib/extents.ts';
import type { DiskRun } from './replication.ts';

export interface DiskDecision {
  type: 'full' | 'incremental';
  /** The closed reason, a colon, and words for people. */
  reason: string;
  areas: Extent[];
  /** Size of the areas on the block grid: what will be read. */
  areasBytes: number;
}

export interface DecideInput {
  vm: VmRecord;
  disk: DiskRun;
  frozen: SnapshotDisk;
  snapshot: string;
  requested: 'auto' | 'full' | 'incremental';
}

/** CHANGE_ID_EXPIRED when an incremental was demanded and only a full is safe. */
export async function decideDisk(session: Caller, input: DecideInput, signal: AbortSignal): Promise<DiskDecision> {
  const { vm, disk, frozen, requested } = input;
  const where = { vm: vm.moref, snapshot: input.snapshot };
  const { previous } = disk.request;
  const decision = await planCapture(
    session,
    where,
    {
      requested: disk.target.type === 'full' ? 'full' : requested,
      previous: previous === null ? undefined : { ...previous, diskUuid: disk.request.diskUuid },
      disk: frozen,
      vm: { ...vm, changeTrackingEnabled: disk.changeTracking },
    },
    signal,
  );
  if (decision.mode === 'excluded') {
    throw new SendenseError('TRANSPORT_UNSUPPORTED', `${frozen.label} cannot be backed up: ${words(decision)}`);
  }
  if (decision.mode === 'incremental') {
    const { areas } = decision;
    return {
      type: 'incremental',
      reason: words(decision),
      areas,
      areasBytes: await onGrid(areas, frozen.capacityBytes),
    };
  }
  if (requested === 'incremental') {
    throw new SendenseError('CHANGE_ID_EXPIRED', `${frozen.label} cannot be read incrementally: ${words(decision)}`, {
      details: { disk: frozen.label, reason: decision.reason },
    });
  }
  const areas = await areasOfFull(session, { ...input, where }, signal);
  return { type: 'full', reason: words(decision), areas, areasBytes: await onGrid(areas, frozen.capacityBytes) };
}

/**
 * A full need not read what was never written: change id `*` asks for all areas in use. It is an economy, not a
 * promise: where the source cannot answer, everything is read.
 */
async function areasOfFull(
  session: Caller,
  { disk, frozen, where }: DecideInput & { where: { vm: string; snapshot: string } },
  signal: AbortSignal,
): Promise<Extent[]> {
  const { capacityBytes } = frozen;
  const everything = [{ offset: 0, length: capacityBytes }];
  if (!disk.changeTracking || frozen.changeId === undefined) return everything;
  try {
    return await queryChangedAreas(session, { ...where, deviceKey: frozen.key, capacityBytes, changeId: '*' }, signal);
  } catch (error) {
    if (!hasCode(error, 'SOURCE_FAULT')) throw error;
    return everything;
  }
}

function words(decision: CaptureDecision): string {
  const detail = 'detail' in decision && decision.detail !== undefined ? `: ${decision.detail}` : '';
  return `${decision.reason}${detail}`;
}

/** Bytes of the areas once rounded to blocks. */
async function onGrid(areas: readonly Extent[], sizeBytes: number): Promise<number> {
  let bytes = 0;
  for await (const area of blockAreas(areas, sizeBytes)) bytes += area.length;
  return bytes;
}
