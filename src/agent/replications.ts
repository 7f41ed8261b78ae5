/** All replications of this agent: running ones, and ended ones for as long as the hub may still ask for them. */
import { Reporter } from './reporter.ts';
import { replicate } from './replicate.ts';
import { ReplicationRun } from './replication.ts';
import type { Sources } from './sources.ts';
import type { ReplicateRequest } from '#/api/replication.ts';
import { now } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import type { Logger } from '#/lib/log.ts';

const KEEP_ENDED_MS = 3_600_000;

export interface ReplicationsOptions {
  sources: Sources;
  tlsDir: string | null;
  fetch: typeof fetch;
  log: Logger;
}

export class Replications {
  readonly #options: ReplicationsOptions;
  /** By job id: that is what makes a repeated request harmless. */
  readonly #runs = new Map<string, { run: ReplicationRun; done: Promise<void> }>();
  #stopping = false;

  constructor(options: ReplicationsOptions) {
    this.#options = options;
  }

  get running(): number {
    return [...this.#runs.values()].filter(({ run }) => !run.ended).length;
  }

  /** The same job id again returns the same replication. SOURCE_NOT_FOUND unless the hub has handed over the source. */
  async start(request: ReplicateRequest): Promise<ReplicationRun> {
    const session = await this.#options.sources.session(request.sourceId);
    const known = this.#runs.get(request.jobId);
    if (known) return known.run;
    if (this.#stopping) throw new SendenseError('BUSY', 'the agent is stopping');
    this.#forgetOld();
    const { log, tlsDir } = this.#options;
    const jobLog = log.child({ jobId: request.jobId });
    const { callback } = request;
    const reporter =
      callback === null ? undefined : new Reporter({ ...callback, fetch: this.#options.fetch, log: jobLog });
    const run = new ReplicationRun(request, reporter);
    jobLog.info({ vm: request.vm.name, disks: request.disks.length }, 'replication begins');
    const done = run
      .execute((one) => replicate(one, { session, tlsDir, log: jobLog }))
      .then(() => jobLog.info({ state: run.view().state, error: run.view().error }, 'replication has ended'));
    this.#runs.set(request.jobId, { run, done });
    return run;
  }

  /** By id or job id; NOT_FOUND after a restart of the agent, which is how the hub learns of it. */
  get(id: string): ReplicationRun {
    const byJob = this.#runs.get(id);
    if (byJob) return byJob.run;
    for (const { run } of this.#runs.values()) if (run.id === id) return run;
    throw new SendenseError('NOT_FOUND', `no replication ${id} in this agent`);
  }

  /** Cancels everything and waits until the snapshots are gone. */
  async stop(): Promise<void> {
    this.#stopping = true;
    for (const { run } of this.#runs.values()) run.cancel();
    await Promise.all([...this.#runs.values()].map(({ done }) => done));
  }

  #forgetOld(): void {
    const limit = now().epochMilliseconds - KEEP_ENDED_MS;
    for (const [jobId, { run }] of this.#runs) {
      if (run.finishedAt && run.finishedAt.epochMilliseconds < limit) this.#runs.delete(jobId);
    }
  }
}
