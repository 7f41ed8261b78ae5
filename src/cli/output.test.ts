import assert from 'node:assert/strict';
import { test } from 'node:test';
import { facts, json, table } from './output.ts';
import type { Column } from './output.ts';

interface Row {
  name: string;
  bytes: number;
}

const rows: Row[] = [
  { name: 'web-01', bytes: 5 },
  { name: '仮想', bytes: 12_345 },
];
const columns: Column<Row>[] = [
  { title: 'name', cell: (row) => row.name },
  { title: 'bytes', right: true, cell: (row) => String(row.bytes) },
];

test('a table aligns text left, numbers right, wide characters too, and leaves no trailing blanks', () => {
  assert.equal(table(rows, columns, 'none'), 'NAME    BYTES\nweb-01      5\n仮想    12345\n');
  const text = table(rows, columns.toReversed(), 'none');
  assert.doesNotMatch(text, / \n/);
});

test('a table without rows says so and an empty cell is a dash', () => {
  assert.equal(table([], columns, 'no VMs'), 'no VMs\n');
  assert.match(table([{ name: '', bytes: 1 }], columns, ''), /^NAME {2}BYTES\n- +1\n$/);
});

test('a name cannot break out of its table cell', () => {
  const text = table([{ name: 'a\nb\u001B[31m', bytes: 1 }], columns, '');
  assert.equal(text.split('\n').length, 3);
  assert.ok(!text.includes('\u001B'));
});

test('facts align their values and leave out what is not known', () => {
  assert.equal(
    facts([
      ['vm', 'web-01'],
      ['folder', null],
      ['status', 'completed'],
    ]),
    'vm      web-01\nstatus  completed\n',
  );
});

test('a document is one JSON value and ends its line', () => {
  const text = json({ items: [] });
  assert.ok(text.endsWith('}\n'));
  assert.deepEqual(JSON.parse(text), { items: [] });
});
