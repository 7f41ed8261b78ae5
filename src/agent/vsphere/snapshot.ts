/** One snapshot of all disks of a VM, without the guest's memory, and what it froze. */
import { now } from '#/lib/clock.ts';
import { SendenseError, hasCode } from '#/lib/errors.ts';
import { readDisks } from './devices.ts';
import type { SnapshotDisk } from './devices.ts';
import { getProperties, vmRef } from './properties.ts';
import type { Caller } from './session.ts';
import { data, faultError, isFault, moRef } from './soap.ts';
import { findSnapshots, ownSnapshots, removeOwnSnapshots, snapshotFailed } from './snapshot-removal.ts';
import { escapeName } from './snapshot-tree.ts';
import type { SnapshotInfo } from './snapshot-tree.ts';
import { runTask, waitForSnapshotsInMaking, whenFree } from './tasks.ts';
import { compareVersions } from './version.ts';
import { child, childrenOf, serializeXml } from './xml.ts';

export type QuiescePolicy = 'never' | 'try' | 'require';

/** Why a wanted quiesce did not happen: a state of the VM, or the type of the fault. */
export type FallbackReason = 'powered-off' | 'suspended' | 'tools-not-running' | 'ignored-by-server' | (string & {});

export interface Snapshot {
  moref: string;
  /** `application` only when the server says that the guest was quiesced. */
  consistency: 'application' | 'crash';
  /** The instant of the content, by the clock of the server. */
  at: Temporal.Instant;
  fellBackBecause?: FallbackReason;
}

export interface SnapshotOptions {
  /** Unique to the job: it is what a later clean-up recognises. */
  name: string;
  description: string;
  quiesce: QuiescePolicy;
  signal?: AbortSignal | undefined;
  onProgress?: (percent: number) => void;
}

const QUIESCE_TIMEOUT_MINUTES = 15;
/** Faults that speak of the guest, so a snapshot without its help may still succeed. */
const GUEST_FAULTS = [
  'ApplicationQuiesceFault',
  'FilesystemQuiesceFault',
  'QuiesceFault',
  'ToolsUnavailable',
  'Timedout',
  'GenericVmConfigFault',
  'SnapshotFault',
];

/**
 * Makes one snapshot of all disks. QUIESCE_FAILED when the policy is `require` and a running guest could not be
 * quiesced, SNAPSHOT_FAILED with the fault in the details for everything else the server refuses. No way out leaves a
 * snapshot but one: `details.leftBehind` is true when it could not be looked for. A snapshot once begun is waited for
 * even when the signal is aborted, because an operation nobody waits for cannot be undone.
 */
export async function createSnapshot(session: Caller, moref: string, options: SnapshotOptions): Promise<Snapshot> {
  const { quiesce, signal } = options;
  const obstacle = quiesce === 'never' ? undefined : await quiesceObstacle(session, moref, signal);
  if (obstacle === 'tools-not-running' && quiesce === 'require') throw quiesceFailed(obstacle);
  if (quiesce === 'never' || obstacle !== undefined) return crashConsistent(session, moref, options, obstacle);
  let made: SnapshotInfo;
  try {
    made = await take(session, moref, options, true);
  } catch (error) {
    await undo(session, moref, options.name, error);
    if (!isFault(error, ...GUEST_FAULTS)) throw snapshotFailed(error);
    const fault = String(error.details['fault']);
    if (quiesce === 'require') throw quiesceFailed(fault, error);
    return crashConsistent(session, moref, options, fault);
  }
  if (made.quiesced) return { moref: made.moref, consistency: 'application', at: made.createdAt ?? now() };
  if (quiesce === 'try') return crash(made, 'ignored-by-server');
  const failure = quiesceFailed('ignored-by-server');
  await undo(session, moref, options.name, failure);
  throw failure;
}

async function crashConsistent(
  session: Caller,
  moref: string,
  options: SnapshotOptions,
  because: FallbackReason | undefined,
): Promise<Snapshot> {
  try {
    return crash(await take(session, moref, options, false), because);
  } catch (error) {
    await undo(session, moref, options.name, error);
    throw snapshotFailed(error);
  }
}

/** A failed attempt may leave a half-made snapshot. */
export async function undo(session: Caller, moref: string, name: string, failure: unknown): Promise<void> {
  try {
    await removeOwnSnapshots(session, moref, { name });
  } catch (error) {
    const first = failure instanceof Error ? failure.message : String(failure);
    const message = `${first}; a snapshot ${name} may have been left behind`;
    const why = error instanceof Error ? error.message : String(error);
    throw new SendenseError('SNAPSHOT_FAILED', message, { details: { leftBehind: true, why }, cause: failure });
  }
}

function crash(made: SnapshotInfo, because: FallbackReason | undefined): Snapshot {
  const at = made.createdAt ?? now();
  return { moref: made.moref, consistency: 'crash', at, ...(because !== undefined && { fellBackBecause: because }) };
}

/** Quiescing is silently left out by the server in these states, so they are looked at before. */
async function quiesceObstacle(
  session: Caller,
  moref: string,
  signal: AbortSignal | undefined,
): Promise<FallbackReason | undefined> {
  const paths = ['runtime.powerState', 'guest.toolsRunningStatus'];
  const { values } = await getProperties(session, vmRef(moref), paths, signal);
  const power = values.get('runtime.powerState')?.text.trim();
  if (power === 'poweredOff') return 'powered-off';
  if (power === 'suspended') return 'suspended';
  return values.get('guest.toolsRunningStatus')?.text.trim() === 'guestToolsRunning' ? undefined : 'tools-not-running';
}

async function take(session: Caller, moref: string, options: SnapshotOptions, quiesce: boolean): Promise<SnapshotInfo> {
  const { name, signal } = options;
  let made: string | undefined;
  try {
    made = await whenFree(session, () => requestSnapshot(session, moref, options, quiesce), { signal });
  } catch (error) {
    // The task or its answer got lost, not necessarily the snapshot: the tree of the VM knows.
    if (!isFault(error, 'ManagedObjectNotFound') && !hasCode(error, 'SOURCE_UNREACHABLE')) throw error;
    await waitForSnapshotsInMaking(session, vmRef(moref));
    const found = await ownSnapshots(session, moref, { name });
    if (found.length !== 1) throw error;
    made = found[0]?.moref;
  }
  signal?.throwIfAborted();
  const found = (await findSnapshots(session, moref)).find((entry) => entry.moref === made);
  if (found) return found;
  const message = 'the task succeeded without a snapshot';
  throw faultError('CreateSnapshot', { fault: 'MalformedAnswer', message, fields: {} });
}

async function requestSnapshot(
  session: Caller,
  moref: string,
  { name, description, onProgress }: SnapshotOptions,
  quiesce: boolean,
): Promise<string | undefined> {
  const common = { name: escapeName(name), description, memory: false };
  const quiesceSpec = quiesce
    ? data('VirtualMachineGuestQuiesceSpec', { timeout: QUIESCE_TIMEOUT_MINUTES })
    : undefined;
  const result =
    compareVersions(session.version, '6.5') >= 0
      ? await runTask(session, vmRef(moref), 'CreateSnapshotEx_Task', { ...common, quiesceSpec }, { onProgress })
      : await runTask(session, vmRef(moref), 'CreateSnapshot_Task', { ...common, quiesce }, { onProgress });
  return result?.text.trim();
}

export interface SnapshotConfig {
  disks: SnapshotDisk[];
  /** The whole configuration of the VM at the snapshot, as a document of its own. */
  configXml: string;
}

/** The disks as the snapshot froze them: only here change id, capacity and file name belong together. */
export async function readSnapshotDisks(
  session: Caller,
  snapshot: string,
  signal?: AbortSignal,
): Promise<SnapshotConfig> {
  const ref = moRef('VirtualMachineSnapshot', snapshot);
  const config = (await getProperties(session, ref, ['config'], signal)).values.get('config');
  if (!config) {
    const message = 'the snapshot shows no configuration';
    throw faultError('RetrievePropertiesEx', { fault: 'MalformedAnswer', message, fields: {} });
  }
  const disks = readDisks(childrenOf(child(config, 'hardware'), 'device'));
  return { disks, configXml: serializeXml({ ...config, xsiType: undefined }, 'VirtualMachineConfigInfo') };
}

function quiesceFailed(reason: FallbackReason, cause?: unknown): SendenseError {
  const message = `the guest could not be quiesced: ${reason}`;
  return new SendenseError('QUIESCE_FAILED', message, { details: { reason }, cause });
}
