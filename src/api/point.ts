/**
 * `point.json`, the sidecar of a restore point: everything the catalog knows about it, so that the catalog can be
 * rebuilt from repositories alone. The version rises when an older reader would misread the file.
 */
import { z } from 'zod';
import { BackupType, Bytes, Id, Instant } from './common.ts';

export const POINT_VERSION = 1;

const Text = z.string().max(4096);
const DiskImage = z.string().regex(/^disk-\d{1,4}\.qcow2$/, 'not the name of a disk image');
/** Relative to the folder of the point, as it stands in the header of the image. */
const BackingReference = z
  .string()
  .max(1023)
  .regex(
    /^(?:\.\.\/){1,2}(?!\.{1,2}\/)[^/\p{Cc}]+(?:\/(?!\.{1,2}\/)[^/\p{Cc}]+)?\/disk-\d{1,4}\.qcow2$/u,
    'not a backing reference',
  );

export const PointDisk = z.object({
  /** Place in the restore point, from 0; part of the image's name. */
  index: z.number().int().min(0).max(9999),
  backupId: Id,
  key: z.number().int(),
  uuid: z.string().min(1).max(256),
  label: Text,
  virtualBytes: Bytes,
  type: z.enum(['full', 'incremental']),
  typeReason: Text,
  previousChangeId: Text.nullable(),
  /** Null only for a disk that its source cannot track. */
  changeId: Text.nullable(),
  /** The image below; null for a full. */
  parent: z.object({ pointId: Id, backupId: Id, image: BackingReference }).nullable(),
  image: DiskImage,
  transferredBytes: Bytes,
  storedBytes: Bytes,
});
export type PointDisk = z.infer<typeof PointDisk>;

export const PointFile = z
  .object({
    version: z.literal(POINT_VERSION),
    id: Id,
    repositoryId: Id,
    jobId: Id,
    vm: z.object({
      id: Id,
      name: Text,
      moref: Text,
      instanceUuid: Text,
      source: z.object({ id: Id, name: Text, address: Text }),
    }),
    requestedType: BackupType,
    consistency: z.enum(['application', 'crash']),
    startedAt: Instant,
    snapshotAt: Instant,
    /** When the data were complete and checked; the commit follows at once. */
    completedAt: Instant,
    disks: z.array(PointDisk).min(1).max(1024),
  })
  .refine((point) => new Set(point.disks.map((disk) => disk.index)).size === point.disks.length, 'a disk index twice')
  .refine((point) => point.disks.every((disk) => disk.image === `disk-${disk.index}.qcow2`), 'image and index differ')
  .refine(
    (point) => point.disks.every((disk) => (disk.parent === null) === (disk.type === 'full')),
    'a full has no parent and an incremental has one',
  );
export type PointFile = z.infer<typeof PointFile>;
