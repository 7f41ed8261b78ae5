import assert from 'node:assert/strict';
import test from 'node:test';
import * as fc from 'fast-check';
import { hasCode } from '#/lib/errors.ts';
import { Coverage } from './coverage.ts';

const isBreach = (error: unknown): boolean => hasCode(error, 'NBD_PROTOCOL');

test('chunks in order fill a request', () => {
  const coverage = new Coverage(100, 50);
  coverage.add(100, 20);
  assert.equal(coverage.complete, false);
  coverage.add(120, 30);
  assert.equal(coverage.complete, true);
});

test('a chunk that is empty or reaches outside the request is a breach', () => {
  for (const [offset, length] of [
    [99, 10],
    [140, 11],
    [150, 1],
    [100, 0],
    [0, 10],
    [2 ** 53, 1],
  ] as const) {
    assert.throws(() => new Coverage(100, 50).add(offset, length), isBreach, `${offset}+${length}`);
  }
});

test('a reply in too many scattered chunks is a breach rather than a growing list', () => {
  const coverage = new Coverage(0, 1_000_000);
  assert.throws(() => {
    for (let offset = 1; offset < 1_000_000; offset += 2) coverage.add(offset, 1);
  }, isBreach);
});

test('any chunks in any order agree with a map of single bytes', () => {
  const size = 24;
  const chunks = fc.array(fc.tuple(fc.nat(size - 1), fc.integer({ min: 1, max: 8 })), { maxLength: 20 });
  fc.assert(
    fc.property(chunks, (list) => {
      const coverage = new Coverage(1000, size);
      const seen = new Set<number>();
      for (const [at, length] of list) {
        const bytes = Array.from({ length }, (_, index) => at + index);
        const legal = bytes.every((byte) => byte < size && !seen.has(byte));
        if (!legal) {
          assert.throws(() => coverage.add(1000 + at, length), isBreach);
          return;
        }
        coverage.add(1000 + at, length);
        for (const byte of bytes) seen.add(byte);
        assert.equal(coverage.complete, seen.size === size);
      }
    }),
    { numRuns: 2000 },
  );
});
