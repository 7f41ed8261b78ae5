import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assert as check, integer, property, string } from 'fast-check';
import { exportName } from './names.ts';
import { newId } from '#/lib/ids.ts';

test('any name of a VM gives an export name that the daemon takes', () => {
  check(
    property(string({ unit: 'grapheme', maxLength: 200 }), integer({ min: 0, max: 9999 }), (vm, index) => {
      const name = exportName(vm, index, newId());
      assert.match(name, /^[a-z0-9][a-z0-9._-]*$/);
      assert.ok(name.length <= 63, name);
    }),
  );
});

test('names differ whenever the backups differ, however alike the VMs', () => {
  const ids = Array.from({ length: 500 }, () => newId());
  assert.equal(new Set(ids.map((id) => exportName('same', 0, id))).size, ids.length);
});
