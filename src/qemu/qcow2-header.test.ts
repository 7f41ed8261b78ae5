import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { hasCode } from '#/lib/errors.ts';
import { parseQcow2Header } from './qcow2-header.ts';

function blank(version = 3): Buffer {
  const bytes = Buffer.alloc(4096);
  bytes.writeUInt32BE(0x514649fb, 0);
  bytes.writeUInt32BE(version, 4);
  bytes.writeUInt32BE(4096, 28);
  bytes.writeUInt32BE(104, 100);
  return bytes;
}

test('a header without backing file is read in both versions', () => {
  for (const version of [2, 3]) {
    const { virtualSizeBytes, backing } = parseQcow2Header(blank(version), 'x');
    assert.deepEqual({ virtualSizeBytes, backing }, { virtualSizeBytes: 4096, backing: null });
  }
});

test('other versions, sizes that cannot be and backing names outside the header are refused', () => {
  const changes: ((bytes: Buffer) => void)[] = [
    (bytes) => bytes.writeUInt32BE(4, 4),
    (bytes) => bytes.writeUInt32BE(0xffffffff, 24),
    (bytes) => bytes.writeUInt32BE(0xffffffff, 8),
    (bytes) => {
      bytes.writeUInt32BE(4090, 12);
      bytes.writeUInt32BE(20, 16);
    },
    (bytes) => {
      bytes.writeUInt32BE(200, 12);
      bytes.writeUInt32BE(2000, 16);
    },
  ];
  for (const change of changes) {
    const bytes = blank();
    change(bytes);
    assert.throws(
      () => parseQcow2Header(bytes, 'x'),
      (error) => hasCode(error, 'IMAGE_INVALID'),
    );
  }
});

test('header extensions of any length never lead outside or into an endless loop', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 8, maxLength: 300 }), fc.nat(300), (noise, at) => {
      const bytes = blank();
      bytes.set(noise, 104);
      bytes.writeUInt32BE(110 + at, 12);
      bytes.writeUInt32BE(8, 16);
      assert.equal(parseQcow2Header(bytes, 'x').backing?.name.length !== undefined, true);
    }),
  );
});
