/** What the demo has to say at its end: numbers and verdict for each disk of each restore point. */
import type { DiskBackup, RestorePoint } from '#/api/restore-point.ts';
import { between, rate, reduction, size } from './format.ts';
import { table } from './output.ts';

export interface Comparison {
  identical: boolean;
  difference: string | null;
}

export interface DiskReport extends Comparison {
  disk: number;
  label: string;
  type: string;
  typeReason: string;
  virtualBytes: number;
  changedBytes: number;
  readBytes: number;
  transferredBytes: number;
  storedBytes: number;
  /** Bytes read from the disk over the time from the start of the backup to its commit. */
  bytesPerSecond: number;
  /** The file the disk was restored into, and the copy the vCenter kept of it at that snapshot. */
  restored: string;
  reference: string;
}

export interface PointReport {
  point: string;
  seconds: number;
  disks: DiskReport[];
}

export function reportDisk(
  point: RestorePoint,
  disk: DiskBackup,
  compared: Comparison & { restored: string; reference: string },
): DiskReport {
  const seconds = secondsOf(point);
  return {
    disk: disk.diskIndex,
    label: disk.label,
    type: disk.type,
    typeReason: disk.typeReason,
    virtualBytes: disk.virtualBytes,
    changedBytes: disk.changedBytes,
    readBytes: disk.readBytes,
    transferredBytes: disk.transferredBytes,
    storedBytes: disk.storedBytes,
    bytesPerSecond: seconds > 0 ? Math.round(disk.readBytes / seconds) : 0,
    ...compared,
  };
}

export function secondsOf(point: RestorePoint): number {
  return (between(point.startedAt, point.completedAt) ?? 0) / 1000;
}

export function allIdentical(points: readonly PointReport[]): boolean {
  return (
    points.length > 0 && points.every((point) => point.disks.length > 0 && point.disks.every((disk) => disk.identical))
  );
}

export function reportTable(points: readonly PointReport[]): string {
  const rows = points.flatMap((point, index) => point.disks.map((disk) => ({ index, disk })));
  return table(
    rows,
    [
      { title: 'point', right: true, cell: (row) => String(row.index + 1) },
      { title: 'disk', right: true, cell: (row) => String(row.disk.disk) },
      { title: 'type', cell: (row) => row.disk.type },
      { title: 'disk size', right: true, cell: (row) => size(row.disk.virtualBytes) },
      { title: 'read', right: true, cell: (row) => size(row.disk.readBytes) },
      { title: 'transferred', right: true, cell: (row) => size(row.disk.transferredBytes) },
      { title: 'rate', right: true, cell: (row) => rate(row.disk.bytesPerSecond) },
      { title: 'reduction', right: true, cell: (row) => reduction(row.disk.virtualBytes, row.disk.transferredBytes) },
      {
        title: 'restored disk',
        cell: (row) => (row.disk.identical ? 'identical' : `DIFFERENT: ${row.disk.difference ?? 'unknown'}`),
      },
    ],
    'no restore points',
  );
}
