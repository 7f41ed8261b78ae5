/**
 * Full or incremental for one disk, as far as the hub can know; pure. The agent has the last word when it sees the
 * snapshot, and only ever from incremental to full.
 */
import type { BackupType } from '#/api/common.ts';
import type { DiskFacts } from '#/api/vm.ts';
import type { BackupChain, BackupJob } from '#/catalog/records.ts';
import { SendenseError } from '#/lib/errors.ts';

export interface PlanInput {
  requested: BackupType;
  disk: Pick<DiskFacts, 'label' | 'capacityBytes'>;
  /** The disk's active chain in this repository and its latest completed backup. */
  chain: Pick<BackupChain, 'totalBackups' | 'state'> | undefined;
  latest: BackupJob | undefined;
  /** What is wrong with the image that an incremental would stand on; undefined when it is sound. */
  baseProblem: string | undefined;
  maxChain: number;
}

export interface DiskPlan {
  type: 'full' | 'incremental';
  reason: string;
  parent: BackupJob | null;
}

export function planDisk(input: PlanInput): DiskPlan {
  const why = whyFull(input);
  if (why === undefined && input.latest) {
    return {
      type: 'incremental',
      reason: 'changed-areas: changes since the latest restore point',
      parent: input.latest,
    };
  }
  if (input.requested === 'incremental') {
    throw new SendenseError(
      'WRONG_STATE',
      `${input.disk.label} cannot be backed up incrementally: ${why ?? 'no base'}`,
      {
        details: { disk: input.disk.label, reason: why ?? 'no base' },
      },
    );
  }
  return { type: 'full', reason: why ?? 'first: no backup of this disk in this repository yet', parent: null };
}

function whyFull({ requested, disk, chain, latest, baseProblem, maxChain }: PlanInput): string | undefined {
  if (requested === 'full') return 'requested: a full was asked for';
  if (!latest || !chain) return 'first: no backup of this disk in this repository yet';
  if (chain.state !== 'active') return `chain-${chain.state}: the chain may not grow any more`;
  if (latest.changeId === null) return 'no-change-id: the latest backup has no change id to go on from';
  if (latest.virtualBytes !== disk.capacityBytes) {
    return `capacity: the disk has ${disk.capacityBytes} bytes, its latest backup ${latest.virtualBytes}`;
  }
  if (baseProblem !== undefined) return `base-unusable: ${baseProblem}`;
  if (chain.totalBackups >= maxChain)
    return `chain-length: the chain has ${chain.totalBackups} backups, the limit is ${maxChain}`;
  return undefined;
}
