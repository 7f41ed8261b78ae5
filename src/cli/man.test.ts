import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { commands } from './commands.ts';
import { renderManPages, renderReference } from './man.ts';

const DOCS = join(import.meta.dirname, '../../docs');

test('the pages in docs are those of the command table, no more and no fewer', async () => {
  const pages = renderManPages();
  for (const page of [...pages, renderReference()]) {
    const text = await readFile(join(DOCS, page.file), 'utf8');
    assert.equal(text, page.text, `docs/${page.file} is out of date: npm run generate`);
  }
  const present = (await readdir(join(DOCS, 'man'))).map((name) => `man/${name}`);
  assert.deepEqual(present.toSorted(), pages.map((page) => page.file).toSorted());
});

test('every command and option is in a manual page, and hyphens that are typed stay hyphens', () => {
  const text = renderManPages()
    .map((page) => page.text)
    .join('\n');
  for (const entry of commands) {
    assert.ok(text.includes(`sendense ${entry.words}`.replaceAll('-', String.raw`\-`)), entry.words);
    for (const name of Object.keys(entry.options ?? {})) {
      const flag = name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`).replaceAll('-', String.raw`\-`);
      assert.ok(text.includes(flag), `${entry.words} --${name}`);
    }
  }
  assert.doesNotMatch(text, /[^\\]--[a-z]/);
});
