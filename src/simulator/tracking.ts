import { newEpoch } from './changed-blocks.ts';
import type { DiskState, VmState } from './state.ts';
import type { World } from './world.ts';

export const FIRST_TRACKING_HARDWARE = 7;

export function canTrack(vm: VmState, disk: DiskState): boolean {
  const fit = disk.mode === 'persistent' && disk.backing === 'flat' && disk.sharing === 'sharingNone';
  return fit && disk.present && vm.hardwareVersion >= FIRST_TRACKING_HARDWARE;
}

/** Brings tracking to what the configuration says, as it happens when a host opens the disks anew. The caller saves. */
export async function applyTracking(world: World, vm: VmState): Promise<void> {
  for (const disk of vm.disks) {
    if (vm.changeTracking && canTrack(vm, disk)) {
      if (!disk.tracking) await startEpoch(world, vm, disk);
    } else if (disk.tracking) {
      delete disk.tracking;
      await world.disk(vm, disk).changes.clear();
    }
  }
}

/** Makes every change id given out so far worthless. */
export async function startEpoch(world: World, vm: VmState, disk: DiskState): Promise<void> {
  await world.disk(vm, disk).changes.clear();
  disk.tracking = { epoch: newEpoch(), seq: 1 };
}
