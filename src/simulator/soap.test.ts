import assert from 'node:assert/strict';
import { test } from 'node:test';
import { childOf, Lab } from './test-kit.ts';

const VMS = { vms: [{ name: 'a', disks: [{ sizeBytes: 65_536 }] }] };
const SESSION_MANAGER: [string, string] = ['SessionManager', 'SessionManager'];
const COLLECTOR: [string, string] = ['PropertyCollector', 'propertyCollector'];

function specFor(view: string): string {
  return (
    '<specSet><propSet><type>VirtualMachine</type><all>false</all><pathSet>name</pathSet></propSet>' +
    `<objectSet><obj type="ContainerView">${view}</obj><skip>true</skip><selectSet xsi:type="TraversalSpec"><name>v</name>` +
    '<type>ContainerView</type><path>view</path><skip>false</skip></selectSet></objectSet></specSet>'
  );
}

test('a call with two neighbouring elements exchanged is refused, whatever the method', async () => {
  await using lab = await Lab.start(VMS);
  await lab.login();
  const vm = await lab.moref('a');
  const cases: [method: string, on: [string, string], elements: string[]][] = [
    ['Login', SESSION_MANAGER, ['<userName>u</userName>', '<password>p</password>', '<locale>en</locale>']],
    [
      'CreateContainerView',
      ['ViewManager', 'ViewManager'],
      ['<container type="Folder">group-d1</container>', '<type>VirtualMachine</type>', '<recursive>true</recursive>'],
    ],
    ['RetrievePropertiesEx', COLLECTOR, [specFor('x'), '<options></options>']],
    [
      'CreateSnapshotEx_Task',
      ['VirtualMachine', vm],
      [
        '<name>n</name>',
        '<description>d</description>',
        '<memory>false</memory>',
        '<quiesceSpec xsi:type="VirtualMachineGuestQuiesceSpec"><timeout>5</timeout></quiesceSpec>',
      ],
    ],
    [
      'CreateSnapshot_Task',
      ['VirtualMachine', vm],
      ['<name>n</name>', '<memory>false</memory>', '<quiesce>false</quiesce>'],
    ],
    [
      'QueryChangedDiskAreas',
      ['VirtualMachine', vm],
      [
        '<snapshot type="VirtualMachineSnapshot">s</snapshot>',
        '<deviceKey>2000</deviceKey>',
        '<startOffset>0</startOffset>',
        '<changeId>*</changeId>',
      ],
    ],
    [
      'RemoveSnapshot_Task',
      ['VirtualMachineSnapshot', 's'],
      ['<removeChildren>false</removeChildren>', '<consolidate>true</consolidate>'],
    ],
  ];
  for (const [method, on, elements] of cases) {
    for (let i = 0; i + 1 < elements.length; i++) {
      const swapped = elements.with(i, elements[i + 1] ?? '').with(i + 1, elements[i] ?? '');
      const { status, fault } = await lab.soap(method, on, swapped.join(''));
      assert.deepEqual([method, i, status, fault], [method, i, 500, 'InvalidRequest']);
    }
    const right = await lab.soap(method, on, elements.join(''));
    assert.notEqual(right.fault, 'InvalidRequest', `${method} in order is understood`);
  }
});

test('fields of data objects must stand in the order of the schema too, base type first', async () => {
  await using lab = await Lab.start(VMS);
  await lab.login();
  const vm = await lab.moref('a');
  const disk = (fields: string): string =>
    '<spec><deviceChange><operation>edit</operation><device xsi:type="VirtualDisk">' +
    `${fields}</device></deviceChange></spec>`;
  const right =
    '<key>2000</key><controllerKey>1000</controllerKey><unitNumber>0</unitNumber><capacityInKB>64</capacityInKB>';
  const cases: [content: string, fault: string | undefined][] = [
    [disk(right), undefined],
    [disk('<controllerKey>1000</controllerKey><key>2000</key><capacityInKB>64</capacityInKB>'), 'InvalidRequest'],
    [disk('<capacityInKB>64</capacityInKB><key>2000</key>'), 'InvalidRequest'],
    [disk('<key>2000</key>'), 'InvalidRequest'],
    [disk(`${right}<colour>red</colour>`), 'InvalidRequest'],
    ['<spec><changeTrackingEnabled>true</changeTrackingEnabled><name>b</name></spec>', 'InvalidRequest'],
    ['<spec><changeTrackingEnabled>yes</changeTrackingEnabled></spec>', 'InvalidRequest'],
    ['<spec><numCPUs>4</numCPUs><numCPUs>5</numCPUs></spec>', 'InvalidRequest'],
    ['<spec xsi:type="PropertySpec"><type>a</type></spec>', 'InvalidRequest'],
    ['<spec><firmware>efi</firmware></spec>', 'NotSupported'],
    ['<spec><changeVersion>99</changeVersion></spec>', 'ConcurrentAccess'],
  ];
  for (const [content, expected] of cases) {
    const { fault } = await lab.task('ReconfigVM_Task', ['VirtualMachine', vm], content);
    assert.equal(fault, expected, content);
  }
});

test('what is no SOAP call, or no call of this API, is refused', async () => {
  await using lab = await Lab.start(VMS);
  const envelope = (body: string, uri = 'http://schemas.xmlsoap.org/soap/envelope/'): string =>
    `<e:Envelope xmlns:e="${uri}"><e:Body>${body}</e:Body></e:Envelope>`;
  const call = '<CurrentTime xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance</_this></CurrentTime>';
  const cases: [body: string, fault: string][] = [
    ['', 'InvalidRequest'],
    ['hello', 'InvalidRequest'],
    ['<a></b>', 'InvalidRequest'],
    [`<!DOCTYPE x [<!ENTITY a "b">]>${envelope(call)}`, 'InvalidRequest'],
    [envelope(''), 'InvalidRequest'],
    [envelope(call + call), 'InvalidRequest'],
    [envelope(call, 'urn:other'), 'InvalidRequest'],
    [envelope(call.replace('urn:vim25', 'urn:vim2')), 'InvalidRequest'],
    [envelope('<x:CurrentTime/>'), 'InvalidRequest'],
    [envelope('<CurrentTime xmlns="urn:vim25"/>'), 'InvalidRequest'],
    [envelope(call.replace(' type="ServiceInstance"', '')), 'InvalidRequest'],
    [envelope(call.replace('type="ServiceInstance"', 'type="Task"')), 'InvalidRequest'],
    [envelope('<toString xmlns="urn:vim25"/>'), 'MethodNotFound'],
    [envelope('<valueOf xmlns="urn:vim25"/>'), 'MethodNotFound'],
    [envelope('<constructor xmlns="urn:vim25"/>'), 'InvalidRequest'],
    [envelope(call.replace('ServiceInstance<', '&unknown;<')), 'InvalidRequest'],
    [envelope('<a>'.repeat(60) + '</a>'.repeat(60)), 'InvalidRequest'],
    [envelope(call), 'NotAuthenticated'],
  ];
  for (const [body, expected] of cases) {
    const { status, fault } = await lab.postRaw(body);
    assert.deepEqual([body.slice(0, 90), status, fault], [body.slice(0, 90), 500, expected]);
  }
});

test('prefixes, entities and white space are read as XML says', async () => {
  await using lab = await Lab.start(VMS);
  const [first = '', ...others] = lab.simulator.password;
  const password = `&#${first.charCodeAt(0)};<![CDATA[${others.slice(0, 3).join('')}]]>${others.slice(3).join('')}`;
  const { status, values } = await lab.postRaw(
    '<SOAP:Envelope xmlns:SOAP="http://schemas.xmlsoap.org/soap/envelope/" xmlns:v="urn:vim25"><SOAP:Header/><SOAP:Body>\n' +
      ' <v:Login>\n <v:_this type="SessionManager">SessionManager</v:_this>\n' +
      `<v:userName>${lab.simulator.username}</v:userName><v:password>${password}</v:password></v:Login></SOAP:Body></SOAP:Envelope>`,
  );
  assert.equal(status, 200);
  assert.equal(childOf(values[0], 'userName')?.text, lab.simulator.username);
});

test('a session begins with the right password, once per cookie, and ends with Logout', async () => {
  await using lab = await Lab.start(VMS);
  assert.equal((await lab.login('wrong')).fault, 'InvalidLogin');
  assert.equal((await lab.soap('CurrentTime', ['ServiceInstance', 'ServiceInstance'])).fault, 'NotAuthenticated');
  const first = await lab.login();
  assert.match(first.setCookie ?? '', /^vmware_soap_session="[0-9a-f]{40}"; Path=\/; HttpOnly; Secure/);
  assert.equal((await lab.login()).fault, 'InvalidLogin', 'the cookie is logged in already');
  assert.equal((await lab.soap('CurrentTime', ['ServiceInstance', 'ServiceInstance'])).status, 200);
  lab.cookie = lab.cookie?.replaceAll('"', '');
  assert.equal((await lab.soap('CurrentTime', ['ServiceInstance', 'ServiceInstance'])).status, 200, 'without quotes');
  const current = await lab.property('SessionManager', 'SessionManager', 'currentSession');
  assert.equal(childOf(current, 'userName')?.text, lab.simulator.username);
  assert.equal((await lab.soap('Logout', SESSION_MANAGER)).status, 200);
  assert.equal((await lab.soap('Logout', SESSION_MANAGER)).fault, 'NotAuthenticated');
});

test('an ended session is a fault for methods and missing properties for property reads', async () => {
  await using lab = await Lab.start(VMS);
  await lab.login();
  const vm = await lab.moref('a');
  await lab.control('DELETE', 'sessions');
  const content = '<name>n</name><memory>false</memory>';
  assert.equal((await lab.soap('CreateSnapshotEx_Task', ['VirtualMachine', vm], content)).fault, 'NotAuthenticated');
  const { status, values } = await lab.retrieve('VirtualMachine', vm, 'name');
  assert.equal(status, 200);
  const object = childOf(values[0], 'objects');
  assert.equal(childOf(object, 'propSet'), undefined);
  const missing = childOf(object, 'missingSet');
  assert.equal(childOf(missing, 'path')?.text, 'name');
  assert.equal(childOf(childOf(missing, 'fault'), 'fault')?.xsiType, 'NotAuthenticated');
});

test('a session that is not used for the timeout has ended', async () => {
  await using lab = await Lab.start({ ...VMS, settings: { sessionTimeoutMs: 1 } });
  await lab.login();
  assert.equal((await lab.soap('Logout', SESSION_MANAGER)).fault, 'NotAuthenticated');
});

test('an inventory of more than 100 comes in pages even when the client asks for none', async () => {
  const vms = Array.from({ length: 230 }, (_, index) => ({ name: `vm ${index}/x`, disks: [] }));
  await using lab = await Lab.start({ vms });
  await lab.login();
  const viewOf = '<container type="Folder">group-d1</container><type>VirtualMachine</type><recursive>true</recursive>';
  const view = (await lab.soap('CreateContainerView', ['ViewManager', 'ViewManager'], viewOf)).values[0]?.text ?? '';
  const names: string[] = [];
  const sizes: number[] = [];
  let token: string | undefined;
  let answer = await lab.soap('RetrievePropertiesEx', COLLECTOR, `${specFor(view)}<options/>`);
  for (;;) {
    const objects = answer.values[0]?.children.filter((child) => child.name === 'objects') ?? [];
    sizes.push(objects.length);
    names.push(...objects.map((object) => childOf(childOf(object, 'propSet'), 'val')?.text ?? ''));
    const next = childOf(answer.values[0], 'token')?.text;
    if (next === undefined) break;
    if (token !== undefined) {
      const again = await lab.soap('ContinueRetrievePropertiesEx', COLLECTOR, `<token>${token}</token>`);
      assert.equal(again.fault, 'InvalidProperty', 'a token works once');
    }
    token = next;
    answer = await lab.soap('ContinueRetrievePropertiesEx', COLLECTOR, `<token>${token}</token>`);
  }
  assert.deepEqual(sizes, [100, 100, 30]);
  assert.deepEqual(
    names,
    vms.map((vm) => vm.name.replace('/', '%2f')),
  );
  const options = '<options><maxObjects>0</maxObjects></options>';
  const none = await lab.soap('RetrievePropertiesEx', COLLECTOR, `${specFor(view)}${options}`);
  assert.equal(none.fault, 'InvalidArgument');
  await lab.soap('DestroyView', ['ContainerView', view]);
  const gone = await lab.soap('RetrievePropertiesEx', COLLECTOR, `${specFor(view)}<options/>`);
  assert.equal(gone.fault, 'ManagedObjectNotFound');
});

test('a property that exists but is unset is left out, one that does not exist is refused', async () => {
  await using lab = await Lab.start(VMS);
  await lab.login();
  const vm = await lab.moref('a');
  const cases: [type: string, id: string, path: string, expected: string | undefined][] = [
    ['VirtualMachine', vm, 'config.changeTrackingEnabled', 'false'],
    ['VirtualMachine', vm, 'runtime.powerState', 'poweredOn'],
    ['VirtualMachine', vm, 'config.hardware.numCPU', '2'],
    ['VirtualMachine', vm, 'snapshot', undefined],
    ['VirtualMachine', vm, 'parentVApp', undefined],
    ['ServiceInstance', 'ServiceInstance', 'content.about.apiType', 'VirtualCenter'],
    ['HostSystem', 'host-9', 'summary.config.product.apiType', 'HostAgent'],
    ['Datastore', 'datastore-11', 'summary.type', 'NFS'],
  ];
  for (const [type, id, path, expected] of cases) {
    assert.equal((await lab.property(type, id, path))?.text, expected, path);
  }
  for (const path of ['colour', 'config.colour', 'config.name.first', 'runtime.powerState.x']) {
    const { fault } = await lab.retrieve('VirtualMachine', vm, path);
    assert.equal(fault, path.startsWith('config.name') || path.endsWith('.x') ? undefined : 'InvalidProperty', path);
  }
  assert.equal((await lab.retrieve('VirtualMachine', 'vm-0', 'name')).fault, 'ManagedObjectNotFound');
});

test('a filter tells what changed since the version the client has', async () => {
  await using lab = await Lab.start({ ...VMS, settings: { taskMs: 60 } });
  await lab.login();
  const vm = await lab.moref('a');
  const content = '<name>n</name><memory>false</memory>';
  const task = (await lab.soap('CreateSnapshotEx_Task', ['VirtualMachine', vm], content)).values[0]?.text ?? '';
  const spec =
    '<spec><propSet><type>Task</type><pathSet>info.state</pathSet></propSet>' +
    `<objectSet><obj type="Task">${task}</obj></objectSet></spec><partialUpdates>false</partialUpdates>`;
  await lab.soap('CreateFilter', COLLECTOR, spec);
  const states: string[] = [];
  for (let version = ''; states.at(-1) !== 'success'; ) {
    const asked = version === '' ? '' : `<version>${version}</version>`;
    const wait = '<options><maxWaitSeconds>10</maxWaitSeconds></options>';
    const { values } = await lab.soap('WaitForUpdatesEx', COLLECTOR, `${asked}${wait}`);
    version = childOf(values[0], 'version')?.text ?? '';
    const update = childOf(childOf(values[0], 'filterSet'), 'objectSet');
    states.push(childOf(childOf(update, 'changeSet'), 'val')?.text ?? '');
    assert.equal(childOf(update, 'kind')?.text, states.length === 1 ? 'enter' : 'modify');
  }
  assert.equal(states.at(-1), 'success');
  const stale = await lab.soap('WaitForUpdatesEx', COLLECTOR, '<version>77</version>');
  assert.equal(stale.fault, 'InvalidCollectorVersion');
});

test('a second task on a VM is refused while the first runs, and an injected fault comes where it was asked for', async () => {
  await using lab = await Lab.start({ ...VMS, settings: { taskMs: 1000 } });
  await lab.login();
  const vm = await lab.moref('a');
  const content = '<name>n</name><memory>false</memory>';
  const first = lab.task('CreateSnapshotEx_Task', ['VirtualMachine', vm], content);
  assert.equal((await lab.task('ReconfigVM_Task', ['VirtualMachine', vm], '<spec/>')).fault, 'TaskInProgress');
  assert.equal((await first).fault, undefined);
  const faults = [
    { method: 'CreateSnapshotEx_Task', fault: 'FilesystemQuiesceFault', count: 1, inTask: true },
    { method: 'CreateSnapshotEx_Task', fault: 'RestrictedVersion', skip: 1, count: 1 },
  ];
  await lab.control('PUT', 'settings', { faults, taskMs: 0 });
  const outcomes: (string | undefined)[] = [];
  for (let i = 0; i < 3; i++)
    outcomes.push((await lab.task('CreateSnapshotEx_Task', ['VirtualMachine', vm], content)).fault);
  assert.deepEqual(outcomes, ['FilesystemQuiesceFault', 'RestrictedVersion', undefined]);
});

test('operations on a VM are events by which clients notice a revert', async () => {
  await using lab = await Lab.start(VMS);
  await lab.login();
  const vm = await lab.moref('a');
  const snapshot = await lab.snapshot(vm);
  await lab.task('RevertToSnapshot_Task', ['VirtualMachineSnapshot', snapshot]);
  const filter = `<filter><entity><entity type="VirtualMachine">${vm}</entity><recursion>self</recursion></entity></filter>`;
  const { values } = await lab.soap('QueryEvents', ['EventManager', 'EventManager'], filter);
  assert.deepEqual(
    values.map((event) => childOf(childOf(event, 'info'), 'descriptionId')?.text),
    ['VirtualMachine.createSnapshot', 'VirtualMachine.revertToCurrentSnapshot'],
  );
});
