/**
 * All exports of the daemon. `apply` decides in one go what is started, stopped, changed and left alone, and returns
 * at once: each export then goes its own way, so one that is slow to go holds nobody up.
 */
import type { ClosedExport, ExportEntry, ExportStatus } from '#/api/export-status.ts';
import { now } from '#/lib/clock.ts';
import type { Logger } from '#/lib/log.ts';
import { endProcess } from '#/qemu/processes.ts';
import { findStorageDaemons } from '#/qemu/storage-daemon.ts';
import type { FoundStorageDaemon } from '#/qemu/storage-daemon.ts';
import { diffSections } from './config-d.ts';
import type { ExportSection, Plan, Refusal } from './config-d.ts';
import { STOP_GRACE_MS, ServedExport, filesOf } from './served-export.ts';

const MAX_CLOSED = 512;

export interface SupervisorOptions {
  /** Sockets, pid files and logs of the storage daemons. */
  folder: string;
  log: Logger;
  /** Called after every change of what `entries` and `closed` say. */
  onChange: () => void;
  earlier?: ExportStatus | undefined;
}

export class Supervisor {
  readonly #folder: string;
  readonly #log: Logger;
  readonly #onChange: () => void;
  readonly #exports = new Map<string, ServedExport>();
  /** Exports that are on their way out, by name; a new one of that name waits for them. */
  readonly #leaving = new Map<string, ServedExport>();
  readonly #closed: ClosedExport[] = [];
  #found: FoundStorageDaemon[] = [];
  /** What an earlier run was serving when it ended without order. */
  #orphaned: ExportEntry[] = [];
  readonly #endings = new Set<Promise<void>>();
  #sections: ReadonlyMap<string, ExportSection> = new Map();
  #refused: { refusal: Refusal; since: Temporal.Instant }[] = [];

  private constructor(folder: string, log: Logger, onChange: () => void) {
    this.#folder = folder;
    this.#log = log;
    this.#onChange = onChange;
  }

  /**
   * Knows the daemons that an earlier run left in `folder`; the first `apply` takes them over or ends them. `earlier`
   * is that run's last status: what it served and nobody wants any more gets its entry among the closed ones.
   */
  static async open(options: SupervisorOptions): Promise<Supervisor> {
    const supervisor = new Supervisor(options.folder, options.log, options.onChange);
    for (const entry of options.earlier?.closed ?? []) supervisor.#remember(entry);
    supervisor.#orphaned = options.earlier?.exports.filter((entry) => entry.state !== 'refused') ?? [];
    supervisor.#found = await findStorageDaemons(options.folder);
    return supervisor;
  }

  /** What is configured now, by file. */
  get sections(): ReadonlyMap<string, ExportSection> {
    return this.#sections;
  }

  find(name: string): ServedExport | undefined {
    return this.#exports.get(name);
  }

  apply(plan: Plan): void {
    const diff = diffSections(this.#sections.values(), plan.sections.values());
    for (const section of [...diff.removed, ...diff.changed]) this.#remove(section.name);
    for (const section of [...diff.added, ...diff.changed]) this.#add(section);
    for (const section of diff.kept) {
      const kept = this.#exports.get(section.name);
      if (!kept) continue;
      kept.section = section;
      kept.retry();
    }
    this.#sections = plan.sections;
    for (const served of this.#exports.values()) served.stale = plan.stale.get(served.section.file);
    this.#refuse(plan);
    this.#endStrays();
    const { added, removed, changed, kept } = diff;
    const counts = { added: added.length, removed: removed.length, changed: changed.length, kept: kept.length };
    this.#log.info({ ...counts, refused: plan.refused.length, stale: plan.stale.size }, 'configuration read');
    this.#onChange();
  }

  entries(): ExportEntry[] {
    const leaving = [...this.#leaving.values()].filter((served) => !this.#exports.has(served.section.name));
    return [
      ...[...this.#exports.values(), ...leaving].map((served) => served.entry()),
      ...this.#refused.map(refusedEntry),
    ];
  }

  closed(): ClosedExport[] {
    return [...this.#closed];
  }

  /** Resolves when every export is flushed, closed and its process gone. */
  async stop(): Promise<void> {
    for (const name of this.#exports.keys()) this.#remove(name);
    this.#endStrays();
    await Promise.all([...[...this.#leaving.values()].map((served) => served.closed), ...this.#endings]);
  }

  #add(section: ExportSection): void {
    const { pidFile } = filesOf(this.#folder, section.name);
    const mine = this.#found.filter((found) => found.pidFile === pidFile);
    this.#found = this.#found.filter((found) => found.pidFile !== pidFile);
    const served = new ServedExport({
      section,
      folder: this.#folder,
      log: this.#log,
      found: mine,
      predecessor: this.#leaving.get(section.name)?.closed ?? Promise.resolve(),
      onChange: this.#onChange,
    });
    this.#exports.set(section.name, served);
  }

  #remove(name: string): void {
    const served = this.#exports.get(name);
    if (!served) return;
    this.#exports.delete(name);
    this.#leaving.set(name, served);
    served.stop();
    void served.closed.then((closed) => {
      if (this.#leaving.get(name) === served) this.#leaving.delete(name);
      this.#remember(closed);
      this.#onChange();
    });
  }

  #refuse(plan: Plan): void {
    const before = new Map(this.#refused.map((entry) => [JSON.stringify(entry.refusal), entry.since]));
    this.#refused = plan.refused.map((refusal) => {
      return { refusal, since: before.get(JSON.stringify(refusal)) ?? now() };
    });
    for (const refusal of plan.refused) this.#log.error({ ...refusal }, 'export file refused');
    for (const refusal of plan.stale.values()) {
      this.#log.error({ ...refusal }, 'export file refused; its former definition goes on being served');
    }
  }

  /** Daemons of an earlier run that no file wants any more, and what that run served and is gone. */
  #endStrays(): void {
    const gone = this.#orphaned.splice(0).filter((entry) => entry.name !== null && !this.#exports.has(entry.name));
    for (const found of this.#found.splice(0)) {
      const entry = gone.find(({ pid }) => pid === found.identity.pid);
      if (entry) gone.splice(gone.indexOf(entry), 1);
      const ending = this.#endStray(found, entry).catch((error: unknown) => {
        this.#log.error({ err: error, daemonPid: found.identity.pid }, 'the storage daemon could not be ended');
      });
      this.#endings.add(ending);
      void ending.then(() => this.#endings.delete(ending));
    }
    for (const entry of gone) this.#rememberOrphan(entry, 'died', 'gone when the export daemon came back');
  }

  async #endStray({ identity, pidFile }: FoundStorageDaemon, entry: ExportEntry | undefined): Promise<void> {
    this.#log.warn({ daemonPid: identity.pid, pidFile }, 'ending a storage daemon that no file names');
    const outcome = await endProcess(identity, STOP_GRACE_MS);
    if (entry) this.#rememberOrphan(entry, outcome, 'ended by the next run of the export daemon');
    this.#onChange();
  }

  #rememberOrphan(entry: ExportEntry, outcome: ClosedExport['outcome'], lastWords: string): void {
    const { name, imagePath } = entry;
    if (name === null || imagePath === null) return;
    this.#remember({ name, imagePath, outcome, exitCode: null, at: now().toString(), lastWords });
  }

  #remember(entry: ClosedExport): void {
    this.#closed.push(entry);
    if (this.#closed.length > MAX_CLOSED) this.#closed.shift();
  }
}

function refusedEntry({ refusal, since }: { refusal: Refusal; since: Temporal.Instant }): ExportEntry {
  return {
    name: refusal.name,
    file: refusal.file,
    imagePath: null,
    readOnly: null,
    agent: null,
    sizeBytes: null,
    state: 'refused',
    pid: null,
    socket: null,
    restarts: 0,
    since: since.toString(),
    line: refusal.line,
    reason: refusal.reason,
  };
}
