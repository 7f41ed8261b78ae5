import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { diffSections, parseConfig, planSections } from './config-d.ts';
import type { ExportSection, ParsedConfig, Refusal } from './config-d.ts';

const GOOD = '# a comment\n\n[vm1-disk0]\n  exportname = /repo/a b=c.qcow2 \nagent=agent-1\r\nsize = 1048576\n';

function section(text: string, file = 'a.conf'): ExportSection {
  const parsed = parseConfig(text, file);
  assert.ok('section' in parsed, JSON.stringify(parsed));
  return parsed.section;
}

function refusal(text: string): Refusal {
  const parsed = parseConfig(text, 'a.conf');
  assert.ok('reason' in parsed, JSON.stringify(parsed));
  return parsed;
}

const make = (name: string, file: string, imagePath = `/repo/${name}.qcow2`): ExportSection =>
  section(`[${name}]\nexportname=${imagePath}\nreadonly=true\n`, file);
const read = (...sections: ExportSection[]): ParsedConfig[] => sections.map((one) => ({ section: one }));
const byFile = (...sections: ExportSection[]): Map<string, ExportSection> =>
  new Map(sections.map((one) => [one.file, one]));

test('a file in nbd-server style becomes a section, blanks and comments aside', () => {
  assert.deepEqual(section(GOOD), {
    file: 'a.conf',
    line: 4,
    name: 'vm1-disk0',
    imagePath: '/repo/a b=c.qcow2',
    readOnly: false,
    agent: 'agent-1',
    sizeBytes: 1048576,
  });
});

test('a read-only export needs neither agent nor size', () => {
  const { readOnly, agent, sizeBytes } = section('[r]\nexportname=/r.qcow2\nreadonly = true');
  assert.deepEqual({ readOnly, agent, sizeBytes }, { readOnly: true, agent: null, sizeBytes: null });
});

test('an export name may have 63 characters and no more', () => {
  const text = (length: number): string => `[${'n'.repeat(length)}]\nexportname=/r.qcow2\nreadonly=true`;
  assert.equal(section(text(63)).name.length, 63);
  assert.equal(refusal(text(64)).line, 1);
});

const BAD: [what: string, text: string, line: number, reason: RegExp][] = [
  ['nothing', '', 1, /names no export/],
  ['only comments', '# x\n; y\n', 1, /names no export/],
  ['a key before the section', 'readonly=true\n[a]\n', 1, /before the \[name\]/],
  ['a second section', '[a]\nexportname=/a\n[b]\n', 3, /second section/],
  ['an open bracket', '[a\n', 1, /must end with \]/],
  ['an empty name', '[]\n', 1, /export name is/],
  ['a name with a slash', '[../a]\n', 1, /export name is/],
  ['a name with a blank', '[a b]\n', 1, /export name is/],
  ['a name with a comma', '[a,writable=on]\n', 1, /export name is/],
  ['a name that starts with a dash', '[-a]\n', 1, /export name is/],
  ['a name beyond ASCII', '[ä]\n', 1, /export name is/],
  ['global settings', '[generic]\n', 1, /global settings/],
  ['an unknown key', '[a]\nexportname=/a\nmultifile = true\n', 3, /unknown key "multifile"/],
  ['a key of every object', '[a]\nconstructor = 1\n', 2, /unknown key "constructor"/],
  ['a key in capitals', '[a]\nReadOnly = true\n', 2, /unknown key/],
  ['the same key again', '[a]\nreadonly=true\nreadonly=false\n', 3, /given twice/],
  ['no image', '[a]\nreadonly=true\n', 1, /exportname is missing/],
  ['a relative image', '[a]\nexportname=a.qcow2\n', 2, /absolute path/],
  ['an image by protocol', '[a]\nexportname=json:{"driver":"raw"}\n', 2, /absolute path/],
  ['an endless path', `[a]\nexportname=/${'x'.repeat(2000)}\n`, 2, /longer than/],
  ['another word for true', '[a]\nexportname=/a\nreadonly = yes\n', 3, /true or false/],
  ['writable without agent', '[a]\nexportname=/a\n', 1, /must name its agent/],
  ['an agent with a blank', '[a]\nexportname=/a\nagent=a b\n', 3, /identity/],
  ['an empty agent', '[a]\nexportname=/a\nagent=\n', 3, /identity/],
  ['a size of zero', '[a]\nexportname=/a\nsize=0\n', 3, /number of bytes/],
  ['a size with unit', '[a]\nexportname=/a\nsize=1M\n', 3, /number of bytes/],
  ['a size beyond exact numbers', '[a]\nexportname=/a\nsize=9999999999999999\n', 3, /number of bytes/],
  ['a line without equals', '[a]\nexportname /a\n', 2, /expected/],
  ['a NUL', '[a]\nexportname=/a\0b\n', 2, /control characters/],
  ['an escape sequence', '[a]\n# \u001b[2J\n', 2, /control characters/],
];
for (const [what, text, line, reason] of BAD) {
  test(`a file is refused with its line: ${what}`, () => {
    const refused = refusal(text);
    assert.equal(refused.line, line);
    assert.match(refused.reason, reason);
  });
}

test('whatever the text, the answer is a section that keeps the rules or a refusal with a line of the file', () => {
  const word = fc.oneof(
    fc.constantFrom(
      '[',
      ']',
      '=',
      '\n',
      '\r\n',
      'a',
      '/x',
      'exportname',
      'readonly',
      'true',
      'agent',
      'size',
      '7',
      ' ',
    ),
    fc.string({ maxLength: 4 }),
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 40 }), (words) => {
      const text = words.join('');
      const parsed = parseConfig(text, 'f.conf');
      if ('reason' in parsed) {
        assert.ok(parsed.line >= 1 && parsed.line <= text.split('\n').length);
        return;
      }
      assert.match(parsed.section.name, /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/);
      assert.ok(parsed.section.imagePath.startsWith('/'));
      assert.ok(parsed.section.readOnly || parsed.section.agent !== null);
    }),
  );
});

test('a file that has become bad keeps the section it had', () => {
  const old = make('x', 'a.conf');
  const bad: Refusal = { file: 'a.conf', name: null, line: 1, reason: 'broken' };
  const plan = planSections(byFile(old), [bad]);
  assert.deepEqual([...plan.sections.values()], [old]);
  assert.equal(plan.stale.get('a.conf'), bad);
  assert.deepEqual(plan.refused, []);
});

test('a bad file that served nothing before is refused and takes nothing along', () => {
  const bad: Refusal = { file: 'b.conf', name: null, line: 1, reason: 'broken' };
  const plan = planSections(new Map(), [...read(make('x', 'a.conf')), bad]);
  assert.deepEqual([...plan.sections.keys()], ['a.conf']);
  assert.deepEqual(plan.refused, [bad]);
});

test('a name belongs to the file that has it, whatever the order of the files', () => {
  const old = make('x', 'z.conf');
  const plan = planSections(byFile(old), read(make('x', 'a.conf', '/other.qcow2'), old));
  assert.deepEqual([...plan.sections.values()], [old]);
  assert.equal(plan.refused[0]?.file, 'a.conf');
  assert.match(plan.refused[0].reason, /already the export of z\.conf/);
});

test('a new name that two files want goes to the first file', () => {
  const plan = planSections(new Map(), read(make('x', 'b.conf'), make('x', 'a.conf')));
  assert.deepEqual([...plan.sections.keys()], ['a.conf']);
  assert.deepEqual(
    plan.refused.map(({ file }) => file),
    ['b.conf'],
  );
});

test('a file that turns to a name of another file keeps being served under its old one', () => {
  const [x, y] = [make('x', 'a.conf'), make('y', 'b.conf')];
  const plan = planSections(byFile(x, y), read(make('y', 'a.conf'), y));
  assert.deepEqual(new Set(plan.sections.values()), new Set([x, y]));
  assert.match(plan.stale.get('a.conf')?.reason ?? '', /already the export of b\.conf/);
});

test('two files may swap their names', () => {
  const plan = planSections(
    byFile(make('x', 'a.conf'), make('y', 'b.conf')),
    read(make('y', 'a.conf'), make('x', 'b.conf')),
  );
  assert.deepEqual(
    [...plan.sections.values()].map(({ file, name }) => [file, name]),
    [
      ['a.conf', 'y'],
      ['b.conf', 'x'],
    ],
  );
});

test('the difference tells what is added, removed, changed and left alone', () => {
  const before = [make('kept', 'k.conf'), make('gone', 'g.conf'), make('other', 'o.conf'), make('moved', 'm.conf')];
  const after = [
    make('kept', 'k.conf'),
    make('other', 'o.conf', '/elsewhere.qcow2'),
    make('moved', 'n.conf'),
    make('new', 'g.conf'),
  ];
  const names = (sections: ExportSection[]): string[] => sections.map(({ name }) => name);
  const diff = diffSections(before, after);
  assert.deepEqual(names(diff.added), ['new']);
  assert.deepEqual(names(diff.removed), ['gone']);
  assert.deepEqual(names(diff.changed), ['other']);
  assert.deepEqual(names(diff.kept), ['kept', 'moved']);
});

test('a change of agent, mode or size is a change', () => {
  const base = section('[a]\nexportname=/a\nagent=one\nsize=5\n');
  for (const text of ['agent=two\nsize=5', 'agent=one\nsize=6', 'agent=one\nsize=5\nreadonly=true', 'agent=one']) {
    const diff = diffSections([base], [section(`[a]\nexportname=/a\n${text}\n`)]);
    assert.equal(diff.changed.length, 1, text);
  }
});
