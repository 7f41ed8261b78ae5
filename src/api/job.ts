import { z } from 'zod';
import { Bytes, Id, Instant, JobStatus, Limit, Ref, WireError } from './common.ts';

export const JobKind = z.enum(['backup', 'restore']);
export type JobKind = z.infer<typeof JobKind>;

export const DiskProgress = z.object({
  diskUuid: z.string(),
  label: z.string(),
  phase: z.string(),
  /** Bytes this disk has to move; null until the changed areas are known. */
  totalBytes: Bytes.nullable(),
  doneBytes: Bytes,
  type: z.string().nullable(),
});
export type DiskProgress = z.infer<typeof DiskProgress>;

export const Progress = z.object({
  totalBytes: Bytes.nullable(),
  doneBytes: Bytes,
  bytesPerSecond: z.number().nonnegative(),
  /** Seconds to the end at the present rate; null while unknown. */
  etaSeconds: z.number().nonnegative().nullable(),
  /** Milliseconds since a byte last moved. */
  idleMs: z.number().nonnegative(),
  disks: z.array(DiskProgress),
});
export type Progress = z.infer<typeof Progress>;

export const Job = z.object({
  id: Id,
  kind: JobKind,
  status: JobStatus,
  subject: z.string(),
  vmId: Id.nullable(),
  restorePointId: Id.nullable(),
  attempt: z.number().int(),
  cancelRequested: z.boolean(),
  progress: Progress.nullable(),
  result: z.record(z.string(), z.unknown()).nullable(),
  error: WireError.nullable(),
  createdAt: Instant,
  startedAt: Instant.nullable(),
  finishedAt: Instant.nullable(),
});
export type Job = z.infer<typeof Job>;

export const JobQuery = z.strictObject({
  status: JobStatus.optional(),
  vm: Ref.optional(),
  open: z.stringbool().optional(),
  limit: Limit,
  cursor: z.string().max(256).optional(),
});

export const JobLogLine = z.object({
  id: z.number().int(),
  time: Instant,
  level: z.enum(['info', 'warn', 'error']),
  step: z.string(),
  message: z.string(),
  data: z.record(z.string(), z.unknown()).nullable(),
});
export type JobLogLine = z.infer<typeof JobLogLine>;

export const JobLogQuery = z.strictObject({
  after: z.coerce.number().int().min(0).default(0),
  limit: z.coerce.number().int().min(1).max(5000).default(1000),
});

export const NewDiskRestore = z.strictObject({
  restorePoint: Ref,
  /** Index, uuid or label of the disk; may be left out when the point has one disk. */
  disk: z.string().max(256).optional(),
  /** Absolute path on the hub's machine. */
  path: z.string().startsWith('/').max(4096),
  format: z.enum(['raw', 'qcow2']).default('raw'),
  overwrite: z.boolean().default(false),
});
export type NewDiskRestore = z.output<typeof NewDiskRestore>;
