/**
 * The suite that every kind of repository passes: `repositoryConformance('local', makePlace)`. A place is a fresh,
 * empty folder that the kind serves, and can be taken away as an unmounted share would be.
 */
import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import type { PointFile } from '#/api/point.ts';
import { hasCode } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import { run } from '#/lib/run.ts';
import { checkImage, compareImages, createImage, imageInfo } from '#/qemu/img.ts';
import { backingReference, IDENTITY_FILE } from './layout.ts';
import { createRepository, openRepository } from './open.ts';
import { pointFileText } from './point-file.ts';
import type { NewPoint, Repository, RepositorySettings, UnfinishedPoint } from './repository.ts';

const STARTED = Temporal.Instant.from('2026-11-23T23:45:00.25Z');
const MIB = 1 << 20;

export interface Place extends AsyncDisposable {
  settings: RepositorySettings;
}

export function repositoryConformance(kind: string, makePlace: () => Promise<Place>): void {
  const check = (behaviour: string, body: (repository: Repository, place: Place) => Promise<void>): void => {
    void test(`${kind}: ${behaviour}`, async () => {
      await using place = await makePlace();
      const { id } = await createRepository(place.settings, 'first');
      await using repository = await openRepository(place.settings, id);
      await body(repository, place);
    });
  };

  check('identity and space are known', async (repository, { settings }) => {
    assert.equal(repository.name, 'first');
    assert.equal(repository.kind, settings.kind);
    const { capacityBytes, freeBytes } = await repository.space();
    assert.ok(Number.isSafeInteger(capacityBytes) && capacityBytes > 0);
    assert.ok(freeBytes > 0 && freeBytes <= capacityBytes);
  });

  check('a place that is a repository is not made one again', async (_, { settings }) => {
    await assert.rejects(createRepository(settings, 'second'), code('ALREADY_EXISTS'));
  });

  check('another repository at the same place is refused', async (_, { settings }) => {
    await assert.rejects(openRepository(settings, newId()), code('REPOSITORY_UNAVAILABLE'));
  });

  check('a damaged or newer identity is refused and kept', async (repository, { settings }) => {
    const file = path.join(repository.root, IDENTITY_FILE);
    const good = await readFile(file, 'utf8');
    for (const bad of ['', '{"id":', '[]', good.replace('"formatVersion": 1', '"formatVersion": 2')]) {
      await writeFile(file, bad);
      await assert.rejects(openRepository(settings, repository.id), code('REPOSITORY_INVALID'), bad);
      assert.equal(await readFile(file, 'utf8'), bad);
    }
  });

  check('without its identity nothing is written, listed or removed', async (repository) => {
    const { folder, point } = await begun(repository);
    const file = path.join(repository.root, IDENTITY_FILE);
    await rename(file, `${file}-away`);
    const attempts: (() => Promise<unknown>)[] = [
      () => repository.space(),
      () => repository.beginPoint(newPoint()),
      () => repository.openUnfinished(folder),
      () => repository.listUnfinished(),
      () => repository.listPoints()[Symbol.asyncIterator]().next(),
      () => repository.pointFolder(folder),
      () => repository.removeUnfinished(folder),
      () => repository.removePoint(point.finalFolder),
      () => point.writeFile('point.json', '{}'),
      () => point.commit(),
      () => point.discard(),
    ];
    for (const attempt of attempts) await assert.rejects(attempt, code('REPOSITORY_UNAVAILABLE'), String(attempt));
    await rename(`${file}-away`, file);
    assert.deepEqual(await readdir(point.absolute), []);
  });

  check('a vanished place is unavailable', async (repository) => {
    await rename(repository.root, `${repository.root}-away`);
    await assert.rejects(repository.beginPoint(newPoint()), code('REPOSITORY_UNAVAILABLE'));
    await rename(`${repository.root}-away`, repository.root);
    await repository.beginPoint(newPoint());
  });

  check('a begun point is listed as unfinished and can be taken up again', async (repository) => {
    const { point, wanted } = await begun(repository);
    assert.equal(point.folder, `${point.finalFolder}.unfinished`);
    assert.match(point.finalFolder, new RegExp(`^vms/db01-[0-9a-z]{8}/20261123T234500Z-${wanted.pointId}$`));
    assert.deepEqual(await repository.listUnfinished(), [{ folder: point.folder, pointId: wanted.pointId }]);
    assert.deepEqual(await Array.fromAsync(repository.listPoints()), []);
    const again = await repository.openUnfinished(point.folder);
    assert.equal(again.absolute, point.absolute);
    assert.equal(again.imagePath(0), path.join(point.absolute, 'disk-0.qcow2'));
    await assert.rejects(
      repository.openUnfinished(`${point.folder.slice(0, -40)}zz.unfinished`),
      code('INVALID_REQUEST', 'NOT_FOUND'),
    );
  });

  check('the same point is not begun twice, finished or not', async (repository) => {
    const { point, wanted } = await begun(repository);
    await assert.rejects(repository.beginPoint(wanted), code('ALREADY_EXISTS'));
    await fill(repository, point, wanted);
    await point.commit();
    await assert.rejects(repository.beginPoint(wanted), code('ALREADY_EXISTS'));
  });

  check('a committed point has its final name, read-only images and is listed', async (repository) => {
    const { point, wanted } = await begun(repository);
    const file = await fill(repository, point, wanted);
    assert.equal(await point.commit(), point.finalFolder);
    const folder = await repository.pointFolder(point.finalFolder);
    assert.equal((await stat(path.join(folder, 'disk-0.qcow2'))).mode & 0o777, 0o440);
    assert.deepEqual(await Array.fromAsync(repository.listPoints()), [{ folder: point.finalFolder, point: file }]);
    assert.deepEqual(await repository.listUnfinished(), []);
    await assert.rejects(point.commit(), code('ALREADY_EXISTS'));
    await point.discard();
    assert.equal((await stat(folder)).isDirectory(), true);
  });

  check('an existing final folder is never replaced, not even an empty one', async (repository) => {
    const { point, wanted } = await begun(repository);
    await fill(repository, point, wanted);
    const final = path.join(repository.root, point.finalFolder);
    await mkdir(final);
    await assert.rejects(point.commit(), code('ALREADY_EXISTS'));
    assert.deepEqual(await readdir(final), []);
    assert.ok((await readdir(point.absolute)).includes('disk-0.qcow2'));
  });

  check('what is not whole is not committed', async (repository) => {
    const { point, wanted } = await begun(repository);
    await assert.rejects(point.commit(), code('WRONG_STATE'));
    const file = await fill(repository, point, wanted);
    const image = point.imagePath(0);
    await rename(image, point.imagePath(1));
    await assert.rejects(point.commit(), code('WRONG_STATE'));
    await rename(point.imagePath(1), image);
    for (const wrong of ['{', pointFileText({ ...file, id: newId() }), JSON.stringify({ ...file, version: 2 })]) {
      await point.writeFile('point.json', wrong);
      await assert.rejects(point.commit(), code('WRONG_STATE'));
    }
    await point.writeFile('point.json', pointFileText(file));
    await symlink('/etc/hostname', path.join(point.absolute, 'link'));
    await assert.rejects(point.commit(), code('WRONG_STATE'));
    await rm(path.join(point.absolute, 'link'));
    await point.commit();
  });

  check('side files cannot leave the folder or stand in for an image', async (repository) => {
    const { point } = await begun(repository);
    for (const name of ['../x', '/etc/x', '.hidden', '', 'a/b', 'disk-0.qcow2', 'a\0b', '..']) {
      await assert.rejects(point.writeFile(name, 'x'), code('INVALID_REQUEST'), name);
    }
    assert.throws(() => point.imagePath(-1), code('INVALID_REQUEST'));
    assert.throws(() => point.imagePath(0.5), code('INVALID_REQUEST'));
    assert.deepEqual(await readdir(point.absolute), []);
  });

  check('a discarded point leaves nothing, and doing it again is harmless', async (repository) => {
    const { point, wanted } = await begun(repository);
    await fill(repository, point, wanted);
    await point.discard();
    await repository.removeUnfinished(point.folder);
    assert.deepEqual(await readdir(path.join(repository.root, 'vms')), []);
    await assert.rejects(repository.openUnfinished(point.folder), code('NOT_FOUND'));
    await assert.rejects(point.commit(), code('NOT_FOUND'));
  });

  check('removing an unfinished point leaves the finished ones of the VM alone', async (repository) => {
    const { point, wanted } = await begun(repository);
    await fill(repository, point, wanted);
    await point.commit();
    const next = await repository.beginPoint({ ...wanted, pointId: newId() });
    await repository.removeUnfinished(next.folder);
    assert.equal((await Array.fromAsync(repository.listPoints())).length, 1);
  });

  check('a finished point goes only when asked for by its finished name', async (repository) => {
    const { point, wanted } = await begun(repository);
    await fill(repository, point, wanted);
    await point.commit();
    await assert.rejects(repository.removeUnfinished(point.finalFolder), code('INVALID_REQUEST'));
    await assert.rejects(repository.removePoint(point.folder), code('INVALID_REQUEST'));
    await repository.removePoint(point.finalFolder);
    await repository.removePoint(point.finalFolder);
    assert.deepEqual(await Array.fromAsync(repository.listPoints()), []);
    assert.deepEqual(await readdir(path.join(repository.root, 'vms')), []);
  });

  check('folders that are not exactly those of a restore point are refused', async (repository) => {
    const id = newId();
    const folders = [
      '',
      '.',
      '..',
      'vms',
      'vms/a',
      `vms/../vms/20261123T234500Z-${id}`,
      `/vms/a/20261123T234500Z-${id}`,
      `vms/a/20261123T234500Z-${id}/..`,
      `vms//20261123T234500Z-${id}`,
      `vms/a/${id}`,
      `other/a/20261123T234500Z-${id}`,
    ];
    for (const folder of folders) {
      await assert.rejects(repository.pointFolder(folder), code('INVALID_REQUEST'), folder);
      await assert.rejects(repository.removeUnfinished(folder), code('INVALID_REQUEST'), folder);
      await assert.rejects(repository.removePoint(folder), code('INVALID_REQUEST'), folder);
    }
  });

  check('a link that leads out of the repository is not followed', async (repository) => {
    const { point, wanted } = await begun(repository);
    const outside = `${repository.root}-outside`;
    const name = `20261123T234500Z-${newId()}.unfinished`;
    await mkdir(path.join(outside, name), { recursive: true });
    try {
      const vms = path.join(repository.root, 'vms');
      await symlink(outside, path.join(vms, 'linked-00000000'));
      await symlink(path.join(outside, name), path.join(path.dirname(point.absolute), name));
      for (const folder of [`vms/linked-00000000/${name}`, `${path.dirname(point.folder)}/${name}`]) {
        await assert.rejects(repository.pointFolder(folder), code('REPOSITORY_INVALID'));
        await assert.rejects(repository.removeUnfinished(folder), code('REPOSITORY_INVALID'));
      }
      assert.deepEqual(await readdir(outside), [name]);
      assert.deepEqual(await repository.listUnfinished(), [{ folder: point.folder, pointId: wanted.pointId }]);
    } finally {
      await rm(outside, { recursive: true });
    }
  });

  check('a renamed VM keeps its folder, and two VMs of one name have two', async (repository) => {
    const { point, wanted } = await begun(repository);
    const renamed = await repository.beginPoint({ ...wanted, vmName: 'Новое имя', pointId: newId() });
    assert.equal(path.dirname(renamed.folder), path.dirname(point.folder));
    const twin = await repository.beginPoint(newPoint());
    assert.notEqual(path.dirname(twin.folder), path.dirname(point.folder));
  });

  check('any VM name makes a folder that lies inside', async (repository) => {
    for (const vmName of ['../../etc', '/', '..', '', 'a\nb', '-rf', '💾'.repeat(100), 'CON', 'x'.repeat(5000)]) {
      const point = await repository.beginPoint({ ...newPoint(), vmName });
      assert.equal(await repository.pointFolder(point.folder), point.absolute);
    }
    assert.equal((await repository.listUnfinished()).length, 9);
    assert.deepEqual((await readdir(repository.root)).sort(), [IDENTITY_FILE, 'vms']);
  });

  check('points that cannot be read are listed with the reason and do not hide the others', async (repository) => {
    const good = await committed(repository);
    const vm = path.dirname(path.join(repository.root, good.finalFolder));
    const bad = { empty: newId(), torn: newId(), other: newId() };
    for (const id of Object.values(bad)) await mkdir(path.join(vm, `20270101T000000Z-${id}`));
    await mkdir(path.join(vm, 'my notes'));
    await writeFile(path.join(vm, 'a file'), '');
    await writeFile(path.join(vm, `20270101T000000Z-${bad.torn}`, 'point.json'), '{"version":1,');
    const foreign = await readFile(path.join(repository.root, good.finalFolder, 'point.json'));
    await writeFile(path.join(vm, `20270101T000000Z-${bad.other}`, 'point.json'), foreign);
    const listed = await Array.fromAsync(repository.listPoints());
    assert.equal(listed.filter(({ point }) => point !== undefined).length, 1);
    const problems = listed.filter(({ problem }) => problem !== undefined);
    assert.deepEqual(
      problems.map(({ folder, problem }) => `${path.basename(folder).slice(17)}: ${problem}`).sort(),
      [
        `${bad.empty}: it has no point.json`,
        `${bad.other}: its point.json is that of ${good.pointId}`,
        `${bad.torn}: its point.json is not JSON`,
        ': its name is not that of a restore point',
      ].sort(),
    );
  });

  check('an incremental reads through its relative backing file, before and after the commit', async (repository) => {
    const { point: base, wanted } = await begun(repository);
    await fill(repository, base, wanted);
    await base.commit();
    const next = await repository.beginPoint({ ...wanted, pointId: newId() });
    const relativeName = backingReference(next.folder, `${base.finalFolder}/disk-0.qcow2`);
    assert.equal(relativeName, `../${path.basename(base.finalFolder)}/disk-0.qcow2`);
    await createImage({ path: next.imagePath(0), sizeBytes: MIB, backing: { relativeName } });
    const full = path.join(repository.root, base.finalFolder, 'disk-0.qcow2');
    const same = async (file: string): Promise<boolean> =>
      (await compareImages({ path: full, format: 'qcow2' }, { path: file, format: 'qcow2' })).identical;
    assert.ok(await same(next.imagePath(0)));
    await next.writeFile('point.json', pointFileText(pointFile(repository, { ...wanted, pointId: next.pointId })));
    const folder = await repository.pointFolder(await next.commit());
    const image = path.join(folder, 'disk-0.qcow2');
    assert.ok(await same(image));
    assert.ok((await checkImage(image)).clean);
    assert.equal((await imageInfo(image)).backing?.name, relativeName);
  });
}

function code(...codes: ErrorCode[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(hasCode(error, ...codes), String(error));
    return true;
  };
}

export function newPoint(): NewPoint {
  return { vmName: 'db01', vmId: newId(), pointId: newId(), startedAt: STARTED };
}

async function begun(repository: Repository): Promise<{ point: UnfinishedPoint; wanted: NewPoint; folder: string }> {
  const wanted = newPoint();
  const point = await repository.beginPoint(wanted);
  return { point, wanted, folder: point.folder };
}

async function committed(repository: Repository): Promise<UnfinishedPoint> {
  const { point, wanted } = await begun(repository);
  await fill(repository, point, wanted);
  await point.commit();
  return point;
}

/** One image with data, and the sidecar. */
export async function fill(repository: Repository, point: UnfinishedPoint, wanted: NewPoint): Promise<PointFile> {
  await createImage({ path: point.imagePath(0), sizeBytes: MIB });
  await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 4k 100k', point.imagePath(0)]);
  const file = pointFile(repository, wanted);
  await point.writeFile('point.json', pointFileText(file));
  await point.writeFile('vm-config.xml', '<vm/>');
  return file;
}

export function pointFile(repository: { id: string }, point: NewPoint): PointFile {
  const time = point.startedAt.toString();
  return {
    version: 1,
    id: point.pointId,
    repositoryId: repository.id,
    jobId: newId(),
    vm: {
      id: point.vmId,
      name: point.vmName,
      moref: 'vm-101',
      instanceUuid: '5012f7c4-0000-0000-0000-000000000001',
      source: { id: newId(), name: 'lab', address: 'https://vc.example' },
    },
    requestedType: 'auto',
    consistency: 'crash',
    startedAt: time,
    snapshotAt: time,
    completedAt: time,
    disks: [
      {
        index: 0,
        backupId: newId(),
        key: 2000,
        uuid: '6000C29a-0000-0000-0000-000000000001',
        label: 'SCSI (0:0) Hard disk 1',
        virtualBytes: MIB,
        type: 'full',
        typeReason: 'first-backup',
        previousChangeId: null,
        changeId: '52 0a/1',
        parent: null,
        image: 'disk-0.qcow2',
        transferredBytes: MIB,
        storedBytes: 200_704,
      },
    ],
  };
}
