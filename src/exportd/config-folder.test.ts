import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { hasCode } from '#/lib/errors.ts';
import type { ExportSection } from './config-d.ts';
import { judgeImage, readConfigFolder } from './config-folder.ts';

async function folder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sd-conf-'));
  t.after(async () => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** A QCOW2 header as qemu-img would write it, as far as anybody looks. */
function header(options: {
  size?: number;
  backing?: string;
  format?: string;
  features?: number;
  crypt?: number;
}): Buffer {
  const bytes = Buffer.alloc(65_536);
  bytes.writeUInt32BE(0x514649fb, 0);
  bytes.writeUInt32BE(3, 4);
  bytes.writeUInt32BE(16, 20);
  bytes.writeBigUInt64BE(BigInt(options.size ?? 1048576), 24);
  bytes.writeUInt32BE(options.crypt ?? 0, 32);
  bytes.writeUInt32BE(options.features ?? 0, 76);
  bytes.writeUInt32BE(104, 100);
  if (options.backing === undefined) return bytes;
  if (options.format !== undefined) {
    bytes.writeUInt32BE(0xe2792aca, 104);
    bytes.writeUInt32BE(options.format.length, 108);
    bytes.write(options.format, 112);
  }
  bytes.writeBigUInt64BE(512n, 8);
  bytes.writeUInt32BE(Buffer.byteLength(options.backing), 16);
  bytes.write(options.backing, 512);
  return bytes;
}

async function judged(imagePath: string, sizeBytes: number | null = null): Promise<string> {
  const section: ExportSection = {
    file: 'a.conf',
    line: 2,
    name: 'a',
    imagePath,
    readOnly: false,
    agent: 'x',
    sizeBytes,
  };
  const result = await judgeImage(section);
  if ('section' in result) return 'good';
  assert.equal(result.line, 2);
  return result.reason;
}

test('only *.conf files are read, dot files and others are not', async (t) => {
  const dir = await folder(t);
  for (const name of ['b.conf', 'a.conf', '.hidden.conf', 'a.conf.new', 'notes', 'x.conf~']) {
    await writeFile(join(dir, name), `[${name.slice(0, 1)}]\nexportname=/x\nreadonly=true\n`);
  }
  const files = (await readConfigFolder(dir)).map((one) => ('section' in one ? one.section.file : one));
  assert.deepEqual(files, ['a.conf', 'b.conf']);
});

test('links, folders, huge files and bytes that are no text are refused by name', async (t) => {
  const dir = await folder(t);
  await writeFile(join(dir, 'real'), '[x]\n');
  await symlink(join(dir, 'real'), join(dir, 'link.conf'));
  await mkdir(join(dir, 'dir.conf'));
  await writeFile(join(dir, 'huge.conf'), '#'.repeat(70_000));
  await writeFile(join(dir, 'bytes.conf'), Buffer.from([0x5b, 0xff, 0xfe, 0x5d]));
  const reasons = Object.fromEntries(
    (await readConfigFolder(dir)).map((one) => ('reason' in one ? [one.file, one.reason] : ['good', one.section.name])),
  );
  assert.match(reasons['link.conf'] ?? '', /symbolic link/);
  assert.match(reasons['dir.conf'] ?? '', /not a regular file/);
  assert.match(reasons['huge.conf'] ?? '', /larger than/);
  assert.match(reasons['bytes.conf'] ?? '', /not UTF-8/);
  assert.equal(Object.keys(reasons).length, 4);
});

test('a folder that cannot be read is an error, not an empty configuration', async (t) => {
  const dir = await folder(t);
  await assert.rejects(readConfigFolder(join(dir, 'none')), (error) => hasCode(error, 'CONFIG_INVALID'));
});

test('an image of the expected size with a relative chain is good', async (t) => {
  const dir = await folder(t);
  await mkdir(join(dir, 'one'));
  await mkdir(join(dir, 'two'));
  await writeFile(join(dir, 'one/full.qcow2'), header({}));
  await writeFile(join(dir, 'two/inc.qcow2'), header({ backing: '../one/full.qcow2', format: 'qcow2', size: 2 ** 41 }));
  assert.equal(await judged(join(dir, 'two/inc.qcow2'), 2 ** 41), 'good');
});

test('what is no image is never opened', async (t) => {
  const dir = await folder(t);
  await writeFile(join(dir, 'raw'), Buffer.alloc(4096, 1));
  await writeFile(join(dir, 'short'), header({}).subarray(0, 80));
  await writeFile(join(dir, 'good'), header({}));
  await symlink(join(dir, 'good'), join(dir, 'link'));
  assert.match(await judged(join(dir, 'raw')), /not a QCOW2 image/);
  assert.match(await judged(join(dir, 'short')), /truncated/);
  assert.match(await judged(join(dir, 'link')), /symbolic link/);
  assert.match(await judged(join(dir, 'none')), /does not exist/);
  assert.match(await judged(dir), /not a regular file/);
  assert.match(await judged('/dev/null'), /not a regular file/);
});

test('the wrong size is refused with both numbers', async (t) => {
  const dir = await folder(t);
  await writeFile(join(dir, 'a'), header({ size: 4096 }));
  assert.match(await judged(join(dir, 'a'), 8192), /has 4096 bytes, expected are 8192/);
});

test('an image that points at files of its own choosing is refused, at any depth', async (t) => {
  const dir = await folder(t);
  const cases: [Buffer, RegExp][] = [
    [header({ backing: '/etc/shadow', format: 'qcow2' }), /not a relative path/],
    [header({ backing: 'json:{"driver":"raw"}', format: 'qcow2' }), /not a relative path/],
    [header({ backing: 'nbd://h/x', format: 'qcow2' }), /not a relative path/],
    [header({ backing: 'base', format: 'raw' }), /does not say that its backing file is qcow2/],
    [header({ backing: 'base' }), /does not say that its backing file is qcow2/],
    [header({ backing: 'none.qcow2', format: 'qcow2' }), /does not exist/],
    [header({ features: 4 }), /another file/],
    [header({ crypt: 2 }), /encrypted/],
    [header({ backing: 'low', format: 'qcow2' }), /deeper than/],
  ];
  for (const [bytes, reason] of cases) {
    await writeFile(join(dir, 'low'), bytes);
    await writeFile(join(dir, 'top'), header({ backing: 'low', format: 'qcow2' }));
    assert.match(await judged(join(dir, 'low')), reason);
    assert.match(await judged(join(dir, 'top')), reason);
  }
});
