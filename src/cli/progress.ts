/** Shows a running job: a live bar on a terminal, a plain line now and then in a pipe. It only draws; `follow` asks. */
import { clean, duration, rate, size, width } from './format.ts';
import type { DiskProgress, Job } from '#/api/job.ts';
import type { Out } from './context.ts';

export interface ProgressView {
  /** Draws what changed; cheap enough to be called for every answer of the hub. */
  update(job: Job): void;
  /** A line that stays, above the bar. */
  note(text: string): void;
  /** Takes the bar away. */
  close(): void;
}

const PLAIN_EVERY_MS = 5_000;
const STALL_SHOWN_MS = 10_000;
const BAR_CELLS = 24;
const MAX_DISK_LINES = 12;

export function openProgress(out: Out, nowMs: () => number = () => performance.now()): ProgressView {
  return out.isTTY ? new LiveBar(out) : new PlainLines(out, nowMs);
}

/** The bar drawn on an output, so that other lines go above it instead of through it. */
const live = new WeakMap<Out, ProgressView>();

/** A line that stays, whether or not a bar is being drawn there. */
export function say(out: Out, line: string): void {
  const view = live.get(out);
  if (view) view.note(line);
  else out.write(`${line}\n`);
}

/** Says nothing: for `--json` in a pipe. */
export function silentProgress(): ProgressView {
  return { update: () => undefined, note: () => undefined, close: () => undefined };
}

class LiveBar implements ProgressView {
  readonly #out: Out;
  #drawn = 0;

  constructor(out: Out) {
    this.#out = out;
    live.set(out, this);
  }

  update(job: Job): void {
    // A terminal that does not know its size says 0.
    const columns = Math.max(20, (this.#out.columns || 80) - 1);
    const lines = [summaryLine(job, bar(job)), ...diskLines(job)].map((line) => cut(line, columns));
    this.#out.write(`${this.#rewind()}${lines.join('\n')}\n`);
    this.#drawn = lines.length;
  }

  note(text: string): void {
    this.#out.write(`${this.#rewind()}${text}\n`);
    this.#drawn = 0;
  }

  close(): void {
    this.#out.write(this.#rewind());
    this.#drawn = 0;
    live.delete(this.#out);
  }

  #rewind(): string {
    return this.#drawn === 0 ? '' : `\u001B[${this.#drawn}A\u001B[0J`;
  }
}

class PlainLines implements ProgressView {
  readonly #out: Out;
  readonly #nowMs: () => number;
  #lastAt = Number.NEGATIVE_INFINITY;
  #lastStatus = '';
  #lastLine = '';

  constructor(out: Out, nowMs: () => number) {
    this.#out = out;
    this.#nowMs = nowMs;
  }

  update(job: Job): void {
    const at = this.#nowMs();
    if (job.status === this.#lastStatus && at - this.#lastAt < PLAIN_EVERY_MS) return;
    const line = summaryLine(job, '');
    if (line !== this.#lastLine) this.#out.write(`${line}\n`);
    this.#lastAt = at;
    this.#lastStatus = job.status;
    this.#lastLine = line;
  }

  note(text: string): void {
    this.#out.write(`${text}\n`);
  }

  close(): void {
    // Lines stay where they are.
  }
}

function summaryLine(job: Job, drawn: string): string {
  const parts = [`${job.kind} of ${clean(job.subject)}`, drawn, job.cancelRequested ? 'cancelling' : job.status];
  const { progress } = job;
  if (progress && job.status === 'copying') {
    if (progress.totalBytes !== null) {
      parts.push(`${percent(progress.doneBytes, progress.totalBytes)} %`);
      parts.push(`${size(progress.doneBytes)} of ${size(progress.totalBytes)}`);
    } else if (progress.doneBytes > 0) parts.push(size(progress.doneBytes));
    if (progress.idleMs >= STALL_SHOWN_MS) parts.push(`no byte for ${duration(progress.idleMs)}`);
    else if (progress.bytesPerSecond > 0) parts.push(rate(progress.bytesPerSecond));
    if (progress.etaSeconds !== null)
      parts.push(`ETA ${duration(Math.max(1, Math.round(progress.etaSeconds)) * 1000)}`);
  }
  return parts.filter((part) => part !== '').join('  ');
}

function diskLines(job: Job): string[] {
  const disks = job.progress?.disks ?? [];
  if (disks.length < 2) return [];
  const lines = disks.slice(0, MAX_DISK_LINES).map((disk) => `  ${diskLine(disk)}`);
  if (disks.length > MAX_DISK_LINES) lines.push(`  and ${disks.length - MAX_DISK_LINES} more disks`);
  return lines;
}

function diskLine(disk: DiskProgress): string {
  const moved = disk.totalBytes === null ? size(disk.doneBytes) : `${size(disk.doneBytes)} of ${size(disk.totalBytes)}`;
  return [clean(disk.label), disk.type ?? '', clean(disk.phase), moved].filter((part) => part !== '').join('  ');
}

function bar(job: Job): string {
  const total = job.progress?.totalBytes ?? null;
  const full = job.status === 'committing' || job.status === 'completed';
  const part = full ? 1 : total === null || total === 0 ? 0 : Math.min(1, (job.progress?.doneBytes ?? 0) / total);
  const cells = Math.floor(part * BAR_CELLS);
  return `[${'#'.repeat(cells)}${'.'.repeat(BAR_CELLS - cells)}]`;
}

/** Never says 100 before all is done. */
function percent(done: number, total: number): number {
  return total === 0 ? 100 : Math.min(100, Math.floor((done / total) * 100));
}

function cut(text: string, columns: number): string {
  if (width(text) <= columns) return text;
  let kept = '';
  let used = 0;
  for (const char of text) {
    const next = width(char);
    if (used + next > columns - 1) break;
    kept += char;
    used += next;
  }
  return `${kept}\u2026`;
}
