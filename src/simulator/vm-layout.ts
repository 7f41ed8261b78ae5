import { now } from '#/lib/clock.ts';
import type { DiskState, VmState } from './state.ts';
import { Data, Ref } from './values.ts';
import { datastorePath } from './vm-devices.ts';
import type { World } from './world.ts';

/** Files of a VM: configuration, and for each layer of a disk its descriptor and its data. */
export function layoutOf(_world: World, vm: VmState): Data {
  const files: Data[] = [];
  const keys = new Map<string, number>();
  const add = (name: string, type: string, size: number): void => {
    keys.set(name, files.length);
    files.push(
      new Data('VirtualMachineFileLayoutExFileInfo', {
        key: files.length,
        name: datastorePath(vm, name),
        type,
        size,
        uniqueSize: size,
        accessible: true,
      }),
    );
  };
  add(`${vm.directory}.vmx`, 'config', 2048);
  add(`${vm.directory}.nvram`, 'nvram', 8684);
  for (const disk of vm.disks) {
    for (const layer of disk.layers) {
      add(layer.fileName, 'diskDescriptor', 512);
      add(extentFileName(layer.fileName, layer.parent === undefined), 'diskExtent', layer.capacityBytes);
    }
  }
  return new Data('VirtualMachineFileLayoutEx', {
    file: files,
    disk: vm.disks.filter((disk) => disk.present).map((disk) => diskLayout(disk.key, chain(disk, disk.head), keys)),
    snapshot: vm.snapshots.map(
      (snapshot) =>
        new Data('VirtualMachineFileLayoutExSnapshotLayout', {
          key: new Ref('VirtualMachineSnapshot', snapshot.moref),
          dataKey: 0,
          memoryKey: -1,
          disk: snapshot.disks.flatMap((frozen) => {
            const disk = vm.disks.find((entry) => entry.uuid === frozen.uuid);
            return disk ? [diskLayout(frozen.key, chain(disk, frozen.layer), keys)] : [];
          }),
        }),
    ),
    timestamp: now().toString(),
  });
}

/** Name of the file with the data that the descriptor `fileName` stands for. */
export function extentFileName(fileName: string, isBase: boolean): string {
  return fileName.replace(/\.vmdk$/, isBase ? '-flat.vmdk' : '-sesparse.vmdk');
}

function chain(disk: DiskState, head: string): string[][] {
  const units: string[][] = [];
  for (let id: string | undefined = head; id !== undefined; ) {
    const layer = disk.layers.find((entry) => entry.id === id);
    if (!layer) break;
    units.unshift([layer.fileName, extentFileName(layer.fileName, layer.parent === undefined)]);
    id = layer.parent;
  }
  return units;
}

function diskLayout(key: number, units: readonly string[][], keys: ReadonlyMap<string, number>): Data {
  return new Data('VirtualMachineFileLayoutExDiskLayout', {
    key,
    chain: units.map(
      (files) => new Data('VirtualMachineFileLayoutExDiskUnit', { fileKey: files.map((name) => keys.get(name) ?? 0) }),
    ),
  });
}
