import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import type { SnapshotState, VmState } from './state.ts';
import type { World } from './world.ts';

const PIECE_BYTES = 1024 * 1024;
const MAX_KEPT_BYTES = 4 * 1024 ** 3;

/**
 * Writes every disk as it is at `snapshot` into `kept/<vm>/<snapshot>/disk-<index>.raw`, so that a restored disk can be
 * compared with the truth. Disks with more than 4 GiB of data, or too long for one file, are left out with a warning.
 */
export async function keepCopy(world: World, vm: VmState, snapshot: SnapshotState): Promise<void> {
  const folder = keptFolder(world.store.dir, vm.name, snapshot.name);
  await mkdir(folder, { recursive: true });
  for (const [index, frozen] of snapshot.disks.entries()) {
    const state = vm.disks.find((disk) => disk.uuid === frozen.uuid);
    if (!state) continue;
    const disk = world.disk(vm, state);
    const written = await disk.written(frozen.layer);
    if (written.bytes > MAX_KEPT_BYTES || frozen.capacityBytes > 8 * 1024 ** 4) {
      world.log.warn({ vm: vm.name, disk: index, bytes: written.bytes }, 'disk too large to keep a copy of');
      continue;
    }
    const handle = await open(join(folder, `disk-${index}.raw`), 'w');
    try {
      await handle.truncate(frozen.capacityBytes);
      for (const extent of written) {
        for (let done = 0; done < extent.length; done += PIECE_BYTES) {
          const part = Buffer.allocUnsafe(Math.min(PIECE_BYTES, extent.length - done));
          await disk.read(frozen.layer, extent.offset + done, part);
          await handle.write(part, 0, part.length, extent.offset + done);
        }
      }
    } finally {
      await handle.close();
    }
  }
}

export function keptFolder(dir: string, vmName: string, snapshotName: string): string {
  return join(dir, 'kept', fileName(vmName), fileName(snapshotName));
}

function fileName(name: string): string {
  const encoded = encodeURIComponent(name).slice(0, 200);
  return encoded === '.' || encoded === '..' ? `_${encoded}` : encoded;
}
