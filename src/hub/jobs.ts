/**
 * Runs the jobs of the catalog: claims one when a place is free, keeps its lease alive, hands a cancel to its signal and
 * records how it ended. A hub that stops without cancelling leaves its jobs as a crash would: the next start takes them
 * up again (see backup/recover.ts), so that restarting the hub never cuts a running copy.
 */
import type { JobKind } from '#/api/job.ts';
import type { Catalog } from '#/catalog/catalog.ts';
import type { Lease, RunningStatus } from '#/catalog/job-states.ts';
import type { Job, JobLogLine } from '#/catalog/records.ts';
import { sleep } from '#/lib/clock.ts';
import { hasCode, SendenseError, toSendenseError } from '#/lib/errors.ts';
import type { Logger } from '#/lib/log.ts';

const LEASE_MS = 30_000;
const HEARTBEAT_MS = 5_000;
const IDLE_POLL_MS = 1_000;

/** A claimed job in the hands of its executor. */
export interface JobRun {
  readonly job: Job;
  /** Names this attempt of this hub; every write that ends the job carries it. */
  readonly lease: Lease;
  /** Aborted with CANCELLED on request, with LEASE_LOST when another hub has taken the job over. */
  readonly signal: AbortSignal;
  /** The job ran before and its hub died: find what is recorded instead of making it anew. */
  readonly resumed: boolean;
  /** A line in the job's log and in the hub's. */
  log(step: string, message: string, data?: Record<string, unknown>, level?: JobLogLine['level']): Promise<void>;
  status(status: RunningStatus): Promise<void>;
}

/** Does the work and records its completion itself; what it throws is recorded as the job's error. */
export type Executor = (run: JobRun) => Promise<void>;

export interface JobRunnerOptions {
  catalog: Catalog;
  owner: string;
  executors: Record<JobKind, Executor>;
  /** Most jobs at once in this hub. */
  parallel: number;
  log: Logger;
}

export class JobRunner {
  readonly #options: JobRunnerOptions;
  readonly #running = new Map<string, { controller: AbortController; done: Promise<void> }>();
  readonly #stop = new AbortController();
  #wake: () => void = () => undefined;
  #loop: Promise<void> | undefined;

  constructor(options: JobRunnerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#loop = this.#claimForever();
  }

  /** Goes on with a job of an earlier life of this hub, which has been taken over. */
  adopt(job: Job): void {
    this.#begin(job, true);
  }

  /** Something was queued or a place became free. */
  wake(): void {
    this.#wake();
  }

  /** Makes a cancel that is in the catalog already take effect at once if the job runs here. */
  cancel(jobId: string): void {
    this.#running.get(jobId)?.controller.abort(new SendenseError('CANCELLED', 'cancelled on request'));
  }

  /** No more claims; running jobs are left as they are (`detach`) or cancelled and awaited (`cancel`). */
  async stop(how: 'detach' | 'cancel'): Promise<void> {
    this.#stop.abort();
    this.wake();
    await this.#loop;
    if (how === 'detach') return;
    const running = [...this.#running.values()];
    for (const one of running) one.controller.abort(new SendenseError('CANCELLED', 'the hub is being stopped'));
    await Promise.allSettled(running.map((one) => one.done));
  }

  async #claimForever(): Promise<void> {
    const { catalog, owner, executors, log } = this.#options;
    while (!this.#stop.signal.aborted) {
      try {
        const kinds = Object.keys(executors) as JobKind[];
        const free = this.#running.size < this.#options.parallel;
        const job = free ? await catalog.jobs.claim(owner, LEASE_MS, kinds) : undefined;
        if (job) this.#begin(job, false);
        else await this.#idle();
      } catch (error) {
        log.error({ err: error }, 'could not claim a job');
        await sleep(IDLE_POLL_MS);
      }
    }
  }

  async #idle(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, IDLE_POLL_MS);
    this.#wake = resolve;
    await promise;
    clearTimeout(timer);
  }

  #begin(job: Job, resumed: boolean): void {
    const controller = new AbortController();
    const lease = { jobId: job.id, attempt: job.attempt, owner: this.#options.owner };
    const run: JobRun = {
      job,
      lease,
      signal: controller.signal,
      resumed,
      log: (step, message, data, level = 'info') => this.#write(job, { step, message, data: data ?? null, level }),
      status: async (status) => void (await this.#options.catalog.jobs.setStatus(lease, status)),
    };
    const done = this.#execute(run, controller).finally(() => {
      this.#running.delete(job.id);
      this.wake();
    });
    this.#running.set(job.id, { controller, done });
  }

  async #execute(run: JobRun, controller: AbortController): Promise<void> {
    const executor = this.#options.executors[run.job.kind];
    const heartbeat = setInterval(() => void this.#heartbeat(run.lease, controller), HEARTBEAT_MS);
    try {
      if (run.job.cancelRequested) controller.abort(new SendenseError('CANCELLED', 'cancelled before it began'));
      run.signal.throwIfAborted();
      await executor(run);
    } catch (cause) {
      const reason: unknown = run.signal.reason;
      // What an aborted step throws is noise: the reason of the abort is what happened.
      const error = run.signal.aborted && reason instanceof SendenseError ? reason : toSendenseError(cause);
      await this.#failed(run, error, cause);
    } finally {
      clearInterval(heartbeat);
    }
  }

  async #failed(run: JobRun, error: SendenseError, cause: unknown): Promise<void> {
    const { log, catalog } = this.#options;
    const status = error.code === 'CANCELLED' ? 'cancelled' : 'failed';
    if (error.code === 'INTERNAL') log.error({ err: cause, jobId: run.job.id }, 'job hit a defect');
    try {
      await run.log('end', `${status}: ${error.message}`, { code: error.code, ...error.details }, 'error');
      const { code, message, details } = error;
      await catalog.jobs.finish(run.lease, { status, error: { code, message, details } });
    } catch (second) {
      // Somebody else holds the job then, or the catalog is out of reach and the lease will run out.
      log.error({ err: second, jobId: run.job.id }, 'could not record how the job ended');
    }
  }

  async #heartbeat(lease: Lease, controller: AbortController): Promise<void> {
    try {
      const beat = await this.#options.catalog.jobs.heartbeat(lease, LEASE_MS);
      if (beat.cancelRequested) controller.abort(new SendenseError('CANCELLED', 'cancelled on request'));
    } catch (error) {
      if (hasCode(error, 'LEASE_LOST')) controller.abort(error);
      else this.#options.log.warn({ err: error, jobId: lease.jobId }, 'heartbeat failed');
    }
  }

  async #write(job: Job, line: Pick<JobLogLine, 'step' | 'message' | 'data' | 'level'>): Promise<void> {
    this.#options.log[line.level]({ jobId: job.id, step: line.step, ...line.data }, line.message);
    await this.#options.catalog.jobLog.append({ jobId: job.id, ...line });
  }
}
