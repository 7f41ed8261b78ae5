import { z } from 'zod';
import { Bytes, Id, Instant, Ref } from './common.ts';

export const DiskFacts = z.object({
  /** Identity of the disk across runs: the backing's uuid. Absent for disks that have none (physical RDM). */
  uuid: z.string().nullable(),
  key: z.number().int(),
  /** Slot and name, e.g. `SCSI (0:1) Hard disk 2`. */
  label: z.string(),
  capacityBytes: Bytes,
  diskMode: z.string(),
  fileName: z.string(),
});
export type DiskFacts = z.infer<typeof DiskFacts>;

/** What the source says of a VM; `instanceUuid` is its identity, the moref may change when it is registered anew. */
export const VmFacts = z.object({
  moref: z.string(),
  instanceUuid: z.string(),
  biosUuid: z.string(),
  name: z.string(),
  path: z.string(),
  powerState: z.string(),
  connectionState: z.string(),
  template: z.boolean(),
  guestName: z.string(),
  toolsRunning: z.boolean(),
  changeTrackingEnabled: z.boolean(),
  changeTrackingSupported: z.boolean(),
  snapshotCount: z.number().int(),
  hardwareVersion: z.string(),
  disks: z.array(DiskFacts),
});
export type VmFacts = z.infer<typeof VmFacts>;

export const Vm = z.object({
  id: Id,
  sourceId: Id,
  source: z.string(),
  moref: z.string(),
  instanceUuid: z.string(),
  name: z.string(),
  path: z.string(),
  powerState: z.string(),
  guestName: z.string(),
  changeTrackingEnabled: z.boolean(),
  capacityBytes: Bytes,
  disks: z.array(DiskFacts),
  lastSeenAt: Instant,
  lastRestorePointAt: Instant.nullable(),
});
export type Vm = z.infer<typeof Vm>;

export const VmQuery = z.strictObject({
  source: Ref.optional(),
  name: z.string().max(256).optional(),
  /** Asks the source anew before answering. */
  refresh: z.stringbool().default(false),
});
