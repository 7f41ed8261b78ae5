import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { hasCode } from '#/lib/errors.ts';
import { initialise } from './initialise.ts';
import { IDENTITY_FILE } from './layout.ts';

async function folder(): Promise<{ dir: string } & AsyncDisposable> {
  const dir = await mkdtemp(path.join(tmpdir(), 'sendense-initialise-'));
  return { dir, [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }) };
}

function invalid(reason: RegExp): (error: unknown) => boolean {
  return (error) => hasCode(error, 'REPOSITORY_INVALID') && reason.test(String(error));
}

test('the identity file carries version, id, name and time', async () => {
  await using tmp = await folder();
  const root = path.join(tmp.dir, 'backups');
  const identity = await initialise(root, 'nas-1');
  const file = JSON.parse(await readFile(path.join(root, IDENTITY_FILE), 'utf8')) as Record<string, unknown>;
  assert.deepEqual({ ...file, createdAt: '' }, { formatVersion: 1, ...identity, createdAt: '' });
  assert.ok(Temporal.Instant.from(String(file['createdAt'])).epochMilliseconds > 0);
  assert.deepEqual(await readdir(root), [IDENTITY_FILE]);
});

test('a fresh file system with lost+found counts as empty', async () => {
  await using tmp = await folder();
  await mkdir(path.join(tmp.dir, 'lost+found'));
  await initialise(tmp.dir, 'r');
  assert.deepEqual((await readdir(tmp.dir)).sort(), [IDENTITY_FILE, 'lost+found']);
});

test('an attempt that was cut off can be made again', async () => {
  await using tmp = await folder();
  await writeFile(path.join(tmp.dir, `${IDENTITY_FILE}.new`), '{"form');
  await initialise(tmp.dir, 'r');
  assert.deepEqual(await readdir(tmp.dir), [IDENTITY_FILE]);
});

test('a folder that holds anything is refused and left as it was', async () => {
  await using tmp = await folder();
  for (const name of ['precious.txt', '.hidden', 'vms']) {
    const root = path.join(tmp.dir, name.replace('.', '_'));
    await mkdir(root);
    await writeFile(path.join(root, name), 'x');
    await assert.rejects(initialise(root, 'r'), invalid(/not empty/));
    assert.deepEqual(await readdir(root), [name]);
  }
});

test('the root of the file system and relative paths are refused', async () => {
  for (const root of ['/', '//', '/tmp/..', '/..']) await assert.rejects(initialise(root, 'r'), invalid(/root of the/));
  for (const root of ['', '.', 'backups', './backups', '../backups', '/a\0b']) {
    await assert.rejects(initialise(root, 'r'), invalid(/absolute/));
  }
});

test('parents are not made, so an absent mount is not filled in', async () => {
  await using tmp = await folder();
  await assert.rejects(initialise(path.join(tmp.dir, 'mnt', 'backups'), 'r'), invalid(/does not exist/));
  assert.deepEqual(await readdir(tmp.dir), []);
});

test('a file is no place for a repository, nor below one', async () => {
  await using tmp = await folder();
  await writeFile(path.join(tmp.dir, 'file'), '');
  await assert.rejects(initialise(path.join(tmp.dir, 'file', 'x'), 'r'), invalid(/not a folder/));
  await assert.rejects(initialise(path.join(tmp.dir, 'file'), 'r'), invalid(/is not a folder/));
});

test('a repository inside a repository is refused, also through a link', async () => {
  await using tmp = await folder();
  const outer = path.join(tmp.dir, 'outer');
  await initialise(outer, 'outer');
  await mkdir(path.join(outer, 'vms', 'db-1'), { recursive: true });
  await symlink(path.join(outer, 'vms'), path.join(tmp.dir, 'link'));
  for (const inner of [path.join(outer, 'vms', 'db-1'), path.join(tmp.dir, 'link', 'inner')]) {
    await assert.rejects(initialise(inner, 'inner'), invalid(/inside the repository outer/));
  }
  assert.deepEqual(await readdir(path.join(outer, 'vms', 'db-1')), []);
});
