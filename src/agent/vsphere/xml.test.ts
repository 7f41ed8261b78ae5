import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode } from '#/lib/errors.ts';
import { booleanOf, child, childrenOf, escapeXml, integerOf, parseXml, serializeXml, textOf } from './xml.ts';

const XSI = 'http://www.w3.org/2001/XMLSchema-instance';

test('a type is found whatever prefix the server binds to the schema-instance namespace', () => {
  const node = parseXml(
    `<a:r xmlns:a="urn:x" xmlns:_XMLSchema-instance="${XSI}" xmlns:other="urn:y">` +
      '<val _XMLSchema-instance:type="a:VirtualDisk"/><val other:type="Trap"/><val type="VirtualMachine">vm-1</val></a:r>',
  );
  assert.equal(node.name, 'r');
  assert.deepEqual(
    childrenOf(node, 'val').map((entry) => [entry.xsiType, entry.refType, entry.text]),
    [
      ['VirtualDisk', undefined, ''],
      [undefined, undefined, ''],
      [undefined, 'VirtualMachine', 'vm-1'],
    ],
  );
});

test('text keeps its blanks, numbers stay text and entities are decoded once', () => {
  const node = parseXml(
    '<r><id> 0012 </id><name>a &lt;b&gt; &amp;amp; &#228;&#x1F600;</name><c><![CDATA[1 &lt; 2]]>!</c></r>',
  );
  assert.equal(textOf(node, 'id'), ' 0012 ');
  assert.equal(textOf(node, 'name'), 'a <b> &amp; ä😀');
  assert.equal(textOf(node, 'c'), '1 &lt; 2!');
});

test('a number that would lose digits is no number', () => {
  const node = parseXml('<r><ok>9007199254740991</ok><big>9007199254740993</big><hex>0x10</hex><neg>-1</neg><e/></r>');
  const read = (name: string): number | undefined => integerOf(node, name);
  assert.deepEqual(['ok', 'big', 'hex', 'neg', 'e', 'none'].map(read), [
    9007199254740991,
    undefined,
    undefined,
    -1,
    undefined,
    undefined,
  ]);
  assert.equal(booleanOf(parseXml('<r><b>1</b></r>'), 'b'), true);
});

for (const [what, text] of [
  ['a document type', '<?xml version="1.0"?><!DOCTYPE r [<!ENTITY x "boom">]><r>&x;</r>'],
  ['a document type in small letters', '<!doctype r><r/>'],
  ['unbalanced elements', '<r><a></r>'],
  ['two roots', '<r/><r/>'],
  ['no element at all', 'Bad Gateway'],
  ['nothing', ''],
  ['a bomb of depth', '<a>'.repeat(5000) + '</a>'.repeat(5000)],
] as const) {
  test(`${what} is refused`, () => {
    assert.throws(
      () => parseXml(text),
      (error) => hasCode(error, 'INVALID_REQUEST'),
    );
  });
}

test('a name from the chain of prototypes is refused or only a name', () => {
  assert.throws(() => parseXml('<r><constructor>1</constructor></r>'));
  const node = parseXml('<r><valueOf>1</valueOf></r>');
  assert.equal(textOf(node, 'valueOf') ?? textOf(node, '__valueOf'), '1');
  assert.equal(child(node, 'hasOwnProperty'), undefined);
});

test('what is escaped comes back as it was', () => {
  const text = `<&>"' \t\r\n ]]> ü \u0085 😀`;
  assert.equal(parseXml(`<r>${escapeXml(text)}</r>`).text, text);
});

for (const bad of ['a\u0000b', '\u001b[0m', '\ufffe', '\ud800x']) {
  test(`text that XML cannot carry is refused without being repeated: ${JSON.stringify(bad)}`, () => {
    assert.throws(
      () => escapeXml(`secret${bad}`),
      (error) => hasCode(error, 'INVALID_REQUEST') && error instanceof Error && !error.message.includes('secret'),
    );
  });
}

test('a part written as a document of its own reads the same', () => {
  const source = parseXml(
    `<x:val xmlns:x="urn:vim25" xmlns:i="${XSI}"><x:name> a&amp;b </x:name><x:dev i:type="x:VirtualDisk"><x:key>1</x:key></x:dev><x:ds type="Datastore">ds-1</x:ds><x:e/></x:val>`,
  );
  const text = serializeXml(source, 'VirtualMachineConfigInfo');
  const back = parseXml(text);
  assert.equal(back.name, 'VirtualMachineConfigInfo');
  assert.deepEqual(back.children, source.children);
});
