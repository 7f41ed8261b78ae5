/** Every file operation of a commit is cut off once, as kill -9 would: it and all later ones do not happen. */
import assert from 'node:assert/strict';
import fsp from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { hasCode } from '#/lib/errors.ts';
import { newPoint, pointFile } from './conformance.ts';
import { createRepository, openRepository } from './open.ts';
import { pointFileText } from './point-file.ts';
import type { Repository, UnfinishedPoint } from './repository.ts';

const FOLDER_OPERATIONS = ['open', 'rename', 'mkdir', 'rm', 'rmdir', 'readdir', 'lstat', 'readFile'] as const;
const FILE_OPERATIONS = ['chmod', 'sync', 'writeFile'] as const;

interface Cut {
  /** Number of operations that still happen; Infinity before the test arms it. */
  left: number;
  /** What happened, such as `sync disk-0.qcow2`. */
  done: string[];
}

/** Puts a counter in front of the file system for the time of one test. */
async function armed(t: TestContext, dir: string): Promise<Cut> {
  const cut: Cut = { left: Number.POSITIVE_INFINITY, done: [] };
  const names = new WeakMap<object, string>();
  const probe = await fsp.open(dir);
  const prototype = Object.getPrototypeOf(probe) as FileHandle;
  await probe.close();
  const step = (what: string): void => {
    if (cut.left <= 0) throw new Error('power cut');
    cut.left--;
    cut.done.push(what);
  };
  for (const name of FOLDER_OPERATIONS) {
    const original = fsp[name] as (...args: unknown[]) => Promise<unknown>;
    t.mock.method(fsp, name, async (...args: unknown[]) => {
      step(`${name} ${path.basename(String(args[0]))}`);
      const result = await original(...args);
      if (name === 'open') names.set(result as object, path.basename(String(args[0])));
      return result;
    });
  }
  for (const name of FILE_OPERATIONS) {
    const original = prototype[name] as (this: FileHandle, ...args: unknown[]) => Promise<void>;
    t.mock.method(prototype, name, function (this: FileHandle, ...args: unknown[]) {
      step(`${name} ${names.get(this)}`);
      return original.apply(this, args);
    });
  }
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
  return cut;
}

interface Fixture extends AsyncDisposable {
  repository: Repository;
  dir: string;
}

async function fixture(): Promise<Fixture> {
  const dir = await fsp.mkdtemp(path.join(tmpdir(), 'sendense-commit-'));
  const settings = { kind: 'local', root: path.join(dir, 'r') } as const;
  const { id } = await createRepository(settings, 'r');
  const repository = await openRepository(settings, id);
  return { repository, dir, [Symbol.asyncDispose]: () => fsp.rm(dir, { recursive: true, force: true }) };
}

async function filled(repository: Repository): Promise<UnfinishedPoint> {
  const wanted = newPoint();
  const point = await repository.beginPoint(wanted);
  // What is in an image is no matter here, and real ones would make this slow.
  await fsp.writeFile(point.imagePath(0), 'image');
  await point.writeFile('point.json', pointFileText(pointFile(repository, wanted)));
  await point.writeFile('vm-config.xml', '<vm/>');
  return point;
}

test('files are durable before the folder, the folder before the rename, and the rename before success', async (t) => {
  await using place = await fixture();
  const point = await filled(place.repository);
  const cut = await armed(t, place.dir);
  await point.commit();
  const order = cut.done.filter((step) => /^(chmod|sync|rename)/.test(step));
  const folder = path.basename(point.folder);
  const files = order.slice(0, -3).sort();
  assert.deepEqual(files, ['chmod disk-0.qcow2', 'sync disk-0.qcow2', 'sync point.json', 'sync vm-config.xml']);
  assert.ok(order.indexOf('chmod disk-0.qcow2') < order.indexOf('sync disk-0.qcow2'));
  const vm = path.basename(path.dirname(point.folder));
  assert.deepEqual(order.slice(-3), [`sync ${folder}`, `rename ${folder}`, `sync ${vm}`]);
});

test('a crash at any step of a commit leaves a point unfinished or complete, and the way out open', async (t) => {
  await using place = await fixture();
  const cut = await armed(t, place.dir);
  const { repository } = place;
  const outcomes = { unfinished: 0, finished: 0 };
  for (let steps = 0; ; steps++) {
    assert.ok(steps < 100);
    const point = await filled(repository);
    cut.left = steps;
    const error = await point.commit().then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    cut.left = Number.POSITIVE_INFINITY;
    const unfinished = await repository.listUnfinished();
    const finished = await Array.fromAsync(repository.listPoints());
    assert.equal(unfinished.length + finished.length, 1);
    if (unfinished.length === 1) {
      assert.equal(String(error), 'Error: power cut');
      outcomes.unfinished++;
      await (await repository.openUnfinished(point.folder)).commit();
    } else {
      outcomes.finished++;
      assert.ok(finished[0]?.point, 'a finished point is complete');
      await assert.rejects(repository.openUnfinished(point.folder), (thrown) => hasCode(thrown, 'NOT_FOUND'));
    }
    await repository.removePoint(point.finalFolder);
    if (error === undefined) break;
  }
  assert.ok(outcomes.unfinished >= 8 && outcomes.finished >= 2, JSON.stringify(outcomes));
});

test('a crash at any step of removing a finished point never leaves half of it under its final name', async (t) => {
  await using place = await fixture();
  const cut = await armed(t, place.dir);
  const { repository } = place;
  for (let steps = 0; ; steps++) {
    assert.ok(steps < 100);
    const point = await filled(repository);
    await point.commit();
    cut.left = steps;
    const gone = await repository.removePoint(point.finalFolder).then(
      () => true,
      () => false,
    );
    cut.left = Number.POSITIVE_INFINITY;
    for (const { point: whole } of await Array.fromAsync(repository.listPoints())) assert.ok(whole);
    for (const { folder } of await repository.listUnfinished()) await repository.removeUnfinished(folder);
    await repository.removePoint(point.finalFolder);
    assert.deepEqual(await Array.fromAsync(repository.listPoints()), []);
    if (gone) break;
  }
});

test('a full or failing disk has its own code, and the point stays unfinished', async (t) => {
  await using place = await fixture();
  const point = await filled(place.repository);
  const original = fsp.rename;
  for (const [errno, code] of [
    ['ENOSPC', 'REPOSITORY_FULL'],
    ['EDQUOT', 'REPOSITORY_FULL'],
    ['EIO', 'REPOSITORY_UNAVAILABLE'],
    ['ESTALE', 'REPOSITORY_UNAVAILABLE'],
  ] as const) {
    t.mock.method(fsp, 'rename', () => Promise.reject(Object.assign(new Error(errno), { code: errno })));
    syncBuiltinESMExports();
    await assert.rejects(point.commit(), (error) => hasCode(error, code));
    t.mock.restoreAll();
    syncBuiltinESMExports();
    assert.equal(fsp.rename, original);
  }
  assert.equal((await place.repository.listUnfinished()).length, 1);
  await point.commit();
});
