/** The life of a job in words and pure functions; jobs.ts does it in SQL. */
import { SendenseError } from '#/lib/errors.ts';
import type { ErrorCode, ErrorDetails } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import type { Job, JobResource, JsonObject } from './records.ts';

/** The states of a job that somebody works on, in the only order it may go through them. */
export const RUNNING = ['preparing', 'snapshotting', 'copying', 'committing'] as const;
export type RunningStatus = (typeof RUNNING)[number];
export const OPEN = ['queued', ...RUNNING] as const;

/** Proof of holding a job, taken from the claimed record with leaseOf(). */
export interface Lease {
  jobId: string;
  attempt: number;
  owner: string;
}

/** A SendenseError fits. */
export interface Failure {
  code: ErrorCode;
  message: string;
  details?: ErrorDetails;
}

export type Outcome =
  | { status: 'completed'; result?: JsonObject }
  | { status: 'failed'; error: Failure }
  | { status: 'cancelled'; error?: Failure };

export interface NewJob {
  kind: Job['kind'];
  payload: JsonObject;
  createdBy: string;
  /** See Job.subjectKey. */
  subjectKey?: string;
  vmId?: string;
  priority?: number;
  runAt?: Temporal.Instant;
  /** 1 when left out: a job whose lease runs out fails instead of starting anew. */
  maxAttempts?: number;
  resources?: readonly JobResource[];
}

export function leaseOf(job: Job): Lease {
  if (job.leaseOwner === null) throw new SendenseError('LEASE_LOST', `job ${job.id} is not leased (${job.status})`);
  return { jobId: job.id, attempt: job.attempt, owner: job.leaseOwner };
}

export function newJob(given: NewJob, createdAt: Temporal.Instant): Job {
  return {
    id: newId(),
    kind: given.kind,
    status: 'queued',
    subjectKey: given.subjectKey ?? null,
    vmId: given.vmId ?? null,
    priority: given.priority ?? 0,
    runAt: given.runAt ?? createdAt,
    payload: given.payload,
    result: null,
    attempt: 0,
    maxAttempts: given.maxAttempts ?? 1,
    leaseOwner: null,
    leaseExpiresAt: null,
    cancelRequested: false,
    cancelReason: null,
    errorCode: null,
    errorMessage: null,
    errorDetails: null,
    createdAt,
    startedAt: null,
    finishedAt: null,
    createdBy: given.createdBy,
  };
}

export const QUEUED_AGAIN = { status: 'queued', leaseOwner: null, leaseExpiresAt: null } as const;

/** What the row of a job becomes at its end. */
export function ending(outcome: Outcome, finishedAt: Temporal.Instant): Partial<Job> {
  const error = outcome.status === 'completed' ? undefined : outcome.error;
  return {
    status: outcome.status,
    finishedAt,
    leaseOwner: null,
    leaseExpiresAt: null,
    result: (outcome.status === 'completed' ? outcome.result : undefined) ?? null,
    errorCode: error?.code ?? null,
    errorMessage: error?.message ?? null,
    errorDetails: error?.details ?? null,
  };
}
