import { sql } from 'kysely';
import type { Database } from './database.ts';

/** Conditions are joined by "and"; an empty scope is everything. */
export interface StatisticsScope {
  chainId?: string;
  vmId?: string;
  repositoryId?: string;
}

export interface Statistics {
  restorePoints: number;
  fulls: number;
  incrementals: number;
  chains: number;
  /** Backups in the longest chain, its full included. */
  longestChain: number;
  /** Sum of the disks' sizes over all backups: what fulls every time would have moved. */
  virtualBytes: number;
  changedBytes: number;
  transferredBytes: number;
  /** Bytes that the images take in the repository. */
  storedBytes: number;
  /** `virtualBytes / transferredBytes`; null while nothing was transferred. */
  reductionRatio: number | null;
  oldestAt: Temporal.Instant | null;
  newestAt: Temporal.Instant | null;
}

export async function readStatistics(on: Database, scope: StatisticsScope): Promise<Statistics> {
  let backups = on.db
    .selectFrom('backup_jobs as backup')
    .innerJoin('restore_points as point', 'point.id', 'backup.restore_point_id')
    .where('backup.status', '=', 'completed')
    .where('point.status', '=', 'completed');
  let chains = on.db.selectFrom('backup_chains');
  if (scope.chainId !== undefined) {
    backups = backups.where('backup.chain_id', '=', scope.chainId);
    chains = chains.where('id', '=', scope.chainId);
  }
  if (scope.vmId !== undefined) {
    backups = backups.where('point.vm_id', '=', scope.vmId);
    chains = chains.where('vm_id', '=', scope.vmId);
  }
  if (scope.repositoryId !== undefined) {
    backups = backups.where('point.repository_id', '=', scope.repositoryId);
    chains = chains.where('repository_id', '=', scope.repositoryId);
  }
  const sums = await backups
    .select((eb) => [
      eb.fn.count<number>('point.id').distinct().as('restorePoints'),
      eb.fn.count<number>(sql`CASE backup.type WHEN 'full' THEN 1 END`).as('fulls'),
      eb.fn.count<number>(sql`CASE backup.type WHEN 'incremental' THEN 1 END`).as('incrementals'),
      total('virtual_bytes').as('virtualBytes'),
      total('changed_bytes').as('changedBytes'),
      total('transferred_bytes').as('transferredBytes'),
      total('stored_bytes').as('storedBytes'),
      eb.fn.min<number | null>('point.completed_at').as('oldest'),
      eb.fn.max<number | null>('point.completed_at').as('newest'),
    ])
    .executeTakeFirstOrThrow();
  const { count, longest } = await chains
    .select((eb) => [eb.fn.countAll<number>().as('count'), eb.fn.max<number | null>('total_backups').as('longest')])
    .executeTakeFirstOrThrow();
  const { oldest, newest, ...rest } = sums;
  return {
    ...rest,
    chains: count,
    longestChain: longest ?? 0,
    reductionRatio: rest.transferredBytes > 0 ? rest.virtualBytes / rest.transferredBytes : null,
    oldestAt: oldest === null ? null : Temporal.Instant.fromEpochMilliseconds(oldest),
    newestAt: newest === null ? null : Temporal.Instant.fromEpochMilliseconds(newest),
  };
}

/** PostgreSQL adds bigints up to a numeric, which would come back as text. */
function total(column: string): ReturnType<typeof sql<number>> {
  return sql<number>`CAST(coalesce(sum(${sql.ref(`backup.${column}`)}), 0) AS bigint)`;
}
