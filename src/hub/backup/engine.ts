/**
 * One backup of one VM, as eight steps. Everything opened on the way is a lease, so that failure and cancel at any
 * point undo it in reverse order: the replication is cancelled (which removes the snapshot), the exports are closed,
 * the unfinished folder is discarded. Only `complete` turns a folder into a restore point.
 *
 * A job that was running when the hub died comes here again with `resumed`: each step then finds what is recorded and
 * goes on with it, or throws, which cleans up.
 */
import type { Agents } from '../agents.ts';
import type { Exports } from '../export/exports.ts';
import type { JobRun } from '../jobs.ts';
import type { ProgressBoard } from '../progress.ts';
import type { Repositories } from '../repositories.ts';
import type { KeyRing } from '../secrets.ts';
import type { Catalog } from '#/catalog/catalog.ts';
import { startCapture } from './capture.ts';
import { complete, finishRenamed } from './complete.ts';
import { createImages, openExports } from './images.ts';
import { validate } from './validate.ts';
import { watch } from './watch.ts';

export interface BackupContext {
  catalog: Catalog;
  repositories: Repositories;
  exports: Exports;
  agents: Agents;
  progress: ProgressBoard;
  keys: KeyRing;
  /** Where agents report to; asked late because the port may be chosen by the system. */
  callbackUrl: () => string;
  limits: BackupLimits;
}

export interface BackupLimits {
  leaseSeconds: number;
  /** No byte moved for this long fails the job with STALLED. */
  stallMs: number;
  /** How long an agent may be unreachable before the job is given up. */
  agentGraceMs: number;
  parallelDisks: number;
  /** Longest chain; the next backup of the disk is a full. */
  maxChain: number;
}

export const DEFAULT_LIMITS: BackupLimits = {
  leaseSeconds: 120,
  stallMs: 300_000,
  agentGraceMs: 60_000,
  parallelDisks: 2,
  maxChain: 30,
};

export async function executeBackup(job: JobRun, ctx: BackupContext): Promise<void> {
  if (job.resumed && (await finishRenamed(job, ctx))) return; // the hub died between rename and commit
  const plan = await validate(job, ctx); //                                        1. validate
  await using repository = await ctx.repositories.open(plan.repository); //        2. get the repository
  await using images = await createImages(job, ctx, plan, repository); //          3. create the QCOW2 files
  await using exports = await openExports(job, ctx, plan, images); //              4. create the NBD exports
  await using capture = await startCapture(job, ctx, plan, exports); //            5. ask the agent
  //                                                                               6. track: rows exist since 1
  const replication = await watch(job, ctx, { plan, images, exports, capture }); // 7. follow progress
  await complete(job, ctx, { plan, images, exports, capture, replication }); //    8. complete
}
