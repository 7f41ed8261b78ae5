/**
 * The queue of dispatched work. A job is claimed by one owner under a lease; every later write of that owner names
 * job, attempt and owner, so that whoever lost the lease can change nothing. Caps over several resources hold exactly,
 * also between processes, because claims take turns.
 */
import type { JobStatus } from '#/api/common.ts';
import { SendenseError } from '#/lib/errors.ts';
import { claimNext } from './claim.ts';
import { transaction } from './database.ts';
import type { Database } from './database.ts';
import { endUnfinishedPoints } from './end-points.ts';
import { ending, leaseOf, newJob, OPEN, QUEUED_AGAIN, RUNNING } from './job-states.ts';
import type { Failure, Lease, NewJob, Outcome, RunningStatus } from './job-states.ts';
import { pageLimit, pageOf } from './paging.ts';
import type { Page, PageOptions } from './paging.ts';
import type { Job, JobResource } from './records.ts';
import { JOB } from './tables.ts';

export interface JobFilter extends PageOptions {
  status?: JobStatus;
  kind?: Job['kind'];
  vmId?: string;
  open?: boolean;
}

export class Jobs {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  /** BUSY, with `jobId` in the details, while another job of the kind is open for the same subject. */
  async enqueue(given: NewJob): Promise<Job> {
    const job = newJob(given, this.#on.now());
    // The job in the way may end between our two looks; then we simply try again.
    for (let look = 0; look < 3; look++) {
      const { numInsertedOrUpdatedRows } = await this.#on.db
        .insertInto('jobs')
        .values(JOB.row(job))
        .onConflict((conflict) => conflict.doNothing())
        .executeTakeFirst();
      if (numInsertedOrUpdatedRows === 1n) {
        const resources = (given.resources ?? []).map((resource) => ({ job_id: job.id, ...resource }));
        if (resources.length > 0) await this.#on.db.insertInto('job_resources').values(resources).execute();
        return job;
      }
      const running = await this.#openFor(given.kind, given.subjectKey ?? '');
      if (running) {
        throw new SendenseError('BUSY', `a ${given.kind} of this is already ${running.status}`, {
          details: { jobId: running.id, status: running.status },
        });
      }
    }
    throw new SendenseError('BUSY', `other ${given.kind} jobs of this come and go`);
  }

  /**
   * Takes the most urgent queued job of these kinds whose resources are all free and moves it to `preparing`; undefined
   * when there is none.
   */
  async claim(owner: string, leaseMs: number, kinds: readonly Job['kind'][]): Promise<Job | undefined> {
    return claimNext(this.#on, { owner, leaseMs, kinds });
  }

  /** Renews the lease and tells whether to stop; LEASE_LOST when the job is no longer ours. */
  async heartbeat(lease: Lease, leaseMs: number): Promise<{ cancelRequested: boolean; cancelReason: string | null }> {
    const job = await this.#write(lease, { leaseExpiresAt: this.#on.now().add({ milliseconds: leaseMs }) });
    return { cancelRequested: job.cancelRequested, cancelReason: job.cancelReason };
  }

  /** Moves a running job forward; WRONG_STATE backwards, LEASE_LOST when it is no longer ours. */
  async setStatus(lease: Lease, status: RunningStatus): Promise<Job> {
    const job = await this.fence(lease);
    if (RUNNING.indexOf(job.status as RunningStatus) > RUNNING.indexOf(status)) {
      throw new SendenseError('WRONG_STATE', `job ${job.id} cannot go back from ${job.status} to ${status}`, {
        details: { from: job.status, to: status },
      });
    }
    return this.#write(lease, { status });
  }

  /** Passes when the lease holds, and keeps the job's row locked for the rest of the transaction; else LEASE_LOST. */
  async fence(lease: Lease): Promise<Job> {
    return this.#write(lease, { leaseOwner: lease.owner });
  }

  /**
   * Ends the job. What it left unfinished (restore points and their disks) ends with it, failed or cancelled: nothing
   * stays "copying" that nobody copies. A job completes only when all it began is finished, else WRONG_STATE.
   */
  async finish(lease: Lease, outcome: Outcome): Promise<Job> {
    return transaction(this.#on, async (inside) => {
      const jobs = new Jobs(inside);
      await jobs.fence(lease);
      await endUnfinishedPoints(inside, lease.jobId, outcome);
      return jobs.#write(lease, ending(outcome, inside.now()));
    });
  }

  /** Gives a running job back to the queue, to be claimed again at `runAt`. WRONG_STATE after its last attempt. */
  async release(lease: Lease, runAt: Temporal.Instant): Promise<Job> {
    const job = await this.fence(lease);
    if (job.attempt >= job.maxAttempts) {
      throw new SendenseError('WRONG_STATE', `job ${job.id} has used its ${job.maxAttempts} attempts`);
    }
    return this.#write(lease, { ...QUEUED_AGAIN, runAt });
  }

  /** A queued job ends at once; a running one is told by its next heartbeat. WRONG_STATE when it has ended. */
  async requestCancel(id: string, reason: string): Promise<Job> {
    return transaction(this.#on, async (inside) => {
      const jobs = new Jobs(inside);
      const asked = { cancelRequested: true, cancelReason: reason };
      const queued = await jobs.#patch(id, ['queued'], { ...asked, ...ending({ status: 'cancelled' }, inside.now()) });
      if (queued) {
        await endUnfinishedPoints(inside, id, { status: 'cancelled' });
        return queued;
      }
      const running = await jobs.#patch(id, RUNNING, asked);
      if (running) return running;
      const { status } = await jobs.get(id);
      throw new SendenseError('WRONG_STATE', `job ${id} is ${status} already`, { details: { jobId: id, status } });
    });
  }

  /**
   * Takes over a running job whose lease has run out, or that `from` held (an earlier life of the same hub): the new
   * owner adopts the work or cleans up and finishes it. Undefined when the job is not to be had.
   */
  async takeOver(id: string, options: { owner: string; leaseMs: number; from?: string }): Promise<Job | undefined> {
    const now = this.#on.now();
    const row = await this.#on.db
      .updateTable('jobs')
      .set(JOB.patch({ leaseOwner: options.owner, leaseExpiresAt: now.add({ milliseconds: options.leaseMs }) }))
      .set((eb) => ({ attempt: eb('attempt', '+', 1), max_attempts: eb('max_attempts', '+', 1) }))
      .where('id', '=', id)
      .where('status', 'in', RUNNING)
      .where((eb) =>
        eb.or([eb('lease_expires_at', '<=', now.epochMilliseconds), eb('lease_owner', '=', options.from ?? null)]),
      )
      .returning(JOB.names)
      .executeTakeFirst();
    return row && JOB.record(row);
  }

  /**
   * Ends, or queues again while attempts are left, every running job whose lease has run out, with LEASE_EXPIRED as the
   * reason; returns them as they are now, for whoever cleans up after them.
   */
  async reapExpired(): Promise<Job[]> {
    const now = this.#on.now();
    const expired = await this.#on.db
      .selectFrom('jobs')
      .select(['id', 'attempt', 'lease_owner', 'max_attempts', 'cancel_requested'])
      .where('status', 'in', RUNNING)
      .where('lease_expires_at', '<=', now.epochMilliseconds)
      .execute();
    const reaped: Job[] = [];
    for (const row of expired) {
      const error: Failure = {
        code: 'LEASE_EXPIRED',
        message: `nothing was heard of ${row.lease_owner} past its lease`,
      };
      const job = await this.takeOver(row.id, { owner: 'reaper', leaseMs: 60_000 });
      if (!job) continue;
      const outcome: Outcome =
        row.cancel_requested === 1 ? { status: 'cancelled', error } : { status: 'failed', error };
      const again = row.cancel_requested === 0 && row.attempt < row.max_attempts;
      reaped.push(again ? await this.#queueAgain(leaseOf(job), error) : await this.finish(leaseOf(job), outcome));
    }
    return reaped;
  }

  /** NOT_FOUND. */
  async get(id: string): Promise<Job> {
    const row = await this.#on.db.selectFrom('jobs').select(JOB.names).where('id', '=', id).executeTakeFirst();
    if (!row) throw new SendenseError('NOT_FOUND', `no job ${id}`, { details: { job: id } });
    return JOB.record(row);
  }

  /** Newest first. */
  async list(filter: JobFilter = {}): Promise<Page<Job>> {
    let query = this.#on.db.selectFrom('jobs').select(JOB.names);
    if (filter.status !== undefined) query = query.where('status', '=', filter.status);
    if (filter.kind !== undefined) query = query.where('kind', '=', filter.kind);
    if (filter.vmId !== undefined) query = query.where('vm_id', '=', filter.vmId);
    if (filter.open !== undefined) query = query.where('finished_at', filter.open ? 'is' : 'is not', null);
    if (filter.cursor !== undefined) query = query.where('id', '<', filter.cursor);
    const rows = await query
      .orderBy('id', 'desc')
      .limit(pageLimit(filter) + 1)
      .execute();
    return pageOf(
      rows.map((row) => JOB.record(row)),
      filter,
      (job) => job.id,
    );
  }

  /** Every job that has not ended, oldest first. */
  async listOpen(): Promise<Job[]> {
    const rows = await this.#on.db
      .selectFrom('jobs')
      .select(JOB.names)
      .where('status', 'in', OPEN)
      .orderBy('id')
      .execute();
    return rows.map((row) => JOB.record(row));
  }

  async resources(id: string): Promise<JobResource[]> {
    const query = this.#on.db.selectFrom('job_resources').select(['resource', 'cap']).where('job_id', '=', id);
    const rows = await query.orderBy('resource').execute();
    return rows.map(({ resource, cap }) => ({ resource, cap }));
  }

  async #openFor(kind: Job['kind'], subjectKey: string): Promise<{ id: string; status: JobStatus } | undefined> {
    return this.#on.db
      .selectFrom('jobs')
      .select(['id', 'status'])
      .where('kind', '=', kind)
      .where('subject_key', '=', subjectKey)
      .where('status', 'in', OPEN)
      .executeTakeFirst();
  }

  async #queueAgain(lease: Lease, error: Failure): Promise<Job> {
    await endUnfinishedPoints(this.#on, lease.jobId, { status: 'failed', error });
    return this.#write(lease, { ...QUEUED_AGAIN, runAt: this.#on.now() });
  }

  async #patch(id: string, statuses: readonly JobStatus[], patch: Partial<Job>): Promise<Job | undefined> {
    const row = await this.#on.db
      .updateTable('jobs')
      .set(JOB.patch(patch))
      .where('id', '=', id)
      .where('status', 'in', statuses)
      .returning(JOB.names)
      .executeTakeFirst();
    return row && JOB.record(row);
  }

  async #write(lease: Lease, patch: Partial<Job>): Promise<Job> {
    const row = await this.#on.db
      .updateTable('jobs')
      .set(JOB.patch(patch))
      .where('id', '=', lease.jobId)
      .where('attempt', '=', lease.attempt)
      .where('lease_owner', '=', lease.owner)
      .where('status', 'in', RUNNING)
      .returning(JOB.names)
      .executeTakeFirst();
    if (row) return JOB.record(row);
    throw new SendenseError('LEASE_LOST', `job ${lease.jobId} is no longer held by ${lease.owner}`, {
      details: { jobId: lease.jobId, attempt: lease.attempt },
    });
  }
}
