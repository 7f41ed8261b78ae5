import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { ExtentSet } from './extent-set.ts';

const SIZE = 120;
const ranges = fc.array(
  fc
    .tuple(fc.nat(SIZE - 1), fc.nat(20))
    .map(([offset, length]) => ({ offset, length: Math.min(length, SIZE - offset) })),
  { maxLength: 30 },
);

function cells(set: Iterable<{ offset: number; length: number }>): boolean[] {
  const map = Array.from({ length: SIZE }, () => false);
  for (const { offset, length } of set) map.fill(true, offset, offset + length);
  return map;
}

test('a set of ranges holds exactly what was added, sorted, merged and without overlap', () => {
  fc.assert(
    fc.property(ranges, (added) => {
      const set = ExtentSet.of(added);
      const members = [...set];
      assert.deepEqual(cells(members), cells(added));
      for (const [index, member] of members.entries()) {
        const next = members[index + 1];
        assert.ok(member.length > 0 && (!next || member.offset + member.length < next.offset));
      }
      assert.equal(set.count, members.length);
      assert.equal(set.bytes, cells(added).filter(Boolean).length);
    }),
  );
});

test('a window on a set is cut to the window, and rounding grows to whole blocks inside the disk', () => {
  fc.assert(
    fc.property(ranges, fc.nat(SIZE), fc.nat(SIZE), fc.integer({ min: 1, max: 16 }), (added, from, length, block) => {
      const set = ExtentSet.of(added);
      const all = cells(set);
      const inside = all.map((value, index) => value && index >= from && index < from + length);
      assert.deepEqual(cells(set.within(from, length)), inside);
      const rounded = all.map((_, index) => {
        const start = Math.floor(index / block) * block;
        return all.slice(start, start + block).includes(true);
      });
      assert.deepEqual(cells(set.rounded(block, SIZE)), rounded);
    }),
  );
});
