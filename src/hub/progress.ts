/** What running jobs last said of themselves; memory only, the catalog gets a copy every few seconds. */
import type { DiskProgress, Progress } from '#/api/job.ts';
import type { Replication } from '#/api/replication.ts';

export class ProgressBoard {
  readonly #progress = new Map<string, Progress>();
  readonly #reports = new Map<string, Replication>();
  readonly #waiting = new Map<string, () => void>();

  get(jobId: string): Progress | null {
    return this.#progress.get(jobId) ?? null;
  }

  set(jobId: string, progress: Progress): void {
    this.#progress.set(jobId, progress);
  }

  /** A report that an agent sent by itself; wakes whoever follows the job. */
  report(jobId: string, replication: Replication): void {
    this.#reports.set(jobId, replication);
    this.#waiting.get(jobId)?.();
  }

  /** Resolves with true at the next report, or with false after `timeoutMs` or an abort. */
  async reported(jobId: string, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => resolve(false), timeoutMs);
    const onAbort = (): void => resolve(false);
    signal.addEventListener('abort', onAbort, { once: true });
    this.#waiting.set(jobId, () => resolve(true));
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      this.#waiting.delete(jobId);
    }
  }

  /** The report sent since the last call, if any. */
  take(jobId: string): Replication | undefined {
    const report = this.#reports.get(jobId);
    this.#reports.delete(jobId);
    return report;
  }

  forget(jobId: string): void {
    this.#progress.delete(jobId);
    this.#reports.delete(jobId);
  }
}

/** Progress of a replication as clients see it. */
export function toProgress(replication: Replication, labels: ReadonlyMap<string, string>): Progress {
  const disks: DiskProgress[] = replication.disks.map((disk) => ({
    diskUuid: disk.diskUuid,
    label: labels.get(disk.diskUuid) ?? disk.diskUuid,
    phase: disk.phase,
    totalBytes: disk.changedBytes,
    doneBytes: disk.writtenBytes + disk.zeroBytes,
    type: disk.type,
  }));
  const known = disks.every((disk) => disk.totalBytes !== null);
  const totalBytes = known ? disks.reduce((sum, disk) => sum + (disk.totalBytes ?? 0), 0) : null;
  const doneBytes = disks.reduce((sum, disk) => sum + disk.doneBytes, 0);
  const bytesPerSecond = replication.disks.reduce((sum, disk) => sum + disk.bytesPerSecond, 0);
  const copying = replication.disks.filter((disk) => disk.phase === 'copying' || disk.phase === 'flushing');
  return {
    totalBytes,
    doneBytes,
    bytesPerSecond,
    etaSeconds:
      totalBytes === null || bytesPerSecond <= 0 ? null : Math.max(0, totalBytes - doneBytes) / bytesPerSecond,
    idleMs: copying.length === 0 ? 0 : Math.min(...copying.map((disk) => disk.idleMs)),
    disks,
  };
}
