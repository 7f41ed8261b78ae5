import { invalidArgument, objectNotFound, VimFault } from './faults.ts';
import { method, returnval } from './method.ts';
import type { Call, Method } from './method.ts';
import { checkReconfigure, reconfigure } from './reconfigure.ts';
import { queryChangedAreas } from './query.ts';
import { takeFault } from './settings.ts';
import { checkSnapshotAllowed, consolidate, createSnapshot, removeSnapshots, revertTo, subtree } from './snapshots.ts';
import type { SnapshotRequest } from './snapshots.ts';
import type { SnapshotState, VmState } from './state.ts';
import { applyTracking } from './tracking.ts';
import { Data, Ref } from './values.ts';
import { escapeName, snapshotRef, vmRef } from './vm-properties.ts';

export const VM_METHODS: Readonly<Record<string, Method>> = {
  ReconfigVM_Task: method('VirtualMachine', 'spec:VirtualMachineConfigSpec', (call) => {
    const vm = vmOf(call);
    const spec = call.args.object('spec');
    if (!spec) throw invalidArgument('spec');
    checkReconfigure(vm, spec);
    return task(call, vm, 'ReconfigVM', async () => {
      await reconfigure(call.world, vm, spec);
      return undefined;
    });
  }),
  CreateSnapshot_Task: method('VirtualMachine', 'name description? memory:boolean quiesce:boolean', (call) =>
    snapshotTask(call, 'CreateSnapshot', call.args.flag('quiesce') ?? false),
  ),
  CreateSnapshotEx_Task: method(
    'VirtualMachine',
    'name description? memory:boolean quiesceSpec:VirtualMachineGuestQuiesceSpec?',
    (call) => snapshotTask(call, 'CreateSnapshotEx', call.args.has('quiesceSpec')),
  ),
  RemoveSnapshot_Task: method('VirtualMachineSnapshot', 'removeChildren:boolean consolidate:boolean?', (call) => {
    const { vm, snapshot } = snapshotOf(call);
    const morefs = call.args.flag('removeChildren') ? subtree(vm, snapshot.moref) : new Set([snapshot.moref]);
    return removeTask(call, vm, 'RemoveSnapshot', morefs);
  }),
  RemoveAllSnapshots_Task: method('VirtualMachine', 'consolidate:boolean? spec:any?', (call) => {
    const vm = vmOf(call);
    return removeTask(call, vm, 'RemoveAllSnapshots', new Set(vm.snapshots.map((snapshot) => snapshot.moref)));
  }),
  RevertToSnapshot_Task: method('VirtualMachineSnapshot', 'host:ref? suppressPowerOn:boolean?', (call) => {
    const { vm, snapshot } = snapshotOf(call);
    return revertTask(call, vm, snapshot);
  }),
  RevertToCurrentSnapshot_Task: method('VirtualMachine', 'host:ref? suppressPowerOn:boolean?', (call) => {
    const vm = vmOf(call);
    const snapshot = vm.snapshots.find((entry) => entry.moref === vm.currentSnapshot);
    if (!snapshot) throw new VimFault('NotFound', 'The VM has no current snapshot.');
    return revertTask(call, vm, snapshot);
  }),
  ConsolidateVMDisks_Task: method('VirtualMachine', '', (call) => {
    const vm = vmOf(call);
    return task(call, vm, 'ConsolidateVMDisks', async () => {
      if (takeFault(call.world.settings, 'consolidate', false)) throw locked(vm);
      await consolidate(call.world, vm);
      if (vm.consolidationNeeded) throw locked(vm);
      return undefined;
    });
  }),
  PowerOnVM_Task: method('VirtualMachine', 'host:ref?', (call) => powerTask(call, 'PowerOnVM', 'poweredOn')),
  PowerOffVM_Task: method('VirtualMachine', '', (call) => powerTask(call, 'PowerOffVM', 'poweredOff')),
  QueryChangedDiskAreas: method(
    'VirtualMachine',
    'snapshot:ref? deviceKey:int startOffset:long changeId',
    changedDiskAreas,
  ),
};

export function vmOf(call: Call): VmState {
  const vm = call.world.vm(call.self.id);
  if (!vm) throw objectNotFound(call.self);
  return vm;
}

function snapshotOf(call: Call): { vm: VmState; snapshot: SnapshotState } {
  const found = call.world.snapshot(call.self.id);
  if (!found) throw objectNotFound(call.self);
  return found;
}

function task(call: Call, vm: VmState, name: string, work: () => Promise<Ref | undefined>): string {
  const request = {
    method: name,
    descriptionId: descriptionId(name),
    entity: vmRef(vm),
    entityName: escapeName(vm.name),
    userName: call.world.store.state.username,
  };
  const ref = call.world.tasks.start(request, async () => call.world.locked(vm, work));
  return returnval('ref', ref);
}

function descriptionId(name: string): string {
  const special: Record<string, string> = {
    RemoveSnapshot: 'vim.vm.Snapshot.remove',
    RevertToSnapshot: 'vm.Snapshot.revert',
    RevertToCurrentSnapshot: 'VirtualMachine.revertToCurrentSnapshot',
    ReconfigVM: 'VirtualMachine.reconfigure',
    PowerOnVM: 'VirtualMachine.powerOn',
    PowerOffVM: 'VirtualMachine.powerOff',
    ConsolidateVMDisks: 'VirtualMachine.consolidateDisks',
  };
  return special[name] ?? `VirtualMachine.${name.charAt(0).toLowerCase()}${name.slice(1)}`;
}

function snapshotTask(call: Call, name: string, quiesce: boolean): string {
  const vm = vmOf(call);
  const request: SnapshotRequest = {
    name: call.args.text('name'),
    description: call.args.text('description'),
    memory: call.args.flag('memory') ?? false,
    quiesce,
  };
  checkSnapshotAllowed(call.world, vm, request);
  return task(call, vm, name, async () => snapshotRef(await createSnapshot(call.world, vm, request)));
}

function removeTask(call: Call, vm: VmState, name: string, morefs: ReadonlySet<string>): string {
  const consolidateToo = call.args.flag('consolidate') ?? true;
  return task(call, vm, name, async () => {
    await removeSnapshots(call.world, vm, { morefs, consolidate: consolidateToo });
    return undefined;
  });
}

function revertTask(call: Call, vm: VmState, snapshot: SnapshotState): string {
  return task(call, vm, 'RevertToSnapshot', async () => {
    await revertTo(call.world, vm, snapshot);
    return undefined;
  });
}

function powerTask(call: Call, name: string, to: 'poweredOn' | 'poweredOff'): string {
  const vm = vmOf(call);
  if (vm.template) throw new VimFault('NotSupported', 'A template cannot be switched on.');
  if (vm.powerState === to) {
    throw new VimFault('InvalidPowerState', 'The operation is not possible in the current power state.', {
      requestedState: to,
      existingState: vm.powerState,
    });
  }
  return task(call, vm, name, async () => {
    vm.powerState = to;
    await applyTracking(call.world, vm);
    call.world.store.save();
    return undefined;
  });
}

function locked(vm: VmState): VimFault {
  const file = `[${vm.datastore}] ${vm.directory}/${vm.directory}.vmdk`;
  return new VimFault('FileLocked', `Unable to access file ${file} since it is locked`, { file });
}

async function changedDiskAreas(call: Call): Promise<string> {
  const vm = vmOf(call);
  const ref = call.args.ref('snapshot');
  const found = ref && call.world.snapshot(ref.id);
  if (ref && !found) throw objectNotFound(ref);
  if (found && found.vm !== vm) throw invalidArgument('snapshot');
  const page = await queryChangedAreas(call.world, vm, {
    snapshot: found?.snapshot,
    deviceKey: call.args.number('deviceKey') ?? 0,
    startOffset: call.args.number('startOffset') ?? 0,
    changeId: call.args.text('changeId'),
  });
  return returnval(
    'DiskChangeInfo',
    new Data('DiskChangeInfo', {
      startOffset: page.startOffset,
      length: page.length,
      changedArea: page.areas.map((area) => new Data('DiskChangeExtent', { start: area.offset, length: area.length })),
    }),
  );
}
