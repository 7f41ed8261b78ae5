/** What a job carries in the catalog: ids only, resolved when it was accepted; never a name, never a secret. */
import { z } from 'zod';
import { BackupType, Id } from './common.ts';
import { Quiesce } from './restore-point.ts';

export const BackupPayload = z.strictObject({
  vmId: Id,
  repositoryId: Id,
  agentId: Id,
  type: BackupType,
  quiesce: Quiesce,
  bytesPerSecond: z.number().int().positive().nullable(),
});
export type BackupPayload = z.infer<typeof BackupPayload>;

export const RestorePayload = z.strictObject({
  restorePointId: Id,
  backupId: Id,
  path: z.string(),
  format: z.enum(['raw', 'qcow2']),
  overwrite: z.boolean(),
});
export type RestorePayload = z.infer<typeof RestorePayload>;
