/** Disks of a VM as its configuration lists them, live or frozen in a snapshot. */
import type { DiskFacts } from '#/api/vm.ts';
import { booleanOf, child, integerOf, textOf } from './xml.ts';
import type { XmlNode } from './xml.ts';

export interface Disk extends DiskFacts {
  /** `scsi0:1`: kind of controller, bus and unit. Can be reused by another disk: never an identity. */
  slot: string;
  /** Type of the backing, such as `VirtualDiskFlatVer2BackingInfo`; empty when the disk has none. */
  backingType: string;
  thin: boolean;
  /** `physicalMode` or `virtualMode` of a raw device mapping. */
  compatibilityMode: string | undefined;
  /** More than one VM may write to the disk: multi-writer or a controller with bus sharing. */
  shared: boolean;
  /** The file lies on top of another one, so an older snapshot exists below it. */
  hasParent: boolean;
  /** MoRef value of the datastore. */
  datastore: string | undefined;
}

export interface SnapshotDisk extends Disk {
  /** Opaque; names the state of the disk in this very snapshot. Absent when changes are not tracked. */
  changeId: string | undefined;
}

/** Disks in the order of the configuration. `devices` are the device elements themselves. */
export function readDisks(devices: readonly XmlNode[]): SnapshotDisk[] {
  const controllers = new Map<number, XmlNode>();
  for (const device of devices) {
    const key = integerOf(device, 'key');
    if (key !== undefined && child(device, 'busNumber')) controllers.set(key, device);
  }
  return devices.filter((device) => device.xsiType === 'VirtualDisk').map((device) => readDisk(device, controllers));
}

function readDisk(device: XmlNode, controllers: ReadonlyMap<number, XmlNode>): SnapshotDisk {
  const backing = child(device, 'backing');
  const controller = controllers.get(integerOf(device, 'controllerKey') ?? Number.NaN);
  const kind = kindOf(controller);
  const place = `${integerOf(controller, 'busNumber') ?? 0}:${integerOf(device, 'unitNumber') ?? 0}`;
  const key = integerOf(device, 'key') ?? 0;
  const sharedBus = textOf(controller, 'sharedBus') ?? 'noSharing';
  return {
    key,
    uuid: textOf(backing, 'uuid') || null,
    label: `${kind} (${place}) ${textOf(device, 'deviceInfo', 'label') ?? `disk ${key}`}`,
    slot: `${kind.toLowerCase()}${place}`,
    capacityBytes: capacityOf(device),
    diskMode: textOf(backing, 'diskMode') ?? '',
    backingType: backing?.xsiType ?? '',
    fileName: textOf(backing, 'fileName') ?? textOf(backing, 'descriptorFileName') ?? '',
    thin: booleanOf(backing, 'thinProvisioned') ?? false,
    compatibilityMode: textOf(backing, 'compatibilityMode'),
    shared: sharedBus !== 'noSharing' || textOf(backing, 'sharing') === 'sharingMultiWriter',
    hasParent: child(backing, 'parent') !== undefined,
    datastore: textOf(backing, 'datastore'),
    changeId: textOf(backing, 'changeId') || undefined,
  };
}

/** Bytes; older servers only tell KiB. 0 when there is no usable number, which nothing can be read with. */
function capacityOf(device: XmlNode): number {
  const bytes = integerOf(device, 'capacityInBytes') ?? (integerOf(device, 'capacityInKB') ?? 0) * 1024;
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : 0;
}

function kindOf(controller: XmlNode | undefined): string {
  const type = controller?.xsiType ?? '';
  if (type.includes('NVME')) return 'NVMe';
  if (type.includes('IDE')) return 'IDE';
  if (type.includes('AHCI') || type.includes('SATA')) return 'SATA';
  return 'SCSI';
}
