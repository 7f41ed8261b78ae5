/**
 * The hub's side of the export daemon: one file per export in config.d, SIGHUP, and the daemon's status file for the
 * answer. An open export is a lease: disposing it removes the file and waits until the daemon has let go.
 */
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ExportStatus } from '#/api/export-status.ts';
import { SendenseError } from '#/lib/errors.ts';
import { writeFileDurably } from '#/lib/files.ts';
import { waitFor } from '#/lib/retry.ts';
import type { Logger } from '#/lib/log.ts';
import { connectNbd } from '#/nbd/client.ts';

const OPEN_TIMEOUT_MS = 30_000;
/** The daemon itself gives a storage daemon 10 s to end before it kills it. */
const CLOSE_TIMEOUT_MS = 30_000;

export interface ExportRequest {
  name: string;
  /** Absolute path of a QCOW2 image. */
  imagePath: string;
  readOnly: boolean;
  /** Certificate identity that may come in through the front door. */
  agent: string;
  virtualBytes: number;
}

export interface ExportsOptions {
  configDir: string;
  runDir: string;
  /** Address that agents on other machines use; null when there is no front door. */
  frontDoor: string | null;
  log: Logger;
}

export class Exports {
  readonly #options: ExportsOptions;

  constructor(options: ExportsOptions) {
    this.#options = options;
  }

  /**
   * Opens an export and waits until it answers with the disk's virtual size. Opening one that is open already with the
   * same content is harmless. EXPORT_REFUSED with the daemon's reason, EXPORT_UNAVAILABLE when nothing happens.
   */
  async open(request: ExportRequest, signal: AbortSignal): Promise<OpenExport> {
    const opened = new OpenExport(this, request.name);
    try {
      await mkdir(this.#options.configDir, { recursive: true });
      await writeFileDurably(this.#file(request.name), render(request), 0o640);
      await this.#reload();
      const socket = await this.#serving(request, signal);
      opened.localUri = `nbd+unix:///${request.name}?socket=${encodeURIComponent(socket)}`;
      opened.remoteUri = this.#options.frontDoor === null ? null : `nbds://${this.#options.frontDoor}/${request.name}`;
      await this.#probe(request, opened.localUri, signal);
      return opened;
    } catch (error) {
      await opened[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Removes an export by name and waits until its process is gone; true when it ended cleanly or was not there. */
  async close(name: string): Promise<boolean> {
    await rm(this.#file(name), { force: true });
    if ((await this.#daemonPid()) === undefined) return true; // the daemon will not find the file when it starts
    await this.#reload();
    return waitFor(
      `export ${name} to close`,
      async () => {
        const status = await this.#status();
        if (!status || status.exports.some((entry) => entry.name === name)) return undefined;
        const closed = status.closed.findLast((entry) => entry.name === name);
        return closed === undefined || closed.outcome === 'clean';
      },
      { timeoutMs: CLOSE_TIMEOUT_MS, everyMs: 10 },
    );
  }

  /** Names of all exports that are configured, for clean-up after a crash. */
  async configured(): Promise<string[]> {
    const files = await readdir(this.#options.configDir).catch(() => [] as string[]);
    return files.filter((file) => file.endsWith('.conf')).map((file) => file.slice(0, -'.conf'.length));
  }

  async #serving(request: ExportRequest, signal: AbortSignal): Promise<string> {
    try {
      return await waitFor(
        `export ${request.name}`,
        async () => {
          const entry = (await this.#status())?.exports.find((one) => one.name === request.name);
          if (entry?.state === 'refused' || entry?.state === 'failed') {
            const where = entry.line === undefined ? '' : ` line ${entry.line}`;
            throw new SendenseError('EXPORT_REFUSED', `${entry.file}${where}: ${entry.reason ?? 'refused'}`, {
              details: { export: request.name },
            });
          }
          const isOurs = entry?.state === 'serving' && entry.imagePath === request.imagePath;
          return isOurs && entry.sizeBytes === request.virtualBytes && entry.socket !== null ? entry.socket : undefined;
        },
        { timeoutMs: OPEN_TIMEOUT_MS, everyMs: 5, signal },
      );
    } catch (cause) {
      if (!(cause instanceof SendenseError) || cause.code !== 'TIMEOUT') throw cause;
      throw new SendenseError('EXPORT_UNAVAILABLE', `the export daemon did not bring up ${request.name}`, { cause });
    }
  }

  /** Asks the export itself: the status file says what the daemon believes, this is what an agent will see. */
  async #probe(request: ExportRequest, uri: string, signal: AbortSignal): Promise<void> {
    await using client = await connectNbd({ uri }, { signal, timeoutMs: OPEN_TIMEOUT_MS });
    if (client.sizeBytes === request.virtualBytes) return;
    throw new SendenseError(
      'DISK_MISMATCH',
      `export ${request.name} has ${client.sizeBytes} bytes instead of ${request.virtualBytes}`,
    );
  }

  async #reload(): Promise<void> {
    const pid = await this.#daemonPid();
    if (pid !== undefined) process.kill(pid, 'SIGHUP');
    // Without a daemon the file waits for it: `#serving` reports EXPORT_UNAVAILABLE if none comes.
  }

  async #daemonPid(): Promise<number | undefined> {
    const text = await readFile(join(this.#options.runDir, 'exportd.pid'), 'utf8').catch(() => '');
    const pid = Number.parseInt(text, 10);
    if (!Number.isSafeInteger(pid) || pid <= 1) return undefined;
    // A pid file outlives a killed daemon, and its number may by now belong to somebody else: SIGHUP would end that.
    const words = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    return words.split('\0').includes('exportd') ? pid : undefined;
  }

  async #status(): Promise<ExportStatus | undefined> {
    const path = join(this.#options.runDir, 'status.json');
    if (!(await stat(path).catch(() => undefined))) return undefined;
    return ExportStatus.parse(JSON.parse(await readFile(path, 'utf8')));
  }

  #file(name: string): string {
    return join(this.#options.configDir, `${name}.conf`);
  }
}

export class OpenExport implements AsyncDisposable {
  readonly name: string;
  localUri = '';
  remoteUri: string | null = null;
  readonly #exports: Exports;
  #closed: Promise<boolean> | undefined;

  constructor(exports: Exports, name: string) {
    this.#exports = exports;
    this.name = name;
  }

  /** EXPORT_FAILED when the storage daemon had to be killed or had died: then the image cannot be trusted. */
  async close(): Promise<void> {
    this.#closed ??= this.#exports.close(this.name);
    if (!(await this.#closed)) {
      throw new SendenseError('EXPORT_FAILED', `export ${this.name} did not end cleanly`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#exports.close(this.name);
    await this.#closed;
  }
}

function render(request: ExportRequest): string {
  return [
    `[${request.name}]`,
    `exportname = ${request.imagePath}`,
    `readonly = ${request.readOnly}`,
    `agent = ${request.agent}`,
    `size = ${request.virtualBytes}`,
    '',
  ].join('\n');
}
