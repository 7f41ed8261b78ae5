/**
 * Clears up what ended jobs may have left behind when something died: snapshots at the source, exports, unfinished
 * folders. It acts only on what the catalog has on record as ours and as ended; everything else it leaves alone.
 */
import type { Agents } from './agents.ts';
import type { Exports } from './export/exports.ts';
import type { Repositories } from './repositories.ts';
import { isFinal } from '#/api/common.ts';
import type { Catalog } from '#/catalog/catalog.ts';
import type { Snapshot } from '#/catalog/records.ts';
import { hasCode, toSendenseError } from '#/lib/errors.ts';
import type { Logger } from '#/lib/log.ts';

const EVERY_MS = 15_000;

export interface JanitorOptions {
  catalog: Catalog;
  agents: Agents;
  exports: Exports;
  repositories: Repositories;
  log: Logger;
}

export class Janitor {
  readonly #options: JanitorOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #stopped = false;

  constructor(options: JanitorOptions) {
    this.#options = options;
  }

  start(): void {
    this.#turn();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  #turn(): void {
    this.#running = this.tidy().finally(() => {
      if (!this.#stopped) this.#timer = setTimeout(() => this.#turn(), EVERY_MS);
    });
  }

  /** One round; what fails is logged and tried again in the next. */
  async tidy(): Promise<void> {
    for (const step of [() => this.#exports(), () => this.#folders(), () => this.#snapshots()]) {
      try {
        await step();
      } catch (error) {
        this.#options.log.warn({ err: error }, 'tidying failed; it is tried again');
      }
    }
  }

  /** Exports of no open job. Names are looked up before the folder is read, so a new export is never taken for an old one. */
  async #exports(): Promise<void> {
    const { catalog, exports, log } = this.#options;
    for (const name of await exports.configured()) {
      const wanted = new Set<string>();
      for (const job of await catalog.jobs.listOpen()) {
        const point = await catalog.restorePoints.openForJob(job.id);
        for (const backup of point ? await catalog.backupJobs.listFor(point.id) : [])
          wanted.add(backup.exportName ?? '');
      }
      if (wanted.has(name)) continue;
      log.warn({ export: name }, 'removing the export of a job that has ended');
      await exports.close(name);
    }
  }

  async #folders(): Promise<void> {
    const { catalog, repositories, log } = this.#options;
    for (const record of await catalog.repositories.list()) {
      await using repository = await repositories.open(record);
      for (const { folder, pointId } of await repository.listUnfinished()) {
        const point = await catalog.restorePoints.get(pointId).catch((error: unknown) => {
          if (hasCode(error, 'NOT_FOUND')) return undefined; // not ours to judge
          throw error;
        });
        if (!point || !isFinal(point.status)) continue;
        log.warn({ folder, repository: record.name }, 'removing the unfinished folder of a job that has ended');
        await repository.removeUnfinished(folder);
      }
    }
  }

  async #snapshots(): Promise<void> {
    const { catalog, log } = this.#options;
    for (const snapshot of await catalog.snapshots.listOpen()) {
      if (!isFinal((await catalog.jobs.get(snapshot.jobId)).status)) continue;
      try {
        await this.#removeSnapshot(snapshot);
      } catch (error) {
        const why = toSendenseError(error).message;
        log.warn(
          { snapshot: snapshot.name, vm: snapshot.vmMoref, why },
          'a snapshot of an ended job is not removed yet',
        );
      }
    }
  }

  async #removeSnapshot(snapshot: Snapshot): Promise<void> {
    const { catalog, agents, log } = this.#options;
    const source = await catalog.sources.get(snapshot.sourceId);
    const agent = await agents.choose();
    const { vmMoref, name, moref } = snapshot;
    const { removed } = await agents.withSource(agent, source, (client) =>
      client.removeSnapshot({ body: { sourceId: source.id, vmMoref, name, moref } }),
    );
    await catalog.snapshots.markRemoved(snapshot.id);
    log.info({ snapshot: name, vm: vmMoref, removed }, 'snapshot of an ended job is gone');
  }
}
