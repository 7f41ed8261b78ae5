/**
 * A disk as it was at one instant, readable by many readers at once. Every transport (NBD, datastore, VDDK …) is one
 * implementation and proves itself with the suite in conformance.ts. A source promises nothing about consistency of
 * the guest's data: that is the snapshot's doing. It never writes.
 */
import type { Extent, KnownExtent } from '#/lib/extents.ts';

export interface DiskSource extends AsyncDisposable {
  /** Capacity of the disk, a multiple of 512; does not change while the source is open. */
  readonly sizeBytes: number;

  /** Name of the transport as people see it, such as `nbd` or `datastore`. */
  readonly transport: string;

  /** Number of reads worth having in flight; more are allowed and wait. At least 1. */
  readonly parallel: number;

  /** Longest read that `read` accepts, a multiple of 64 KiB. */
  readonly maxReadBytes: number;

  /**
   * Fills `target` whole with the bytes at `offset`; may be called again before earlier calls have ended, and
   * answers may come in any order. Rejects with READ_FAILED for a range not wholly on the disk or longer than
   * `maxReadBytes` and for every failure of the transport, with the signal's reason when aborted, soon in either case.
   * Once it has settled it never touches `target` again.
   */
  read(offset: number, target: Buffer, signal: AbortSignal): Promise<void>;

  /**
   * What is known about `range` without reading it: extents in order of offset, without gap or overlap, that cover
   * exactly `range`. Absent when the transport cannot tell. Rejects like `read`.
   */
  allocation?(range: Extent, signal: AbortSignal): AsyncIterable<KnownExtent>;

  /** Ends every read still running with an error, then frees connections; repeating it is harmless. */
  [Symbol.asyncDispose](): Promise<void>;
}
