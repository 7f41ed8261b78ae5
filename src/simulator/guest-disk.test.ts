import assert from 'node:assert/strict';
import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '#/lib/run.ts';
import { makeGuestDisk } from './guest-disk.ts';
import type { GuestContent } from './guest-disk.ts';
import { ROOT_PARTITION_SECTOR } from './partition-table.ts';

const MIB = 1024 ** 2;
process.env['PATH'] += ':/usr/sbin:/sbin';

async function inFolder(work: (dir: string) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'sendense-guest-'));
  try {
    await work(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function make(dir: string, content: GuestContent, sizeBytes: number, name = 'd'): Promise<string> {
  const path = join(dir, name);
  const data = await makeGuestDisk({ path, sizeBytes, content, seed: 'seed', hostName: 'web01' });
  for (const [index, extent] of data.entries()) {
    const next = data[index + 1];
    assert.ok(extent.length > 0 && extent.offset + extent.length <= (next?.offset ?? sizeBytes));
  }
  return `${path}.000`;
}

test('a bare disk holds a clean ext4 file system with a few hundred files, all inside an odd size', async () => {
  await inFolder(async (dir) => {
    const sizeBytes = 24 * MIB + 3 * 512;
    const image = await make(dir, 'ext4', sizeBytes);
    assert.equal((await stat(image)).size, sizeBytes);
    await run('e2fsck', ['-f', '-n', image]);
    const { stdout } = await run('debugfs', ['-R', 'ls -p /srv/data', image]);
    assert.match(stdout, /größe – 数据\.txt/);
    const counts = await run('dumpe2fs', ['-h', image]);
    const inodes = /Inode count:\s+(\d+)[\s\S]*Free inodes:\s+(\d+)/.exec(counts.stdout);
    assert.ok(Number(inodes?.[1]) - Number(inodes?.[2]) > 250);
  });
});

test('a partitioned disk has a valid GPT whose root partition is a clean file system of a system', async () => {
  await inFolder(async (dir) => {
    const image = await make(dir, 'partitioned', 32 * MIB + 512);
    const verified = await run('sfdisk', ['--verify', image]);
    assert.match(verified.stdout + verified.stderr, /No errors detected/);
    const table = JSON.parse((await run('sfdisk', ['--json', image])).stdout) as {
      partitiontable: { label: string; partitions: { start: number; size: number }[] };
    };
    assert.equal(table.partitiontable.label, 'gpt');
    const root = table.partitiontable.partitions[1];
    assert.equal(root?.start, ROOT_PARTITION_SECTOR);
    const at = `${image}?offset=${ROOT_PARTITION_SECTOR * 512}`;
    const hostName = await run('debugfs', ['-R', 'cat /etc/hostname', at]);
    assert.equal(hostName.stdout, 'web01\n');
    const handle = await open(image);
    try {
      const { buffer } = await handle.read(Buffer.alloc(2), 0, 2, 510);
      assert.deepEqual([...buffer], [0x55, 0xaa]);
    } finally {
      await handle.close();
    }
  });
});

test('the same seed makes the same files and the same random blocks', async () => {
  await inFolder(async (dir) => {
    const listings: string[] = [];
    for (const name of ['a', 'b']) {
      const image = await make(dir, 'ext4', 20 * MIB, name);
      const out = join(dir, `${name}.files`);
      await run('mkdir', [out]);
      await run('debugfs', ['-R', `rdump /srv ${out}`, image]);
      listings.push(
        (await run('sh', ['-c', 'cd "$1" && find . -type f | sort | xargs -d "\\n" sha256sum', 'x', out])).stdout,
      );
    }
    assert.equal(listings[0], listings[1]);
    assert.ok((listings[0] ?? '').split('\n').length > 240);
    const [one, two] = [await make(dir, 'random:30', MIB, 'r1'), await make(dir, 'random:30', MIB, 'r2')];
    await run('cmp', [one, two]);
  });
});
