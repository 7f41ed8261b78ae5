import { sql } from 'kysely';
import { transaction } from './database.ts';
import type { Database } from './database.ts';
import { RUNNING } from './job-states.ts';
import type { Job } from './records.ts';
import { JOB } from './tables.ts';

/** Any fixed number of our own. Claims take turns under it, which makes the caps exact on PostgreSQL. */
const CLAIM_LOCK = 7_363_402;

export interface ClaimOptions {
  owner: string;
  leaseMs: number;
  kinds: readonly Job['kind'][];
}

/** See Jobs.claim. On SQLite the transaction itself is the turn: it begins with the write lock. */
export async function claimNext(on: Database, options: ClaimOptions): Promise<Job | undefined> {
  if (options.kinds.length === 0) return undefined;
  return transaction(on, async ({ db }) => {
    if (on.kind === 'postgres') await sql`SELECT pg_advisory_xact_lock(${sql.lit(CLAIM_LOCK)})`.execute(db);
    const now = on.now();
    const next = db
      .selectFrom('jobs as candidate')
      .select('candidate.id')
      .where('candidate.status', '=', 'queued')
      .where('candidate.run_at', '<=', now.epochMilliseconds)
      .where('candidate.kind', 'in', options.kinds)
      .where((eb) =>
        eb.not(
          eb.exists(
            eb
              .selectFrom('job_resources as wanted')
              .select('wanted.resource')
              .whereRef('wanted.job_id', '=', 'candidate.id')
              .where('wanted.cap', '<=', (inner) =>
                inner
                  .selectFrom('job_resources as held')
                  .innerJoin('jobs as running', 'running.id', 'held.job_id')
                  .select((count) => count.fn.countAll<number>().as('running'))
                  .whereRef('held.resource', '=', 'wanted.resource')
                  .where('running.status', 'in', RUNNING),
              ),
          ),
        ),
      )
      .orderBy('candidate.priority', 'desc')
      .orderBy('candidate.run_at')
      .orderBy('candidate.id')
      .limit(1);
    const row = await db
      .updateTable('jobs')
      .set(
        JOB.patch({
          status: 'preparing',
          leaseOwner: options.owner,
          leaseExpiresAt: now.add({ milliseconds: options.leaseMs }),
        }),
      )
      .set((eb) => ({
        attempt: eb('attempt', '+', 1),
        started_at: eb.fn.coalesce('started_at', eb.val(now.epochMilliseconds)),
      }))
      .where('id', '=', next)
      .where('status', '=', 'queued')
      .returning(JOB.names)
      .executeTakeFirst();
    return row && JOB.record(row);
  });
}
