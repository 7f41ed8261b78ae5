import { isTrackable } from './decide.ts';
import type { TrackingFacts } from './decide.ts';
import type { Caller } from './session.ts';
import { createSnapshot, readSnapshotDisks, undo } from './snapshot.ts';
import type { Snapshot, SnapshotConfig, SnapshotOptions } from './snapshot.ts';
import { removeSnapshot } from './snapshot-removal.ts';

export type Frozen = Snapshot & SnapshotConfig;

/**
 * A snapshot and the disks in it. Tracking that was switched on, or a disk that was added, needs one snapshot to take
 * effect: where a disk that can be tracked has no change id yet, the first snapshot was that one, and a second is made.
 * What still has no id then is left to the caller to judge. Rejects like createSnapshot, leaving no snapshot.
 */
export async function freezeDisks(
  session: Caller,
  moref: string,
  { tracking, ...options }: SnapshotOptions & { tracking: TrackingFacts },
): Promise<Frozen> {
  const first = await freezeOnce(session, moref, options);
  if (first.disks.every((disk) => disk.changeId !== undefined || !isTrackable(disk, tracking))) return first;
  try {
    await removeSnapshot(session, { vm: moref, snapshot: first.moref });
  } catch (error) {
    await undo(session, moref, options.name, error);
    throw error;
  }
  return freezeOnce(session, moref, options);
}

async function freezeOnce(session: Caller, moref: string, options: SnapshotOptions): Promise<Frozen> {
  const snapshot = await createSnapshot(session, moref, options);
  try {
    return { ...snapshot, ...(await readSnapshotDisks(session, snapshot.moref, options.signal)) };
  } catch (error) {
    await undo(session, moref, options.name, error);
    throw error;
  }
}
