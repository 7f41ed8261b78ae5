import assert from 'node:assert/strict';
import { test } from 'node:test';
import { byteCount, clean, count, duration, instant, reduction, size, width } from './format.ts';

test('sizes have one unit and never read 1024 of it', () => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [1_048_575, '1.0 MiB'],
    [104_857_600, '100 MiB'],
    [2 ** 41 + 512, '2.0 TiB'],
    [2 ** 46, '64.0 TiB'],
  ];
  for (const [bytes, text] of cases) assert.equal(size(bytes), text);
});

test('durations read as a person says them and carry over', () => {
  const cases: [number, string][] = [
    [0, '0 ms'],
    [999, '999 ms'],
    [999.6, '1.0 s'],
    [59_949, '59.9 s'],
    [59_970, '1 m 00 s'],
    [185_000, '3 m 05 s'],
    [7_800_000, '2 h 10 m'],
    [273_600_000, '3 d 4 h'],
  ];
  for (const [ms, text] of cases) assert.equal(duration(ms), text);
});

test('a reduction of 100 % is said only when nothing travelled', () => {
  assert.equal(reduction(1000, 10), '99.0 %');
  assert.equal(reduction(1e9, 1), '99.9 %');
  assert.equal(reduction(1e9, 0), '100.0 %');
  assert.equal(reduction(100, 200), '0.0 %');
  assert.equal(reduction(0, 0), '-');
});

test('instants are shown in the given time zone', () => {
  assert.equal(instant('2026-11-23T23:30:15.9Z', 'Europe/Berlin'), '2026-11-24 00:30:15');
  assert.equal(instant(null), '-');
});

test('control and direction characters of names are made harmless', () => {
  assert.equal(clean('a\u001B[2Jb\nc\u202Ed'), 'a\u{FFFD}[2Jb\u{FFFD}c\u{FFFD}d');
  assert.equal(clean('Grün 仮想'), 'Grün 仮想');
});

test('wide characters count as two columns and combining ones as none', () => {
  assert.equal(width('仮想'), 4);
  assert.equal(width('e\u0301'), 1);
});

test('sizes on the command line take units and refuse the rest', () => {
  assert.equal(byteCount('--x', '500'), 500);
  assert.equal(byteCount('--x', '64K'), 65_536);
  assert.equal(byteCount('--x', '1.5GiB'), 1_610_612_736);
  assert.equal(byteCount('--x', '20 mb'), 20_971_520);
  for (const bad of ['', '-1', '1X', '1e9', 'K', '0x10']) {
    assert.throws(() => byteCount('--x', bad), { code: 'USAGE' }, bad);
  }
});

test('counts on the command line stay within their bounds', () => {
  assert.equal(count('--n', '1000', { min: 1, max: 1000 }), 1000);
  for (const bad of ['0', '1001', '1.5', 'ten', '-3', '']) {
    assert.throws(() => count('--n', bad, { min: 1, max: 1000 }), { code: 'USAGE' }, bad);
  }
});
