/** The client against the simulator, which is as strict and as forgetful as a real vCenter. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { SendenseError, hasCode } from '#/lib/errors.ts';
import type { Extent } from '#/lib/extents.ts';
import { waitFor } from '#/lib/retry.ts';
import { control } from '#/simulator/client.ts';
import { startSimulator } from '#/simulator/main.ts';
import type { Simulator } from '#/simulator/main.ts';
import type { Settings } from '#/simulator/settings.ts';
import type { DiskSource } from '../source/source.ts';
import { openVsphereHttps } from '../source/vsphere-https.ts';
import { enableChangeTracking } from './change-tracking.ts';
import { queryChangedAreas } from './changed-areas.ts';
import { decideCapture } from './decide.ts';
import type { CaptureDecision } from './decide.ts';
import type { SnapshotDisk } from './devices.ts';
import { freezeDisks } from './freeze.ts';
import type { Frozen } from './freeze.ts';
import { listVms, loadVm } from './inventory.ts';
import type { VmRecord } from './inventory.ts';
import { planCapture } from './plan-capture.ts';
import { openSession } from './session.ts';
import type { Session } from './session.ts';
import { findSnapshots, removeOwnSnapshots, removeSnapshot } from './snapshot-removal.ts';
import { createSnapshot } from './snapshot.ts';
import { isFault } from './soap.ts';
import { fetchThumbprint } from './tls.ts';

const SIZE = 3 * 1024 * 1024 + 3 * 512;
const BLOCK = 65_536;

const VMS = [
  {
    name: 'web/1 – ü',
    folder: 'prod/web',
    disks: [
      { sizeBytes: SIZE, content: 'random:40' },
      { sizeBytes: 512, content: 'random:100' },
      { sizeBytes: 1024 * 1024, mode: 'independent_persistent' },
    ],
  },
  { name: 'plain', disks: [{ sizeBytes: SIZE, content: 'random:40' }] },
  { name: 'old', hardwareVersion: 4, disks: [{ sizeBytes: 65_536 }] },
  { name: 'template', template: true, powerState: 'poweredOff', disks: [{ sizeBytes: 65_536 }] },
  { name: 'lost', connectionState: 'inaccessible', disks: [{ sizeBytes: 65_536 }] },
  { name: 'cluster node', disks: [{ sizeBytes: 65_536, sharing: 'sharingMultiWriter' }] },
];

class Lab implements AsyncDisposable {
  readonly simulator: Simulator;
  readonly session: Session;
  readonly #cert: string;

  constructor(simulator: Simulator, session: Session, cert: string) {
    this.simulator = simulator;
    this.session = session;
    this.#cert = cert;
  }

  static async start(settings: Partial<Settings> = {}): Promise<Lab> {
    const dir = await mkdtemp(join(tmpdir(), 'sendense-vsphere-'));
    const simulator = await startSimulator({ dir, scenario: { vms: VMS, settings: { lockWaitMs: 50, ...settings } } });
    const { url: address, thumbprint, username, password } = simulator;
    const session = await openSession({ address, username, password, thumbprint, retryDelayMs: 5 });
    return new Lab(simulator, session, await readFile(join(dir, 'cert.pem'), 'utf8'));
  }

  async control(method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
    const { url, username, password } = this.simulator;
    return (await control({ url, username, password, cert: this.#cert }, method, path, body)) as Record<
      string,
      unknown
    >;
  }

  async settings(changes: Partial<Settings>): Promise<void> {
    await this.control('PUT', 'settings', changes);
  }

  async requests(): Promise<Record<string, number>> {
    return (await this.control('GET', 'status'))['requests'] as Record<string, number>;
  }

  async vm(name = 'plain'): Promise<VmRecord> {
    const { vms } = await listVms(this.session);
    return vms.find((vm) => vm.name === name) ?? assert.fail(`no VM ${name}`);
  }

  async write(vm: VmRecord, extents: Extent[]): Promise<void> {
    await this.control('POST', `vms/${encodeURIComponent(vm.moref)}/write`, { extents });
  }

  async freeze(vm: VmRecord, name = 'sendense-test'): Promise<Frozen> {
    const tracking = { ...vm, changeTrackingEnabled: true };
    return freezeDisks(this.session, vm.moref, { name, description: '{}', quiesce: 'never', tracking });
  }

  async remove(vm: VmRecord, { moref }: { moref: string }): Promise<void> {
    const removal = await removeSnapshot(this.session, { vm: vm.moref, snapshot: moref });
    assert.deepEqual(removal, { consolidationNeeded: false });
  }

  /** What other clients do to a VM: a method that we do not speak. */
  async foreign(method: string, type: string, moref: string, inner = ''): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const headers = { 'content-type': 'text/xml', cookie: this.session.cookie };
    const post = request(`${this.simulator.url}/sdk`, { method: 'POST', ca: this.#cert, headers }, (response) => {
      response.resume().on('end', () => resolve(response.statusCode ?? 0));
    });
    post.on('error', reject);
    post.end(
      '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>' +
        `<${method} xmlns="urn:vim25"><_this type="${type}">${moref}</_this>${inner}</${method}></e:Body></e:Envelope>`,
    );
    assert.equal(await promise, 200);
  }

  async open(vm: VmRecord, disk: SnapshotDisk): Promise<DiskSource> {
    const { signal } = new AbortController();
    return openVsphereHttps({ session: this.session, disk, datacenterPath: vm.datacenterPath, signal });
  }

  async content(vm: VmRecord, disk: SnapshotDisk): Promise<Buffer> {
    await using source = await this.open(vm, disk);
    return await readAreas(source, [{ offset: 0, length: source.sizeBytes }], Buffer.alloc(source.sizeBytes));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session[Symbol.asyncDispose]();
    await this.simulator.close();
    await rm(this.simulator.dir, { recursive: true, force: true });
  }
}

/** Reads areas into their places in `image`. */
async function readAreas(source: DiskSource, areas: readonly Extent[], image: Buffer): Promise<Buffer> {
  const { signal } = new AbortController();
  for (const { offset, length } of areas) await source.read(offset, image.subarray(offset, offset + length), signal);
  return image;
}

function first(frozen: Frozen): SnapshotDisk {
  return frozen.disks[0] ?? assert.fail('the snapshot has no disk');
}

interface Base {
  changeId: string;
  diskUuid: string;
  capacityBytes: number;
}

function baseOf(disk: SnapshotDisk): Base {
  assert.ok(disk.changeId && disk.uuid);
  return { changeId: disk.changeId, diskUuid: disk.uuid, capacityBytes: disk.capacityBytes };
}

async function decide(lab: Lab, vm: VmRecord, frozen: Frozen, previous: Base): Promise<CaptureDecision> {
  const tracking = { ...vm, changeTrackingEnabled: true };
  const question = { requested: 'auto' as const, previous, disk: first(frozen), vm: tracking };
  return planCapture(lab.session, { vm: vm.moref, snapshot: frozen.moref }, question);
}

/** A VM with tracking on and a base to compare with, its snapshot gone again. */
async function withBase(lab: Lab, vm: VmRecord): Promise<{ base: Base; image: Buffer }> {
  assert.ok((await enableChangeTracking(lab.session, vm.moref)).enabled);
  const frozen = await lab.freeze(vm);
  const image = await lab.content(vm, first(frozen));
  await lab.remove(vm, frozen);
  return { base: baseOf(first(frozen)), image };
}

test('the inventory names what there is, and what cannot be read', async () => {
  await using lab = await Lab.start({ pageObjects: 3 });
  const { vms, problems } = await listVms(lab.session);
  assert.deepEqual(vms.map((vm) => vm.name).toSorted(), ['cluster node', 'old', 'plain', 'template', 'web/1 – ü']);
  assert.deepEqual(problems.length, 1);
  assert.match(problems[0]?.reason ?? '', /inaccessible/);
  const web = await lab.vm('web/1 – ü');
  assert.equal(web.path, 'dc01/vm/prod/web/web%2f1 – ü');
  assert.deepEqual(
    web.disks.map((disk) => [disk.slot, disk.capacityBytes, disk.diskMode]),
    [
      ['scsi0:0', SIZE, 'persistent'],
      ['scsi0:1', 512, 'persistent'],
      ['scsi0:2', 1024 * 1024, 'independent_persistent'],
    ],
  );
  assert.deepEqual(await loadVm(lab.session, web.moref), web);
});

test('an incremental read over the changed areas makes the earlier image the present one', async () => {
  await using lab = await Lab.start();
  const vm = await lab.vm('web/1 – ü');
  const { base, image } = await withBase(lab, vm);
  await lab.write(vm, [
    { offset: 512, length: 512 },
    { offset: 5 * BLOCK - 512, length: 1024 },
    { offset: SIZE - 512, length: 512 },
  ]);
  const frozen = await lab.freeze(vm);
  // What the guest writes from here on belongs to the next backup.
  await lab.write(vm, [{ offset: 20 * BLOCK, length: BLOCK }]);
  const decision = await decide(lab, vm, frozen, base);
  assert.ok(decision.mode === 'incremental');
  assert.deepEqual(decision.areas, [
    { offset: 0, length: BLOCK },
    { offset: 4 * BLOCK, length: 2 * BLOCK },
    { offset: 48 * BLOCK, length: SIZE - 48 * BLOCK },
  ]);
  const whole = await lab.content(vm, first(frozen));
  assert.ok(!whole.equals(image));
  await using source = await lab.open(vm, first(frozen));
  assert.ok((await readAreas(source, decision.areas, image)).equals(whole));
  assert.match(frozen.configXml, /<changeId>/);
});

test('areas that come in pages, unsorted and overlapping, are put together', async () => {
  await using lab = await Lab.start({ qcdaMaxAreas: 2, qcdaRegionBytes: 10 * BLOCK, qcdaUnsorted: true });
  const vm = await lab.vm();
  const { base } = await withBase(lab, vm);
  const written = [1, 3, 5, 7, 9, 11, 30, 48].map((block) => ({ offset: block * BLOCK, length: 512 }));
  await lab.write(vm, written);
  const frozen = await lab.freeze(vm);
  const decision = await decide(lab, vm, frozen, base);
  assert.ok(decision.mode === 'incremental');
  assert.deepEqual(
    decision.areas,
    written.map(({ offset }) => ({ offset, length: Math.min(BLOCK, SIZE - offset) })),
  );
  assert.ok(((await lab.requests())['QueryChangedDiskAreas'] ?? 0) > 5);
});

test('everything in use can be asked for, and covers all that is not zero', async () => {
  await using lab = await Lab.start();
  const vm = await lab.vm();
  await enableChangeTracking(lab.session, vm.moref);
  const frozen = await lab.freeze(vm);
  const disk = first(frozen);
  const { key: deviceKey, capacityBytes } = disk;
  const query = { vm: vm.moref, snapshot: frozen.moref, deviceKey, capacityBytes, changeId: '*' };
  const areas = await queryChangedAreas(lab.session, query);
  assert.ok(areas.reduce((sum, area) => sum + area.length, 0) < capacityBytes);
  await using source = await lab.open(vm, disk);
  const image = await readAreas(source, areas, Buffer.alloc(capacityBytes));
  assert.ok(image.equals(await lab.content(vm, disk)));
});

test('what broke the tracking since the base means a full, with the reason', async () => {
  await using lab = await Lab.start();
  const vm = await lab.vm();
  const { base } = await withBase(lab, vm);
  const reasonNow = async (before: Base): Promise<string> => {
    const frozen = await lab.freeze(vm, 'sendense-reason');
    const { reason } = await decide(lab, vm, frozen, before);
    await lab.remove(vm, frozen);
    return reason;
  };
  assert.equal(await reasonNow(base), 'changed-areas');

  // Somebody goes back to a snapshot: numbers are given out twice.
  const kept = await lab.freeze(vm, 'kept by a person');
  const later = await lab.freeze(vm, 'sendense-later');
  const newest = baseOf(first(later));
  await removeOwnSnapshots(lab.session, vm.moref, { name: 'sendense-later' });
  await lab.foreign('RevertToSnapshot_Task', 'VirtualMachineSnapshot', kept.moref);
  await settled(lab, vm);
  const reverted = await lab.freeze(vm, 'sendense-reverted');
  const decision = decideCapture({
    requested: 'auto',
    previous: newest,
    disk: first(reverted),
    vm: { ...vm, changeTrackingEnabled: true },
  });
  assert.deepEqual([decision.mode, decision.reason], ['full', 'seq']);
  await removeOwnSnapshots(lab.session, vm.moref, { name: 'sendense-reverted' });
  await lab.remove(vm, kept);

  // Tracking off and on again begins another epoch.
  const spec = (on: boolean): string => `<spec><changeTrackingEnabled>${on}</changeTrackingEnabled></spec>`;
  await lab.foreign('ReconfigVM_Task', 'VirtualMachine', vm.moref, spec(false));
  await settled(lab, vm);
  await lab.remove(
    vm,
    await createSnapshot(lab.session, vm.moref, { name: 'stun', description: '', quiesce: 'never' }),
  );
  await enableChangeTracking(lab.session, vm.moref);
  assert.equal(await reasonNow(base), 'epoch');

  await lab.control('POST', `vms/${vm.moref}/extend`, { disk: 0, capacityBytes: SIZE + 65_536 });
  assert.equal(await reasonNow(base), 'capacity');
});

/** Waits until no task of the VM is in the way of the next. */
async function settled(lab: Lab, vm: VmRecord): Promise<void> {
  await waitFor(
    'the VM to be free',
    async () => {
      try {
        await removeOwnSnapshots(lab.session, vm.moref, { name: 'nobody has this name' });
        return (await loadVm(lab.session, vm.moref)).moref;
      } catch (error) {
        if (hasCode(error, 'SOURCE_FAULT')) return undefined;
        throw error;
      }
    },
    { timeoutMs: 5000 },
  );
}

test('a question that the server refuses means a full, unless a full would only hide it', async () => {
  await using lab = await Lab.start();
  const vm = await lab.vm();
  const { base } = await withBase(lab, vm);
  const frozen = await lab.freeze(vm);
  const refusal = async (fault: string, count = 1): Promise<unknown> => {
    await lab.settings({ faults: [{ method: 'QueryChangedDiskAreas', fault, count }] });
    const decision = await decide(lab, vm, frozen, base);
    return [decision.mode, decision.reason];
  };
  assert.deepEqual(await refusal('FileFault'), ['full', 'query-fault']);
  assert.deepEqual(await refusal('SystemError'), ['full', 'query-fault']);
  assert.deepEqual(await refusal('NotSupported'), ['full', 'not-supported']);
  assert.deepEqual(await refusal('HostCommunication', 4), ['incremental', 'changed-areas']);
  assert.deepEqual(await refusal('TaskInProgress', 5), ['full', 'query-fault']);
  await assert.rejects(refusal('NoPermission'), (error) => isFault(error, 'NoPermission'));
  await lab.settings({ faults: [] });
  const { key: deviceKey, capacityBytes } = first(frozen);
  const query = { vm: vm.moref, snapshot: frozen.moref, deviceKey, capacityBytes };
  const ask = async (changeId: string): Promise<unknown> => queryChangedAreas(lab.session, { ...query, changeId });
  await assert.rejects(ask(base.changeId.replace(/^../, 'ff')), (error) => isFault(error, 'FileFault'));
  await assert.rejects(ask('nonsense'), (error) => isFault(error, 'InvalidArgument'));
  await lab.remove(vm, frozen);
  await assert.rejects(decide(lab, vm, frozen, base), (error) => isFault(error, 'ManagedObjectNotFound'));
});

test('a VM that gives no change id at the first snapshot gets a second one', async () => {
  await using lab = await Lab.start({ changeIdAtFirstStun: false });
  const vm = await lab.vm();
  await enableChangeTracking(lab.session, vm.moref);
  const frozen = await lab.freeze(vm);
  assert.ok(first(frozen).changeId);
  assert.equal((await findSnapshots(lab.session, vm.moref)).length, 1);
  assert.equal((await lab.requests())['CreateSnapshotEx_Task'], 2);
});

test('disks that a snapshot does not hold are excluded, VMs that cannot track are full', async () => {
  await using lab = await Lab.start();
  const web = await lab.vm('web/1 – ü');
  const [, small, independent] = (await lab.freeze(web)).disks;
  const facts = { changeTrackingEnabled: true, changeTrackingSupported: true, hardwareVersion: 'vmx-19' };
  assert.ok(small && independent);
  assert.equal(decideCapture({ requested: 'auto', disk: independent, vm: facts }).reason, 'independent');
  assert.deepEqual((await lab.content(web, small)).length, 512);
  const old = await lab.vm('old');
  assert.deepEqual(await enableChangeTracking(lab.session, old.moref), {
    enabled: false,
    changed: false,
    reason: 'old-hardware',
  });
  const disk = first(await lab.freeze(old));
  assert.equal(decideCapture({ requested: 'auto', disk, vm: old }).reason, 'not-supported');
  const node = await lab.vm('cluster node');
  await assert.rejects(
    lab.freeze(node),
    (error) => error instanceof SendenseError && error.details['fault'] === 'SnapshotIncompatibleDeviceInVm',
  );
  const [shared] = node.disks;
  assert.ok(shared?.shared);
});

test('a session that ends is renewed in the middle of everything', async () => {
  await using lab = await Lab.start({ pageObjects: 2 });
  const vm = await lab.vm('web/1 – ü');
  const { base } = await withBase(lab, vm);
  const forget = async (): Promise<unknown> => lab.control('DELETE', 'sessions');
  await forget();
  assert.equal((await listVms(lab.session)).vms.length, 5);
  await forget();
  const frozen = await lab.freeze(vm);
  await forget();
  assert.equal((await decide(lab, vm, frozen, base)).mode, 'incremental');
  {
    await using source = await lab.open(vm, first(frozen));
    await forget();
    const image = await readAreas(source, [{ offset: 0, length: SIZE }], Buffer.alloc(SIZE));
    assert.ok(image.length === SIZE);
  }
  await forget();
  await lab.remove(vm, frozen);
  assert.equal(lab.session.generation, 6);
});

test('a session that expires while a task runs does not lose the task', async () => {
  await using lab = await Lab.start({ taskMs: 200 });
  const vm = await lab.vm();
  let ended = false;
  const forgetting = (async (): Promise<void> => {
    await waitFor('the task', async () => ((await lab.requests())['CreateSnapshotEx_Task'] ? true : undefined), {
      timeoutMs: 5000,
    });
    await lab.control('DELETE', 'sessions');
    ended = true;
  })();
  const snapshot = await createSnapshot(lab.session, vm.moref, { name: 'n', description: '', quiesce: 'never' });
  await forgetting;
  assert.ok(ended && lab.session.generation === 2);
  await lab.settings({ taskMs: 0 });
  await lab.remove(vm, snapshot);
});

test('a quiesce that fails falls back or fails, as the policy says, and leaves nothing half-made', async () => {
  await using lab = await Lab.start();
  const vm = await lab.vm();
  const options = { name: 'sendense-q', description: '' };
  const full = await createSnapshot(lab.session, vm.moref, { ...options, quiesce: 'require' });
  assert.equal(full.consistency, 'application');
  await lab.remove(vm, full);
  const faults = [{ method: 'CreateSnapshotEx_Task', fault: 'ApplicationQuiesceFault', inTask: true, count: 2 }];
  await lab.settings({ faults });
  await assert.rejects(createSnapshot(lab.session, vm.moref, { ...options, quiesce: 'require' }), (error) =>
    hasCode(error, 'QUIESCE_FAILED'),
  );
  assert.deepEqual(await findSnapshots(lab.session, vm.moref), []);
  const crash = await createSnapshot(lab.session, vm.moref, { ...options, quiesce: 'try' });
  assert.deepEqual([crash.consistency, crash.fellBackBecause], ['crash', 'ApplicationQuiesceFault']);
});

test('two who want the same VM at once both get their turn', async () => {
  await using lab = await Lab.start({ taskMs: 60 });
  const vm = await lab.vm();
  const make = async (name: string): Promise<unknown> =>
    createSnapshot(lab.session, vm.moref, { name, description: '', quiesce: 'never' });
  await Promise.all([make('a'), make('b')]);
  assert.deepEqual((await findSnapshots(lab.session, vm.moref)).map((entry) => entry.name).toSorted(), ['a', 'b']);
});

test('a VM with too many snapshots is refused with the fault', async () => {
  await using lab = await Lab.start({ snapshotLimit: 1 });
  const vm = await lab.vm();
  await createSnapshot(lab.session, vm.moref, { name: 'theirs', description: '', quiesce: 'never' });
  await assert.rejects(
    createSnapshot(lab.session, vm.moref, { name: 'ours', description: '', quiesce: 'try' }),
    (error) =>
      error instanceof SendenseError &&
      error.code === 'SNAPSHOT_FAILED' &&
      error.details['fault'] === 'TooManySnapshotLevels',
  );
});

test('a disk on top of an older snapshot is refused with its type', async () => {
  await using lab = await Lab.start();
  const vm = await lab.vm();
  await createSnapshot(lab.session, vm.moref, { name: 'theirs', description: '', quiesce: 'never' });
  const frozen = await lab.freeze(vm);
  assert.ok(first(frozen).hasParent);
  await assert.rejects(
    lab.open(vm, first(frozen)),
    (error) =>
      error instanceof SendenseError &&
      error.code === 'TRANSPORT_UNSUPPORTED' &&
      error.details['createType'] === 'seSparse',
  );
});

test('a removal while somebody still reads leaves consolidation behind, and a later one clears it', async () => {
  await using lab = await Lab.start({ folderBytesPerSecond: 20_000 });
  const vm = await lab.vm();
  const frozen = await lab.freeze(vm);
  {
    await using source = await lab.open(vm, first(frozen));
    const abort = new AbortController();
    const read = source.read(0, Buffer.alloc(1024 * 1024), abort.signal);
    const removal = await removeSnapshot(lab.session, { vm: vm.moref, snapshot: frozen.moref });
    assert.deepEqual(removal, { consolidationNeeded: true });
    abort.abort(new Error('enough'));
    await assert.rejects(read, /enough/);
  }
  await lab.settings({ folderBytesPerSecond: 0 });
  await waitFor(
    'the download to end',
    async () => (await lab.control('GET', 'status'))['openStreams'] === 0 || undefined,
    {
      timeoutMs: 5000,
    },
  );
  await lab.remove(vm, frozen);
});

test('a server that ignores ranges or keeps the file locked is told apart', async () => {
  await using lab = await Lab.start();
  const vm = await lab.vm();
  const frozen = await lab.freeze(vm);
  await lab.settings({ ignoreRange: true });
  await assert.rejects(lab.open(vm, first(frozen)), (error) => hasCode(error, 'READ_FAILED'));
  await lab.settings({ ignoreRange: false, faults: [{ method: 'folder', fault: '500', skip: 1 }] });
  await assert.rejects(lab.open(vm, first(frozen)), (error) => hasCode(error, 'TRANSPORT_UNSUPPORTED'));
  await lab.settings({ faults: [{ method: 'folder', fault: '503', count: 2, skip: 1 }] });
  assert.equal((await lab.content(vm, first(frozen))).length, SIZE);
});

test('a wrong certificate is noticed before a request, a wrong password after one', async () => {
  await using lab = await Lab.start();
  const { url: address, username, password, thumbprint } = lab.simulator;
  assert.equal((await fetchThumbprint(address)).sha256, thumbprint);
  const before = await lab.requests();
  const wrong = thumbprint.replace(/^../, (byte) => (byte === '00' ? '01' : '00'));
  await assert.rejects(openSession({ address, username, password, thumbprint: wrong }), (error) =>
    hasCode(error, 'THUMBPRINT_MISMATCH'),
  );
  assert.deepEqual(await lab.requests(), before);
  await assert.rejects(openSession({ address, username, password: 'wrong', thumbprint }), (error) =>
    hasCode(error, 'SOURCE_LOGIN_FAILED'),
  );
  assert.equal((await lab.control('GET', 'status'))['sessions'], 1);
});

test('closing a session ends it on the server', async () => {
  const lab = await Lab.start();
  await using stack = new AsyncDisposableStack();
  stack.use(lab);
  assert.equal((await lab.control('GET', 'status'))['sessions'], 1);
  await lab.session[Symbol.asyncDispose]();
  assert.equal((await lab.control('GET', 'status'))['sessions'], 0);
});
