import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SendenseError, hasCode } from '#/lib/errors.ts';
import { scriptedCaller } from './doubles.ts';
import { listVms, loadVm } from './inventory.ts';
import type { VmRecord } from './inventory.ts';
import { faultError } from './soap.ts';
import type { DataObject, MoRef } from './soap.ts';

interface Thing {
  type: string;
  id: string;
  props: Record<string, string>;
  missing?: Record<string, string>;
}

function ref(type: string, id: string): string {
  return `<val type="${type}" xsi:type="ManagedObjectReference">${id}</val>`;
}

function val(text: string): string {
  return `<val>${text}</val>`;
}

function place(type: string, id: string, name: string, parent?: [type: string, id: string]): Thing {
  return { type, id, props: { name: val(name), ...(parent && { parent: ref(...parent) }) } };
}

const DISK =
  '<VirtualDevice xsi:type="ParaVirtualSCSIController"><key>1000</key><busNumber>1</busNumber><sharedBus>noSharing</sharedBus></VirtualDevice>' +
  '<VirtualDevice xsi:type="VirtualNVMEController"><key>31000</key><busNumber>0</busNumber></VirtualDevice>' +
  '<VirtualDevice xsi:type="VirtualDisk"><key>2017</key><deviceInfo><label>Hard disk 1</label></deviceInfo>' +
  '<backing xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName>[ds] web/web-000001.vmdk</fileName><datastore type="Datastore">datastore-1</datastore>' +
  '<diskMode>persistent</diskMode><thinProvisioned>true</thinProvisioned><uuid>6000C293-1</uuid><changeId>52/9</changeId>' +
  '<parent xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName>[ds] web/web.vmdk</fileName></parent><sharing>sharingNone</sharing></backing>' +
  '<controllerKey>1000</controllerKey><unitNumber>1</unitNumber><capacityInKB>1</capacityInKB><capacityInBytes>1073741824</capacityInBytes></VirtualDevice>' +
  '<VirtualDevice xsi:type="VirtualDisk"><key>32000</key>' +
  '<backing xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName>[ds] web/b.vmdk</fileName><diskMode>persistent</diskMode><sharing>sharingMultiWriter</sharing></backing>' +
  '<controllerKey>31000</controllerKey><unitNumber>0</unitNumber><capacityInKB>20971520</capacityInKB></VirtualDevice>' +
  '<VirtualDevice xsi:type="VirtualDisk"><key>99</key><capacityInBytes>many</capacityInBytes></VirtualDevice>';

const WEB: Thing = {
  type: 'VirtualMachine',
  id: 'vm-1',
  props: {
    name: val('web %2f 100%25'),
    parent: ref('Folder', 'group-v2'),
    'config.instanceUuid': val('5000-1'),
    'config.uuid': val('4200-1'),
    'config.version': val('vmx-19'),
    'config.template': val('false'),
    'config.guestFullName': val('Debian GNU/Linux 12 (64-bit)'),
    'config.changeTrackingEnabled': val('true'),
    'capability.changeTrackingSupported': val('true'),
    'config.hardware.device': `<val xsi:type="ArrayOfVirtualDevice">${DISK}</val>`,
    'runtime.powerState': val('poweredOn'),
    'runtime.connectionState': val('connected'),
    'runtime.host': ref('HostSystem', 'host-1'),
    'runtime.faultToleranceState': val('notConfigured'),
    'guest.toolsRunningStatus': val('guestToolsRunning'),
    snapshot:
      '<val xsi:type="VirtualMachineSnapshotInfo"><rootSnapshotList><snapshot type="VirtualMachineSnapshot">snapshot-1</snapshot>' +
      '<name>a</name><createTime>2026-01-01T01:00:00+01:00</createTime><childSnapshotList><snapshot type="VirtualMachineSnapshot">snapshot-2</snapshot>' +
      '</childSnapshotList></rootSnapshotList></val>',
    datastore:
      '<val xsi:type="ArrayOfManagedObjectReference"><ManagedObjectReference type="Datastore">datastore-1</ManagedObjectReference></val>',
  },
};

const THINGS: Thing[] = [
  place('Folder', 'group-d1', 'Datacenters'),
  place('Folder', 'group-d2', 'Eur%2fope', ['Folder', 'group-d1']),
  place('Datacenter', 'datacenter-2', 'DC0', ['Folder', 'group-d2']),
  place('Folder', 'group-v1', 'vm', ['Datacenter', 'datacenter-2']),
  place('Folder', 'group-v2', 'prod', ['Folder', 'group-v1']),
  place('HostSystem', 'host-1', 'esx1.example'),
  place('Datastore', 'datastore-1', 'ds'),
  WEB,
  { type: 'VirtualMachine', id: 'vm-2', props: { name: val('gone'), 'runtime.connectionState': val('inaccessible') } },
  {
    type: 'VirtualMachine',
    id: 'vm-3',
    props: {},
    missing: { 'config.instanceUuid': 'NoPermission', name: 'NoPermission' },
  },
  {
    type: 'VirtualMachine',
    id: 'vm-4',
    props: { name: val('bare'), 'config.instanceUuid': val('5000-4'), parentVApp: ref('VirtualApp', 'resgroup-v9') },
  },
];
const HIDDEN: Thing[] = [
  {
    type: 'VirtualApp',
    id: 'resgroup-v9',
    props: { name: val('app'), parent: ref('ResourcePool', 'resgroup-8'), parentFolder: ref('Folder', 'group-v2') },
  },
];

function xmlOf({ type, id, props, missing = {} }: Thing): string {
  const sets = Object.entries(props).map(([name, value]) => `<propSet><name>${name}</name>${value}</propSet>`);
  const gaps = Object.entries(missing).map(
    ([path, fault]) => `<missingSet><path>${path}</path><fault><fault xsi:type="${fault}"/></fault></missingSet>`,
  );
  return `<objects><obj type="${type}">${id}</obj>${sets.join('')}${gaps.join('')}</objects>`;
}

/** A server that pages two objects at a time, whatever was asked for. */
function server(): ReturnType<typeof scriptedCaller> {
  let vanished = 1;
  const pages = (from: number): string => {
    const token = from + 2 < THINGS.length ? `<token>${from + 2}</token>` : '';
    return `<returnval>${token}${THINGS.slice(from, from + 2)
      .map(xmlOf)
      .join('')}</returnval>`;
  };
  return scriptedCaller(({ method, args }) => {
    if (method === 'CreateContainerView') return '<returnval type="ContainerView">session[1]2</returnval>';
    if (method === 'ContinueRetrievePropertiesEx') {
      // An object deleted while it is listed fails the whole call, once.
      if (vanished-- > 0) throw faultError(method, { fault: 'ManagedObjectNotFound', message: '', fields: {} });
      return pages(Number(args['token']));
    }
    if (method !== 'RetrievePropertiesEx') return '';
    const object = (args['specSet'] as DataObject).fields['objectSet'] as DataObject;
    const { type, value } = object.fields['obj'] as MoRef;
    if (type === 'ContainerView') return pages(0);
    const thing = [...THINGS, ...HIDDEN].find((entry) => entry.id === value);
    if (!thing) throw faultError(method, { fault: 'ManagedObjectNotFound', message: '', fields: {} });
    return `<returnval>${xmlOf(thing)}</returnval>`;
  });
}

const EXPECTED: Partial<VmRecord> = {
  moref: 'vm-1',
  instanceUuid: '5000-1',
  biosUuid: '4200-1',
  name: 'web / 100%',
  path: 'Eur%2fope/DC0/vm/prod/web %2f 100%',
  datacenterPath: 'Eur%2fope/DC0',
  powerState: 'poweredOn',
  connectionState: 'connected',
  template: false,
  guestName: 'Debian GNU/Linux 12 (64-bit)',
  hardwareVersion: 'vmx-19',
  toolsRunning: true,
  changeTrackingEnabled: true,
  changeTrackingSupported: true,
  snapshotCount: 2,
  consolidationNeeded: false,
  encrypted: false,
  faultTolerant: false,
  host: { moref: 'host-1', name: 'esx1.example' },
  datastores: [{ moref: 'datastore-1', name: 'ds' }],
};

test('VMs are listed over pages nobody asked for, with names and paths as people know them', async () => {
  const { vms, problems } = await listVms(server());
  const { disks, ...web } = vms.find((vm) => vm.moref === 'vm-1') ?? assert.fail();
  assert.deepEqual(web, EXPECTED);
  assert.equal(disks.length, 3);
  assert.deepEqual(problems, [
    { moref: 'vm-2', reason: 'no identity: inaccessible' },
    { moref: 'vm-3', reason: 'no identity: NoPermission' },
  ]);
});

test('a disk tells its slot, its place in the chain and whether others write to it, but no change id while live', async () => {
  const { disks } = await loadVm(server(), 'vm-1');
  const [first, second, third] = disks;
  assert.equal(first?.label, 'SCSI (1:1) Hard disk 1');
  assert.equal(first.slot, 'scsi1:1');
  assert.equal(first.capacityBytes, 1073741824);
  assert.equal(first.uuid, '6000C293-1');
  assert.ok(first.hasParent && first.thin && !first.shared);
  assert.equal((first as { changeId?: string }).changeId, undefined);
  assert.equal(second?.label, 'NVMe (0:0) disk 32000');
  assert.equal(second.capacityBytes, 20971520 * 1024);
  assert.ok(second.shared && second.uuid === null);
  assert.deepEqual([third?.capacityBytes, third?.backingType, third?.fileName], [0, '', '']);
});

test('a VM with hardly any property is listed all the same, found through its vApp', async () => {
  const { vms } = await listVms(server());
  const bare = vms.find((vm) => vm.moref === 'vm-4') ?? assert.fail();
  assert.equal(bare.path, 'Eur%2fope/DC0/vm/prod/app/bare');
  assert.deepEqual([bare.disks, bare.snapshotCount, bare.host, bare.toolsRunning], [[], 0, undefined, false]);
});

test('one VM loads as it is listed', async () => {
  const { vms } = await listVms(server());
  for (const vm of vms) assert.deepEqual(await loadVm(server(), vm.moref), vm);
});

test('a VM that is gone or cannot be identified is VM_NOT_FOUND with the reason', async () => {
  await assert.rejects(loadVm(server(), 'vm-99'), (error) => hasCode(error, 'VM_NOT_FOUND'));
  await assert.rejects(
    loadVm(server(), 'vm-2'),
    (error) =>
      error instanceof SendenseError && error.code === 'VM_NOT_FOUND' && error.message.includes('inaccessible'),
  );
});
