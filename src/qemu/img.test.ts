import assert from 'node:assert/strict';
import { mkdtemp, open, readdir, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { hasCode } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';
import { run } from '#/lib/run.ts';
import { convertImage } from './convert.ts';
import { checkImage, compareImages, createImage, imageInfo, mapImage } from './img.ts';

const MIB = 1 << 20;

async function folder(): Promise<{ dir: string } & AsyncDisposable> {
  const dir = await mkdtemp(path.join(tmpdir(), 'sendense-img-'));
  return { dir, [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }) };
}

function code(...codes: ErrorCode[]): (error: unknown) => boolean {
  return (error) => hasCode(error, ...codes);
}

/** Writes `length` bytes of a pattern through qemu-io, an independent writer. */
async function write(file: string, pattern: number, offset: number, length: number): Promise<void> {
  await run('qemu-io', ['-f', 'qcow2', '-c', `write -P ${pattern} ${offset} ${length}`, file]);
}

test('a new image is qcow2 version 3 with 64 KiB clusters, no lazy refcounts and no backing file', async () => {
  await using tmp = await folder();
  const file = path.join(tmp.dir, 'a.qcow2');
  await createImage({ path: file, sizeBytes: 512 });
  const info = await imageInfo(file);
  assert.equal(info.virtualBytes, 512);
  assert.equal(info.format, 'qcow2');
  assert.equal(info.clusterBytes, 65_536);
  assert.equal(info.backing, null);
  assert.equal(info.lazyRefcounts, false);
  assert.equal((await readFile(file)).readUInt32BE(4), 3);
});

test('odd and very large virtual sizes are kept to the byte', async () => {
  await using tmp = await folder();
  for (const sizeBytes of [512, 2 * 2 ** 40 + 512, 64 * 2 ** 40]) {
    const file = path.join(tmp.dir, `${sizeBytes}.qcow2`);
    await createImage({ path: file, sizeBytes });
    assert.equal((await imageInfo(file)).virtualBytes, sizeBytes);
  }
});

test('a size that is no whole number of sectors is refused before anything is created', async () => {
  await using tmp = await folder();
  for (const sizeBytes of [0, -512, 513, Number.NaN, 2 ** 60]) {
    const attempt = createImage({ path: path.join(tmp.dir, 'a.qcow2'), sizeBytes });
    await assert.rejects(attempt, code('INVALID_REQUEST'));
  }
  assert.deepEqual(await readdir(tmp.dir), []);
});

test('an existing file is never overwritten', async () => {
  await using tmp = await folder();
  const file = path.join(tmp.dir, 'a.qcow2');
  await writeFile(file, 'precious');
  await assert.rejects(createImage({ path: file, sizeBytes: MIB }), code('ALREADY_EXISTS'));
  assert.equal(await readFile(file, 'utf8'), 'precious');
});

test('a backing name is stored as given, so both files can be moved together', async () => {
  await using tmp = await folder();
  const base = path.join(tmp.dir, 'base.qcow2');
  await createImage({ path: base, sizeBytes: MIB });
  await write(base, 7, 0, 65_536);
  await createImage({ path: path.join(tmp.dir, 'top.qcow2'), sizeBytes: MIB, backing: { relativeName: 'base.qcow2' } });
  const moved = `${tmp.dir}-moved`;
  await rename(tmp.dir, moved);
  try {
    const top = path.join(moved, 'top.qcow2');
    assert.deepEqual((await imageInfo(top)).backing, { name: 'base.qcow2', format: 'qcow2' });
    const [first, rest] = await mapImage({ path: top, format: 'qcow2' });
    assert.deepEqual(first && { length: first.length, depth: first.depth, data: first.data }, {
      length: 65_536,
      depth: 1,
      data: true,
    });
    assert.equal(rest?.zero, true);
  } finally {
    await rm(moved, { recursive: true });
  }
});

test('a backing file that does not exist leaves no image behind', async () => {
  await using tmp = await folder();
  const attempt = createImage({
    path: path.join(tmp.dir, 'a.qcow2'),
    sizeBytes: MIB,
    backing: { relativeName: '../no/such.qcow2' },
  });
  await assert.rejects(attempt, code('CHAIN_BROKEN'));
  assert.deepEqual(await readdir(tmp.dir), []);
});

test('backing names that QEMU would take as a protocol, an absolute path or a pseudo file are refused', async () => {
  await using tmp = await folder();
  const names = [
    'json:{"driver":"null-co"}',
    'nbd:127.0.0.1:10809',
    'nbd+unix:///x?socket=/tmp/x',
    '/etc/passwd',
    'a\nb.qcow2',
    '',
    'x'.repeat(1024),
  ];
  for (const relativeName of names) {
    const attempt = createImage({ path: path.join(tmp.dir, 'a.qcow2'), sizeBytes: MIB, backing: { relativeName } });
    await assert.rejects(attempt, code('INVALID_REQUEST'), relativeName);
  }
  assert.deepEqual(await readdir(tmp.dir), []);
});

test('hostile file names stay file names for every command', async () => {
  await using tmp = await folder();
  const names = [
    '-q',
    '--help',
    'with space',
    'line\nbreak',
    'nbd:localhost:1',
    'json:{"driver":"null-co","size":1}',
    'fat:rw:x',
    'comma,format=raw',
  ];
  for (const name of names) {
    const file = path.join(tmp.dir, name);
    await createImage({ path: file, sizeBytes: MIB });
    await write(file, 3, 65_536, 512);
    assert.equal((await imageInfo(file)).virtualBytes, MIB, name);
    assert.equal((await checkImage(file)).clean, true, name);
    assert.equal((await mapImage({ path: file, format: 'qcow2' })).filter((e) => e.data).length, 1, name);
    const self = { path: file, format: 'qcow2' } as const;
    assert.equal((await compareImages(self, self)).identical, true, name);
    const raw = { path: `${file}.raw`, format: 'raw' } as const;
    await convertImage({ source: self, target: raw });
    assert.equal((await compareImages(self, raw)).identical, true, name);
  }
  assert.equal((await readdir(tmp.dir)).length, 2 * names.length);
});

test('hostile names given relative to the working directory are files too', async () => {
  await using tmp = await folder();
  const relative = path.relative(process.cwd(), path.join(tmp.dir, 'nbd:x'));
  await createImage({ path: relative, sizeBytes: MIB });
  assert.equal((await imageInfo(relative)).virtualBytes, MIB);
});

test('leaked clusters are repaired and counted, and the data stay', async () => {
  await using tmp = await folder();
  const file = path.join(tmp.dir, 'a.qcow2');
  await createImage({ path: file, sizeBytes: MIB });
  await write(file, 9, 0, 65_536);
  await leakOneCluster(file);
  assert.deepEqual(await leaksOf(file, false), { clean: false, leaks: 1, leaksRepaired: 0 });
  assert.deepEqual(await leaksOf(file, true), { clean: true, leaks: 0, leaksRepaired: 1 });
  await run('qemu-io', ['-f', 'qcow2', '-r', '-c', 'read -P 9 0 64k', file]);
});

async function leaksOf(file: string, repairLeaks: boolean): Promise<object> {
  const { clean, leaks, leaksRepaired } = await checkImage(file, { repairLeaks });
  return { clean, leaks, leaksRepaired };
}

/** Claims the cluster behind the image's end in its refcount block without using it. */
async function leakOneCluster(file: string): Promise<void> {
  const bytes = await readFile(file);
  const refcountBlock = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(48))));
  const next = Math.ceil(bytes.length / 65_536);
  await truncate(file, (next + 1) * 65_536);
  await patch(file, refcountBlock + 2 * next, Buffer.from([0, 1]));
}

async function patch(file: string, offset: number, bytes: Buffer): Promise<void> {
  await using handle = await open(file, 'r+');
  await handle.write(bytes, 0, bytes.length, offset);
}

test('corruption is IMAGE_DAMAGED and nothing is repaired', async () => {
  await using tmp = await folder();
  const file = path.join(tmp.dir, 'a.qcow2');
  await createImage({ path: file, sizeBytes: MIB });
  await write(file, 9, 0, 131_072);
  const bytes = await readFile(file);
  const refcountBlock = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(48))));
  await patch(file, refcountBlock, Buffer.alloc(64));
  const before = await readFile(file);
  await assert.rejects(checkImage(file), code('IMAGE_DAMAGED'));
  assert.deepEqual(await readFile(file), before);
});

test('a file that is no image and a file that is missing have their own codes', async () => {
  await using tmp = await folder();
  const file = path.join(tmp.dir, 'a.qcow2');
  await assert.rejects(checkImage(file), code('CHAIN_BROKEN'));
  await assert.rejects(imageInfo(file), code('CHAIN_BROKEN'));
  await writeFile(file, Buffer.alloc(4096));
  await assert.rejects(checkImage(file), code('IMAGE_DAMAGED'));
});

test('an image whose backing file is gone does not pass as checked', async () => {
  await using tmp = await folder();
  const base = path.join(tmp.dir, 'base.qcow2');
  const top = path.join(tmp.dir, 'top.qcow2');
  await createImage({ path: base, sizeBytes: MIB });
  await createImage({ path: top, sizeBytes: MIB, backing: { relativeName: 'base.qcow2' } });
  await rm(base);
  await assert.rejects(checkImage(top), code('CHAIN_BROKEN'));
  assert.equal((await imageInfo(top)).virtualBytes, MIB);
});

test('comparison sees a single byte and a different size', async () => {
  await using tmp = await folder();
  const a = { path: path.join(tmp.dir, 'a.raw'), format: 'raw' } as const;
  const b = { path: path.join(tmp.dir, 'b.raw'), format: 'raw' } as const;
  await writeFile(a.path, Buffer.alloc(MIB));
  await writeFile(b.path, Buffer.alloc(MIB));
  assert.deepEqual(await compareImages(a, b), { identical: true, difference: null });
  await patch(b.path, MIB - 1, Buffer.from([1]));
  const differs = await compareImages(a, b);
  assert.equal(differs.identical, false);
  assert.match(differs.difference ?? '', /offset/);
  await writeFile(b.path, Buffer.alloc(MIB + 512));
  assert.equal((await compareImages(a, b)).identical, false);
  await rm(b.path);
  await assert.rejects(compareImages(a, b), code('CHAIN_BROKEN'));
});

test('an aborted call ends with the reason of the signal', async () => {
  await using tmp = await folder();
  const reason = new Error('enough');
  const attempt = createImage({
    path: path.join(tmp.dir, 'a.qcow2'),
    sizeBytes: MIB,
    signal: AbortSignal.abort(reason),
  });
  await assert.rejects(attempt, (error) => error === reason);
  await assert.rejects(stat(path.join(tmp.dir, 'a.qcow2')), { code: 'ENOENT' });
});

test('a conversion reports progress to its end and keeps the bytes', async () => {
  await using tmp = await folder();
  const source = { path: path.join(tmp.dir, 'a.qcow2'), format: 'qcow2' } as const;
  const target = { path: path.join(tmp.dir, 'a.raw'), format: 'raw' } as const;
  await createImage({ path: source.path, sizeBytes: 8 * MIB });
  await write(source.path, 5, 0, 4 * MIB);
  const shares: number[] = [];
  await convertImage({ source, target, onProgress: (share) => shares.push(share) });
  assert.equal(shares.at(-1), 1);
  assert.equal((await compareImages(source, target)).identical, true);
});

test('a conversion that cannot be done fails with the words of the tool', async () => {
  await using tmp = await folder();
  const source = { path: path.join(tmp.dir, 'missing.qcow2'), format: 'qcow2' } as const;
  const attempt = convertImage({ source, target: { path: path.join(tmp.dir, 'a.raw'), format: 'raw' } });
  await assert.rejects(attempt, (error) => hasCode(error, 'TOOL_FAILED') && /missing\.qcow2/.test(String(error)));
});
