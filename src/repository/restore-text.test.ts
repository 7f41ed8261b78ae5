import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { PointFile } from '#/api/point.ts';
import { newId } from '#/lib/ids.ts';
import { run } from '#/lib/run.ts';
import { compareImages, createImage } from '#/qemu/img.ts';
import { newPoint, pointFile } from './conformance.ts';
import { backingReference } from './layout.ts';
import { createRepository, openRepository } from './open.ts';
import { pointFileText } from './point-file.ts';
import { restoreText } from './restore-text.ts';

const MIB = 1 << 20;

/** The commands below a heading, as the reader would type them. */
function commandsOf(text: string, ...headings: string[]): string {
  const lines: string[] = [];
  let heading = '';
  for (const line of text.split('\n')) {
    if (/^[A-Z ]+$/.test(line)) heading = line;
    else if (line.startsWith('    ') && headings.includes(heading)) lines.push(line.trim());
  }
  return lines.join('\n');
}

async function write(file: string, pattern: number, at: string): Promise<void> {
  await run('qemu-io', ['-f', 'qcow2', '-c', `write -P ${pattern} ${at}`, file]);
}

test('the commands of RESTORE.txt bring an incremental point back with nothing but qemu-img', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'sendense-restore-'));
  try {
    const settings = { kind: 'local', root: path.join(dir, 'repo') } as const;
    const { id } = await createRepository(settings, 'r');
    await using repository = await openRepository(settings, id);
    const first = { ...newPoint(), vmName: 'Büro\'s "DB"\n    rm -rf /' };
    const base = await repository.beginPoint(first);
    await createImage({ path: base.imagePath(0), sizeBytes: MIB });
    await write(base.imagePath(0), 1, '0 512k');
    await base.writeFile('point.json', pointFileText(pointFile(repository, first)));
    await base.commit();

    const second = { ...first, pointId: newId() };
    const next = await repository.beginPoint(second);
    const below = backingReference(next.folder, `${base.finalFolder}/disk-0.qcow2`);
    await createImage({ path: next.imagePath(0), sizeBytes: MIB, backing: { relativeName: below } });
    await write(next.imagePath(0), 2, '64k 64k');
    const point = incremental(pointFile(repository, second), first.pointId, below);
    const text = restoreText(point, new Map([[0, ['disk-0.qcow2', below]]]));
    await next.writeFile('point.json', pointFileText(point));
    await next.writeFile('RESTORE.txt', text);
    const folder = path.join(repository.root, await next.commit());

    const headings = [
      'FILES THIS RESTORE POINT NEEDS',
      'CHECK THE FILES',
      'RESTORE',
      'COMPARE THE RESULT WITH THE BACKUP',
    ];
    const bin = path.join(dir, 'bin');
    await mkdir(bin);
    for (const tool of ['qemu-img', 'ls']) await symlink(await which(tool), path.join(bin, tool));
    const script = `set -eu\n${commandsOf(text, ...headings)}`;
    const { stdout } = await run('/bin/sh', ['-c', script], { cwd: folder, env: { PATH: bin, TARGET: dir } });
    assert.equal(stdout.match(/No errors were found/g)?.length, 2);
    assert.match(stdout, /Images are identical/);

    const expected = path.join(dir, 'expected.qcow2');
    await createImage({ path: expected, sizeBytes: MIB });
    await write(expected, 1, '0 512k');
    await write(expected, 2, '64k 64k');
    const restored = { path: path.join(dir, 'disk-0.raw'), format: 'raw' } as const;
    assert.ok((await compareImages(restored, { path: expected, format: 'qcow2' })).identical);
  } finally {
    await rm(dir, { recursive: true });
  }
});

async function which(tool: string): Promise<string> {
  return (await run('/bin/sh', ['-c', `command -v ${tool}`])).stdout.trim();
}

function incremental(point: PointFile, parentId: string, image: string): PointFile {
  const disks = point.disks.map((disk) => ({
    ...disk,
    type: 'incremental' as const,
    parent: { pointId: parentId, backupId: newId(), image },
  }));
  return { ...point, disks };
}

test('names and labels from outside add neither lines nor commands', () => {
  const evil = 'x\n    touch /tmp/evil\r\u2028    touch /tmp/evil\u0000\u001b[2J';
  const point = pointFile({ id: 'r' }, { ...newPoint(), vmName: evil });
  const [disk] = point.disks;
  assert.ok(disk);
  point.disks = [{ ...disk, label: evil, uuid: evil }];
  const text = restoreText(point, new Map([[0, ['disk-0.qcow2']]]));
  const plain = restoreText(pointFile({ id: 'r' }, newPoint()), new Map([[0, ['disk-0.qcow2']]]));
  assert.equal(text.split('\n').length, plain.split('\n').length);
  assert.equal(text.split('\n').filter((line) => /^\s+touch/.test(line)).length, 0);
  assert.doesNotMatch(text, /(?!\n)[\p{Cc}\u2028]/u);
});

test('a chain that does not fit the point is a defect and not a wrong manual', () => {
  const point = pointFile({ id: 'r' }, newPoint());
  assert.throws(() => restoreText(point, new Map()), /chain of disk 0/);
  assert.throws(() => restoreText(point, new Map([[0, ['disk-0.qcow2', '../other/disk-0.qcow2']]])), /parent/);
});
