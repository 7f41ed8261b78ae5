/** Disks of odd sizes: one sector, no multiple of anything, far beyond what a file system holds, and many at once. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Stack } from './harness.ts';
import { compareImages, imageInfo } from '#/qemu/img.ts';

const MIB = 1024 ** 2;
const TIB = 1024 ** 4;

const vm = (name: string, sizes: number[]): object => ({
  name,
  disks: sizes.map((sizeBytes) => ({ sizeBytes, content: 'blank' })),
});

let stack: Stack;
before(async () => {
  stack = await Stack.start({
    scenario: {
      vms: [
        vm('sector', [512]),
        vm('huge', [64 * TIB]),
        vm('odd', [2 * TIB + 512]),
        vm(
          'many',
          Array.from({ length: 32 }, (_, index) => (index + 1) * MIB + index * 512),
        ),
      ],
    },
  });
});
after(() => stack?.[Symbol.asyncDispose]());

test('a disk of one sector is backed up in full and incrementally', async () => {
  await stack.guestWrite('sector', { extents: [{ offset: 0, length: 512 }], seed: 'a' });
  const full = await stack.backup('sector');
  await stack.guestWrite('sector', { extents: [{ offset: 0, length: 512 }], seed: 'b' });
  const incremental = await stack.backup('sector');
  assert.equal(incremental.disks[0]?.type, 'incremental');
  assert.equal(incremental.disks[0]?.transferredBytes, 512);
  await stack.restoreAndCompare(full);
  await stack.restoreAndCompare(incremental);
});

for (const [name, sizeBytes] of [
  ['huge', 64 * TIB],
  ['odd', 2 * TIB + 512],
] as const) {
  test(`a sparse disk of ${sizeBytes} bytes costs what it holds, not what it spans`, async () => {
    const ends = [
      { offset: 0, length: 65_536 },
      { offset: sizeBytes / 2 - ((sizeBytes / 2) % 65_536), length: 65_536 },
      { offset: sizeBytes - 512, length: 512 },
    ];
    await stack.guestWrite(name, { extents: ends, seed: 'a' });
    const full = await stack.backup(name);
    assert.equal(full.virtualBytes, sizeBytes);
    assert.ok(full.storedBytes < 32 * MIB, `${full.storedBytes} bytes stored`);
    await stack.guestWrite(name, { extents: ends.slice(2), seed: 'b' });
    const incremental = await stack.backup(name);
    assert.equal(incremental.disks[0]?.type, 'incremental');
    assert.ok(incremental.transferredBytes <= 65_536);
    // Too long for a raw file on most file systems: the allocated places are compared one by one through qemu-img.
    const path = join(stack.dir, `${name}.qcow2`);
    const job = await stack.hub.restoreDisk({ body: { restorePoint: incremental.id, path, format: 'qcow2' } });
    assert.equal((await stack.finished(job.id)).status, 'completed');
    assert.equal((await imageInfo(path)).virtualBytes, sizeBytes);
    const image = join(stack.repositoryDir, incremental.disks[0]?.imagePath ?? '');
    assert.ok((await compareImages({ path, format: 'qcow2' }, { path: image, format: 'qcow2' })).identical);
    const held = (await stack.mapOf(incremental, 0)).filter((extent) => extent.data);
    assert.ok(held.some((extent) => extent.depth === 0 && extent.offset + extent.length === sizeBytes));
    assert.ok(held.some((extent) => extent.depth === 1 && extent.offset === 0));
    if (name === 'odd') await stack.restoreAndCompare(incremental);
  });
}

test('thirty-two disks of one VM are captured at one instant and restored one by one', async () => {
  for (let disk = 0; disk < 32; disk++) await stack.guestWrite('many', { disk, percent: 10, seed: `disk-${disk}` });
  const full = await stack.backup('many');
  assert.equal(full.disks.length, 32);
  await stack.guestWrite('many', { disk: 31, percent: 5, seed: 'more' });
  const incremental = await stack.backup('many');
  assert.equal(incremental.disks.filter((disk) => disk.transferredBytes > 0).length, 1);
  await stack.restoreAndCompare(incremental);
  assert.deepEqual(await stack.leftovers(), []);
});
