import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SendenseError } from '#/lib/errors.ts';
import { folderUrl, parseDatastorePath, parseDescriptor, sibling } from './datastore.ts';

function unsupported(work: () => unknown): SendenseError {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof SendenseError && error.code === 'TRANSPORT_UNSUPPORTED');
    return error;
  }
  assert.fail('nothing was thrown');
}

test('a datastore path becomes an address with every part escaped', () => {
  const file = parseDatastorePath('[ds 1] web (prod)/ä#1?.vmdk');
  assert.deepEqual(file, { datastore: 'ds 1', path: 'web (prod)/ä#1?.vmdk' });
  assert.equal(
    folderUrl(file, 'Europe/DC%2f0'),
    '/folder/web%20(prod)/%C3%A4%231%3F.vmdk?dcPath=Europe%2FDC%252f0&dsName=ds%201',
  );
  assert.equal(folderUrl(sibling(file, 'x-flat.vmdk'), ''), '/folder/web%20(prod)/x-flat.vmdk?dsName=ds%201');
});

for (const path of ['', 'vm/x.vmdk', '[] vm/x.vmdk', '[ds]', '[ds] ../x.vmdk', '[ds] /etc/x.vmdk', '[ds] a/./x.vmdk']) {
  test(`"${path}" is no file of a datastore`, () => {
    unsupported(() => parseDatastorePath(path));
  });
}

function descriptor(changes: { createType?: string; extents?: string; more?: string } = {}): string {
  return [
    '# Disk DescriptorFile',
    'version=1',
    'CID=fffffffe',
    'parentCID=ffffffff',
    `createType="${changes.createType ?? 'vmfs'}"`,
    '',
    '# Extent description',
    changes.extents ?? 'RW 20971520 VMFS "web-flat.vmdk"',
    '',
    'ddb.uuid = "60 00 C2 93 0a b1 4c 5d-87 aa 1e 2f 3a 4b 5c 6d"',
    changes.more ?? '',
  ].join('\n');
}

test('a flat disk is one file beside its descriptor', () => {
  assert.deepEqual(parseDescriptor(descriptor(), '[ds] web/web.vmdk'), {
    fileName: 'web-flat.vmdk',
    sizeBytes: 20971520 * 512,
    offsetBytes: 0,
    uuid: '6000c2930ab14c5d87aa1e2f3a4b5c6d',
  });
  const hosted = descriptor({ createType: 'monolithicFlat', extents: 'RW 8 FLAT "a b.vmdk" 2' });
  assert.equal(parseDescriptor(hosted.replaceAll('\n', '\r\n'), 'x').offsetBytes, 1024);
});

test('a disk of another kind is refused with its type', () => {
  const typed = (createType: string, extents: string): unknown =>
    unsupported(() => parseDescriptor(descriptor({ createType, extents }), 'x')).details;
  assert.deepEqual(typed('vmfsSparse', 'RW 8 VMFSSPARSE "x-000001-delta.vmdk"'), {
    fileName: 'x',
    createType: 'vmfsSparse',
    extentType: 'VMFSSPARSE',
  });
  assert.deepEqual(typed('seSparse', 'RW 8 SESPARSE "x-000001-sesparse.vmdk"'), {
    fileName: 'x',
    createType: 'seSparse',
    extentType: 'SESPARSE',
  });
  typed('vmfsRawDeviceMap', 'RW 8 VMFSRDM "x-rdm.vmdk"');
  typed('vmfs', 'RW 8 VMFS "vsan://0a1b"');
  typed('vmfs', 'RW 8 VMFS "../other/x-flat.vmdk"');
  typed('vmfs', 'RW 8 VMFS ".."');
  typed('vmfs', 'RW 8 VMFS');
  typed('vmfs', '');
  typed('twoGbMaxExtentFlat', 'RW 8 FLAT "x-f001.vmdk" 0\nRW 8 FLAT "x-f002.vmdk" 0');
});

test('a disk on top of another one is refused even when its own extent is flat', () => {
  const child = descriptor().replace('parentCID=ffffffff', 'parentCID=1a2b3c4d');
  unsupported(() => parseDescriptor(child, 'x'));
  unsupported(() => parseDescriptor(descriptor({ more: 'parentFileNameHint="x.vmdk"' }), 'x'));
});

test('a file that holds the data itself is no descriptor', () => {
  unsupported(() => parseDescriptor('KDMV\u0001\u0000\u0000', 'x'));
});
