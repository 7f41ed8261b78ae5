import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lab } from './test-kit.ts';

const MIB = 1024 ** 2;
const SIZE = 3 * MIB + 3 * 512;
const CASES = {
  vms: [
    { name: 'a', disks: [{ sizeBytes: SIZE, content: 'random:20' }, { sizeBytes: MIB }] },
    { name: 'b', disks: [{ sizeBytes: MIB }] },
    { name: 'old', hardwareVersion: 4, disks: [{ sizeBytes: MIB }] },
  ],
};

async function start(settings: object = {}): Promise<{ lab: Lab; vm: string }> {
  const lab = await Lab.start({ ...CASES, settings });
  await lab.login();
  return { lab, vm: await lab.moref('a') };
}

async function write(lab: Lab, offset: number, length = 512, disk = 0): Promise<void> {
  await lab.control('POST', 'vms/a/write', { disk, extents: [{ offset, length }] });
}

async function idOf(lab: Lab, snapshot: string, index = 0): Promise<string> {
  return (await lab.disks('VirtualMachineSnapshot', snapshot))[index]?.['changeId'] ?? '';
}

test('tracking begins at a stun, its id is in the configuration of the snapshot and the live one is another', async () => {
  const { lab, vm } = await start();
  await using _ = lab;
  const before = await lab.snapshot(vm, 'before');
  assert.equal(await idOf(lab, before), '');
  await lab.enableTracking(vm);
  assert.equal((await lab.disks('VirtualMachine', vm))[0]?.['changeId'], undefined, 'not active before the stun');
  const first = await lab.snapshot(vm, 'first');
  assert.match(await idOf(lab, first), /^([0-9a-f]{2} ){7}[0-9a-f]{2}-([0-9a-f]{2} ){7}[0-9a-f]{2}\/1$/);
  assert.notEqual((await lab.disks('VirtualMachine', vm))[0]?.['changeId'], await idOf(lab, first));
  assert.equal(await idOf(lab, before), '', 'an older snapshot gets none');
  assert.notEqual(await idOf(lab, first, 0), await idOf(lab, first, 1), 'each disk has an epoch of its own');
});

test('the areas between two snapshots are what the guest wrote between them, on the grid of the host', async () => {
  const { lab, vm } = await start();
  await using _ = lab;
  await lab.enableTracking(vm);
  const first = await lab.snapshot(vm, 'one');
  const id = await idOf(lab, first);
  await write(lab, 70_000 - (70_000 % 512));
  await write(lab, SIZE - 512);
  await write(lab, 0, 512, 1);
  const second = await lab.snapshot(vm, 'two');
  await write(lab, MIB);
  const { areas } = await lab.changedAreas(vm, { snapshot: second, changeId: id });
  assert.deepEqual(areas, [
    [65_536, 65_536],
    [3 * MIB, 3 * 512],
  ]);
  await lab.control('PUT', 'settings', { granularityBytes: 512 });
  const fine = await lab.changedAreas(vm, { snapshot: second, changeId: id });
  assert.deepEqual(fine.areas, [
    [69_632, 512],
    [SIZE - 512, 512],
  ]);
  const same = await lab.changedAreas(vm, { snapshot: second, changeId: await idOf(lab, second) });
  assert.deepEqual(same.areas, []);
});

test('changes are remembered over removed snapshots, a restart and the merge of their deltas', async () => {
  const { lab, vm } = await start();
  await using _ = lab;
  await lab.enableTracking(vm);
  const first = await lab.snapshot(vm, 'one');
  const id = await idOf(lab, first);
  await write(lab, 0);
  await lab.task('RemoveSnapshot_Task', ['VirtualMachineSnapshot', first], '<removeChildren>false</removeChildren>');
  await lab.restart();
  await lab.login();
  await write(lab, MIB);
  const between = await lab.snapshot(vm, 'between');
  await lab.task('RemoveSnapshot_Task', ['VirtualMachineSnapshot', between], '<removeChildren>false</removeChildren>');
  await write(lab, 2 * MIB);
  const last = await lab.snapshot(vm, 'last');
  const { areas } = await lab.changedAreas(vm, { snapshot: last, changeId: id });
  assert.deepEqual(areas, [
    [0, 65_536],
    [MIB, 65_536],
    [2 * MIB, 65_536],
  ]);
});

test('an answer covers only a region, and the answers together cover the disk', async () => {
  const { lab, vm } = await start({ qcdaMaxAreas: 2, qcdaRegionBytes: MIB });
  await using _ = lab;
  await lab.enableTracking(vm);
  const first = await lab.snapshot(vm, 'one');
  const written = [0, 131_072, 262_144, MIB, 3 * MIB];
  for (const offset of written) await write(lab, offset);
  const second = await lab.snapshot(vm, 'two');
  const id = await idOf(lab, first);
  const found: number[] = [];
  let calls = 0;
  for (let offset = 0; offset < SIZE; calls++) {
    const page = await lab.changedAreas(vm, { snapshot: second, offset, changeId: id });
    assert.ok(page.length > 0 && page.length <= MIB && page.areas.length <= 2);
    found.push(...page.areas.map(([start]) => start));
    offset += page.length;
  }
  assert.deepEqual(found, written);
  assert.equal(calls, 4);
  await lab.control('PUT', 'settings', { qcdaMaxAreas: 100, qcdaUnsorted: true });
  const unsorted = await lab.changedAreas(vm, { snapshot: second, changeId: id });
  assert.deepEqual(
    unsorted.areas.map(([start]) => start),
    [262_144, 131_072, 0, 0],
  );
  await lab.control('PUT', 'settings', { qcdaUnsorted: false, qcdaDropAreas: 1 });
  const dropped = await lab.changedAreas(vm, { snapshot: second, changeId: id });
  assert.deepEqual(
    dropped.areas.map(([start]) => start),
    [131_072, 262_144],
    'a host with a defect says nothing',
  );
});

test('a question is refused with the fault that names its mistake', async () => {
  const { lab, vm } = await start();
  await using _ = lab;
  const other = await lab.moref('b');
  await lab.enableTracking(vm);
  const snapshot = await lab.snapshot(vm);
  const foreign = await lab.snapshot(other);
  const changeId = await idOf(lab, snapshot);
  const uuid = changeId.split('/')[0] ?? '';
  const cases: [query: Parameters<Lab['changedAreas']>[1], fault: string, property: string | undefined][] = [
    [{ snapshot, offset: SIZE, changeId }, 'InvalidArgument', 'startOffset'],
    [{ snapshot, offset: -1, changeId }, 'InvalidArgument', 'startOffset'],
    [{ snapshot, key: 2002, changeId }, 'InvalidArgument', 'deviceKey'],
    [{ snapshot, changeId: 'rubbish' }, 'InvalidArgument', 'changeId'],
    [{ snapshot, changeId: `${uuid}/99` }, 'FileFault', undefined],
    [{ snapshot, key: 2001, changeId }, 'FileFault', undefined],
    [{ snapshot: foreign, changeId }, 'InvalidArgument', 'snapshot'],
    [{ snapshot: 'snapshot-1', changeId }, 'ManagedObjectNotFound', undefined],
    [{ changeId }, 'InvalidPowerState', undefined],
  ];
  for (const [query, fault, property] of cases) {
    const answer = await lab.changedAreas(vm, query);
    assert.deepEqual([query, answer.fault, answer.property], [query, fault, property]);
  }
  const untracked = await lab.changedAreas(other, { snapshot: foreign, changeId: '*' });
  assert.equal(untracked.fault, 'FileFault', 'without tracking not even all areas are known');
});

test('switching off and on, growing and a crash make earlier ids worthless', async () => {
  const cases: [what: string, act: (lab: Lab, vm: string) => Promise<unknown>][] = [
    [
      'off and on',
      async (lab, vm) => {
        const spec = '<spec><changeTrackingEnabled>false</changeTrackingEnabled></spec>';
        await lab.task('ReconfigVM_Task', ['VirtualMachine', vm], spec);
        await lab.task(
          'RemoveSnapshot_Task',
          ['VirtualMachineSnapshot', await lab.snapshot(vm)],
          '<removeChildren>true</removeChildren>',
        );
        await lab.enableTracking(vm);
      },
    ],
    ['growth', (lab) => lab.control('POST', 'vms/a/extend', { disk: 0, capacityBytes: SIZE + MIB })],
    ['crash', (lab) => lab.control('POST', 'vms/a/crash')],
  ];
  for (const [what, act] of cases) {
    const { lab, vm } = await start();
    await using _ = lab;
    await lab.enableTracking(vm);
    const first = await lab.snapshot(vm, 'one');
    const changeId = await idOf(lab, first);
    await lab.task('RemoveAllSnapshots_Task', ['VirtualMachine', vm]);
    await act(lab, vm);
    const snapshot = await lab.snapshot(vm, 'two');
    assert.equal((await lab.changedAreas(vm, { snapshot, changeId })).fault, 'FileFault', what);
    assert.notEqual((await idOf(lab, snapshot)).split('/')[0], changeId.split('/')[0], what);
  }
});

test('a revert gives out ids again that mean something else', async () => {
  const { lab, vm } = await start();
  await using _ = lab;
  await lab.enableTracking(vm);
  const first = await lab.snapshot(vm, 'one');
  await write(lab, 0);
  const lost = await idOf(lab, await lab.snapshot(vm, 'lost'));
  await lab.task('RevertToSnapshot_Task', ['VirtualMachineSnapshot', first]);
  await lab.task('PowerOnVM_Task', ['VirtualMachine', vm]);
  await write(lab, MIB);
  const again = await lab.snapshot(vm, 'again');
  assert.equal(await idOf(lab, again), lost, 'the same id for another state of the disk');
  const { areas } = await lab.changedAreas(vm, { snapshot: again, changeId: await idOf(lab, first) });
  assert.deepEqual(areas, [[MIB, 65_536]]);
});

test('a VM that is off is tracked at once and asked without a snapshot; old hardware is never tracked', async () => {
  const { lab, vm } = await start();
  await using _ = lab;
  await lab.control('POST', 'vms/a/power', { state: 'poweredOff' });
  await lab.enableTracking(vm);
  const all = await lab.changedAreas(vm, { changeId: '*' });
  assert.equal(all.fault, undefined);
  assert.ok(all.areas.length > 0, 'what was ever written is allocated');
  const spec = '<spec><changeTrackingEnabled>true</changeTrackingEnabled></spec>';
  const old = await lab.task('ReconfigVM_Task', ['VirtualMachine', await lab.moref('old')], spec);
  assert.equal(old.fault, 'NotSupported');
  await lab.control('PUT', 'settings', { qcdaAllocated: false });
  assert.equal((await lab.changedAreas(vm, { changeId: '*' })).fault, 'NotSupported');
});

test('a host may give no id with the snapshot that switches tracking on', async () => {
  const { lab, vm } = await start({ changeIdAtFirstStun: false });
  await using _ = lab;
  await lab.enableTracking(vm);
  assert.equal(await idOf(lab, await lab.snapshot(vm, 'one')), '');
  assert.match(await idOf(lab, await lab.snapshot(vm, 'two')), /\/2$/);
});
