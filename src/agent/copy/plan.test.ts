import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import type { Extent, KnownExtent } from '#/lib/extents.ts';
import { endOf } from '#/lib/extents.ts';
import { BLOCK_BYTES, MAX_ZERO_BYTES, blockAreas, planSteps } from './plan.ts';
import type { Areas, Step } from './plan.ts';

const K = 1024;
const TiB = K ** 4;

async function blocks(areas: Areas, sizeBytes: number): Promise<string[]> {
  return (await Array.fromAsync(blockAreas(areas, sizeBytes))).map((e) => `${e.offset / K}k+${e.length / K}k`);
}

async function* stream<T>(items: T[]): AsyncGenerator<T> {
  yield* items;
}

test('areas are rounded outwards, merged and clamped to the disk', async () => {
  const table: [string, Extent[], number, string[]][] = [
    ['nothing', [], 1024 * K, []],
    ['an empty area', [{ offset: 5, length: 0 }], 1024 * K, []],
    ['one byte', [{ offset: 65 * K, length: 1 }], 1024 * K, ['64k+64k']],
    ['across a border', [{ offset: 64 * K - 1, length: 2 }], 1024 * K, ['0k+128k']],
    [
      'touching',
      [
        { offset: 0, length: 64 * K },
        { offset: 64 * K, length: 1 },
      ],
      1024 * K,
      ['0k+128k'],
    ],
    [
      'one inside the other',
      [
        { offset: 0, length: 256 * K },
        { offset: 1, length: 1 },
      ],
      1024 * K,
      ['0k+256k'],
    ],
    [
      'apart',
      [
        { offset: 0, length: 1 },
        { offset: 128 * K, length: 1 },
      ],
      1024 * K,
      ['0k+64k', '128k+64k'],
    ],
    [
      'out of order',
      [
        { offset: 128 * K, length: 1 },
        { offset: 0, length: 1 },
      ],
      1024 * K,
      ['0k+64k', '128k+64k'],
    ],
    ['a short last block', [{ offset: 64 * K, length: 1 }], 64.5 * K, ['64k+0.5k']],
    [
      'past the end',
      [
        { offset: 0, length: TiB },
        { offset: TiB, length: 1 },
      ],
      100 * K,
      ['0k+100k'],
    ],
    ['a disk of one sector', [{ offset: 0, length: 512 }], 512, ['0k+0.5k']],
  ];
  for (const [name, areas, sizeBytes, expected] of table) {
    assert.deepEqual(await blocks(areas, sizeBytes), expected, name);
  }
});

test('a stream of areas is taken in ascending order and refused otherwise', async () => {
  const ascending = [
    { offset: 0, length: 1 },
    { offset: 64 * K, length: 1 },
  ];
  assert.deepEqual(await blocks(stream(ascending), TiB), ['0k+128k']);
  await assert.rejects(blocks(stream(ascending.toReversed()), TiB), { code: 'SOURCE_FAULT' });
});

test('areas that are no ranges of bytes are refused', async () => {
  for (const area of [
    { offset: -1, length: 2 },
    { offset: 0, length: -1 },
    { offset: 0.5, length: 1 },
    { offset: NaN, length: 1 },
    { offset: 2 ** 53, length: 1 },
  ]) {
    await assert.rejects(blocks([area], TiB), { code: 'SOURCE_FAULT' }, JSON.stringify(area));
  }
});

test('a full read of 64 TiB is planned as it is consumed', async () => {
  const plan = planSteps([{ offset: 0, length: 64 * TiB }], { sizeBytes: 64 * TiB, requestBytes: 1024 * K });
  assert.deepEqual((await plan.next()).value, { offset: 0, length: 1024 * K, kind: 'read' });
  assert.deepEqual((await plan.next()).value, { offset: 1024 * K, length: 1024 * K, kind: 'read' });
  await plan.return(undefined);
});

test('known holes become zero steps of bounded length', async () => {
  const sizeBytes = 2 * MAX_ZERO_BYTES + 512;
  const allocation = (area: Extent): AsyncIterable<KnownExtent> => stream([{ ...area, kind: 'hole' as const }]);
  const steps = await Array.fromAsync(
    planSteps([{ offset: 0, length: sizeBytes }], { sizeBytes, requestBytes: 64 * K, allocation }),
  );
  assert.deepEqual(
    steps.map((step) => [step.kind, step.length]),
    [
      ['zero', MAX_ZERO_BYTES],
      ['zero', MAX_ZERO_BYTES],
      ['zero', 512],
    ],
  );
});

test('a map with a gap, an overlap, an excess or an early end is refused', async () => {
  const maps: KnownExtent[][] = [
    [{ offset: 0, length: 64 * K, kind: 'hole' }],
    [{ offset: 64 * K, length: 64 * K, kind: 'hole' }],
    [
      { offset: 0, length: 100 * K, kind: 'hole' },
      { offset: 64 * K, length: 64 * K, kind: 'data' },
    ],
    [{ offset: 0, length: 129 * K, kind: 'hole' }],
    [{ offset: 0, length: 0, kind: 'data' }],
    [],
  ];
  for (const map of maps) {
    const plan = planSteps([{ offset: 0, length: 128 * K }], {
      sizeBytes: TiB,
      requestBytes: 64 * K,
      allocation: () => stream(map),
    });
    await assert.rejects(Array.fromAsync(plan), { code: 'READ_FAILED' }, JSON.stringify(map));
  }
});

const MAX_BLOCKS = 40;
const diskSize = fc.integer({ min: 1, max: (MAX_BLOCKS * BLOCK_BYTES) / 512 }).map((sectors) => sectors * 512);
const anyAreas = fc.array(fc.record({ offset: fc.nat(MAX_BLOCKS * BLOCK_BYTES), length: fc.nat(5 * BLOCK_BYTES) }), {
  maxLength: 12,
});

/** Which blocks of the disk any byte of the areas touches, worked out the slow way. */
function touched(areas: Extent[], sizeBytes: number): number[] {
  const found: number[] = [];
  for (let block = 0; block * BLOCK_BYTES < sizeBytes; block++) {
    const start = block * BLOCK_BYTES;
    const end = Math.min(start + BLOCK_BYTES, sizeBytes);
    if (areas.some((a) => a.length > 0 && a.offset < end && endOf(a) > start)) found.push(block);
  }
  return found;
}

function blocksOf(steps: Step[]): number[] {
  return steps.flatMap((step) =>
    Array.from({ length: Math.ceil(step.length / BLOCK_BYTES) }, (_, i) => step.offset / BLOCK_BYTES + i),
  );
}

function checkShape(steps: Step[], sizeBytes: number, requestBytes: number): void {
  let end = 0;
  for (const step of steps) {
    assert.ok(step.offset >= end, 'ascending, without overlap');
    assert.equal(step.offset % BLOCK_BYTES, 0);
    end = endOf(step);
    assert.ok(step.length > 0 && end <= sizeBytes);
    assert.ok(end % BLOCK_BYTES === 0 || end === sizeBytes, 'only the end of the disk may be off the grid');
    if (step.kind === 'read') assert.ok(step.length <= requestBytes);
  }
}

test('steps cover exactly the blocks that areas touch, once, in bounds', async () => {
  await fc.assert(
    fc.asyncProperty(diskSize, anyAreas, fc.integer({ min: 1, max: 8 }), async (sizeBytes, areas, requestBlocks) => {
      const requestBytes = requestBlocks * BLOCK_BYTES;
      const steps = await Array.fromAsync(planSteps(areas, { sizeBytes, requestBytes }));
      checkShape(steps, sizeBytes, requestBytes);
      assert.deepEqual(blocksOf(steps), touched(areas, sizeBytes));
    }),
  );
});

test('with a map, exactly the blocks with data are read and the rest of the areas is zero', async () => {
  const anyMap = fc.array(fc.tuple(fc.integer({ min: 1, max: 200_000 }), fc.constantFrom('data', 'zero', 'hole')), {
    maxLength: 40,
  });
  await fc.assert(
    fc.asyncProperty(diskSize, anyAreas, anyMap, async (sizeBytes, areas, pattern) => {
      const disk: KnownExtent[] = [];
      let at = 0;
      for (const [length, kind] of pattern) {
        disk.push({ offset: at, length, kind });
        at += length;
      }
      disk.push({ offset: at, length: sizeBytes + 10 * MAX_BLOCKS * BLOCK_BYTES, kind: 'hole' });
      const allocation = (area: Extent): AsyncIterable<KnownExtent> =>
        stream(disk.flatMap((extent) => clip(extent, area)));
      const steps = await Array.fromAsync(planSteps(areas, { sizeBytes, requestBytes: 2 * BLOCK_BYTES, allocation }));
      checkShape(steps, sizeBytes, 2 * BLOCK_BYTES);
      const inAreas = touched(areas, sizeBytes);
      assert.deepEqual(blocksOf(steps), inAreas);
      const withData = new Set(
        touched(
          disk.filter((e) => e.kind === 'data'),
          sizeBytes,
        ),
      );
      assert.deepEqual(
        blocksOf(steps.filter((s) => s.kind === 'read')),
        inAreas.filter((block) => withData.has(block)),
      );
    }),
  );
});

function clip(extent: KnownExtent, area: Extent): KnownExtent[] {
  const offset = Math.max(extent.offset, area.offset);
  const length = Math.min(endOf(extent), endOf(area)) - offset;
  return length > 0 ? [{ offset, length, kind: extent.kind }] : [];
}
