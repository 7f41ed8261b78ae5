/**
 * What hub and capture agent say to each other. docs/protocol.md is the prose of this file.
 * A replication is the agent's work for one backup job: one snapshot, all disks of one VM.
 */
import { z } from 'zod';
import { BackupType, Bytes, Id, Instant, WireError } from './common.ts';
import { Quiesce } from './restore-point.ts';
import { SourceKind } from './source.ts';
import { VmFacts } from './vm.ts';

/** Address and credentials of a source; the agent keeps them in memory only and asks again after a restart. */
export const SourceLogin = z.strictObject({
  kind: SourceKind,
  address: z.string(),
  username: z.string(),
  password: z.string(),
  thumbprint: z.string(),
});
export type SourceLogin = z.infer<typeof SourceLogin>;

/** An export that the agent writes one disk into. */
export const Target = z.strictObject({
  /** NBD URI: `nbd+unix:` on the same machine, `nbds:` through the front door. */
  uri: z.string().max(2048),
  type: z.enum(['full', 'incremental']),
});
export type Target = z.infer<typeof Target>;

export const ReplicateDisk = z.strictObject({
  diskUuid: z.string().min(1),
  key: z.number().int(),
  capacityBytes: Bytes,
  target: Target,
  /** Base of an incremental: what the disk's latest backup in this repository recorded; null for a full. */
  previous: z.strictObject({ changeId: z.string(), capacityBytes: Bytes }).nullable(),
});

export const ReplicateRequest = z.strictObject({
  jobId: Id,
  sourceId: Id,
  vm: z.strictObject({ moref: z.string(), instanceUuid: z.string(), name: z.string() }),
  /** The exact name of the snapshot; the hub has recorded it before this call. */
  snapshotName: z.string().min(1).max(80),
  /** With `incremental` a disk that would have to be read in full fails the replication instead. */
  requestedType: BackupType,
  quiesce: Quiesce,
  disks: z.array(ReplicateDisk).min(1).max(256),
  transport: z.enum(['auto', 'datastore']),
  limits: z.strictObject({
    bytesPerSecond: z.number().int().positive().nullable(),
    parallelDisks: z.number().int().min(1).max(64),
  }),
  /** Silence of the hub after which the agent gives up and cleans up. */
  leaseSeconds: z.number().int().min(1).max(3600),
  callback: z.strictObject({ url: z.url(), token: z.string() }).nullable(),
});
export type ReplicateRequest = z.infer<typeof ReplicateRequest>;

export const REPLICATION_STATES = [
  'preparing',
  'snapshotting',
  'copying',
  'cleaning',
  'completed',
  'failed',
  'cancelled',
] as const;
export const DISK_PHASES = ['waiting', 'deciding', 'awaiting-target', 'copying', 'flushing', 'done', 'failed'] as const;

export const DiskReplication = z.object({
  diskUuid: z.string(),
  phase: z.enum(DISK_PHASES),
  /** What the disk really gets, with the closed reason of decideCapture() and words for people. */
  type: z.enum(['full', 'incremental']).nullable(),
  typeReason: z.string().nullable(),
  transport: z.string().nullable(),
  transportReason: z.string().nullable(),
  /** False when the source cannot track this disk at all; then a missing change id is no error. */
  changeTracking: z.boolean(),
  /** Id of the new snapshot, to be committed with the restore point. */
  changeId: z.string().nullable(),
  virtualBytes: Bytes,
  /** Bytes of the areas to be read, aligned to the block grid; null until decided. */
  changedBytes: Bytes.nullable(),
  readBytes: Bytes,
  /** Payload bytes written into the export. */
  writtenBytes: Bytes,
  /** Bytes of the areas found to be zero: left out of a full, written as zero extents in an incremental. */
  zeroBytes: Bytes,
  /** Bytes of the disk outside the areas: never read, because the source said that they need not be. */
  skippedBytes: Bytes,
  bytesPerSecond: z.number().nonnegative(),
  idleMs: z.number().nonnegative(),
});
export type DiskReplication = z.infer<typeof DiskReplication>;

export const Replication = z.object({
  id: Id,
  jobId: Id,
  state: z.enum(REPLICATION_STATES),
  /** Data of all disks are flushed: the hub may commit. True from `cleaning` on unless failed or cancelled. */
  dataComplete: z.boolean(),
  snapshot: z
    .object({
      name: z.string(),
      moref: z.string().nullable(),
      takenAt: Instant.nullable(),
      consistency: z.enum(['application', 'crash']).nullable(),
      note: z.string().nullable(),
      removed: z.boolean(),
    })
    .nullable(),
  disks: z.array(DiskReplication),
  warnings: z.array(z.string()),
  error: WireError.nullable(),
  startedAt: Instant,
  finishedAt: Instant.nullable(),
});
export type Replication = z.infer<typeof Replication>;

export const Inventory = z.object({
  instanceUuid: z.string().nullable(),
  product: z.string(),
  apiVersion: z.string(),
  vms: z.array(VmFacts),
  /** VMs that could not be read, with the reason: they never fail the list. */
  problems: z.array(z.object({ moref: z.string(), reason: z.string() })),
});
export type Inventory = z.infer<typeof Inventory>;

/** Removes one snapshot that a job of ours asked for, by its exact recorded name (and moref when known). */
export const RemoveSnapshotRequest = z.strictObject({
  sourceId: Id,
  vmMoref: z.string(),
  name: z.string(),
  moref: z.string().nullable(),
});
export const RemoveSnapshotReply = z.object({ removed: z.number().int() });

export const AgentStatus = z.object({
  name: z.string(),
  version: z.string(),
  startedAt: Instant,
  replications: z.number().int(),
});
