/**
 * Whether a disk is read in full, only where it changed, or not at all. Pure. Changed block tracking fails by silence,
 * not by errors, so any doubt means a full read, and the reason goes into the restore point for people to see.
 */
import type { Extent } from '#/lib/extents.ts';
import { hardwareNumber } from './change-tracking.ts';
import type { SnapshotDisk } from './devices.ts';

export const EXCLUDED_REASONS = ['no-backing', 'independent', 'physical-rdm', 'shared'] as const;
export const FULL_REASONS = [
  'requested',
  'first',
  'not-supported',
  'no-cbt',
  'no-change-id',
  'malformed-change-id',
  'disk-replaced',
  'capacity',
  'epoch',
  'seq',
  'reverted',
  'not-queried',
  'query-fault',
] as const;

export type ExcludedReason = (typeof EXCLUDED_REASONS)[number];
export type FullReason = (typeof FULL_REASONS)[number];

export type CaptureDecision =
  | { mode: 'incremental'; reason: 'changed-areas'; areas: Extent[] }
  | { mode: 'full'; reason: FullReason; detail?: string }
  | { mode: 'excluded'; reason: ExcludedReason; detail?: string };

export interface TrackingFacts {
  changeTrackingEnabled: boolean;
  changeTrackingSupported: boolean;
  hardwareVersion: string;
  faultTolerant?: boolean;
}

export interface CaptureQuestion {
  requested: 'auto' | 'full' | 'incremental';
  /** What the latest complete backup of the disk recorded. */
  previous?: { changeId: string; diskUuid: string; capacityBytes: number } | undefined;
  /** The disk in the configuration of the snapshot about to be read. */
  disk: SnapshotDisk;
  vm: TrackingFacts;
  /** The VM went back to a snapshot since the earlier backup, as the server's events tell. */
  reverted?: boolean | undefined;
  /** What the server said to the question for changed areas. */
  query?: { areas: Extent[] } | { fault: string; detail?: string } | undefined;
}

/**
 * `requested: 'incremental'` is a wish: where it cannot be granted the decision is full, with the reason. Without
 * `query` the decision is final except for full/`not-queried`, which says that asking for changed areas is worth while.
 */
export function decideCapture(question: CaptureQuestion): CaptureDecision {
  const excluded = excludedBecause(question.disk);
  if (excluded) return excluded;
  const full = fullBecause(question);
  if (full) return full;
  const { query } = question;
  if (!query) return { mode: 'full', reason: 'not-queried' };
  if ('areas' in query) return { mode: 'incremental', reason: 'changed-areas', areas: query.areas };
  const detail = query.detail ?? query.fault;
  return { mode: 'full', reason: query.fault === 'NotSupported' ? 'not-supported' : 'query-fault', detail };
}

/** Disks that a snapshot does not hold, or that are not wholly behind it. */
function excludedBecause(disk: SnapshotDisk): CaptureDecision | undefined {
  const excluded = (reason: ExcludedReason, detail: string): CaptureDecision => ({ mode: 'excluded', reason, detail });
  if (disk.backingType === '' || disk.fileName === '') return excluded('no-backing', 'the disk has no file');
  if (disk.capacityBytes <= 0 || disk.capacityBytes % 512 !== 0) {
    return excluded('no-backing', `a capacity of ${disk.capacityBytes} bytes cannot be read`);
  }
  if (disk.diskMode.startsWith('independent')) return excluded('independent', disk.diskMode);
  const physical =
    disk.compatibilityMode === 'physicalMode' || disk.backingType === 'VirtualDiskRawDiskVer2BackingInfo';
  if (physical) return excluded('physical-rdm', disk.backingType);
  if (disk.shared) return excluded('shared', 'other VMs may write to the disk');
  return undefined;
}

/** Backings that keep no change ids. */
const UNTRACKED = /^VirtualDisk(?:LocalPMemBackingInfo|(?:Flat|Sparse)Ver1BackingInfo)$/;

function untrackable(disk: SnapshotDisk, vm: TrackingFacts): string | undefined {
  if (UNTRACKED.test(disk.backingType)) return disk.backingType;
  if (vm.faultTolerant === true) return 'fault tolerance';
  return vm.changeTrackingSupported && hardwareNumber(vm.hardwareVersion) >= 7 ? undefined : vm.hardwareVersion;
}

/** False when the source cannot give a change id for this disk, however often it is asked. */
export function isTrackable(disk: SnapshotDisk, vm: TrackingFacts): boolean {
  return vm.changeTrackingEnabled && !excludedBecause(disk) && untrackable(disk, vm) === undefined;
}

function fullBecause({ requested, previous, disk, vm, reverted }: CaptureQuestion): CaptureDecision | undefined {
  const full = (reason: FullReason, detail?: string): CaptureDecision => ({
    mode: 'full',
    reason,
    ...(detail !== undefined && { detail }),
  });
  if (requested === 'full') return full('requested');
  const unable = untrackable(disk, vm);
  if (unable !== undefined) return full('not-supported', unable);
  if (!vm.changeTrackingEnabled) return full('no-cbt');
  if (disk.changeId === undefined) return full('no-change-id');
  if (!previous) return full('first');
  if (disk.uuid === null || disk.uuid.toLowerCase() !== previous.diskUuid.toLowerCase()) {
    return full('disk-replaced', `${previous.diskUuid} became ${disk.uuid ?? 'a disk without uuid'}`);
  }
  if (disk.capacityBytes !== previous.capacityBytes) {
    return full('capacity', `${previous.capacityBytes} became ${disk.capacityBytes} bytes`);
  }
  const base = parseChangeId(previous.changeId);
  const present = parseChangeId(disk.changeId);
  if (!base || !present) return full('malformed-change-id', base ? 'of the source' : 'of the earlier backup');
  if (base.epoch !== present.epoch) return full('epoch', 'changes were not tracked without a break');
  // Going back to a snapshot re-issues numbers that other content had before.
  if (present.sequence <= base.sequence) return full('seq', `${base.sequence} was followed by ${present.sequence}`);
  if (reverted === true) return full('reverted', 'the VM went back to a snapshot since the earlier backup');
  return undefined;
}

/** `<epoch>/<sequence>`, cut at the last slash. Undefined for any other form, `*` included. */
export function parseChangeId(changeId: string): { epoch: string; sequence: bigint } | undefined {
  const slash = changeId.lastIndexOf('/');
  const sequence = changeId.slice(slash + 1);
  if (slash <= 0 || !/^[0-9]{1,20}$/.test(sequence)) return undefined;
  return { epoch: changeId.slice(0, slash).trim().toLowerCase(), sequence: BigInt(sequence) };
}
