import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ERRORS } from './lib/errors.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

interface Page {
  /** From the root of the project. */
  file: string;
  text: string;
}

function readPages(): Page[] {
  const files = globSync(['*.md', 'docs/**/*.md', 'changes/*.md', 'e2e/**/*.md', 'bench/**/*.md', 'src/**/*.md'], {
    cwd: ROOT,
  });
  return files.map((file) => ({ file, text: readFileSync(path.join(ROOT, file), 'utf8') }));
}

/** Headings as GitHub makes anchors of them. */
function anchorsOf(text: string): Set<string> {
  const headings = withoutCode(text).match(/^#{1,6} .+$/gm) ?? [];
  return new Set(
    headings.map((line) =>
      line
        .replace(/^#+ /, '')
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

function withoutCode(text: string): string {
  return text.replaceAll(/^```[\s\S]*?^```/gm, '').replaceAll(/`[^`\n]*`/g, '`code`');
}

/** Relative links that lead nowhere, as `page: target`. */
function brokenLinks(pages: Page[], exists: (file: string) => boolean): string[] {
  const broken: string[] = [];
  const texts = new Map(pages.map(({ file, text }) => [file, text]));
  for (const { file, text } of pages) {
    for (const match of withoutCode(text).matchAll(/\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)/gm)) {
      const link = match[1] ?? match[2] ?? '';
      if (/^[a-z][a-z0-9+.-]*:/i.test(link)) continue;
      const [name = '', anchor] = link.split('#', 2);
      const target = name === '' ? file : path.posix.join(path.posix.dirname(file), decodeURIComponent(name));
      const page = texts.get(target);
      const known = page !== undefined || (!target.startsWith('..') && exists(target));
      const lost = anchor !== undefined && page !== undefined && !anchorsOf(page).has(anchor);
      if (name.startsWith('/') || !known || lost) broken.push(`${file}: ${link}`);
    }
  }
  return broken;
}

test('every relative link of every page leads somewhere', () => {
  const pages = readPages();
  assert.ok(pages.length >= 4, 'the pages were found');
  assert.deepEqual(
    brokenLinks(pages, (file) => existsSync(path.join(ROOT, file))),
    [],
  );
});

test('a planted broken link is found and a good one is not', () => {
  const text = '# A page\n[a](b.md) [b](#a-page) [c](docs/x.md#one-two) [d](https://example.org) `[e](code.md)`\n';
  const good = { file: 'docs/x.md', text: '## One, two\n[up](../README.md "title")\n[r]: ../README.md\n' };
  const broken = (readme: string): string[] =>
    brokenLinks([{ file: 'README.md', text: readme }, good], (file) => file === 'b.md');
  assert.deepEqual(broken(text), []);
  for (const link of ['gone.md', '#gone', 'docs/x.md#gone', '/b.md', '../b.md', 'docs/b.md']) {
    assert.deepEqual(broken(`# A page\n[x](${link})\n`), [`README.md: ${link}`]);
  }
  assert.deepEqual(broken('[x]: gone.md\n'), ['README.md: gone.md']);
});

test('docs/errors.md lists exactly the codes of the table, with their numbers', () => {
  const page = readFileSync(path.join(ROOT, 'docs/errors.md'), 'utf8');
  const rows = [...page.matchAll(/^\| `([A-Z_]+)` \|.*\| (yes|no) \| (\d+) \| (\d+) .*\|$/gm)];
  assert.deepEqual(
    rows.map((row) => row.slice(1, 5)),
    Object.entries(ERRORS).map(([code, entry]) => [
      code,
      entry.retryable ? 'yes' : 'no',
      String(entry.status),
      String(entry.exit),
    ]),
  );
});

test('every code of the table is thrown, or named, somewhere in the sources', () => {
  const sources = globSync('src/**/*.ts', { cwd: ROOT }).filter((file) => !/\.test\.ts$|lib\/errors\.ts$/.test(file));
  const text = sources.map((file) => readFileSync(path.join(ROOT, file), 'utf8')).join('\n');
  const unused = Object.keys(ERRORS).filter((code) => !text.includes(`'${code}'`));
  assert.deepEqual(unused, []);
});

test('every code that the pages speak of is in the table', () => {
  const words = new Set(Object.keys(ERRORS).map((code) => code.split('_', 1)[0]));
  for (const { file, text } of readPages()) {
    // A word in code style that begins like one of our codes and has an underscore is meant as one.
    for (const [, word = ''] of text.matchAll(/`([A-Z]+(?:_[A-Z]+)+)`/g)) {
      if (!words.has(word.split('_', 1)[0])) continue;
      assert.ok(Object.hasOwn(ERRORS, word) || /^(?:NBD|SENDENSE)_/.test(word), `${file} speaks of ${word}`);
    }
  }
});
