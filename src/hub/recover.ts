/**
 * What the hub does first: the jobs that an earlier life of it left running are taken over and gone on with. Whether
 * that works the job itself finds out, and fails with a true reason otherwise; what it cannot clear away the janitor does.
 */
import type { JobRunner } from './jobs.ts';
import type { Catalog } from '#/catalog/catalog.ts';
import type { Logger } from '#/lib/log.ts';

const LEASE_MS = 30_000;

export interface RecoverOptions {
  catalog: Catalog;
  runner: JobRunner;
  hubId: string;
  log: Logger;
}

export async function recover({ catalog, runner, hubId, log }: RecoverOptions): Promise<void> {
  for (const job of await catalog.jobs.listOpen()) {
    if (job.status === 'queued') continue;
    const taken = await catalog.jobs.takeOver(job.id, { owner: hubId, leaseMs: LEASE_MS, from: hubId });
    if (!taken) continue; // another hub holds it
    log.warn({ jobId: job.id, status: job.status }, 'taking up a job that an earlier run of the hub has left');
    runner.adopt(taken);
  }
}
