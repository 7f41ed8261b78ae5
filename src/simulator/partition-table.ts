import { crc32 } from 'node:zlib';
import { SeededRandom } from './random.ts';

const SECTOR = 512;
const ENTRY_COUNT = 128;
const ENTRY_BYTES = 128;
const TABLE_SECTORS = (ENTRY_COUNT * ENTRY_BYTES) / SECTOR;
const BIOS_BOOT = '21686148-6449-6e6f-744e-656564454649';
const LINUX_DATA = '0fc63daf-8483-4772-8e79-3d69d8477de4';

export const BOOT_PARTITION_SECTOR = 2048;
export const ROOT_PARTITION_SECTOR = 4096;

/** Bytes of the root partition on a disk of that size, whole sectors. */
export function rootPartitionBytes(sizeBytes: number): number {
  return Math.floor(sizeBytes / SECTOR - ROOT_PARTITION_SECTOR - TABLE_SECTORS - 1) * SECTOR;
}

export interface Piece {
  offset: number;
  data: Buffer;
}

/** A protective MBR with boot code, both GPT copies, and a boot loader area: what a disk that boots looks like. */
export function partitionTable(sizeBytes: number, seed: string): Piece[] {
  const random = new SeededRandom(`${seed}/gpt`);
  const sectors = Math.floor(sizeBytes / SECTOR);
  const rootLast = ROOT_PARTITION_SECTOR + rootPartitionBytes(sizeBytes) / SECTOR - 1;
  const entries = Buffer.alloc(ENTRY_COUNT * ENTRY_BYTES);
  writeEntry(
    entries,
    0,
    { type: BIOS_BOOT, first: BOOT_PARTITION_SECTOR, last: ROOT_PARTITION_SECTOR - 1, name: 'boot' },
    random,
  );
  writeEntry(entries, 1, { type: LINUX_DATA, first: ROOT_PARTITION_SECTOR, last: rootLast, name: 'root' }, random);
  const diskId = random.bytes(16);
  const last = sectors - 1;
  const tail = last - TABLE_SECTORS;
  return [
    { offset: 0, data: protectiveMbr(sectors, random) },
    { offset: SECTOR, data: header(entries, diskId, { own: 1, other: last, table: 2, last }) },
    { offset: 2 * SECTOR, data: entries },
    { offset: BOOT_PARTITION_SECTOR * SECTOR, data: random.bytes(64 * 1024) },
    { offset: tail * SECTOR, data: entries },
    { offset: last * SECTOR, data: header(entries, diskId, { own: last, other: 1, table: tail, last }) },
  ];
}

function protectiveMbr(sectors: number, random: SeededRandom): Buffer {
  const mbr = Buffer.alloc(SECTOR);
  random.bytes(440).copy(mbr);
  mbr.set([0xeb, 0x63, 0x90], 0); // jump, as a boot loader's first sector begins
  mbr.set([0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff], 446);
  mbr.writeUInt32LE(1, 454);
  mbr.writeUInt32LE(Math.min(sectors - 1, 0xffff_ffff), 458);
  mbr.set([0x55, 0xaa], 510);
  return mbr;
}

function header(
  entries: Buffer,
  diskId: Buffer,
  at: { own: number; other: number; table: number; last: number },
): Buffer {
  const sector = Buffer.alloc(SECTOR);
  sector.write('EFI PART', 0, 'latin1');
  sector.writeUInt32LE(0x0001_0000, 8);
  sector.writeUInt32LE(92, 12);
  sector.writeBigUInt64LE(BigInt(at.own), 24);
  sector.writeBigUInt64LE(BigInt(at.other), 32);
  sector.writeBigUInt64LE(BigInt(2 + TABLE_SECTORS), 40);
  sector.writeBigUInt64LE(BigInt(at.last - TABLE_SECTORS - 1), 48);
  diskId.copy(sector, 56);
  sector.writeBigUInt64LE(BigInt(at.table), 72);
  sector.writeUInt32LE(ENTRY_COUNT, 80);
  sector.writeUInt32LE(ENTRY_BYTES, 84);
  sector.writeUInt32LE(crc32(entries), 88);
  sector.writeUInt32LE(crc32(sector.subarray(0, 92)), 16);
  return sector;
}

function writeEntry(
  entries: Buffer,
  index: number,
  entry: { type: string; first: number; last: number; name: string },
  random: SeededRandom,
): void {
  const at = entries.subarray(index * ENTRY_BYTES, (index + 1) * ENTRY_BYTES);
  guidBytes(entry.type).copy(at, 0);
  random.bytes(16).copy(at, 16);
  at.writeBigUInt64LE(BigInt(entry.first), 32);
  at.writeBigUInt64LE(BigInt(entry.last), 40);
  at.write(entry.name, 56, 'utf16le');
}

/** The first three groups of a GUID are little-endian on disk. */
function guidBytes(guid: string): Buffer {
  const raw = Buffer.from(guid.replaceAll('-', ''), 'hex');
  raw.subarray(0, 4).reverse();
  raw.subarray(4, 6).reverse();
  raw.subarray(6, 8).reverse();
  return raw;
}
