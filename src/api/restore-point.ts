import { z } from 'zod';
import { BackupType, Bytes, Id, Instant, JobStatus, Limit, Ref, WireError } from './common.ts';

export const DiskBackup = z.object({
  id: Id,
  diskIndex: z.number().int(),
  diskUuid: z.string(),
  label: z.string(),
  type: z.enum(['full', 'incremental']),
  /** Why this disk was read in full or incrementally, as code and in words. */
  typeReason: z.string(),
  status: JobStatus,
  chainId: Id.nullable(),
  parentBackupId: Id.nullable(),
  previousChangeId: z.string().nullable(),
  changeId: z.string().nullable(),
  imagePath: z.string().nullable(),
  transport: z.string().nullable(),
  transportReason: z.string().nullable(),
  virtualBytes: Bytes,
  changedBytes: Bytes,
  readBytes: Bytes,
  transferredBytes: Bytes,
  zeroBytes: Bytes,
  skippedBytes: Bytes,
  storedBytes: Bytes,
  error: WireError.nullable(),
});
export type DiskBackup = z.infer<typeof DiskBackup>;

export const RestorePoint = z.object({
  id: Id,
  vmId: Id,
  vm: z.string(),
  repositoryId: Id,
  repository: z.string(),
  jobId: Id,
  status: JobStatus,
  requestedType: BackupType,
  consistency: z.enum(['application', 'crash']).nullable(),
  folder: z.string().nullable(),
  virtualBytes: Bytes,
  transferredBytes: Bytes,
  storedBytes: Bytes,
  snapshotAt: Instant.nullable(),
  startedAt: Instant,
  completedAt: Instant.nullable(),
  error: WireError.nullable(),
  disks: z.array(DiskBackup),
});
export type RestorePoint = z.infer<typeof RestorePoint>;

export const RestorePointQuery = z.strictObject({
  vm: Ref.optional(),
  repository: Ref.optional(),
  status: JobStatus.optional(),
  limit: Limit,
  cursor: z.string().max(256).optional(),
});

export const Quiesce = z.enum(['never', 'try', 'require']);

/** A request to back up one VM now. */
export const NewBackup = z.strictObject({
  vm: Ref,
  source: Ref.optional(),
  /** May be left out when there is exactly one repository. */
  repository: Ref.optional(),
  type: BackupType.default('auto'),
  quiesce: Quiesce.default('try'),
  /** Upper bound for reading from the source; none when left out. */
  bytesPerSecond: z.number().int().min(65_536).optional(),
});
export type NewBackup = z.output<typeof NewBackup>;

export const Chain = z.object({
  id: Id,
  vmId: Id,
  vm: z.string(),
  repository: z.string(),
  diskUuid: z.string(),
  label: z.string(),
  state: z.string(),
  fullBackupId: Id,
  latestBackupId: Id,
  totalBackups: z.number().int(),
  totalBytes: Bytes,
  virtualBytes: Bytes,
  createdAt: Instant,
  updatedAt: Instant,
  /** From the full to the latest. */
  backups: z.array(DiskBackup.extend({ restorePointId: Id, completedAt: Instant.nullable() })),
});
export type Chain = z.infer<typeof Chain>;

export const ChainQuery = z.strictObject({ vm: Ref, repository: Ref.optional() });

export const Statistics = z.object({
  restorePoints: z.number().int(),
  fulls: z.number().int(),
  incrementals: z.number().int(),
  chains: z.number().int(),
  longestChain: z.number().int(),
  virtualBytes: Bytes,
  transferredBytes: Bytes,
  storedBytes: Bytes,
});
export type Statistics = z.infer<typeof Statistics>;

export const StatisticsQuery = z.strictObject({ vm: Ref.optional(), repository: Ref.optional() });
