/**
 * What the catalog holds, as the rest of sendense sees it. A field here is a column of the same name in snake_case:
 * instants are epoch milliseconds there, booleans 0 or 1, objects JSON text. Sizes are bytes.
 */
import type { JobKind } from '#/api/job.ts';
import type { BackupType, JobStatus } from '#/api/common.ts';

type Instant = Temporal.Instant;
export type JsonObject = Record<string, unknown>;

export interface Source {
  id: string;
  name: string;
  kind: 'vcenter' | 'esxi';
  address: string;
  username: string;
  /** Sealed by the hub before it gets here; the catalog never sees the password. */
  sealedPassword: Uint8Array;
  thumbprint: string;
  instanceUuid: string | null;
  createdAt: Instant;
  checkedAt: Instant | null;
}

export interface Agent {
  id: string;
  name: string;
  url: string;
  version: string | null;
  certificateSha256: string | null;
  registeredAt: Instant;
  lastSeenAt: Instant | null;
}

export interface Repository {
  id: string;
  name: string;
  kind: string;
  root: string;
  settings: JsonObject;
  /** Id in the repository's own identity file; without a match nothing is written there. */
  identity: string;
  state: 'online' | 'frozen';
  /** Why it is frozen, in plain words. */
  problem: string | null;
  capacityBytes: number | null;
  freeBytes: number | null;
  checkedAt: Instant | null;
  createdAt: Instant;
}

export interface Vm {
  id: string;
  sourceId: string;
  moref: string;
  instanceUuid: string;
  biosUuid: string;
  name: string;
  path: string;
  powerState: string;
  guestName: string;
  /** What else the source said, kept as it came. */
  facts: JsonObject;
  firstSeenAt: Instant;
  lastSeenAt: Instant;
}

/** Replication's change id of the disk is a column of the same table but never a part of this record. */
export interface VmDisk {
  id: string;
  vmId: string;
  diskUuid: string;
  key: number;
  label: string;
  capacityBytes: number;
  /** False once the source no longer shows the disk. */
  present: boolean;
}

/** One change id that replication has used. */
export interface CbtUse {
  id: string;
  vmDiskId: string;
  changeId: string;
  workflow: string;
  recordedAt: Instant;
}

export interface Job {
  id: string;
  kind: JobKind;
  status: JobStatus;
  /** At most one open job per kind and subject; null for jobs that may run side by side. */
  subjectKey: string | null;
  vmId: string | null;
  /** Higher runs first. */
  priority: number;
  runAt: Instant;
  payload: JsonObject;
  result: JsonObject | null;
  /** 0 until first claimed; with `leaseOwner` it fences out whoever held the job before. */
  attempt: number;
  maxAttempts: number;
  leaseOwner: string | null;
  leaseExpiresAt: Instant | null;
  cancelRequested: boolean;
  cancelReason: string | null;
  errorCode: string | null;
  errorMessage: string | null;
  errorDetails: JsonObject | null;
  createdAt: Instant;
  startedAt: Instant | null;
  finishedAt: Instant | null;
  createdBy: string;
}

/** The job may run only while fewer than `cap` running jobs name the same resource. */
export interface JobResource {
  resource: string;
  cap: number;
}

export interface JobLogLine {
  id: number;
  jobId: string;
  time: Instant;
  level: 'info' | 'warn' | 'error';
  step: string;
  message: string;
  data: JsonObject | null;
}

export interface RestorePoint {
  id: string;
  vmId: string;
  repositoryId: string;
  jobId: string;
  status: JobStatus;
  requestedType: BackupType;
  consistency: 'application' | 'crash' | null;
  /** Relative to the repository's root; null until it is known. */
  folder: string | null;
  diskCount: number;
  virtualBytes: number;
  transferredBytes: number;
  storedBytes: number;
  snapshotAt: Instant | null;
  startedAt: Instant;
  completedAt: Instant | null;
  errorCode: string | null;
  errorMessage: string | null;
}

export interface BackupJob {
  id: string;
  restorePointId: string;
  vmDiskId: string;
  diskUuid: string;
  /** Position in this restore point only (`disk-0.qcow2`); never an identity. */
  diskIndex: number;
  diskKey: number;
  label: string;
  type: 'full' | 'incremental';
  typeReason: string;
  status: JobStatus;
  parentBackupId: string | null;
  chainId: string | null;
  previousChangeId: string | null;
  /** False when the source cannot track this disk; only then may a completed backup lack a change id. */
  changeTracking: boolean;
  changeId: string | null;
  /** Relative to the repository's root. */
  imagePath: string | null;
  exportName: string | null;
  virtualBytes: number;
  changedBytes: number;
  readBytes: number;
  transferredBytes: number;
  zeroBytes: number;
  skippedBytes: number;
  storedBytes: number;
  transport: string | null;
  transportReason: string | null;
  startedAt: Instant;
  completedAt: Instant | null;
  errorCode: string | null;
  errorMessage: string | null;
}

export interface BackupChain {
  id: string;
  vmId: string;
  diskUuid: string;
  vmDiskId: string;
  repositoryId: string;
  fullBackupId: string;
  latestBackupId: string;
  totalBackups: number;
  /** Stored bytes of all its backups. */
  totalBytes: number;
  /** Only an active chain grows; there is at most one per disk and repository. */
  state: 'active' | 'closed' | 'quarantined' | 'broken';
  createdAt: Instant;
  updatedAt: Instant;
}

/** A hypervisor snapshot that we asked for: recorded before the call, so that none is ever forgotten. */
export interface Snapshot {
  id: string;
  jobId: string;
  sourceId: string;
  vmMoref: string;
  name: string;
  moref: string | null;
  state: 'intended' | 'live' | 'removed';
  createdAt: Instant;
  removedAt: Instant | null;
}

export interface Setting {
  key: string;
  value: unknown;
}
