import { judgeChangeId, pageOfAreas, parseChangeId } from './changed-blocks.ts';
import type { ChangedAreaPage, TrackingState } from './changed-blocks.ts';
import type { ExtentSet } from './extent-set.ts';
import { fileFault, invalidArgument, notSupported, VimFault } from './faults.ts';
import type { DiskState, SnapshotState, VmState } from './state.ts';
import type { World } from './world.ts';

export interface ChangedAreaQuery {
  /** Absent only for a VM that is powered off. */
  snapshot: SnapshotState | undefined;
  deviceKey: number;
  startOffset: number;
  changeId: string;
}

/** QueryChangedDiskAreas: refuses what a host refuses, and answers for a region from `startOffset` on. */
export async function queryChangedAreas(world: World, vm: VmState, query: ChangedAreaQuery): Promise<ChangedAreaPage> {
  if (!query.snapshot && vm.powerState !== 'poweredOff') {
    throw new VimFault('InvalidPowerState', 'Without a snapshot the VM must be powered off.', {
      requestedState: 'poweredOff',
      existingState: vm.powerState,
    });
  }
  const { disk, layer, capacityBytes, id } = target(vm, query);
  if (query.startOffset < 0 || query.startOffset >= capacityBytes) throw invalidArgument('startOffset');
  if (disk.backing === 'physicalRdm') throw notSupported('physical compatibility mode');
  const areas = await areasSince(world, vm, { disk, layer, id, changeId: query.changeId });
  const { granularityBytes, qcdaMaxAreas, qcdaRegionBytes } = world.settings;
  const page = pageOfAreas(areas.rounded(granularityBytes, capacityBytes), query.startOffset, {
    capacityBytes,
    regionBytes: qcdaRegionBytes,
    maxAreas: qcdaMaxAreas,
  });
  return distort(world, page);
}

function target(
  vm: VmState,
  query: ChangedAreaQuery,
): { disk: DiskState; layer: string; capacityBytes: number; id: TrackingState | undefined } {
  if (!query.snapshot) {
    const disk = vm.disks.find((entry) => entry.present && entry.key === query.deviceKey);
    if (!disk) throw invalidArgument('deviceKey');
    return { disk, layer: disk.head, capacityBytes: disk.capacityBytes, id: disk.tracking };
  }
  const frozen = query.snapshot.disks.find((entry) => entry.key === query.deviceKey);
  const disk = vm.disks.find((entry) => entry.uuid === frozen?.uuid);
  if (!frozen || !disk) throw invalidArgument('deviceKey');
  const id = parseChangeId(frozen.changeId);
  // An epoch that ended after the snapshot took its log along.
  const valid = id && id.epoch === disk.tracking?.epoch ? id : undefined;
  return { disk, layer: frozen.layer, capacityBytes: frozen.capacityBytes, id: valid };
}

async function areasSince(
  world: World,
  vm: VmState,
  query: { disk: DiskState; layer: string; id: TrackingState | undefined; changeId: string },
): Promise<ExtentSet> {
  const verdict = judgeChangeId(query.changeId, query.id);
  const device = world.disk(vm, query.disk);
  switch (verdict.kind) {
    case 'malformed':
      throw invalidArgument('changeId');
    case 'stale': {
      const flat = query.disk.layers[0]?.fileName ?? '';
      throw fileFault(`/vmfs/volumes/${vm.datastore}/${vm.directory}/${flat.replace(/\.vmdk$/, '-ctk.vmdk')}`);
    }
    case 'all':
      if (!world.settings.qcdaAllocated) throw notSupported('allocated areas');
      return device.written(query.layer);
    case 'since':
      return device.changed(query.layer, verdict.seq, query.id?.seq ?? 0);
  }
}

/** What hosts are allowed to do (unsorted, overlapping areas) and what a defective one does (areas missing). */
function distort(world: World, page: ChangedAreaPage): ChangedAreaPage {
  let { areas } = page;
  if (world.settings.qcdaDropAreas > 0) areas = areas.slice(world.settings.qcdaDropAreas);
  const [first] = areas;
  if (world.settings.qcdaUnsorted && first) areas = [...areas.toReversed(), first];
  return { ...page, areas };
}
