import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import type { Extent } from '#/lib/extents.ts';
import { atMost, normalize, queryChangedAreas } from './changed-areas.ts';
import { scriptedCaller } from './doubles.ts';
import { faultError, isFault } from './soap.ts';

const MIB = 1024 * 1024;
const QUERY = { vm: 'vm-1', snapshot: 'snapshot-1', deviceKey: 2000, changeId: 'e/1', capacityBytes: 10 * MIB };

interface Page {
  start: number | string;
  length: number | string;
  areas?: [start: number | string, length: number | string][];
}

function xmlOf({ start, length, areas = [] }: Page): string {
  const entries = areas.map(([s, l]) => `<changedArea><start>${s}</start><length>${l}</length></changedArea>`).join('');
  return `<returnval><startOffset>${start}</startOffset><length>${length}</length>${entries}</returnval>`;
}

/** Answers by the offset that was asked for; everything else is our mistake. */
function pages(byOffset: Record<number, Page>): ReturnType<typeof scriptedCaller> {
  return scriptedCaller(({ args }) => {
    const asked = args['startOffset'] as number;
    const page = byOffset[asked];
    assert.ok(page, `nobody should ask for ${asked}`);
    return xmlOf(page);
  });
}

test('the question names VM, snapshot, disk and base', async () => {
  const caller = pages({ 0: { start: 0, length: 10 * MIB } });
  assert.deepEqual(await queryChangedAreas(caller, QUERY), []);
  assert.deepEqual(caller.requests, [
    {
      target: { type: 'VirtualMachine', value: 'vm-1' },
      method: 'QueryChangedDiskAreas',
      args: {
        snapshot: { type: 'VirtualMachineSnapshot', value: 'snapshot-1' },
        deviceKey: 2000,
        changeId: 'e/1',
        startOffset: 0,
      },
    },
  ]);
});

test('pages are followed to the end of the disk and never past it', async () => {
  const caller = pages({
    0: { start: 0, length: 4 * MIB, areas: [[0, 65536]] },
    [4 * MIB]: { start: 4 * MIB, length: 6 * MIB, areas: [[9 * MIB, MIB]] },
  });
  assert.deepEqual(await queryChangedAreas(caller, QUERY), [
    { offset: 0, length: 65536 },
    { offset: 9 * MIB, length: MIB },
  ]);
});

test('a region that begins before what was asked for is taken for what it describes', async () => {
  const caller = pages({
    0: { start: 0, length: 3 * MIB, areas: [[MIB, MIB]] },
    [3 * MIB]: { start: 2 * MIB, length: 4 * MIB, areas: [[2 * MIB, 2 * MIB]] },
    // Adding lengths up would have skipped from 6 to 7 MiB.
    [6 * MIB]: { start: 6 * MIB, length: 4 * MIB, areas: [[6 * MIB, 512]] },
  });
  assert.deepEqual(await queryChangedAreas(caller, QUERY), [
    { offset: MIB, length: 3 * MIB },
    { offset: 6 * MIB, length: 512 },
  ]);
});

test('unsorted, overlapping, touching and empty areas become a plain list, cut at the end of the disk', async () => {
  const caller = pages({
    0: {
      start: 0,
      length: 16 * MIB,
      areas: [
        [8 * MIB, 64 * MIB],
        [512, 512],
        [0, 512],
        [300, 2048],
        [5 * MIB, 0],
        [4 * MIB, 512],
      ],
    },
  });
  assert.deepEqual(await queryChangedAreas(caller, QUERY), [
    { offset: 0, length: 2348 },
    { offset: 4 * MIB, length: 512 },
    { offset: 8 * MIB, length: 2 * MIB },
  ]);
});

const BROKEN: [what: string, byOffset: Record<number, Page>][] = [
  ['stands still', { 0: { start: 0, length: 0 } }],
  ['goes back', { 0: { start: 0, length: 4 * MIB }, [4 * MIB]: { start: 0, length: 4 * MIB } }],
  ['leaves a gap', { 0: { start: 0, length: 4 * MIB }, [4 * MIB]: { start: 5 * MIB, length: 5 * MIB } }],
  ['has no length', { 0: { start: 0, length: '' } }],
  ['has a length of more digits than a number holds', { 0: { start: 0, length: '9007199254740993' } }],
  ['has a negative length', { 0: { start: 0, length: -1 } }],
  ['has an area before the disk', { 0: { start: 0, length: 10 * MIB, areas: [[-512, 512]] } }],
  ['has an area of negative length', { 0: { start: 0, length: 10 * MIB, areas: [[512, -512]] } }],
  ['has an area past the disk', { 0: { start: 0, length: 10 * MIB, areas: [[10 * MIB, 512]] } }],
  ['has an area that is no number', { 0: { start: 0, length: 10 * MIB, areas: [['x', 512]] } }],
];

for (const [what, byOffset] of BROKEN) {
  test(`an answer that ${what} is refused`, async () => {
    await assert.rejects(queryChangedAreas(pages(byOffset), QUERY), (error) => isFault(error, 'MalformedAnswer'));
  });
}

test('an answer without a value is refused', async () => {
  const caller = scriptedCaller(() => '');
  await assert.rejects(queryChangedAreas(caller, QUERY), (error) => isFault(error, 'MalformedAnswer'));
});

function failing(fault: string, times: number): ReturnType<typeof scriptedCaller> {
  let left = times;
  return scriptedCaller(() => {
    if (left-- > 0) throw faultError('QueryChangedDiskAreas', { fault, message: '', fields: {} });
    return xmlOf({ start: 0, length: 10 * MIB });
  });
}

for (const fault of ['TaskInProgress', 'ConcurrentAccess', 'HostCommunication', 'HostNotConnected']) {
  test(`${fault} is asked again, five times in all`, async () => {
    const patient = failing(fault, 4);
    assert.deepEqual(await queryChangedAreas(patient, QUERY), []);
    assert.equal(patient.requests.length, 5);
    await assert.rejects(queryChangedAreas(failing(fault, 5), QUERY), (error) => isFault(error, fault));
  });
}

for (const fault of [
  'FileFault',
  'InvalidArgument',
  'NotFound',
  'NotSupported',
  'ManagedObjectNotFound',
  'NoPermission',
  'SystemError',
]) {
  test(`${fault} is not asked again`, async () => {
    const caller = failing(fault, 1);
    await assert.rejects(queryChangedAreas(caller, QUERY), (error) => isFault(error, fault));
    assert.equal(caller.requests.length, 1);
  });
}

test('an aborted question ends with the reason', async () => {
  const reason = new Error('enough');
  await assert.rejects(queryChangedAreas(failing('TaskInProgress', 9), QUERY, AbortSignal.abort(reason)), reason);
});

test('a list too long to hold becomes shorter by covering more, never less', () => {
  const areas = Array.from({ length: 1000 }, (_, i) => ({ offset: i * 300_032, length: 512 }));
  const fewer = atMost(areas, 100);
  assert.ok(fewer.length <= 100 && fewer.length > 0);
  for (const { offset, length } of areas) {
    assert.ok(fewer.some((extent) => extent.offset <= offset && offset + length <= extent.offset + extent.length));
  }
  assert.deepEqual(atMost(areas, 1000), areas);
});

test('normalizing keeps every byte, sorts and leaves no overlap', () => {
  const area = fc.record({ offset: fc.nat(500), length: fc.integer({ min: 1, max: 60 }) });
  fc.assert(
    fc.property(fc.array(area, { maxLength: 30 }), fc.nat(20), (areas, gap) => {
      const merged = normalize(areas, gap);
      const covered = (list: readonly Extent[], at: number): boolean =>
        list.some(({ offset, length }) => at >= offset && at < offset + length);
      for (let at = 0; at < 600; at++) {
        if (covered(areas, at)) assert.ok(covered(merged, at));
        else if (gap === 0) assert.ok(!covered(merged, at));
      }
      for (const [i, next] of merged.entries()) {
        const before = merged[i - 1];
        if (before) assert.ok(before.offset + before.length + gap < next.offset);
      }
    }),
  );
});
