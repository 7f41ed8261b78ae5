/** Which action is allowed in which state: one table for hub and clients, so that nobody offers what would be refused. */
import { isFinal } from './common.ts';
import type { Job } from './job.ts';
import type { RestorePoint } from './restore-point.ts';

export const can = {
  cancelJob: (job: Pick<Job, 'status' | 'cancelRequested'>): boolean => !isFinal(job.status) && !job.cancelRequested,
  restoreFrom: (point: Pick<RestorePoint, 'status'>): boolean => point.status === 'completed',
};
