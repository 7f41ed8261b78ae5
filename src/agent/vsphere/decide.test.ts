import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideCapture, isTrackable, parseChangeId } from './decide.ts';
import type { CaptureDecision, CaptureQuestion } from './decide.ts';
import type { SnapshotDisk } from './devices.ts';

const EPOCH = '52 2d 7b 8f ac 61 51 cc-77 4c 7b ec 91 50 bb 7b';
const UUID = '6000C293-0ab1-4c5d-87aa-1e2f3a4b5c6d';
const GIB = 1024 ** 3;

const disk: SnapshotDisk = {
  key: 2000,
  uuid: UUID,
  label: 'SCSI (0:0) Hard disk 1',
  slot: 'scsi0:0',
  capacityBytes: GIB,
  diskMode: 'persistent',
  backingType: 'VirtualDiskFlatVer2BackingInfo',
  fileName: '[ds] vm/vm.vmdk',
  thin: true,
  compatibilityMode: undefined,
  shared: false,
  hasParent: false,
  datastore: 'datastore-1',
  changeId: `${EPOCH}/7`,
};
const vm = { changeTrackingEnabled: true, changeTrackingSupported: true, hardwareVersion: 'vmx-19' };
const previous = { changeId: `${EPOCH}/5`, diskUuid: UUID, capacityBytes: GIB };
const areas = [{ offset: 0, length: 65536 }];
const good: CaptureQuestion = { requested: 'auto', previous, disk, vm, query: { areas } };

function withDisk(changes: Partial<SnapshotDisk>): CaptureQuestion {
  return { ...good, disk: { ...disk, ...changes } };
}

function withBase(changes: Partial<typeof previous>): CaptureQuestion {
  return { ...good, previous: { ...previous, ...changes } };
}

const TABLE: [what: string, question: CaptureQuestion, mode: CaptureDecision['mode'], reason: string][] = [
  ['everything fits', good, 'incremental', 'changed-areas'],
  ['nothing changed', { ...good, query: { areas: [] } }, 'incremental', 'changed-areas'],
  ['an incremental was asked for', { ...good, requested: 'incremental' }, 'incremental', 'changed-areas'],
  ['the uuid is spelled otherwise', withBase({ diskUuid: UUID.toLowerCase() }), 'incremental', 'changed-areas'],
  [
    'the sequence grew by many digits',
    withDisk({ changeId: `${EPOCH}/18446744073709551615` }),
    'incremental',
    'changed-areas',
  ],
  ['a full was asked for', { ...good, requested: 'full' }, 'full', 'requested'],
  ['there is no earlier backup', { ...good, previous: undefined }, 'full', 'first'],
  [
    'no earlier backup, incremental asked for',
    { ...good, previous: undefined, requested: 'incremental' },
    'full',
    'first',
  ],
  ['tracking is off', { ...good, vm: { ...vm, changeTrackingEnabled: false } }, 'full', 'no-cbt'],
  ['tracking is not supported', { ...good, vm: { ...vm, changeTrackingSupported: false } }, 'full', 'not-supported'],
  ['the hardware is too old', { ...good, vm: { ...vm, hardwareVersion: 'vmx-04' } }, 'full', 'not-supported'],
  ['the VM is fault tolerant', { ...good, vm: { ...vm, faultTolerant: true } }, 'full', 'not-supported'],
  ['the backing keeps no ids', withDisk({ backingType: 'VirtualDiskFlatVer1BackingInfo' }), 'full', 'not-supported'],
  ['the backing is memory', withDisk({ backingType: 'VirtualDiskLocalPMemBackingInfo' }), 'full', 'not-supported'],
  ['the snapshot has no id', withDisk({ changeId: undefined }), 'full', 'no-change-id'],
  ['the new id has no number', withDisk({ changeId: EPOCH }), 'full', 'malformed-change-id'],
  ['the new id is a star', withDisk({ changeId: '*' }), 'full', 'malformed-change-id'],
  ['the old id has no number', withBase({ changeId: `${EPOCH}/x` }), 'full', 'malformed-change-id'],
  ['the old id is empty', withBase({ changeId: '' }), 'full', 'malformed-change-id'],
  [
    'another disk took the slot',
    withBase({ diskUuid: '6000C29a-0000-0000-0000-000000000000' }),
    'full',
    'disk-replaced',
  ],
  ['the disk has no uuid', withDisk({ uuid: null }), 'full', 'disk-replaced'],
  ['the disk grew', withDisk({ capacityBytes: 2 * GIB }), 'full', 'capacity'],
  ['the disk shrank', withDisk({ capacityBytes: GIB / 2 }), 'full', 'capacity'],
  ['tracking was switched off and on', withBase({ changeId: `62${EPOCH.slice(2)}/5` }), 'full', 'epoch'],
  ['the id did not move', withBase({ changeId: `${EPOCH}/7` }), 'full', 'seq'],
  ['the VM went back to a snapshot', withBase({ changeId: `${EPOCH}/9` }), 'full', 'seq'],
  ['events tell of a revert', { ...good, reverted: true }, 'full', 'reverted'],
  ['nobody asked for changed areas', { ...good, query: undefined }, 'full', 'not-queried'],
  ['the question failed', { ...good, query: { fault: 'FileFault' } }, 'full', 'query-fault'],
  ['the answer made no sense', { ...good, query: { fault: 'MalformedAnswer' } }, 'full', 'query-fault'],
  ['the storage cannot tell', { ...good, query: { fault: 'NotSupported' } }, 'full', 'not-supported'],
  ['independent persistent', withDisk({ diskMode: 'independent_persistent' }), 'excluded', 'independent'],
  ['independent nonpersistent', withDisk({ diskMode: 'independent_nonpersistent' }), 'excluded', 'independent'],
  [
    'physical raw device',
    withDisk({ backingType: 'VirtualDiskRawDiskMappingVer1BackingInfo', compatibilityMode: 'physicalMode' }),
    'excluded',
    'physical-rdm',
  ],
  ['hosted raw device', withDisk({ backingType: 'VirtualDiskRawDiskVer2BackingInfo' }), 'excluded', 'physical-rdm'],
  [
    'virtual raw device',
    withDisk({ backingType: 'VirtualDiskRawDiskMappingVer1BackingInfo', compatibilityMode: 'virtualMode' }),
    'incremental',
    'changed-areas',
  ],
  ['more than one writer', withDisk({ shared: true }), 'excluded', 'shared'],
  ['no backing', withDisk({ backingType: '' }), 'excluded', 'no-backing'],
  ['no file', withDisk({ fileName: '' }), 'excluded', 'no-backing'],
  ['no capacity', withDisk({ capacityBytes: 0 }), 'excluded', 'no-backing'],
  ['half a sector', withDisk({ capacityBytes: 700 }), 'excluded', 'no-backing'],
  [
    'excluded although a full was asked for',
    { ...withDisk({ shared: true }), requested: 'full' },
    'excluded',
    'shared',
  ],
];

for (const [what, question, mode, reason] of TABLE) {
  test(`${what}: ${mode} because of ${reason}`, () => {
    const decision = decideCapture(question);
    assert.deepEqual([decision.mode, decision.reason], [mode, reason]);
    if (decision.mode === 'incremental')
      assert.deepEqual(decision.areas, question.query && 'areas' in question.query && question.query.areas);
  });
}

test('a disk is trackable when a change id can be expected of it', () => {
  assert.ok(isTrackable({ ...disk, changeId: undefined }, vm));
  assert.ok(!isTrackable(disk, { ...vm, changeTrackingEnabled: false }));
  assert.ok(!isTrackable(disk, { ...vm, hardwareVersion: 'vmx-04' }));
  assert.ok(!isTrackable({ ...disk, diskMode: 'independent_persistent' }, vm));
  assert.ok(!isTrackable({ ...disk, backingType: 'VirtualDiskSparseVer1BackingInfo' }, vm));
});

test('a change id is cut at its last slash', () => {
  assert.deepEqual(parseChangeId('a/b c/12'), { epoch: 'a/b c', sequence: 12n });
  for (const bad of ['', '/', '/1', 'x/', 'x/-1', 'x/1 ', 'x/0x1', '*']) assert.equal(parseChangeId(bad), undefined);
});
