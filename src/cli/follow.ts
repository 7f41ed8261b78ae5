/**
 * Follows a job to its end. The job lives in the hub: an interrupted command leaves it running unless it was asked to
 * cancel it, and a hub that restarts is waited for.
 */
import { fromWire, hasCode, SendenseError } from '#/lib/errors.ts';
import { sleep } from '#/lib/clock.ts';
import { isFinal } from '#/api/common.ts';
import type { Job } from '#/api/job.ts';
import type { Context } from './context.ts';
import type { HubClient } from './discovery.ts';
import { openProgress, silentProgress } from './progress.ts';
import type { ProgressView } from './progress.ts';

const POLL_FIRST_MS = 100;
const POLL_MAX_MS = 1_000;
const HUB_AWAY_MS = 60_000;
const CANCEL_WAIT_MS = 60_000;

export interface FollowOptions {
  /** Cancel the job when this command is interrupted. */
  cancelOnInterrupt?: boolean;
}

/** The job in a final state. Throws CANCELLED when the command is interrupted, HUB_UNREACHABLE when the hub stays away. */
export async function follow(
  context: Context,
  hub: HubClient,
  jobId: string,
  options: FollowOptions = {},
): Promise<Job> {
  const quiet = context.json && !context.io.stderr.isTTY;
  const view = quiet ? silentProgress() : openProgress(context.io.stderr);
  try {
    return await poll(hub, jobId, view, context.signal);
  } catch (error) {
    if (!context.signal.aborted) throw error;
    if (!options.cancelOnInterrupt) {
      throw new SendenseError(
        'CANCELLED',
        `stopped watching; job ${jobId} goes on: \`sendense job watch ${jobId}\` follows it, \`sendense job cancel ${jobId}\` ends it`,
        { details: { job: jobId } },
      );
    }
    view.note('cancelling the job');
    await cancel(hub, jobId);
    return await poll(hub, jobId, view, AbortSignal.timeout(CANCEL_WAIT_MS));
  } finally {
    view.close();
  }
}

/** The error that a finished job ends its command with; undefined for a completed one. */
export function jobError(job: Job): SendenseError | undefined {
  if (job.status === 'completed') return undefined;
  if (job.error) return fromWire(job.error, 'INTERNAL');
  if (job.status === 'cancelled') return new SendenseError('CANCELLED', `job ${job.id} was cancelled`);
  return new SendenseError('INTERNAL', `job ${job.id} ended as ${job.status} without a reason`);
}

async function poll(hub: HubClient, jobId: string, view: ProgressView, signal: AbortSignal): Promise<Job> {
  let waitMs = POLL_FIRST_MS;
  let awaySince: number | undefined;
  for (;;) {
    try {
      const job = await hub.getJob({ params: { job: jobId } }, signal);
      awaySince = undefined;
      view.update(job);
      if (isFinal(job.status)) return job;
    } catch (error) {
      if (!hasCode(error, 'HUB_UNREACHABLE')) throw error;
      if (awaySince === undefined) view.note('the hub does not answer; waiting for it');
      awaySince ??= performance.now();
      if (performance.now() - awaySince > HUB_AWAY_MS) throw error;
    }
    await sleep(waitMs, signal);
    waitMs = Math.min(waitMs * 1.5, POLL_MAX_MS);
  }
}

async function cancel(hub: HubClient, jobId: string): Promise<void> {
  try {
    await hub.cancelJob({ params: { job: jobId } });
  } catch (error) {
    // It ended in the meantime: its final state is what is asked for next.
    if (!hasCode(error, 'WRONG_STATE')) throw error;
  }
}
