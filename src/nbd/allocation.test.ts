import assert from 'node:assert/strict';
import test from 'node:test';
import { allocation } from './allocation.ts';
import { BASE_ALLOCATION } from './constants.ts';

const GIB = 2 ** 30;

/** Answers at most 1 GiB at a time from a list of [length, flags] that repeats for ever. */
function pattern(runs: readonly [length: number, flags: number][]) {
  let calls = 0;
  return {
    contexts: [BASE_ALLOCATION],
    get calls(): number {
      return calls;
    },
    async blockStatusOnce(_context: string, offset: number, length: number) {
      calls++;
      const asked = Math.min(length, GIB);
      const ranges = [];
      for (let at = offset; at < offset + asked; ) {
        const period = runs.reduce((sum, [run]) => sum + run, 0);
        let rest = at % period;
        const run = runs.find(([size]) => (rest < size ? true : ((rest -= size), false))) ?? [1, 0];
        const size = Math.min(run[0] - rest, offset + asked - at);
        ranges.push({ offset: at, length: size, flags: run[1] });
        at += size;
      }
      return ranges;
    },
  };
}

test('runs cover the range exactly and are joined across answers', async () => {
  const client = pattern([
    [3 * GIB, 3],
    [GIB / 2, 0],
    [GIB / 2, 2],
    [GIB, 1],
  ]);
  const runs = await Array.fromAsync(allocation(client, { offset: GIB, length: 4.5 * GIB }));
  assert.deepEqual(runs, [
    { offset: GIB, length: 2 * GIB, kind: 'hole' },
    { offset: 3 * GIB, length: GIB / 2, kind: 'data' },
    { offset: 3.5 * GIB, length: GIB / 2, kind: 'zero' },
    { offset: 4 * GIB, length: GIB, kind: 'data' },
    { offset: 5 * GIB, length: GIB / 2, kind: 'hole' },
  ]);
});

test('a sparse disk of 64 TiB is one run, asked for in steps', async () => {
  const client = pattern([[64 * 1024 * GIB, 3]]);
  const runs = await Array.fromAsync(allocation(client, { offset: 0, length: 64 * 1024 * GIB }));
  assert.deepEqual(runs, [{ offset: 0, length: 64 * 1024 * GIB, kind: 'hole' }]);
  assert.equal(client.calls, 64 * 1024);
});

test('a walk that is left early asks no further', async () => {
  const client = pattern([
    [GIB / 4, 3],
    [GIB / 4, 0],
  ]);
  for await (const run of allocation(client, { offset: 0, length: 1000 * GIB })) {
    assert.equal(run.kind, 'hole');
    break;
  }
  assert.equal(client.calls, 1);
});

test('where the server does not tell, all is data', async () => {
  const client = { ...pattern([[GIB, 3]]), contexts: [] };
  assert.deepEqual(await Array.fromAsync(allocation(client, { offset: 0, length: 5 })), [
    { offset: 0, length: 5, kind: 'data' },
  ]);
  assert.deepEqual(await Array.fromAsync(allocation(client, { offset: 0, length: 0 })), []);
});
