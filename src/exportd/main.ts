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
import { SendenseError, toSendenseError } from '#/lib/errors.ts';
import type { Logger } from '#/lib/log.ts';
import { aborted } from './aborted.ts';
import { planSections, sameDefinition } from './config-d.ts';
import type { ParsedConfig } from './config-d.ts';
import { judgeImage, readConfigFolder } from './config-folder.ts';
import { openFrontDoor } from './front-door.ts';
import type { FrontDoor } from './front-door.ts';
import { StatusFile, openRunFolder, readStatusFile } from './run-folder.ts';
import { Supervisor } from './supervisor.ts';

const LONGEST_TIMER_MS = 2 ** 31 - 1;

export interface ExportdOptions {
  configDir: string;
  /** Sockets, pid file, status file; made when missing, mode 0700. */
  runDir: string;
  /** `HOST:PORT` of the TLS front door; without it exports are reached by their unix sockets only. */
  listen?: string;
  /** Folder with ca-cert.pem, server-cert.pem and server-key.pem; goes with `listen`. */
  tlsDir?: string;
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
  // Without exports and front door nothing else would keep the process waiting for the next SIGHUP.
  const alive = setInterval(() => undefined, LONGEST_TIMER_MS);
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
    clearInterval(alive);
    process.off('SIGHUP', onHangup);
  }
}

class Exportd {
  readonly #options: ExportdOptions;
  readonly #status: StatusFile;
  readonly #startedAt = now().toString();
  #supervisor!: Supervisor;
  #frontDoor: FrontDoor | undefined;
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
    await daemon.#openFrontDoor();
    return daemon;
  }

  async #openFrontDoor(): Promise<void> {
    const { listen, tlsDir, log } = this.#options;
    if (listen === undefined && tlsDir === undefined) return;
    if (listen === undefined || tlsDir === undefined) {
      throw new SendenseError('CONFIG_INVALID', 'the front door needs both an address and a folder of certificates');
    }
    const find = this.#supervisor.find.bind(this.#supervisor);
    this.#frontDoor = await openFrontDoor({ listen, tlsDir, find, log });
    log.info({ address: this.#frontDoor.address }, 'front door is open');
  }

  /** Reads everything again, once more if asked for meanwhile. */
  reload(): void {
    this.#wanted = true;
    this.#reloading ??= this.#reload();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#frontDoor?.[Symbol.asyncDispose]();
    this.#frontDoor = undefined;
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
      problems.push(...(await this.#renewCertificates()));
      this.#generation++;
      this.#problems = problems;
      this.#status.changed();
    }
    this.#reloading = undefined;
  }

  async #renewCertificates(): Promise<string[]> {
    try {
      await this.#frontDoor?.reload();
      return [];
    } catch (error) {
      this.#options.log.error({ err: error }, 'the certificates were not renewed; the former ones stay');
      return [`the certificates were not renewed: ${toSendenseError(error).message}`];
    }
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
      frontDoor: this.#frontDoor?.address ?? null,
      problems: this.#problems,
      exports: this.#supervisor.entries(),
      closed: this.#supervisor.closed(),
    };
  }
}
