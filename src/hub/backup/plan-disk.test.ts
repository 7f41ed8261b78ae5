import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planDisk } from './plan-disk.ts';
import type { PlanInput } from './plan-disk.ts';
import type { BackupJob } from '#/catalog/records.ts';
import { hasCode } from '#/lib/errors.ts';

const GIB = 1024 ** 3;

function input(changes: Partial<PlanInput> = {}, latest: Partial<BackupJob> | null = {}): PlanInput {
  const base = { id: 'b1', changeId: 'epoch/1', virtualBytes: GIB } as BackupJob;
  return {
    requested: 'auto',
    disk: { label: 'Hard disk 1', capacityBytes: GIB },
    chain: { totalBackups: 1, state: 'active' },
    latest: latest === null ? undefined : { ...base, ...latest },
    baseProblem: undefined,
    maxChain: 30,
    ...changes,
  };
}

test('a disk with a sound base is backed up incrementally upon its latest backup', () => {
  const plan = planDisk(input());
  assert.equal(plan.type, 'incremental');
  assert.equal(plan.parent?.id, 'b1');
});

const fulls: [string, PlanInput][] = [
  ['first', input({ chain: undefined }, null)],
  ['requested', input({ requested: 'full' })],
  ['no-change-id', input({}, { changeId: null })],
  ['capacity', input({}, { virtualBytes: GIB - 512 })],
  ['base-unusable', input({ baseProblem: 'the image is missing' })],
  ['chain-quarantined', input({ chain: { totalBackups: 2, state: 'quarantined' } })],
  ['chain-length', input({ chain: { totalBackups: 30, state: 'active' } })],
];

for (const [reason, given] of fulls) {
  test(`a disk is backed up in full for the reason ${reason}`, () => {
    const plan = planDisk(given);
    assert.equal(plan.type, 'full');
    assert.equal(plan.parent, null);
    assert.ok(plan.reason.startsWith(`${reason}:`), plan.reason);
  });
}

test('the last incremental that fits into the longest chain is still one', () => {
  assert.equal(planDisk(input({ chain: { totalBackups: 29, state: 'active' } })).type, 'incremental');
});

test('a demanded incremental without a base is refused with the reason', () => {
  assert.throws(
    () => planDisk(input({ requested: 'incremental', chain: undefined }, null)),
    (error) => hasCode(error, 'WRONG_STATE') && /first/.test((error as Error).message),
  );
});
