import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SendenseError, hasCode } from '#/lib/errors.ts';
import { enableChangeTracking } from './change-tracking.ts';
import { scriptedCaller } from './doubles.ts';
import { freezeDisks } from './freeze.ts';
import type { Caller } from './session.ts';
import { findSnapshots, removeOwnSnapshots, removeSnapshot } from './snapshot-removal.ts';
import { createSnapshot, readSnapshotDisks } from './snapshot.ts';
import type { QuiescePolicy, SnapshotOptions } from './snapshot.ts';
import { faultError } from './soap.ts';
import type { DataObject, MoRef } from './soap.ts';

interface FakeSnapshot {
  id: string;
  name: string;
  quiesced: boolean;
  changeId: string | undefined;
}

interface FakeTask {
  /** Polls after which it has ended. */
  polls: number;
  end: () => string | undefined;
  descriptionId: string;
  result?: string | undefined;
}

/** One VM with a disk, as a server shows it; methods can be made to fail in every way a server fails. */
class FakeVm {
  power = 'poweredOn';
  tools = 'guestToolsRunning';
  tracking = true;
  config: Record<string, string> = { 'config.version': 'vmx-19', 'capability.changeTrackingSupported': 'true' };
  snapshots: FakeSnapshot[] = [];
  consolidationNeeded = false;
  version = '8.0.3.0';
  exists = true;
  configReadable = true;
  /** Snapshots from this one on carry a change id. */
  firstId = 1;
  quiesceIgnored = false;
  taskPolls = 1;
  /** Taken one per call, `inTask` within the task. */
  readonly faults: { method: string; fault: string; inTask?: boolean; halfMade?: boolean; task?: string }[] = [];
  readonly calls: string[] = [];
  readonly tasks = new Map<string, FakeTask>();
  readonly recentTasks: string[] = [];
  onCall: (method: string) => void = () => undefined;
  #next = 1;

  readonly caller: Caller;

  constructor() {
    const scripted = scriptedCaller(({ target, method, args }) => {
      if (method === 'RetrievePropertiesEx') {
        const object = (args['specSet'] as DataObject).fields['objectSet'] as DataObject;
        return this.#read(object.fields['obj'] as MoRef);
      }
      this.calls.push(method);
      this.onCall(method);
      const fault = this.#takeFault(method, false);
      if (fault)
        throw faultError(method, { fault: fault.fault, message: '', fields: fault.task ? { task: fault.task } : {} });
      return this.#order(target, method, args);
    });
    this.caller = Object.defineProperty({ ...scripted }, 'version', { get: () => this.version });
  }

  snapshot(name: string): FakeSnapshot {
    const number = this.#next++;
    const changeId = this.tracking && number >= this.firstId ? `52/${number}` : undefined;
    const made = { id: `snapshot-${number}`, name, quiesced: false, changeId };
    this.snapshots.push(made);
    return made;
  }

  startTask(descriptionId: string, end: () => string | undefined, polls = this.taskPolls): string {
    const id = `task-${this.#next++}`;
    this.tasks.set(id, { polls, end, descriptionId });
    return id;
  }

  #takeFault(method: string, inTask: boolean): FakeVm['faults'][number] | undefined {
    const index = this.faults.findIndex((entry) => entry.method === method && (entry.inTask ?? false) === inTask);
    return index < 0 ? undefined : this.faults.splice(index, 1)[0];
  }

  #order(target: MoRef, method: string, args: Record<string, unknown>): string {
    if (method === 'RemoveSnapshot_Task' && !this.snapshots.some((entry) => entry.id === target.value)) {
      throw faultError(method, { fault: 'ManagedObjectNotFound', message: '', fields: { obj: target.value } });
    }
    const id = this.startTask(`x.${method.charAt(0).toLowerCase()}${method.slice(1)}`, () => {
      const fault = this.#takeFault(method, true);
      if (fault?.halfMade || !fault) this.#carryOut(target, method, args);
      if (fault) throw faultError(method, { fault: fault.fault, message: '', fields: {} });
      return this.snapshots.at(-1)?.id;
    });
    return `<returnval type="Task">${id}</returnval>`;
  }

  #carryOut(target: MoRef, method: string, args: Record<string, unknown>): void {
    if (method.startsWith('CreateSnapshot')) {
      const asked = args['quiesceSpec'] !== undefined || args['quiesce'] === true;
      this.snapshot(String(args['name'])).quiesced = asked && !this.quiesceIgnored;
    } else if (method === 'RemoveSnapshot_Task') {
      this.snapshots = this.snapshots.filter((entry) => entry.id !== target.value);
    } else if (method === 'ConsolidateVMDisks_Task') {
      this.consolidationNeeded = false;
    } else if (method === 'ReconfigVM_Task') {
      this.tracking = true;
    }
  }

  #read(ref: MoRef): string {
    const object = (props: string): string =>
      `<returnval><objects><obj type="${ref.type}">${ref.value}</obj>${props}</objects></returnval>`;
    if (ref.type === 'Task') return object(prop('info', this.#poll(ref)));
    if (ref.type === 'VirtualMachineSnapshot')
      return object(this.configReadable ? prop('config', this.#config(ref)) : '');
    if (!this.exists) throw gone(ref);
    const tree = this.snapshots.map(
      (entry) =>
        `<rootSnapshotList><snapshot type="VirtualMachineSnapshot">${entry.id}</snapshot><name>${entry.name}</name>` +
        `<createTime>2026-02-03T04:05:06.789Z</createTime><quiesced>${entry.quiesced}</quiesced></rootSnapshotList>`,
    );
    const recent = this.recentTasks.map((id) => `<ManagedObjectReference type="Task">${id}</ManagedObjectReference>`);
    const config = { ...this.config, 'config.changeTrackingEnabled': String(this.tracking) };
    return object(
      prop('runtime.powerState', this.power) +
        prop('guest.toolsRunningStatus', this.tools) +
        prop('runtime.consolidationNeeded', String(this.consolidationNeeded)) +
        Object.entries(config)
          .map(([name, value]) => prop(name, value))
          .join('') +
        (tree.length > 0 ? prop('snapshot', tree.join('')) : '') +
        prop('recentTask', recent.join('')),
    );
  }

  #poll(ref: MoRef): string {
    const task = this.tasks.get(ref.value);
    if (!task) throw gone(ref);
    if (task.polls-- > 0)
      return `<descriptionId>${task.descriptionId}</descriptionId><state>running</state><progress>${task.polls}</progress>`;
    try {
      task.result ??= task.end();
      return `<descriptionId>${task.descriptionId}</descriptionId><state>success</state><result type="VirtualMachineSnapshot">${task.result}</result>`;
    } catch (error) {
      assert.ok(error instanceof SendenseError);
      const fault = String(error.details['fault']);
      return `<state>error</state><error><fault xsi:type="${fault}"/><localizedMessage>no</localizedMessage></error>`;
    }
  }

  #config(ref: MoRef): string {
    const snapshot = this.snapshots.find((entry) => entry.id === ref.value);
    if (!snapshot) throw gone(ref);
    const id = snapshot.changeId === undefined ? '' : `<changeId>${snapshot.changeId}</changeId>`;
    return (
      '<name>web</name><hardware><device xsi:type="VirtualDisk"><key>2000</key><backing xsi:type="VirtualDiskFlatVer2BackingInfo">' +
      `<fileName>[ds] web/web.vmdk</fileName><diskMode>persistent</diskMode><uuid>6000C293-1</uuid>${id}</backing>` +
      '<capacityInBytes>1048576</capacityInBytes></device></hardware>'
    );
  }
}

function prop(name: string, value: string): string {
  return `<propSet><name>${name}</name><val>${value}</val></propSet>`;
}

function gone(ref: MoRef): SendenseError {
  return faultError('RetrievePropertiesEx', {
    fault: 'ManagedObjectNotFound',
    message: '',
    fields: { obj: ref.value },
  });
}

const VM = 'vm-1';
const NAME = 'sendense-job-1';

function options(quiesce: QuiescePolicy, more: Partial<SnapshotOptions> = {}): SnapshotOptions {
  return { name: NAME, description: '{}', quiesce, ...more };
}

function names(vm: FakeVm): string[] {
  return vm.snapshots.map((entry) => entry.name);
}

async function failure(work: Promise<unknown>): Promise<SendenseError> {
  const error: unknown = await work.then(
    () => assert.fail('it succeeded'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof SendenseError, String(error));
  return error;
}

test("a snapshot is crash-consistent when nothing more was asked for, and its instant is the server's", async () => {
  const vm = new FakeVm();
  const snapshot = await createSnapshot(vm.caller, VM, options('never'));
  assert.deepEqual(
    { ...snapshot, at: snapshot.at.toString() },
    { moref: 'snapshot-2', consistency: 'crash', at: '2026-02-03T04:05:06.789Z' },
  );
});

test('a snapshot is application-consistent only when the server says that it quiesced the guest', async () => {
  const vm = new FakeVm();
  assert.equal((await createSnapshot(vm.caller, VM, options('try'))).consistency, 'application');
  const ignoring = new FakeVm();
  ignoring.quiesceIgnored = true;
  const snapshot = await createSnapshot(ignoring.caller, VM, options('try'));
  assert.deepEqual([snapshot.consistency, snapshot.fellBackBecause], ['crash', 'ignored-by-server']);
  ignoring.snapshots = [];
  assert.equal((await failure(createSnapshot(ignoring.caller, VM, options('require')))).code, 'QUIESCE_FAILED');
  assert.deepEqual(names(ignoring), []);
});

test('an older server is asked in its own form', async () => {
  const vm = new FakeVm();
  vm.version = '6.0';
  assert.equal((await createSnapshot(vm.caller, VM, options('require'))).consistency, 'application');
  assert.deepEqual(vm.calls, ['CreateSnapshot_Task']);
});

for (const fault of [
  'ApplicationQuiesceFault',
  'FilesystemQuiesceFault',
  'ToolsUnavailable',
  'Timedout',
  'SnapshotFault',
]) {
  test(`after ${fault} the half-made snapshot goes and a crash-consistent one is made`, async () => {
    const vm = new FakeVm();
    vm.snapshot('somebody else');
    vm.faults.push({ method: 'CreateSnapshotEx_Task', fault, inTask: true, halfMade: true });
    const snapshot = await createSnapshot(vm.caller, VM, options('try'));
    assert.deepEqual([snapshot.consistency, snapshot.fellBackBecause], ['crash', fault]);
    assert.deepEqual(names(vm), ['somebody else', NAME]);
    assert.deepEqual(vm.calls, ['CreateSnapshotEx_Task', 'RemoveSnapshot_Task', 'CreateSnapshotEx_Task']);
  });
}

test('where quiescing is required its failure fails the snapshot and leaves none', async () => {
  const vm = new FakeVm();
  vm.faults.push({ method: 'CreateSnapshotEx_Task', fault: 'ApplicationQuiesceFault', inTask: true, halfMade: true });
  const error = await failure(createSnapshot(vm.caller, VM, options('require')));
  assert.deepEqual([error.code, error.details['reason']], ['QUIESCE_FAILED', 'ApplicationQuiesceFault']);
  assert.deepEqual(names(vm), []);
});

test('a VM without running tools is not asked to quiesce', async () => {
  const vm = new FakeVm();
  vm.tools = 'guestToolsNotRunning';
  assert.equal((await failure(createSnapshot(vm.caller, VM, options('require')))).code, 'QUIESCE_FAILED');
  assert.deepEqual(vm.calls, []);
  const snapshot = await createSnapshot(vm.caller, VM, options('try'));
  assert.equal(snapshot.fellBackBecause, 'tools-not-running');
});

test('a VM that is off has nothing to quiesce, so even a required quiesce lets its snapshot pass', async () => {
  const vm = new FakeVm();
  vm.power = 'poweredOff';
  const snapshot = await createSnapshot(vm.caller, VM, options('require'));
  assert.deepEqual([snapshot.consistency, snapshot.fellBackBecause], ['crash', 'powered-off']);
});

test('a refusal that has nothing to do with the guest is told at once', async () => {
  for (const fault of ['TooManySnapshotLevels', 'NoPermission', 'NoDiskSpace', 'SnapshotDisabled']) {
    const vm = new FakeVm();
    vm.faults.push({ method: 'CreateSnapshotEx_Task', fault });
    const error = await failure(createSnapshot(vm.caller, VM, options('try')));
    assert.deepEqual([error.code, error.details['fault']], ['SNAPSHOT_FAILED', fault]);
    assert.deepEqual(vm.calls, ['CreateSnapshotEx_Task']);
  }
});

test('a VM that is busy is waited for, by the task in the way', async () => {
  const vm = new FakeVm();
  let ended = false;
  const task = vm.startTask('other', () => String((ended = true)), 3);
  vm.faults.push({ method: 'CreateSnapshotEx_Task', fault: 'TaskInProgress', task });
  await createSnapshot(vm.caller, VM, options('never'));
  assert.ok(ended);
  assert.deepEqual(names(vm), [NAME]);
});

test('a task that the server forgot is looked up in the tree', async () => {
  const vm = new FakeVm();
  vm.onCall = (method) => {
    if (method !== 'CreateSnapshotEx_Task') return;
    vm.snapshot(NAME);
    vm.tasks.clear();
    queueMicrotask(() => vm.tasks.clear());
  };
  assert.equal((await createSnapshot(vm.caller, VM, options('never'))).consistency, 'crash');
  assert.deepEqual(names(vm), [NAME]);
});

test('a snapshot whose answer got lost is waited for and found', async () => {
  const vm = new FakeVm();
  vm.onCall = (method) => {
    if (method !== 'CreateSnapshotEx_Task') return;
    vm.recentTasks.push(vm.startTask('VirtualMachine.createSnapshot', () => vm.snapshot(NAME).id, 3));
    throw new SendenseError('SOURCE_UNREACHABLE', 'the connection broke');
  };
  const snapshot = await createSnapshot(vm.caller, VM, options('never'));
  assert.equal(snapshot.moref, vm.snapshots[0]?.id);
});

test('a snapshot begun before an abort is waited for and removed', async () => {
  const vm = new FakeVm();
  vm.taskPolls = 3;
  const abort = new AbortController();
  const reason = new SendenseError('CANCELLED', 'enough');
  vm.onCall = (method) => method === 'CreateSnapshotEx_Task' && abort.abort(reason);
  assert.equal(await failure(createSnapshot(vm.caller, VM, options('never', { signal: abort.signal }))), reason);
  assert.deepEqual(vm.calls, ['CreateSnapshotEx_Task', 'RemoveSnapshot_Task']);
  assert.deepEqual(names(vm), []);
});

test('a snapshot that could not be looked for is said to be left behind', async () => {
  const vm = new FakeVm();
  const caller: Caller = {
    ...vm.caller,
    renewing: async () => {
      throw new SendenseError('SOURCE_UNREACHABLE', 'the network is down');
    },
  };
  const error = await failure(createSnapshot(caller, VM, options('never')));
  assert.equal(error.code, 'SNAPSHOT_FAILED');
  assert.equal(error.details['leftBehind'], true);
});

test('progress is told as it changes', async () => {
  const vm = new FakeVm();
  vm.taskPolls = 3;
  const told: number[] = [];
  await createSnapshot(vm.caller, VM, options('never', { onProgress: (percent) => told.push(percent) }));
  assert.deepEqual(told, [2, 1, 0]);
});

test('removing removes, and what is gone already is success', async () => {
  const vm = new FakeVm();
  const { id } = vm.snapshot(NAME);
  assert.deepEqual(await removeSnapshot(vm.caller, { vm: VM, snapshot: id }), { consolidationNeeded: false });
  assert.deepEqual(names(vm), []);
  assert.deepEqual(await removeSnapshot(vm.caller, { vm: VM, snapshot: id }), { consolidationNeeded: false });
});

test('a removal whose answer got lost counts when the snapshot is gone, and not when it is there', async () => {
  const vm = new FakeVm();
  const { id } = vm.snapshot(NAME);
  vm.onCall = () => {
    throw new SendenseError('SOURCE_UNREACHABLE', 'the connection broke');
  };
  assert.equal((await failure(removeSnapshot(vm.caller, { vm: VM, snapshot: id }))).code, 'SOURCE_UNREACHABLE');
  vm.snapshots = [];
  assert.deepEqual(await removeSnapshot(vm.caller, { vm: VM, snapshot: id }), { consolidationNeeded: false });
});

test('a refused removal is SNAPSHOT_FAILED with the fault', async () => {
  const vm = new FakeVm();
  const { id } = vm.snapshot(NAME);
  vm.faults.push({ method: 'RemoveSnapshot_Task', fault: 'GenericVmConfigFault', inTask: true });
  const error = await failure(removeSnapshot(vm.caller, { vm: VM, snapshot: id }));
  assert.deepEqual([error.code, error.details['fault']], ['SNAPSHOT_FAILED', 'GenericVmConfigFault']);
});

test('redo files that stayed behind are consolidated, with patience for locks', async () => {
  const vm = new FakeVm();
  const { id } = vm.snapshot(NAME);
  vm.consolidationNeeded = true;
  vm.faults.push({ method: 'ConsolidateVMDisks_Task', fault: 'FileLocked', inTask: true });
  vm.faults.push({ method: 'ConsolidateVMDisks_Task', fault: 'FileLocked', inTask: true });
  assert.deepEqual(await removeSnapshot(vm.caller, { vm: VM, snapshot: id }), { consolidationNeeded: false });
  assert.equal(vm.calls.filter((method) => method === 'ConsolidateVMDisks_Task').length, 3);
});

test('a consolidation that never succeeds is reported and no failure of the removal', async () => {
  const vm = new FakeVm();
  const { id } = vm.snapshot(NAME);
  vm.consolidationNeeded = true;
  vm.onCall = (method) => method === 'ConsolidateVMDisks_Task' && vm.faults.push({ method, fault: 'FileLocked' });
  assert.deepEqual(await removeSnapshot(vm.caller, { vm: VM, snapshot: id }), { consolidationNeeded: true });
});

test('only a snapshot of exactly our name is removed, and only ours of that name when we know it', async () => {
  const vm = new FakeVm();
  for (const name of [NAME, `${NAME}0`, 'sendense', NAME.toUpperCase(), NAME]) vm.snapshot(name);
  const second = vm.snapshots[4]?.id ?? '';
  assert.equal(await removeOwnSnapshots(vm.caller, VM, { name: NAME, moref: second }), 1);
  assert.deepEqual(names(vm), [NAME, `${NAME}0`, 'sendense', NAME.toUpperCase()]);
  assert.equal(await removeOwnSnapshots(vm.caller, VM, { name: 'sendense', moref: 'snapshot-1' }), 0);
  assert.equal(await removeOwnSnapshots(vm.caller, VM, { name: NAME }), 1);
  assert.deepEqual(names(vm), [`${NAME}0`, 'sendense', NAME.toUpperCase()]);
  vm.exists = false;
  assert.equal(await removeOwnSnapshots(vm.caller, VM, { name: 'sendense' }), 0);
});

test('a snapshot that a dead agent had asked for is waited for before the sweep', async () => {
  const vm = new FakeVm();
  vm.recentTasks.push(vm.startTask('VirtualMachine.createSnapshot', () => vm.snapshot(NAME).id, 3));
  vm.recentTasks.push(vm.startTask('VirtualMachine.relocate', () => undefined, 1_000_000));
  assert.equal(await removeOwnSnapshots(vm.caller, VM, { name: NAME }), 1);
  assert.deepEqual(await findSnapshots(vm.caller, VM), []);
});

test('the disks of a snapshot come with their ids and the whole configuration', async () => {
  const vm = new FakeVm();
  const { id } = vm.snapshot(NAME);
  const { disks, configXml } = await readSnapshotDisks(vm.caller, id);
  assert.equal(disks[0]?.changeId, '52/1');
  assert.match(configXml, /^<\?xml version="1.0" encoding="UTF-8"\?>\n<VirtualMachineConfigInfo xmlns="urn:vim25"/);
  assert.match(configXml, /<device xsi:type="VirtualDisk">/);
});

const TRACKING = { changeTrackingEnabled: true, changeTrackingSupported: true, hardwareVersion: 'vmx-19' };

test('a second snapshot is made only where a change id can be expected and is missing', async () => {
  const ready = new FakeVm();
  assert.equal(
    (await freezeDisks(ready.caller, VM, { ...options('never'), tracking: TRACKING })).disks[0]?.changeId,
    '52/2',
  );
  assert.deepEqual(ready.calls, ['CreateSnapshotEx_Task']);

  const late = new FakeVm();
  late.firstId = 3;
  const frozen = await freezeDisks(late.caller, VM, { ...options('never'), tracking: TRACKING });
  assert.ok(frozen.disks[0]?.changeId);
  assert.deepEqual(late.calls, ['CreateSnapshotEx_Task', 'RemoveSnapshot_Task', 'CreateSnapshotEx_Task']);
  assert.equal(late.snapshots.length, 1);

  const untracked = new FakeVm();
  untracked.tracking = false;
  const tracking = { ...TRACKING, changeTrackingEnabled: false };
  await freezeDisks(untracked.caller, VM, { ...options('never'), tracking });
  assert.deepEqual(untracked.calls, ['CreateSnapshotEx_Task']);
});

test('a disk that never gets an id ends after the second snapshot', async () => {
  const vm = new FakeVm();
  vm.firstId = 1000;
  const frozen = await freezeDisks(vm.caller, VM, { ...options('never'), tracking: TRACKING });
  assert.equal(frozen.disks[0]?.changeId, undefined);
  assert.equal(vm.snapshots.length, 1);
});

test('a snapshot whose disks cannot be read does not stay', async () => {
  const vm = new FakeVm();
  vm.configReadable = false;
  const error = await failure(freezeDisks(vm.caller, VM, { ...options('never'), tracking: TRACKING }));
  assert.equal(error.details['fault'], 'MalformedAnswer');
  assert.deepEqual(names(vm), []);
});

test('tracking is switched on once, and only where it is safe', async () => {
  const vm = new FakeVm();
  vm.tracking = false;
  assert.deepEqual(await enableChangeTracking(vm.caller, VM), { enabled: true, changed: true });
  assert.deepEqual(await enableChangeTracking(vm.caller, VM), { enabled: true, changed: false });
  assert.deepEqual(vm.calls, ['ReconfigVM_Task']);

  const refused = async (change: (vm: FakeVm) => void): Promise<unknown> => {
    const other = new FakeVm();
    other.tracking = false;
    change(other);
    const state = await enableChangeTracking(other.caller, VM);
    assert.deepEqual(other.calls, []);
    return state.enabled ? 'enabled' : state.reason;
  };
  assert.equal(await refused((other) => other.snapshot('old')), 'snapshots-present');
  assert.equal(await refused((other) => (other.config['config.version'] = 'vmx-04')), 'old-hardware');
  assert.equal(await refused((other) => (other.config['config.template'] = 'true')), 'template');
  assert.equal(
    await refused((other) => (other.config['capability.changeTrackingSupported'] = 'false')),
    'not-supported',
  );
});

test('tracking that cannot be switched on is an error, not a silent full', async () => {
  const vm = new FakeVm();
  vm.tracking = false;
  vm.faults.push({ method: 'ReconfigVM_Task', fault: 'NoPermission' });
  await assert.rejects(enableChangeTracking(vm.caller, VM), (error) => hasCode(error, 'SOURCE_FAULT'));
});
