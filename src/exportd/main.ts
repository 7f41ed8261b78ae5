/**
 * The export daemon: serves the images that the files of its configuration folder name, each over NBD by a storage
 * daemon of its own, on unix sockets and through one TLS front door. SIGHUP reads the folder and the certificates
 * again. When it is killed the storage daemons go on, and the next start takes them over; when it is stopped they
 * are flushed and ended.
 *
 * It knows exports and nothing of virtual machines, jobs or chains. It does not judge what a client writes.
 */
import type { ExportStatus } from '#/api/export-status.ts';
import { now } from '#/lib/clock.ts';
import { toSendenseError } from '#/lib/errors.ts';
import type { Logger } from '#/lib/log.ts';
import { aborted } from './aborted.ts';
import { planSections, sameDefinition } from './config-d.ts';
import type { ParsedConfig } from './config-d.ts';
import { judgeImage, readConfigFolder } from './config-folder.ts';
import { StatusFile, openRunFolder, readStatusFile } from './run-folder.ts';
import { Supervisor } from './supervisor.ts';

export interface ExportdOptions {
  configDir: string;
  /** Sockets, pid file, status file; made when missing, mode 0700. */
  runDir: string;
  log: Logger;
  /** Ends the daemon and everything it serves, in order. */
  signal: AbortSignal;
}

/** Resolves when stopped. BUSY when one runs already on the run folder, CONFIG_INVALID for what cannot work at all. */
export async function runExportd(options: ExportdOptions): Promise<void> {
  const { log, signal } = options;
  let reloadWanted = (): void => undefined;
  const onHangup = (): void => reloadWanted();
  process.on('SIGHUP', onHangup);
  try {
    await using folder = await openRunFolder(options.runDir);
    const daemon = await Exportd.open(options, folder.sockets, folder.statusFile);
    reloadWanted = (): void => daemon.reload();
    daemon.reload();
    log.info({ configDir: options.configDir, runDir: options.runDir }, 'export daemon started');
    await aborted(signal);
    await daemon.stop();
    log.info('export daemon stopped');
  } finally {
    process.off('SIGHUP', onHangup);
  }
}

class Exportd {
  readonly #options: ExportdOptions;
  readonly #status: StatusFile;
  readonly #startedAt = now().toString();
  #supervisor!: Supervisor;
  #generation = 0;
  #problems: string[] = [];
  #stopped = false;
  #wanted = false;
  #reloading: Promise<void> | undefined;

  private constructor(options: ExportdOptions, statusFile: string) {
    this.#options = options;
    this.#status = new StatusFile(
      statusFile,
      () => this.#snapshot(),
      (error) => options.log.error({ err: error }, 'the status file could not be written'),
    );
  }

  static async open(options: ExportdOptions, sockets: string, statusFile: string): Promise<Exportd> {
    const daemon = new Exportd(options, statusFile);
    daemon.#supervisor = await Supervisor.open({
      folder: sockets,
      log: options.log,
      onChange: () => daemon.#status.changed(),
      earlier: await readStatusFile(statusFile),
    });
    return daemon;
  }

  /** Reads everything again, once more if asked for meanwhile. */
  reload(): void {
    this.#wanted = true;
    this.#reloading ??= this.#reload();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#reloading;
    await this.#supervisor.stop();
    this.#status.changed();
    await this.#status.written();
  }

  async #reload(): Promise<void> {
    while (this.#wanted && !this.#stopped) {
      this.#wanted = false;
      const problems: string[] = [];
      try {
        const read = await readConfigFolder(this.#options.configDir);
        const judged = await Promise.all(read.map(async (parsed) => this.#judge(parsed)));
        if (!this.#stopped) this.#supervisor.apply(planSections(this.#supervisor.sections, judged));
      } catch (error) {
        const { message } = toSendenseError(error);
        this.#options.log.error({ err: error }, 'the configuration was not read; everything goes on as it was');
        problems.push(`the configuration was not read: ${message}`);
      }
      this.#generation++;
      this.#problems = problems;
      this.#status.changed();
    }
    this.#reloading = undefined;
  }

  /** Images already in use are not looked at again: what they are was settled when they were opened. */
  async #judge(parsed: ParsedConfig): Promise<ParsedConfig> {
    if ('reason' in parsed) return parsed;
    const served = this.#supervisor.find(parsed.section.name);
    if (served && sameDefinition(served.section, parsed.section)) return parsed;
    return judgeImage(parsed.section);
  }

  #snapshot(): ExportStatus {
    return {
      generation: this.#generation,
      pid: this.#stopped ? null : process.pid,
      startedAt: this.#startedAt,
      frontDoor: null,
      problems: this.#problems,
      exports: this.#supervisor.entries(),
      closed: this.#supervisor.closed(),
    };
  }
}
