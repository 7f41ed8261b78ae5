import { vmRef, getProperties } from './properties.ts';
import type { Caller } from './session.ts';
import { data } from './soap.ts';
import { readSnapshotTree } from './snapshot-tree.ts';
import { runTask, whenFree } from './tasks.ts';

export type TrackingRefusal = 'not-supported' | 'old-hardware' | 'template' | 'snapshots-present';

export type TrackingState =
  | { enabled: true; changed: boolean }
  /** The VM can be backed up all the same, in full. */
  | { enabled: false; changed: false; reason: TrackingRefusal };

/**
 * Switches changed block tracking on where that is safe. It takes effect at the next snapshot, so the backup's own
 * one will do, and its change ids become the base of the next backup. Never switched on while snapshots exist: the
 * areas reported afterwards would be wrong without any error. Never switched off: other products may rely on it.
 */
export async function enableChangeTracking(
  session: Caller,
  moref: string,
  signal?: AbortSignal,
): Promise<TrackingState> {
  const paths = [
    'config.changeTrackingEnabled',
    'config.version',
    'config.template',
    'capability.changeTrackingSupported',
    'snapshot',
  ];
  const { values } = await getProperties(session, vmRef(moref), paths, signal);
  const text = (path: string): string => values.get(path)?.text.trim() ?? '';
  if (text('config.changeTrackingEnabled') === 'true') return { enabled: true, changed: false };
  const refuse = (reason: TrackingRefusal): TrackingState => ({ enabled: false, changed: false, reason });
  if (text('config.template') === 'true') return refuse('template');
  if (hardwareNumber(text('config.version')) < 7) return refuse('old-hardware');
  if (text('capability.changeTrackingSupported') !== 'true') return refuse('not-supported');
  if (readSnapshotTree(values.get('snapshot')).length > 0) return refuse('snapshots-present');
  const spec = data('VirtualMachineConfigSpec', { changeTrackingEnabled: true });
  await whenFree(session, () => runTask(session, vmRef(moref), 'ReconfigVM_Task', { spec }, { signal }), {
    signal,
  });
  return { enabled: true, changed: true };
}

/** 19 for `vmx-19`; an unknown form counts as new. */
export function hardwareNumber(version: string): number {
  const digits = /^vmx-([0-9]+)$/.exec(version)?.[1];
  return digits === undefined ? Number.POSITIVE_INFINITY : Number(digits);
}
