/** Building blocks of all schemas. Instants are RFC 3339 UTC text on the wire, sizes are bytes, ids are opaque text. */
import { z } from 'zod';

export const Id = z.string().min(1).max(64);
export const Name = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'a name is 1 to 63 letters, digits, dots, dashes or underscores');
/** What a person types to point at something: its name or its id. */
export const Ref = z.string().min(1).max(256);
export const Instant = z.iso.datetime({ offset: true });
export const Bytes = z.number().int().nonnegative();

export const BackupType = z.enum(['auto', 'full', 'incremental']);
export type BackupType = z.infer<typeof BackupType>;

/** The words for the state of a job and of a restore point; the last three are final. */
export const JOB_STATUSES = [
  'queued',
  'preparing',
  'snapshotting',
  'copying',
  'committing',
  'completed',
  'failed',
  'cancelled',
] as const;
export const JobStatus = z.enum(JOB_STATUSES);
export type JobStatus = z.infer<typeof JobStatus>;

export function isFinal(status: JobStatus): boolean {
  return status === 'completed' || status === 'failed' || status === 'cancelled';
}

export const WireError = z.object({
  code: z.string(),
  message: z.string(),
  details: z.record(z.string(), z.unknown()).optional(),
  requestId: z.string().optional(),
});

export const Limit = z.coerce.number().int().min(1).max(1000).default(100);

/** A list answer; `nextCursor` is null on the last page. */
export function page<T extends z.ZodType>(
  item: T,
): z.ZodObject<{ items: z.ZodArray<T>; nextCursor: z.ZodNullable<z.ZodString> }> {
  return z.object({ items: z.array(item), nextCursor: z.string().nullable() });
}
