/**
 * Step 5: the agent's part. The snapshot is on record before the agent is asked, so that whatever dies afterwards, a
 * snapshot of ours is never forgotten: the row stays `intended` or `live` until its removal is known.
 */
import type { AgentClient } from '../agents.ts';
import type { JobRun } from '../jobs.ts';
import type { BackupContext } from './engine.ts';
import type { DiskExports } from './images.ts';
import type { BackupPlan } from './validate.ts';
import type { Replication, ReplicateRequest } from '#/api/replication.ts';
import type { Snapshot } from '#/catalog/records.ts';
import { hasCode, SendenseError, toSendenseError } from '#/lib/errors.ts';
import { waitFor } from '#/lib/retry.ts';

/** Removing a snapshot is quick unless the guest wrote much meanwhile; then the janitor waits for it, not the job. */
const END_TIMEOUT_MS = 60_000;

export class Capture implements AsyncDisposable {
  readonly client: AgentClient;
  readonly #job: JobRun;
  readonly #ctx: BackupContext;
  #snapshot: Snapshot;
  readonly #jobId: string;

  constructor(job: JobRun, ctx: BackupContext, client: AgentClient, snapshot: Snapshot) {
    this.#job = job;
    this.#jobId = job.job.id;
    this.#ctx = ctx;
    this.client = client;
    this.#snapshot = snapshot;
  }

  get(signal?: AbortSignal): Promise<Replication> {
    return this.client.getReplication({ params: { replication: this.#jobId } }, signal);
  }

  async vmConfig(): Promise<string | null> {
    return (await this.client.getVmConfig({ params: { replication: this.#jobId } })).xml;
  }

  putTarget(diskUuid: string, uri: string): Promise<Replication> {
    return this.client.putTarget({ params: { replication: this.#jobId, disk: diskUuid }, body: { uri, type: 'full' } });
  }

  /** Keeps the snapshot's row as the agent reports it. */
  async track(replication: Replication): Promise<void> {
    const { snapshot } = replication;
    if (!snapshot) return;
    const { snapshots } = this.#ctx.catalog;
    if (this.#snapshot.state === 'intended' && snapshot.moref !== null) {
      this.#snapshot = await snapshots.markLive(this.#snapshot.id, snapshot.moref);
    }
    if (this.#snapshot.state !== 'removed' && snapshot.removed) {
      this.#snapshot = await snapshots.markRemoved(this.#snapshot.id);
    }
  }

  /**
   * The agent's work is over when this returns: cancelled if it had not ended, its snapshot removed. What the agent
   * cannot say now (it died, say) is left to the janitor, which has the row. Never throws: the job's own error counts.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      let replication = await this.get();
      if (!isEnded(replication) && !replication.dataComplete) {
        await this.client.cancelReplication({ params: { replication: this.#jobId } });
      }
      replication = await waitFor(
        'the replication to end',
        async () => {
          const state = await this.get();
          return isEnded(state) ? state : undefined;
        },
        { timeoutMs: END_TIMEOUT_MS, everyMs: 50 },
      );
      await this.track(replication);
      if (this.#snapshot.state === 'removed') return;
      await this.#job.log('capture', 'the snapshot is still there; its removal will be tried again', {}, 'warn');
    } catch (error) {
      if (hasCode(error, 'NOT_FOUND') && this.#snapshot.state === 'removed') return;
      const { message } = toSendenseError(error);
      await this.#job.log('capture', `the end of the agent's work is not known: ${message}`, {}, 'warn');
    }
  }
}

export async function startCapture(
  job: JobRun,
  ctx: BackupContext,
  plan: BackupPlan,
  exports: DiskExports,
): Promise<Capture> {
  const client = await ctx.agents.client(plan.agent);
  if (job.resumed) return takeUp(job, ctx, client);
  const snapshot = await ctx.catalog.snapshots.intend({
    jobId: job.job.id,
    sourceId: plan.source.id,
    vmMoref: plan.vm.moref,
    name: plan.snapshotName,
  });
  const capture = new Capture(job, ctx, client, snapshot);
  try {
    await job.status('snapshotting');
    const body = request(job, ctx, plan, exports);
    const started = await ctx.agents.withSource(plan.agent, plan.source, (one) => one.replicate({ body }, job.signal));
    await job.log('capture', `agent ${plan.agent.name} has taken the work`, { replication: started.id });
    return capture;
  } catch (error) {
    await capture[Symbol.asyncDispose]();
    throw error;
  }
}

async function takeUp(job: JobRun, ctx: BackupContext, client: AgentClient): Promise<Capture> {
  const [snapshot] = await ctx.catalog.snapshots.listOpen({ jobId: job.job.id });
  if (!snapshot) throw new SendenseError('HUB_RESTARTED', 'the hub stopped before the agent was asked');
  const capture = new Capture(job, ctx, client, snapshot);
  try {
    await capture.get(job.signal);
    return capture;
  } catch (cause) {
    if (!hasCode(cause, 'NOT_FOUND')) throw cause;
    throw new SendenseError('AGENT_LOST', 'hub and agent were both restarted while the job ran', { cause });
  }
}

function request(job: JobRun, ctx: BackupContext, plan: BackupPlan, exports: DiskExports): ReplicateRequest {
  return {
    jobId: job.job.id,
    sourceId: plan.source.id,
    vm: { moref: plan.vm.moref, instanceUuid: plan.vm.instanceUuid, name: plan.vm.name },
    snapshotName: plan.snapshotName,
    quiesce: plan.request.quiesce,
    disks: plan.disks.map(({ backup, parent }) => ({
      diskUuid: backup.diskUuid,
      key: backup.diskKey,
      capacityBytes: backup.virtualBytes,
      target: { uri: exports.uri(backup.diskUuid), type: backup.type },
      previous:
        parent?.changeId === undefined || parent.changeId === null
          ? null
          : { changeId: parent.changeId, capacityBytes: parent.virtualBytes },
    })),
    requestedType: plan.request.type,
    transport: 'auto',
    limits: { bytesPerSecond: plan.request.bytesPerSecond, parallelDisks: ctx.limits.parallelDisks },
    leaseSeconds: ctx.limits.leaseSeconds,
    callback: {
      url: `${ctx.callbackUrl()}/api/v1/callbacks/replications/${job.job.id}`,
      token: ctx.keys.token('callback', job.job.id),
    },
  };
}

function isEnded(replication: Replication): boolean {
  return replication.state === 'completed' || replication.state === 'failed' || replication.state === 'cancelled';
}
