/**
 * Removal of our snapshots. Nothing is removed but a snapshot whose name is exactly the one recorded for the job, or
 * the very reference this code was given.
 */
import { SendenseError, hasCode } from '#/lib/errors.ts';
import { getProperties, vmRef } from './properties.ts';
import type { Caller } from './session.ts';
import { isFault, moRef } from './soap.ts';
import { readSnapshotTree } from './snapshot-tree.ts';
import type { SnapshotInfo } from './snapshot-tree.ts';
import { runTask, waitForSnapshotsInMaking, whenFree } from './tasks.ts';

/** All snapshots of a VM, parents before children. */
export async function findSnapshots(session: Caller, moref: string, signal?: AbortSignal): Promise<SnapshotInfo[]> {
  const { values } = await getProperties(session, vmRef(moref), ['snapshot'], signal);
  return readSnapshotTree(values.get('snapshot'));
}

export interface OwnSnapshot {
  name: string;
  moref?: string | undefined;
}

export async function ownSnapshots(
  session: Caller,
  moref: string,
  own: OwnSnapshot,
  signal?: AbortSignal,
): Promise<SnapshotInfo[]> {
  const all = await findSnapshots(session, moref, signal);
  return all.filter((entry) => entry.name === own.name && (own.moref === undefined || entry.moref === own.moref));
}

export interface Removal {
  /** Redo files stayed behind although everything was tried; the VM works, somebody has to consolidate it. */
  consolidationNeeded: boolean;
}

/**
 * Removes snapshots of exactly this name, and of this reference when it was recorded; a VM that is gone has none.
 * Returns how many there were.
 */
export async function removeOwnSnapshots(
  session: Caller,
  moref: string,
  own: OwnSnapshot,
  signal?: AbortSignal,
): Promise<number> {
  let found: SnapshotInfo[];
  try {
    // One that is still being made, because whoever asked for it died, does not show in the tree yet.
    await waitForSnapshotsInMaking(session, vmRef(moref), signal);
    found = await ownSnapshots(session, moref, own, signal);
  } catch (error) {
    if (isFault(error, 'ManagedObjectNotFound')) return 0;
    throw error;
  }
  for (const entry of found) await removeSnapshot(session, { vm: moref, snapshot: entry.moref }, { signal });
  return found.length;
}

/**
 * Removes one snapshot and merges its files; one that is gone already is success. May take hours on a busy VM.
 * SNAPSHOT_FAILED with the fault in the details when it is still there in the end. Readers must be closed before.
 */
export async function removeSnapshot(
  session: Caller,
  { vm, snapshot }: { vm: string; snapshot: string },
  { signal, onProgress }: { signal?: AbortSignal | undefined; onProgress?: (percent: number) => void } = {},
): Promise<Removal> {
  const ref = moRef('VirtualMachineSnapshot', snapshot);
  const args = { removeChildren: false, consolidate: true };
  try {
    await whenFree(session, () => runTask(session, ref, 'RemoveSnapshot_Task', args, { signal, onProgress }), {
      signal,
    });
  } catch (error) {
    signal?.throwIfAborted();
    if (!isFault(error, 'ManagedObjectNotFound') && !hasCode(error, 'SOURCE_UNREACHABLE')) throw snapshotFailed(error);
    // Snapshot or task is unknown, or the answer got lost; whether the work is done shows in the tree.
    if (await exists(session, vm, snapshot, signal)) throw snapshotFailed(error);
  }
  return consolidate(session, vm, signal);
}

async function exists(
  session: Caller,
  vm: string,
  snapshot: string,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  try {
    return (await findSnapshots(session, vm, signal)).some((entry) => entry.moref === snapshot);
  } catch (error) {
    if (isFault(error, 'ManagedObjectNotFound')) return false;
    throw error;
  }
}

/** Files that somebody still held open stay behind after a removal that succeeded. */
async function consolidate(session: Caller, vm: string, signal: AbortSignal | undefined): Promise<Removal> {
  try {
    if (!(await needsConsolidation(session, vm, signal))) return { consolidationNeeded: false };
    await whenFree(session, () => runTask(session, vmRef(vm), 'ConsolidateVMDisks_Task', {}, { signal }), {
      signal,
      attempts: 5,
      alsoBusy: ['FileLocked', 'FileFault'],
    });
    return { consolidationNeeded: await needsConsolidation(session, vm, signal) };
  } catch (error) {
    signal?.throwIfAborted();
    if (isFault(error, 'ManagedObjectNotFound')) return { consolidationNeeded: false };
    if (hasCode(error, 'SOURCE_FAULT')) return { consolidationNeeded: true };
    throw error;
  }
}

async function needsConsolidation(session: Caller, vm: string, signal: AbortSignal | undefined): Promise<boolean> {
  const path = 'runtime.consolidationNeeded';
  return (await getProperties(session, vmRef(vm), [path], signal)).values.get(path)?.text.trim() === 'true';
}

/** A fault of the server as SNAPSHOT_FAILED; whatever else went wrong keeps its code. */
export function snapshotFailed(error: unknown): unknown {
  if (!(error instanceof SendenseError) || error.code !== 'SOURCE_FAULT') return error;
  return new SendenseError('SNAPSHOT_FAILED', error.message, { details: error.details, cause: error });
}
