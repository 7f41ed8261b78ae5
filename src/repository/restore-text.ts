/**
 * RESTORE.txt: how to get the disks of one restore point back with QEMU's tools alone. Every indented line is a command
 * for a POSIX shell, to be run in the folder of the restore point.
 */
import type { PointDisk, PointFile } from '#/api/point.ts';
import { assert } from '#/lib/errors.ts';

/** Files that one disk needs, from its own image down to the full, as paths from the folder of the point. */
export type DiskChains = ReadonlyMap<number, readonly string[]>;

export function restoreText(point: PointFile, chains: DiskChains): string {
  const disks = point.disks.map((disk) => ({ disk, chain: chainOf(disk, chains) }));
  const files = [...new Set(disks.flatMap(({ chain }) => chain))];
  return [
    `Restore point of ${oneLine(point.vm.name)}`,
    `taken ${point.snapshotAt} (${point.consistency}-consistent), id ${point.id}`,
    '',
    "You need nothing but QEMU's tools (Debian: apt-get install qemu-utils). Run the commands",
    'in this folder. They only read it; the disks go to the folder in TARGET.',
    '',
    'DISKS',
    '',
    ...disks.flatMap(({ disk, chain }) => describe(disk, chain)),
    'FILES THIS RESTORE POINT NEEDS',
    '',
    'An incremental image holds only what changed and reads the rest from the files below it.',
    'Paths are relative: if you copy them, keep the folders beside each other.',
    '',
    ...commands(files.map((file) => `ls -l ${quote(file)}`)),
    'CHECK THE FILES',
    '',
    'Each line must end with "No errors were found on the image."',
    '',
    ...commands(files.map((file) => `qemu-img check -f qcow2 ${quote(file)}`)),
    'RESTORE',
    '',
    'One raw disk per line. For VMware replace "-O raw" by "-O vmdk", for KVM by "-O qcow2".',
    '',
    ...commands(['TARGET=${TARGET:-/var/tmp}', ...disks.map(({ disk }) => convert(disk))]),
    'COMPARE THE RESULT WITH THE BACKUP',
    '',
    ...commands(disks.map(({ disk }) => compare(disk))),
    'LOOK INSIDE WITHOUT RESTORING',
    '',
    'Serves a disk read-only over NBD on a local socket until stopped; any NBD client can read it.',
    '',
    ...commands(disks.map(({ disk }) => serve(disk))),
  ].join('\n');
}

function chainOf(disk: PointDisk, chains: DiskChains): readonly string[] {
  const chain = chains.get(disk.index);
  assert(chain?.[0] === disk.image, `the chain of disk ${disk.index} does not begin with its image`);
  assert((disk.parent?.image ?? undefined) === chain[1], `the chain of disk ${disk.index} does not follow its parent`);
  return chain;
}

function describe(disk: PointDisk, chain: readonly string[]): string[] {
  return [
    `${disk.image}: ${oneLine(disk.label)}, ${disk.virtualBytes} bytes, ${disk.type}`,
    `  uuid ${oneLine(disk.uuid)}, files in its chain: ${chain.length}`,
    '',
  ];
}

function convert(disk: PointDisk): string {
  return `qemu-img convert -f qcow2 -O raw ${disk.image} "$TARGET"/${rawName(disk)}`;
}

function compare(disk: PointDisk): string {
  return `qemu-img compare -f qcow2 -F raw ${disk.image} "\${TARGET:-/var/tmp}"/${rawName(disk)}`;
}

function serve(disk: PointDisk): string {
  return `qemu-nbd --read-only --persistent -f qcow2 -k /var/tmp/disk-${disk.index}.sock ${disk.image}`;
}

function rawName(disk: PointDisk): string {
  return `disk-${disk.index}.raw`;
}

function commands(lines: string[]): string[] {
  return [...lines.map((line) => `    ${line}`), ''];
}

/** Folder names carry letters of any script but neither quotes nor control characters; the quotes are for the rest. */
function quote(file: string): string {
  return /^[A-Za-z0-9._/-]+$/.test(file) && !file.startsWith('-')
    ? file
    : `'${file.replaceAll("'", String.raw`'\''`)}'`;
}

/** Names and labels come from outside: one of them must not be able to add a line. */
function oneLine(text: string): string {
  return text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, '?').slice(0, 200);
}
