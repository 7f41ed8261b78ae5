/**
 * One export and the storage daemon behind it, from the first start to the end: started or taken over, started again
 * alone when it dies, given up after several quick deaths, flushed and ended when the export goes. Nothing here waits
 * for, or is waited for by, any other export.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { ClosedExport, ExportEntry, ExportState } from '#/api/export-status.ts';
import { elapsedMs, now, sleep } from '#/lib/clock.ts';
import { SendenseError, toSendenseError } from '#/lib/errors.ts';
import type { Logger } from '#/lib/log.ts';
import { endProcess } from '#/qemu/processes.ts';
import { adoptStorageDaemon, removeStorageDaemonFiles, startStorageDaemon } from '#/qemu/storage-daemon.ts';
import type {
  FoundStorageDaemon,
  StorageDaemon,
  StorageDaemonFiles,
  StorageDaemonSpec,
} from '#/qemu/storage-daemon.ts';
import { aborted } from './aborted.ts';
import type { ExportSection, Refusal } from './config-d.ts';

/** Time to flush and go before SIGKILL. */
export const STOP_GRACE_MS = 10_000;
const QUICK_DEATH_MS = 10_000;
const QUICK_DEATHS = 5;
const FIRST_DELAY_MS = 100;
/** One writer, enforced by QEMU itself even for those who come by the unix socket. */
const MAX_WRITERS = 1;
const MAX_READERS = 16;

export interface ServedExportOptions {
  section: ExportSection;
  /** Folder of sockets, pid files and logs. */
  folder: string;
  log: Logger;
  /** Daemons already running under this export's file names. */
  found: FoundStorageDaemon[];
  /** The former holder of the name; the start waits for its end. */
  predecessor: Promise<unknown>;
  onChange: () => void;
}

export class ServedExport {
  section: ExportSection;
  /** Why the configuration file as it is now was not taken over. */
  stale: Refusal | undefined;
  /** Resolves, never rejects, when the export has been stopped. */
  readonly closed: Promise<ClosedExport>;
  readonly #options: ServedExportOptions;
  readonly #spec: StorageDaemonSpec;
  readonly #log: Logger;
  readonly #stop = new AbortController();
  readonly #sessions = new Set<() => void>();
  #state: ExportState = 'starting';
  #since = now();
  #reason: string | undefined;
  #restarts = 0;
  #daemon: StorageDaemon | undefined;
  #wake: () => void = () => undefined;

  constructor(options: ServedExportOptions) {
    const { section } = options;
    this.#options = options;
    this.section = section;
    this.#log = options.log.child({ export: section.name });
    this.#spec = {
      exportName: section.name,
      imagePath: section.imagePath,
      readOnly: section.readOnly,
      maxConnections: section.readOnly ? MAX_READERS : MAX_WRITERS,
      files: filesOf(options.folder, section.name),
    };
    this.closed = this.#live();
  }

  get state(): ExportState {
    return this.#state;
  }

  get socket(): string {
    return this.#spec.files.socket;
  }

  entry(): ExportEntry {
    const { file, name, imagePath, readOnly, agent } = this.section;
    const reason = this.stale
      ? `${this.stale.reason} (line ${this.stale.line}); the former definition goes on being served`
      : this.#reason;
    return {
      name,
      file,
      imagePath,
      readOnly,
      agent,
      sizeBytes: this.#daemon?.virtualSizeBytes ?? null,
      state: this.#state,
      pid: this.#daemon?.pid ?? null,
      socket: this.#state === 'serving' ? this.socket : null,
      restarts: this.#restarts,
      since: this.#since.toString(),
      ...(this.stale && { line: this.stale.line }),
      ...(reason !== undefined && { reason }),
    };
  }

  /**
   * Admits a session that is cut by `kick` when the export goes; `busy` when it has all the sessions it may have,
   * `down` when it is not being served. The session ends by disposal, which may happen twice.
   */
  enter(kick: () => void): Disposable | 'busy' | 'down' {
    if (this.#state !== 'serving') return 'down';
    if (this.#sessions.size >= this.#spec.maxConnections) return 'busy';
    const session = (): void => kick();
    this.#sessions.add(session);
    return { [Symbol.dispose]: (): void => void this.#sessions.delete(session) };
  }

  /** Asks for the end, see `closed`; repeating it is harmless. */
  stop(): void {
    this.#stop.abort(new SendenseError('CANCELLED', 'the export is being removed'));
  }

  /** Another try now, when it had been given up. */
  retry(): void {
    this.#wake();
  }

  async #live(): Promise<ClosedExport> {
    let closed: Pick<ClosedExport, 'outcome' | 'exitCode' | 'lastWords'> | undefined;
    let quickDeaths = 0;
    try {
      await this.#options.predecessor;
      while (!this.#stop.signal.aborted) {
        const begun = elapsedMs();
        const end = await this.#serve();
        if (typeof end !== 'string') {
          closed = end;
          break;
        }
        quickDeaths = elapsedMs() - begun < QUICK_DEATH_MS ? quickDeaths + 1 : 1;
        if (await this.#pause(end, quickDeaths)) quickDeaths = 0;
      }
      for (const found of this.#options.found) await endProcess(found.identity, STOP_GRACE_MS);
      await removeStorageDaemonFiles(this.#spec.files);
    } catch (error) {
      this.#log.error({ err: error }, 'the export could not be ended in order');
    }
    const { name, imagePath } = this.section;
    closed ??= { outcome: 'died', exitCode: null, lastWords: this.#reason ?? 'it was not being served' };
    this.#log.info({ ...closed }, 'export closed');
    return { name, imagePath, at: now().toString(), ...closed };
  }

  /** Serves until the export is stopped (then how it ended) or the daemon is gone (then why). */
  async #serve(): Promise<Pick<ClosedExport, 'outcome' | 'exitCode' | 'lastWords'> | string> {
    const { signal } = this.#stop;
    let daemon;
    try {
      daemon = await this.#obtain(signal);
    } catch (error) {
      return toSendenseError(error).message;
    }
    this.#daemon = daemon;
    this.#log.info({ daemonPid: daemon.pid, sizeBytes: daemon.virtualSizeBytes }, 'export is being served');
    this.#turn('serving');
    const exit = await Promise.race([daemon.exited, aborted(signal)]);
    if (!exit) this.#turn('stopping');
    for (const kick of this.#sessions) kick();
    this.#sessions.clear();
    const end = exit ? undefined : await daemon.stop(STOP_GRACE_MS);
    this.#daemon = undefined;
    if (end) return { outcome: end.outcome, exitCode: end.exitCode, lastWords: end.lastWords };
    const words = exit?.lastWords === '' ? 'without a word' : `with: ${exit?.lastWords}`;
    return `the storage daemon ${daemon.pid} died (${exit?.signal ?? `exit code ${exit?.exitCode ?? 'unknown'}`}) ${words}`;
  }

  async #obtain(signal: AbortSignal): Promise<StorageDaemon> {
    for (let found = this.#options.found.pop(); found; found = this.#options.found.pop()) {
      try {
        const daemon = await adoptStorageDaemon(this.#spec, found, signal);
        this.#log.info({ daemonPid: daemon.pid }, 'running storage daemon taken over');
        return daemon;
      } catch (error) {
        this.#log.warn(
          { err: error, daemonPid: found.identity.pid },
          'running storage daemon not taken over, ending it',
        );
        await endProcess(found.identity, STOP_GRACE_MS);
      }
    }
    const daemon = await startStorageDaemon(this.#spec, signal);
    const { sizeBytes } = this.section;
    if (sizeBytes === null || sizeBytes === daemon.virtualSizeBytes) return daemon;
    await daemon.stop(STOP_GRACE_MS);
    throw new SendenseError('DISK_MISMATCH', `it has ${daemon.virtualSizeBytes} bytes, expected are ${sizeBytes}`);
  }

  /** Waits before the next start; true when that start was asked for after giving up. */
  async #pause(reason: string, quickDeaths: number): Promise<boolean> {
    const { signal } = this.#stop;
    if (signal.aborted) return false;
    if (quickDeaths >= QUICK_DEATHS) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      this.#log.error({ reason }, 'export given up until the next reload');
      this.#turn('failed', reason);
      await Promise.race([promise, aborted(signal)]);
      if (!signal.aborted) this.#turn('starting');
      return true;
    }
    this.#restarts++;
    const delayMs = FIRST_DELAY_MS * 2 ** (quickDeaths - 1);
    this.#log.warn({ reason, delayMs, restarts: this.#restarts }, 'export lost its storage daemon, starting another');
    this.#turn('restarting', reason);
    await sleep(delayMs, signal).catch(() => undefined); // a stop ends the wait; the loop sees it
    return false;
  }

  #turn(state: ExportState, reason?: string): void {
    this.#state = state;
    this.#reason = reason;
    this.#since = now();
    this.#options.onChange();
  }
}

/** Short names, because the kernel takes no long ones for sockets. */
export function filesOf(folder: string, name: string): StorageDaemonFiles {
  const stem = join(folder, createHash('sha256').update(name).digest('hex').slice(0, 12));
  return { socket: `${stem}.sock`, qmp: `${stem}.qmp`, pidFile: `${stem}.pid`, log: `${stem}.log` };
}
