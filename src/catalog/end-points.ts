import { SendenseError } from '#/lib/errors.ts';
import type { Database } from './database.ts';
import { OPEN } from './job-states.ts';
import type { Outcome } from './job-states.ts';
import { BACKUP_JOB, RESTORE_POINT } from './tables.ts';

/** Gives the job's unfinished restore points and disks its end; a job that completes may not have any (WRONG_STATE). */
export async function endUnfinishedPoints(on: Database, jobId: string, outcome: Outcome): Promise<void> {
  const rows = await on.db
    .selectFrom('restore_points')
    .select('id')
    .where('job_id', '=', jobId)
    .where('status', 'in', OPEN)
    .execute();
  if (rows.length === 0) return;
  if (outcome.status === 'completed') {
    throw new SendenseError('WRONG_STATE', `job ${jobId} cannot complete: its restore point is unfinished`);
  }
  const ids = rows.map(({ id }) => id);
  const end = {
    status: outcome.status,
    completedAt: on.now(),
    errorCode: outcome.error?.code ?? null,
    errorMessage: outcome.error?.message ?? null,
  };
  // A disk that has said what is wrong with it keeps its own words.
  const { errorCode, errorMessage, ...rest } = end;
  await on.db
    .updateTable('backup_jobs')
    .set(BACKUP_JOB.patch(rest))
    .set((eb) => ({
      error_code: eb.fn.coalesce('error_code', eb.val(errorCode)),
      error_message: eb.fn.coalesce('error_message', eb.val(errorMessage)),
    }))
    .where('restore_point_id', 'in', ids)
    .where('status', 'in', OPEN)
    .execute();
  await on.db.updateTable('restore_points').set(RESTORE_POINT.patch(end)).where('id', 'in', ids).execute();
}
