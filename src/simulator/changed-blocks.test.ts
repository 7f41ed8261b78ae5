import assert from 'node:assert/strict';
import { appendFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ChangeLog, formatChangeId, judgeChangeId, newEpoch, pageOfAreas, parseChangeId } from './changed-blocks.ts';
import { ExtentSet } from './extent-set.ts';

const EPOCH = '52 2d 7b 8f ac 61 51 cc-77 4c 7b ec 91 50 bb 7b';
const OTHER = '52 2d 7b 8f ac 61 51 cc-77 4c 7b ec 91 50 bb 7c';

test('a change id is judged by its form, its epoch and its place before the snapshot', () => {
  const at = { epoch: EPOCH, seq: 4 };
  const cases: [changeId: string, snapshot: typeof at | undefined, expected: object][] = [
    [`${EPOCH}/3`, at, { kind: 'since', seq: 3 }],
    [`${EPOCH}/4`, at, { kind: 'since', seq: 4 }],
    [`${EPOCH}/5`, at, { kind: 'stale' }],
    [`${OTHER}/3`, at, { kind: 'stale' }],
    [`${EPOCH}/3`, undefined, { kind: 'stale' }],
    ['*', at, { kind: 'all' }],
    ['*', undefined, { kind: 'stale' }],
    ['', at, { kind: 'malformed' }],
    [EPOCH, at, { kind: 'malformed' }],
    [`${EPOCH}/`, at, { kind: 'malformed' }],
    [`${EPOCH}/-1`, at, { kind: 'malformed' }],
    [`${EPOCH}/1e3`, at, { kind: 'malformed' }],
    [`${EPOCH.toUpperCase()}/3`, at, { kind: 'malformed' }],
    [`${EPOCH} /3`, at, { kind: 'malformed' }],
  ];
  for (const [changeId, snapshot, expected] of cases) {
    assert.deepEqual(judgeChangeId(changeId, snapshot), expected, changeId);
  }
});

test('a new epoch has the form of a host, and an id made of it is read back', () => {
  const state = { epoch: newEpoch(), seq: 12 };
  assert.deepEqual(judgeChangeId(formatChangeId(state), state), { kind: 'since', seq: 12 });
  assert.deepEqual(parseChangeId(formatChangeId(state)), state);
  assert.notEqual(newEpoch(), newEpoch());
});

test('an answer ends at the region, at the number of areas or at the end of the disk, whichever comes first', () => {
  const areas = ExtentSet.of([
    { offset: 0, length: 10 },
    { offset: 20, length: 10 },
    { offset: 90, length: 10 },
  ]);
  const cases: [start: number, regionBytes: number, maxAreas: number, length: number, areas: [number, number][]][] = [
    [
      0,
      1000,
      9,
      100,
      [
        [0, 10],
        [20, 10],
        [90, 10],
      ],
    ],
    [
      0,
      50,
      9,
      50,
      [
        [0, 10],
        [20, 10],
      ],
    ],
    [
      0,
      25,
      9,
      25,
      [
        [0, 10],
        [20, 5],
      ],
    ],
    [0, 1000, 1, 20, [[0, 10]]],
    [20, 1000, 1, 70, [[20, 10]]],
    [90, 1000, 1, 10, [[90, 10]]],
    [5, 10, 9, 10, [[5, 5]]],
    [40, 20, 9, 20, []],
  ];
  for (const [start, regionBytes, maxAreas, length, expected] of cases) {
    const page = pageOfAreas(areas, start, { capacityBytes: 100, regionBytes, maxAreas });
    assert.deepEqual([page.startOffset, page.length], [start, length]);
    assert.deepEqual(
      page.areas.map((area) => [area.offset, area.length]),
      expected,
    );
  }
});

test('the log tells what was written between two ids in a chain, also read anew with its last record cut short', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'sendense-log-'));
  try {
    const path = join(dir, 'a.changes');
    await using log = new ChangeLog(path);
    await log.note(1, 2, [{ offset: 0, length: 512 }]);
    await log.note(1, 3, [
      { offset: 512, length: 512 },
      { offset: 4096, length: 512 },
    ]);
    await log.note(2, 4, [{ offset: 8192, length: 512 }]);
    await log.note(3, 4, [{ offset: 9216, length: 512 }]);
    await appendFile(path, Buffer.alloc(13, 1));
    const sizes = async (one: ChangeLog): Promise<number[]> => [
      (await one.between([1], 2, 3)).bytes,
      (await one.between([1, 2], 1, 4)).bytes,
      (await one.between([1, 3], 3, 4)).bytes,
      (await one.between([1, 2, 3], 4, 4)).bytes,
    ];
    await using again = new ChangeLog(path);
    for (const one of [log, again]) assert.deepEqual(await sizes(one), [1024, 2048, 512, 0]);
    await again.merge(2, 1);
    await again.forget(3);
    await using changed = new ChangeLog(path);
    for (const one of [again, changed]) assert.deepEqual(await sizes(one), [1024, 2048, 512, 0]);
    assert.deepEqual([...(await changed.between([1], 3, 4))], [{ offset: 8192, length: 512 }]);
    assert.equal((await changed.between([2, 3], 0, 9)).bytes, 0);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
