import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { ended, start } from '#/lib/run.ts';
import { waitFor } from '#/lib/retry.ts';
import { control, controlOf } from './client.ts';
import { Lab } from './test-kit.ts';

const MIB = 1024 ** 2;
const VMS = {
  vms: [
    { name: 'a/b', disks: [{ sizeBytes: MIB + 512 }, { sizeBytes: MIB, label: 'data' }] },
    { name: 'off', powerState: 'poweredOff', disks: [{ sizeBytes: MIB }] },
  ],
};

test('a guest write says exactly what it wrote, and the same seed writes the same', async () => {
  await using lab = await Lab.start({ ...VMS, settings: { keepSnapshots: true } });
  await lab.login();
  const vm = await lab.moref('a/b');
  const written = await lab.control('POST', 'vms/a%2Fb/write', { percent: 50, seed: 'x' });
  const extents = written['extents'] as { offset: number; length: number }[];
  assert.equal(
    written['bytes'],
    extents.reduce((sum, extent) => sum + extent.length, 0),
  );
  assert.equal(extents.length, 9, 'half of 17 blocks');
  await lab.snapshot(vm, 'one');
  await lab.control('POST', 'vms/a%2Fb/write', { extents: [extents[0]], zero: true });
  await lab.snapshot(vm, 'two');
  assert.deepEqual(await lab.control('POST', 'vms/a%2Fb/write', { percent: 50, seed: 'x' }), written);
  await lab.snapshot(vm, 'three');
  const [one, two, three] = await Promise.all(
    ['one', 'two', 'three'].map((name) => readFile(join(lab.dir, 'kept', 'a%2Fb', name, 'disk-0.raw'))),
  );
  assert.ok(one && two && three && one.equals(three) && !one.equals(two));
  let other = 0;
  for (const extent of extents)
    other += one.subarray(extent.offset, extent.offset + extent.length).filter(Boolean).length;
  assert.equal(one.filter(Boolean).length, other, 'nothing beside the extents was written');
  const first = extents[0];
  assert.ok(first && two.subarray(first.offset, first.offset + first.length).every((byte) => byte === 0));
});

test('a request that does not fit is refused with its field, and nothing is written', async () => {
  await using lab = await Lab.start(VMS);
  const cases: [method: string, path: string, body: unknown, code: string, field?: string][] = [
    ['POST', 'vms/a%2Fb/write', { percent: 0 }, 'INVALID_REQUEST', 'percent'],
    ['POST', 'vms/a%2Fb/write', { percent: '5' }, 'INVALID_REQUEST', 'percent'],
    ['POST', 'vms/a%2Fb/write', { blockBytes: 100 }, 'INVALID_REQUEST', 'blockBytes'],
    ['POST', 'vms/a%2Fb/write', { speed: 1 }, 'INVALID_REQUEST', 'speed'],
    ['POST', 'vms/a%2Fb/write', { extents: [{ offset: 1, length: 512 }] }, 'INVALID_REQUEST', 'extents'],
    ['POST', 'vms/a%2Fb/write', { extents: [{ offset: MIB, length: 1024 }] }, 'INVALID_REQUEST', 'extents'],
    ['POST', 'vms/a%2Fb/write', { disk: 7 }, 'DISK_NOT_FOUND'],
    ['POST', 'vms/none/write', {}, 'VM_NOT_FOUND'],
    ['POST', 'vms/off/write', {}, 'WRONG_STATE'],
    ['POST', 'vms/a%2Fb/workload', {}, 'INVALID_REQUEST', 'bytesPerSecond'],
    ['POST', 'vms/a%2Fb/extend', { disk: 0, capacityBytes: MIB }, 'WRONG_STATE'],
    ['POST', 'vms/a%2Fb/disks', { sizeBytes: 5 }, 'INVALID_REQUEST'],
    ['POST', 'vms/a%2Fb/power', { state: 'on' }, 'INVALID_REQUEST', 'state'],
    ['PUT', 'settings', { taskMs: 'soon' }, 'INVALID_REQUEST', 'taskMs'],
    ['PUT', 'settings', [], 'INVALID_REQUEST'],
    ['GET', 'nothing', undefined, 'NOT_FOUND'],
  ];
  for (const [method, path, body, code, field] of cases) {
    const call = lab.control(method, path, body);
    await assert.rejects(call, { code, ...(field !== undefined && { details: detailsWith(field) }) }, path);
  }
  assert.equal((await lab.http('/simulator/status')).status, 401);
  await lab.login();
  const vm = await lab.moref('a/b');
  await lab.control('POST', 'vms/off/power', { state: 'poweredOn' });
  await lab.control('POST', `vms/${vm}/write`, { percent: 100 });
});

/** assert.rejects compares the details as a whole; some carry more than the field. */
function detailsWith(field: string): object {
  const known: Record<string, object> = { extents: { field, capacityBytes: MIB + 512 } };
  return known[field] ?? { field };
}

test('disks are added, grown and removed while the VM runs, and a snapshot keeps a removed one', async () => {
  await using lab = await Lab.start(VMS);
  await lab.login();
  const vm = await lab.moref('a/b');
  const added = await lab.control('POST', 'vms/a%2Fb/disks', { sizeBytes: 65_536, content: 'random:100' });
  await lab.control('POST', 'vms/a%2Fb/extend', { disk: 'data', capacityBytes: 2 * MIB });
  const live = await lab.disks('VirtualMachine', vm);
  assert.deepEqual(
    live.map((disk) => [disk['key'], Number(disk['capacityInBytes']), disk['fileName']]),
    [
      ['2000', MIB + 512, '[datastore1] a_b/a_b.vmdk'],
      ['2001', 2 * MIB, '[datastore1] a_b/a_b_1.vmdk'],
      ['2002', 65_536, '[datastore1] a_b/a_b_2.vmdk'],
    ],
  );
  const snapshot = await lab.snapshot(vm);
  const refused = lab.control('POST', 'vms/a%2Fb/extend', { disk: 0, capacityBytes: 2 * MIB });
  await assert.rejects(refused, { code: 'WRONG_STATE', details: { fault: 'InvalidDeviceSpec' } });
  await lab.control('DELETE', `vms/a%2Fb/disks/${String(added['disk'])}`);
  assert.equal((await lab.disks('VirtualMachine', vm)).length, 2);
  assert.equal((await lab.disks('VirtualMachineSnapshot', snapshot)).length, 3);
  await lab.task('RemoveAllSnapshots_Task', ['VirtualMachine', vm]);
  assert.equal(await lab.property('VirtualMachine', vm, 'snapshot'), undefined);
  const path = join(lab.dir, 'vms', vm, `${String(added['disk'])}-l4.000`);
  await assert.rejects(stat(path), { code: 'ENOENT' });
});

test('a workload writes until it is stopped', async () => {
  await using lab = await Lab.start(VMS);
  await lab.control('POST', 'vms/a%2Fb/workload', { bytesPerSecond: 10 * MIB, blockBytes: 4096 });
  await waitFor(
    'the workload',
    async () => {
      const { vms } = (await lab.control('GET', 'status')) as { vms: { workload: number | null }[] };
      return (vms[0]?.workload ?? 0) > 20_000 || undefined;
    },
    { timeoutMs: 10_000 },
  );
  const stopped = await lab.control('DELETE', 'vms/a%2Fb/workload');
  assert.ok(Number(stopped['writtenBytes']) % 512 === 0);
  const { vms } = (await lab.control('GET', 'status')) as { vms: { workload: number | null }[] };
  assert.equal(vms[0]?.workload, null);
});

test('killed in the middle of writing, the simulator comes back with its VMs, snapshots and bytes', async () => {
  await using lab = await Lab.start({ ...VMS, settings: { granularityBytes: 512 } });
  await lab.login();
  const vm = await lab.moref('a/b');
  await lab.enableTracking(vm);
  const before = (await lab.snapshot(vm, 'before')) && (await lab.disks('VirtualMachine', vm));
  const { password } = lab.simulator;
  await lab.simulator.close();
  const main = join(import.meta.dirname, '..', 'main.ts');
  const args = [main, 'simulator', 'run', '--dir', lab.dir, '--listen', '127.0.0.1:0'];
  const child = start(process.execPath, args);
  const end = ended('node', child);
  try {
    const target = await waitFor('the simulator', () => controlOf(lab.dir).catch(() => undefined), {
      timeoutMs: 10_000,
    });
    await waitFor('its answer', () => control(target, 'GET', 'status').catch(() => undefined), { timeoutMs: 10_000 });
    await control(target, 'POST', 'vms/a%2Fb/workload', { bytesPerSecond: 20 * MIB, blockBytes: 4096 });
    await control(target, 'POST', 'vms/a%2Fb/write', { disk: 1, percent: 100, seed: 'kept' });
    const written = async (): Promise<true | undefined> => {
      const { vms } = (await control(target, 'GET', 'status')) as { vms: { workload: number | null }[] };
      return (vms[0]?.workload ?? 0) > 0 || undefined;
    };
    await waitFor('the first bytes', written, { timeoutMs: 10_000 });
  } finally {
    child.kill('SIGKILL');
    await end;
  }
  await lab.restart();
  await lab.login();
  assert.equal(lab.simulator.password, password);
  assert.deepEqual(await lab.disks('VirtualMachine', vm), before);
  await lab.control('PUT', 'settings', { keepSnapshots: true });
  const after = await lab.snapshot(vm, 'after');
  const copy = await readFile(join(lab.dir, 'kept', 'a%2Fb', 'after', 'disk-1.raw'));
  await lab.control('POST', 'vms/a%2Fb/write', { disk: 1, percent: 100, seed: 'kept' });
  await lab.snapshot(vm, 'same');
  const same = await readFile(join(lab.dir, 'kept', 'a%2Fb', 'same', 'disk-1.raw'));
  assert.ok(copy.equals(same), 'what was answered before the kill is there');
  const first = (await lab.property('VirtualMachine', vm, 'rootSnapshot'))?.children[0]?.text ?? '';
  const changeId = (await lab.disks('VirtualMachineSnapshot', first))[0]?.['changeId'] ?? '';
  const { areas } = await lab.changedAreas(vm, { snapshot: after, changeId });
  const image = await readFile(join(lab.dir, 'kept', 'a%2Fb', 'after', 'disk-0.raw'));
  assert.ok(image.some((byte) => byte !== 0));
  for (const [start, length] of areas) image.fill(0, start, start + length);
  assert.ok(
    image.every((byte) => byte === 0),
    'every byte that reached the disk is among the changed areas',
  );
});
