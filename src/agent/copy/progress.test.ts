import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pacer } from './pacer.ts';
import { CopyProgress } from './progress.ts';

function clock(): { nowMs: () => number; turn: (ms: number) => void } {
  let at = 1000;
  return { nowMs: () => at, turn: (ms) => (at += ms) };
}

test('a steady copy shows its rate and the time left', () => {
  const { nowMs, turn } = clock();
  const progress = new CopyProgress(100_000, nowMs);
  for (let second = 0; second < 10; second++) {
    turn(1000);
    progress.count('read', 1000);
    progress.count('written', 1000);
    assert.equal(progress.snapshot().bytesPerSecond, 1000);
  }
  assert.equal(progress.snapshot().etaSeconds, 90);
});

test('the rate follows a change within seconds without jumping', () => {
  const { nowMs, turn } = clock();
  const progress = new CopyProgress(null, nowMs);
  const rates: number[] = [];
  for (let second = 0; second < 30; second++) {
    turn(1000);
    progress.count('read', second < 10 ? 1000 : 3000);
    rates.push(progress.snapshot().bytesPerSecond);
  }
  assert.ok((rates[10] ?? 0) > 1000 && (rates[10] ?? 0) < 2000);
  assert.ok((rates[20] ?? 0) > 2600);
  assert.equal(progress.snapshot().etaSeconds, null);
});

test('holes count as done but not as throughput', () => {
  const { nowMs, turn } = clock();
  const progress = new CopyProgress(1_000_000, nowMs);
  turn(1000);
  progress.count('read', 10);
  progress.count('written', 10);
  progress.count('skipped', 999_990);
  const { bytesPerSecond, doneBytes, etaSeconds } = progress.snapshot();
  assert.deepEqual(
    { bytesPerSecond, doneBytes, etaSeconds },
    { bytesPerSecond: 10, doneBytes: 1_000_000, etaSeconds: 0 },
  );
});

test('a stall shows as time since the last byte', () => {
  const { nowMs, turn } = clock();
  const progress = new CopyProgress(null, nowMs);
  turn(700);
  assert.equal(progress.snapshot().idleMs, 700);
  progress.count('read', 1);
  turn(90_000);
  assert.equal(progress.snapshot().idleMs, 90_000);
});

test('two readers of one progress see the same', () => {
  const { nowMs, turn } = clock();
  const progress = new CopyProgress(null, nowMs);
  turn(1000);
  progress.count('read', 5000);
  assert.deepEqual(progress.snapshot(), progress.snapshot());
});

test('the pacer lets a burst through and then holds the rate', () => {
  const pacer = new Pacer(1000);
  assert.equal(pacer.book(500, 0), 0);
  assert.equal(pacer.book(1000, 0), 1000);
  assert.equal(pacer.book(1000, 1000), 1000);
});

test('the pacer does not save up time that was not used', () => {
  const pacer = new Pacer(1000);
  pacer.book(500, 0);
  assert.equal(pacer.book(500, 1_000_000), 0);
  assert.equal(pacer.book(500, 1_000_000), 500);
});
