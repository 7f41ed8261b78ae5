import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { KeyRing } from './secrets.ts';
import { hasCode } from '#/lib/errors.ts';

const dir = await mkdtemp(join(tmpdir(), 'sd-keys-'));
after(() => rm(dir, { recursive: true }));

test('a key file is made once, for its owner only, and opens what was sealed before', async () => {
  const path = join(dir, 'one.key');
  const sealed = (await KeyRing.open(path)).seal('hunter2', 'row-1');
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.equal((await KeyRing.open(path)).open(sealed, 'row-1'), 'hunter2');
  assert.ok(!sealed.includes('hunter2'));
});

test('a sealed value does not open in another row, with another key, or changed by a bit', async () => {
  const ring = await KeyRing.open(join(dir, 'two.key'));
  const other = await KeyRing.open(join(dir, 'three.key'));
  const sealed = ring.seal('hunter2', 'row-1');
  const bent = Buffer.from(sealed);
  bent[bent.length - 1] = (bent[bent.length - 1] ?? 0) ^ 1;
  const tries = [() => ring.open(sealed, 'row-2'), () => other.open(sealed, 'row-1'), () => ring.open(bent, 'row-1')];
  for (const attempt of tries) assert.throws(attempt, (error) => hasCode(error, 'CONFIG_INVALID'));
});

test('a key file that others may read is refused', async () => {
  const path = join(dir, 'four.key');
  await KeyRing.open(path);
  await chmod(path, 0o644);
  await assert.rejects(KeyRing.open(path), (error) => hasCode(error, 'CONFIG_INVALID'));
});

test('a token depends on the key, the purpose and the subject and shows none of them', async () => {
  const path = join(dir, 'five.key');
  const ring = await KeyRing.open(path);
  const tokens = [ring.token('a', 'b'), ring.token('b', 'a'), ring.token('a', 'c')];
  assert.equal(new Set(tokens).size, 3);
  assert.equal(ring.token('a', 'b'), tokens[0]);
  assert.ok(!tokens.some((token) => token.includes('a\0b')));
  assert.ok(!(await readFile(path, 'utf8')).includes(tokens[0] ?? ''));
});
