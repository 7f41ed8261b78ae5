import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { hasCode } from '#/lib/errors.ts';
import * as layout from './layout.ts';

const POINT = '20261123T234500Z-01kb0000000000000000000000';
const OTHER = '20261101T010203Z-01ka0000000000000000000000';

test('a VM folder reads like the name and ends with the short id', () => {
  const cases: [string, string][] = [
    ['db01', 'db01'],
    ['web.example.com', 'web.example.com'],
    ['SQL Server (prod) #2', 'SQL-Server-prod-2'],
    ['Büro/Köln', 'Büro-Köln'],
    ['数据库 01', '数据库-01'],
    ['../../etc/passwd', 'etc-passwd'],
    ['..', 'vm'],
    ['', 'vm'],
    ['💾', 'vm'],
    ['con', 'vm-con'],
    ['LPT1.old', 'vm-LPT1.old'],
    ['console', 'console'],
    ['-rf', 'rf'],
    ['.hidden', 'hidden'],
    ['a%2fb', 'a-2fb'],
    ['x.', 'x'],
  ];
  for (const [name, wanted] of cases) {
    assert.equal(layout.vmFolder(name, '01KB0000000000000000ABCDEFG'), `${wanted}-0abcdefg`, name);
  }
});

test('every name gives a legal folder of at most 60 bytes before the id, and the same one each time', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (name) => {
      const slug = layout.slug(name);
      assert.ok(Buffer.byteLength(slug) <= 60 && slug.length > 0);
      assert.match(slug, /^[\p{L}\p{N}][\p{L}\p{M}\p{N}._-]*$/u);
      assert.equal(Buffer.from(slug).toString(), slug);
      assert.equal(layout.slug(slug), slug);
      const folder = `vms/${layout.vmFolder(name, 'a1')}/${POINT}`;
      assert.equal(layout.parsePointFolder(folder)?.pointId, '01kb0000000000000000000000');
    }),
    { numRuns: 200 },
  );
});

test('point names sort by time and are parsed back', () => {
  const early = layout.pointName(Temporal.Instant.from('2026-11-23T23:45:00.999Z'), 'b');
  const late = layout.pointName(Temporal.Instant.from('2026-11-23T23:45:01Z'), 'a');
  assert.ok(early < late);
  assert.deepEqual(layout.parsePointFolder(`vms/db-1/${early}.unfinished`), {
    vmFolder: 'db-1',
    name: `${early}.unfinished`,
    pointId: 'b',
    unfinished: true,
  });
  assert.equal(layout.parsePointFolder(`vms/db-1/${early}`)?.unfinished, false);
});

test('ids that could leave the folder are refused', () => {
  for (const id of ['', '../x', 'a/b', 'a.unfinished', 'a b', 'ä', 'x'.repeat(65)]) {
    assert.throws(() => layout.pointName(Temporal.Instant.from('2026-01-01T00:00:00Z'), id), hasInvalidRequest);
  }
  for (const id of ['', '../', 'ÄÖ']) assert.throws(() => layout.shortId(id), hasInvalidRequest);
});

test('a backing reference names the other folder, finished or not', () => {
  const reference = `../${OTHER}/disk-0.qcow2`;
  assert.equal(layout.backingReference(`vms/db-1/${POINT}.unfinished`, `vms/db-1/${OTHER}/disk-0.qcow2`), reference);
  assert.equal(layout.backingReference(`vms/db-1/${POINT}`, `vms/db-1/${OTHER}/disk-0.qcow2`), reference);
  const moved = layout.backingReference(`vms/new-1/${POINT}`, `vms/old-1/${OTHER}/disk-12.qcow2`);
  assert.equal(moved, `../../old-1/${OTHER}/disk-12.qcow2`);
});

test('a backing reference to an unfinished point, to itself or to something else is refused', () => {
  const from = `vms/db-1/${POINT}.unfinished`;
  const targets = [
    `vms/db-1/${OTHER}.unfinished/disk-0.qcow2`,
    `vms/db-1/${POINT}/disk-0.qcow2`,
    `vms/db-1/${OTHER}/point.json`,
    `vms/db-1/${OTHER}`,
    `/vms/db-1/${OTHER}/disk-0.qcow2`,
    `vms/db-1/../db-1/${OTHER}/disk-0.qcow2`,
    'disk-0.qcow2',
  ];
  for (const target of targets) assert.throws(() => layout.backingReference(from, target), hasInvalidRequest, target);
  assert.throws(() => layout.backingReference('vms', `vms/db-1/${OTHER}/disk-0.qcow2`), hasInvalidRequest);
});

function hasInvalidRequest(error: unknown): boolean {
  return hasCode(error, 'INVALID_REQUEST');
}
