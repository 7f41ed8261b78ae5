import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SendenseError, hasCode } from '#/lib/errors.ts';
import { buildRequest, data, isFault, moRef, parseResponse, readLocalizedFault, readMoRef } from './soap.ts';
import { child, parseXml } from './xml.ts';

const collector = moRef('PropertyCollector', 'propertyCollector');
const vm = moRef('VirtualMachine', 'vm-62');

function bodyOf(envelope: string): string {
  return /<soapenv:Body>(.*)<\/soapenv:Body>/s.exec(envelope)?.[1] ?? '';
}

test('fields go out in the order of the schema, whatever order they were given in', () => {
  const traversal = data('TraversalSpec', { skip: false, path: 'view', type: 'ContainerView', name: 'v' });
  const specSet = data('PropertyFilterSpec', {
    objectSet: data('ObjectSpec', { selectSet: traversal, skip: true, obj: moRef('ContainerView', 'V') }),
    propSet: data('PropertySpec', { pathSet: ['name', 'config.hardware.device'], all: false, type: 'VirtualMachine' }),
  });
  const options = data('RetrieveOptions', { maxObjects: 100 });
  assert.equal(
    bodyOf(buildRequest('RetrievePropertiesEx', collector, { options, specSet })),
    '<RetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this><specSet>' +
      '<propSet><type>VirtualMachine</type><all>false</all><pathSet>name</pathSet><pathSet>config.hardware.device</pathSet></propSet>' +
      '<objectSet><obj type="ContainerView">V</obj><skip>true</skip><selectSet xsi:type="TraversalSpec"><name>v</name>' +
      '<type>ContainerView</type><path>view</path><skip>false</skip></selectSet></objectSet></specSet>' +
      '<options><maxObjects>100</maxObjects></options></RetrievePropertiesEx>',
  );
});

test('options without a value are there but empty, other unset fields are left out', () => {
  const specSet = data('PropertyFilterSpec', {});
  const options = data('RetrieveOptions', { maxObjects: undefined });
  const body = bodyOf(buildRequest('RetrievePropertiesEx', collector, { specSet, options }));
  assert.match(body, /<options><\/options>/);
  const quiesceSpec = undefined;
  const create = buildRequest('CreateSnapshotEx_Task', vm, { name: 'n', memory: false, quiesceSpec });
  assert.match(create, /<name>n<\/name><memory>false<\/memory><\/CreateSnapshotEx_Task>/);
});

test('a quiesce specification says its type', () => {
  const quiesceSpec = data('VirtualMachineGuestQuiesceSpec', { timeout: 5 });
  const body = buildRequest('CreateSnapshotEx_Task', vm, { quiesceSpec, memory: false, description: '{}', name: 'n' });
  assert.match(
    body,
    /<description>{}<\/description><memory>false<\/memory><quiesceSpec xsi:type="VirtualMachineGuestQuiesceSpec"><timeout>5</,
  );
});

test('values cannot break out of their element', () => {
  const body = buildRequest('Login', moRef('SessionManager', 'S'), { userName: 'a</userName><x>', password: ']]>&"' });
  const login = child(parseXml(body), 'Body', 'Login');
  assert.deepEqual(
    login?.children.map((entry) => [entry.name, entry.text]),
    [
      ['_this', 'S'],
      ['userName', 'a</userName><x>'],
      ['password', ']]>&"'],
    ],
  );
});

test('a field the schema does not know is our own mistake', () => {
  assert.throws(
    () => buildRequest('Logout', vm, { force: true }),
    (error) => hasCode(error, 'INTERNAL'),
  );
});

function answer(body: string): string {
  return (
    '<?xml version="1.0" encoding="UTF-8"?><S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/" ' +
    `xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><S:Body>${body}</S:Body></S:Envelope>`
  );
}

function thrown(work: () => unknown): SendenseError {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof SendenseError);
    return error;
  }
  assert.fail('nothing was thrown');
}

test('a fault is known by the type of its detail, not by the name of the element', () => {
  const error = thrown(() =>
    parseResponse(
      'QueryChangedDiskAreas',
      answer(
        '<S:Fault><faultcode>ServerFaultCode</faultcode><faultstring>A specified parameter was not correct</faultstring>' +
          '<detail><InvalidArgumentFaultFault xmlns="urn:vim25" xsi:type="InvalidArgument"><invalidProperty>changeId</invalidProperty>' +
          '</InvalidArgumentFaultFault></detail></S:Fault>',
      ),
    ),
  );
  assert.equal(error.code, 'SOURCE_FAULT');
  assert.deepEqual(error.details, {
    fault: 'InvalidArgument',
    method: 'QueryChangedDiskAreas',
    invalidProperty: 'changeId',
  });
  assert.ok(isFault(error, 'FileFault', 'InvalidArgument'));
  assert.ok(!isFault(error, 'FileFault'));
});

test('a detail without type is known by its element, a fault without detail by its code', () => {
  const bare = (inner: string): unknown =>
    thrown(() => parseResponse('Logout', answer(`<S:Fault><faultcode>S:Client</faultcode>${inner}</S:Fault>`))).details[
      'fault'
    ];
  assert.equal(bare('<detail><NotFoundFault/></detail>'), 'NotFound');
  assert.equal(bare('<faultstring>x</faultstring>'), 'Client');
});

test('the fault of a task carries its file', () => {
  const node = parseXml(
    '<error xmlns:q="http://www.w3.org/2001/XMLSchema-instance"><fault q:type="FileFault"><file>[ds] a/a.vmdk</file></fault>' +
      '<localizedMessage>Error caused by file</localizedMessage></error>',
  );
  assert.deepEqual(readLocalizedFault(node), {
    fault: 'FileFault',
    message: 'Error caused by file',
    fields: { file: '[ds] a/a.vmdk' },
  });
});

for (const [what, text] of [
  ['no XML', 'upstream connect error'],
  ['another response', answer('<LoginResponse xmlns="urn:vim25"/>')],
  ['another document', '<html><body>hello</body></html>'],
] as const) {
  test(`an answer that is ${what} is a malformed answer`, () => {
    assert.equal(thrown(() => parseResponse('Logout', text)).details['fault'], 'MalformedAnswer');
  });
}

test('a reference that is missing or bare is a malformed answer', () => {
  assert.deepEqual(readMoRef(parseXml('<returnval type="Task">task-1</returnval>'), 'X'), {
    type: 'Task',
    value: 'task-1',
  });
  assert.throws(
    () => readMoRef(parseXml('<returnval>task-1</returnval>'), 'X'),
    (error) => isFault(error, 'MalformedAnswer'),
  );
});
