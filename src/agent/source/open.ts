/** From a disk of a snapshot to a reader of it, and why that one. The only list of transports. */
import type { SnapshotDisk } from '../vsphere/devices.ts';
import type { VmRecord } from '../vsphere/inventory.ts';
import type { Session } from '../vsphere/session.ts';
import type { DiskSource } from './source.ts';
import { openVsphereHttps } from './vsphere-https.ts';

export const TRANSPORT = { name: 'datastore', reason: 'read by ranges over HTTPS from the datastore' } as const;

/** TRANSPORT_UNSUPPORTED, with the reason, when no transport can read the disk as it is. */
export async function openSource(
  session: Session,
  { vm, disk }: { vm: VmRecord; disk: SnapshotDisk },
  signal: AbortSignal,
): Promise<DiskSource> {
  return openVsphereHttps({ session, disk, datacenterPath: vm.datacenterPath, signal });
}
