import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { elapsedMs } from '#/lib/clock.ts';
import { Lab } from './test-kit.ts';
import type { HttpAnswer } from './test-kit.ts';

const SIZE = 1024 * 1024 + 3 * 512;
const VMS = {
  datastores: [{ name: 'nfs' }, { name: 'vmfs', type: 'VMFS' }],
  vms: [
    { name: 'a/ü', datastore: 'nfs', disks: [{ sizeBytes: SIZE, content: 'random:50' }] },
    { name: 'v', datastore: 'vmfs', disks: [{ sizeBytes: SIZE }] },
    { name: 'huge', datastore: 'nfs', powerState: 'poweredOff', disks: [{ sizeBytes: 64 * 1024 ** 4 }] },
  ],
};
const FLAT = '/folder/a_%C3%BC/a_%C3%BC-flat.vmdk?dcPath=dc01&dsName=nfs';

async function start(
  settings: object = {},
): Promise<{ lab: Lab; get: (path: string, headers?: object) => Promise<HttpAnswer> }> {
  const lab = await Lab.start({ ...VMS, settings });
  await lab.login();
  const get = (path: string, headers: object = {}): Promise<HttpAnswer> =>
    lab.http(path, { headers: { cookie: lab.cookie, ...headers } });
  return { lab, get };
}

test('one range is answered with exactly its bytes, anything else in full or with 416', async () => {
  const { lab, get } = await start();
  await using _ = lab;
  await lab.snapshot(await lab.moref('a/ü'));
  const whole = (await get(FLAT)).body;
  assert.equal(whole.length, SIZE);
  const cases: [range: string, status: number, from: number, to: number][] = [
    ['bytes=0-511', 206, 0, 512],
    ['bytes=512-1023', 206, 512, 1024],
    [`bytes=${SIZE - 1}-${SIZE - 1}`, 206, SIZE - 1, SIZE],
    [`bytes=${SIZE - 512}-`, 206, SIZE - 512, SIZE],
    [`bytes=${SIZE - 512}-${SIZE + 9000}`, 206, SIZE - 512, SIZE],
    [`bytes=${SIZE}-`, 416, 0, 0],
    [`bytes=${SIZE + 5}-${SIZE + 6}`, 416, 0, 0],
    ['bytes=10-5', 416, 0, 0],
    ['bytes=0-1,4-5', 200, 0, SIZE],
    ['lines=0-5', 200, 0, SIZE],
  ];
  for (const [range, status, from, to] of cases) {
    const answer = await get(FLAT, { range });
    assert.deepEqual([range, answer.status, answer.body.length], [range, status, to - from]);
    assert.ok(answer.body.equals(whole.subarray(from, to)), range);
    const expected =
      status === 206 ? `bytes ${from}-${to - 1}/${SIZE}` : status === 416 ? `bytes */${SIZE}` : undefined;
    assert.equal(answer.headers['content-range'], expected, range);
  }
  const head = await lab.http(FLAT, { method: 'HEAD', headers: { cookie: lab.cookie } });
  assert.deepEqual([head.status, head.headers['content-length'], head.body.length], [200, String(SIZE), 0]);
  await lab.control('PUT', 'settings', { ignoreRange: true });
  assert.equal((await get(FLAT, { range: 'bytes=0-511' })).status, 200);
});

test('a frozen disk keeps its bytes while the guest writes, and the kept copy is the same', async () => {
  const { lab, get } = await start({ keepSnapshots: true });
  await using _ = lab;
  const vm = await lab.moref('a/ü');
  await lab.control('POST', `vms/${vm}/write`, { percent: 20, seed: 'before' });
  const snapshot = await lab.snapshot(vm, 'first/one');
  const before = (await get(FLAT)).body;
  await lab.control('POST', `vms/${vm}/write`, { percent: 100, seed: 'after' });
  assert.equal(digest((await get(FLAT)).body), digest(before));
  const kept = await readFile(join(lab.dir, 'kept', encodeURIComponent('a/ü'), 'first%2Fone', 'disk-0.raw'));
  assert.equal(digest(kept), digest(before));
  await lab.task('RemoveSnapshot_Task', ['VirtualMachineSnapshot', snapshot], '<removeChildren>false</removeChildren>');
  await lab.snapshot(vm, 'second');
  const merged = (await get(FLAT)).body;
  assert.notEqual(digest(merged), digest(before), 'the merged base holds what the guest wrote');
});

test('the descriptor says what a host would write: size in sectors, identity, parent', async () => {
  const { lab, get } = await start();
  await using _ = lab;
  const vm = await lab.moref('a/ü');
  await lab.snapshot(vm);
  const base = (await get('/folder/a_%C3%BC/a_%C3%BC.vmdk?dcPath=%2Fdc01&dsName=nfs')).body.toString();
  assert.match(base, /^# Disk DescriptorFile\n/);
  assert.match(base, /\ncreateType="vmfs"\n/);
  assert.match(base, new RegExp(`\nRW ${SIZE / 512} VMFS "a_ü-flat.vmdk"\n`));
  const [live] = await lab.disks('VirtualMachine', vm);
  const uuid = /ddb\.uuid = "([^"]+)"/.exec(base)?.[1]?.replaceAll(/[ -]/g, '');
  assert.equal(uuid, live?.['uuid']?.replaceAll('-', '').toLowerCase());
  assert.equal(live?.['fileName'], '[nfs] a_ü/a_ü-000001.vmdk');
  const delta = (await get('/folder/a_%C3%BC/a_%C3%BC-000001.vmdk?dsName=nfs')).body.toString();
  assert.match(delta, /createType="seSparse"\nparentFileNameHint="a_ü.vmdk"/);
  const parentCid = /parentCID=(\w+)/.exec(delta)?.[1];
  assert.equal(parentCid, /\nCID=(\w+)/.exec(base)?.[1]);
});

test('who is not logged in, asks for what is not there or leaves the folder is refused', async () => {
  const { lab, get } = await start();
  await using _ = lab;
  await lab.snapshot(await lab.moref('a/ü'));
  const basic = (password: string): string =>
    `Basic ${Buffer.from(`${lab.simulator.username}:${password}`).toString('base64')}`;
  const anonymous = await lab.http(FLAT);
  assert.deepEqual([anonymous.status, anonymous.headers['www-authenticate']], [401, 'Basic realm="simulator"']);
  assert.equal((await lab.http(FLAT, { headers: { authorization: basic('wrong') } })).status, 401);
  const range = 'bytes=0-511';
  assert.equal(
    (await lab.http(FLAT, { headers: { authorization: basic(lab.simulator.password), range } })).status,
    206,
  );
  assert.equal((await lab.http(FLAT, { method: 'DELETE', headers: { cookie: lab.cookie } })).status, 405);
  const cases: [path: string, status: number][] = [
    ['/folder/none/none-flat.vmdk?dcPath=dc01&dsName=nfs', 404],
    ['/folder/v/v-flat.vmdk?dcPath=dc01&dsName=nfs', 404],
    ['/folder/v/v.vmdk?dcPath=dc02&dsName=vmfs', 404],
    ['/folder/v/v.vmdk?dcPath=dc01', 404],
    ['/folder/v/%2e%2e/%2e%2e/password?dcPath=dc01&dsName=vmfs', 404],
    ['/folder/v/..%2f..%2fpassword?dcPath=dc01&dsName=vmfs', 400],
    ['/folder/v/%zz?dcPath=dc01&dsName=vmfs', 400],
    ['/folder/', 404],
    ['/other', 404],
  ];
  for (const [path, status] of cases) assert.deepEqual([path, (await get(path)).status], [path, status]);
});

test('the files that a running guest writes to are locked, on VMFS also those below', async () => {
  const { lab, get } = await start();
  await using _ = lab;
  const vmfs = '/folder/v/v-flat.vmdk?dcPath=dc01&dsName=vmfs';
  const head = { range: 'bytes=0-511' };
  assert.equal((await get(FLAT, head)).status, 500);
  assert.equal((await get(vmfs, head)).status, 500);
  await lab.snapshot(await lab.moref('a/ü'));
  await lab.snapshot(await lab.moref('v'));
  assert.equal((await get(FLAT, head)).status, 206);
  assert.equal((await get(vmfs, head)).status, 500);
  await lab.control('POST', 'vms/v/power', { state: 'poweredOff' });
  assert.equal((await get(vmfs, head)).status, 206);
});

test('a disk of 64 TiB is read at its very end', async () => {
  const { lab, get } = await start();
  await using _ = lab;
  const size = 64 * 1024 ** 4;
  const answer = await get('/folder/huge/huge-flat.vmdk?dsName=nfs', { range: `bytes=${size - 1024}-` });
  assert.deepEqual([answer.status, answer.headers['content-range']], [206, `bytes ${size - 1024}-${size - 1}/${size}`]);
  assert.ok(answer.body.equals(Buffer.alloc(1024)));
});

test('downloads keep to the rate that is set', async () => {
  const { lab, get } = await start({ folderBytesPerSecond: 2 * 1024 * 1024 });
  await using _ = lab;
  await lab.snapshot(await lab.moref('a/ü'));
  const begun = elapsedMs();
  await Promise.all([get(FLAT, { range: 'bytes=0-524287' }), get(FLAT, { range: 'bytes=524288-1048575' })]);
  assert.ok(elapsedMs() - begun > 350, 'a MiB at 2 MiB/s takes half a second, less what is in flight');
  const { folderBytes, openStreams } = await lab.control('GET', 'status');
  assert.deepEqual(folderBytes, { '[nfs] a_ü/a_ü-flat.vmdk': 1024 * 1024 });
  assert.equal(openStreams, 0);
});

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
