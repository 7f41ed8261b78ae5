import { refuseTarget } from '../restore/disks.ts';
import { jobViews } from '../views.ts';
import type { HubContext, Some } from './context.ts';
import { can } from '#/api/can.ts';
import type { Job } from '#/api/job.ts';
import type { RestorePayload } from '#/api/payload.ts';
import type { BackupJob, Job as JobRecord } from '#/catalog/records.ts';
import { SendenseError } from '#/lib/errors.ts';

type Names = 'listJobs' | 'getJob' | 'getJobLog' | 'cancelJob' | 'restoreDisk' | 'reportReplication';

export function jobRoutes({ catalog, runner, progress }: HubContext): Some<Names> {
  const view = async (job: JobRecord): Promise<Job> => {
    const [only] = await jobViews(catalog, progress, [job]);
    if (!only) throw new SendenseError('INTERNAL', 'a job without a view');
    return only;
  };
  return {
    listJobs: async ({ query }) => {
      const { items, nextCursor } = await catalog.jobs.list({
        limit: query.limit,
        ...(query.status !== undefined && { status: query.status }),
        ...(query.vm !== undefined && { vmId: (await catalog.vms.get(query.vm)).id }),
        ...(query.open !== undefined && { open: query.open }),
        ...(query.cursor !== undefined && { cursor: query.cursor }),
      });
      return { items: await jobViews(catalog, progress, items), nextCursor };
    },

    getJob: async ({ params }) => view(await catalog.jobs.get(params.job)),

    getJobLog: async ({ params, query }) => {
      const job = await catalog.jobs.get(params.job);
      const lines = await catalog.jobLog.list(job.id, query);
      return { items: lines.map((line) => ({ ...line, time: line.time.toString() })) };
    },

    cancelJob: async ({ params }) => {
      const job = await catalog.jobs.requestCancel(params.job, 'requested through the API');
      runner.cancel(job.id);
      return view(job);
    },

    restoreDisk: async ({ body }) => {
      const point = await catalog.restorePoints.get(body.restorePoint);
      if (!can.restoreFrom(point)) {
        throw new SendenseError(
          'WRONG_STATE',
          `restore point ${point.id} is ${point.status}; only a completed one can be restored`,
        );
      }
      const backup = chooseDisk(await catalog.backupJobs.listFor(point.id), body.disk);
      await refuseTarget(body);
      await catalog.backupJobs.parentsToFull(backup.id); // CHAIN_BROKEN before anything is begun
      const payload: RestorePayload = {
        restorePointId: point.id,
        backupId: backup.id,
        path: body.path,
        format: body.format,
        overwrite: body.overwrite,
      };
      const job = await catalog.jobs.enqueue({
        kind: 'restore',
        payload,
        createdBy: 'api',
        vmId: point.vmId,
        subjectKey: body.path,
      });
      runner.wake();
      return view(job);
    },

    reportReplication: async ({ params, body }) => {
      const job = await catalog.jobs.get(params.job);
      if (body.jobId !== job.id) throw new SendenseError('INVALID_REQUEST', 'the report is about another job');
      // A report of a job that has ended is late, not wrong; nobody waits for it.
      if (job.finishedAt === null) progress.report(job.id, body);
      return { accepted: true };
    },
  };
}

/** By index, uuid or label. */
function chooseDisk(disks: readonly BackupJob[], ref: string | undefined): BackupJob {
  const [only] = disks;
  if (ref === undefined) {
    if (only && disks.length === 1) return only;
    throw new SendenseError('AMBIGUOUS', `the restore point has ${disks.length} disks: say which one`);
  }
  const found = disks.find((disk) => [String(disk.diskIndex), disk.diskUuid, disk.label].includes(ref));
  if (found) return found;
  const labels = disks.map((disk) => `${disk.diskIndex} (${disk.label})`).join(', ');
  throw new SendenseError('DISK_NOT_FOUND', `no disk ${ref} in the restore point; it has ${labels}`);
}
