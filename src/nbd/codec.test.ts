import assert from 'node:assert/strict';
import test from 'node:test';
import * as fc from 'fast-check';
import { hasCode } from '#/lib/errors.ts';
import {
  encodeGo,
  encodeMetaContexts,
  encodeOption,
  encodeRequest,
  errnoName,
  parseGreeting,
  parseInfo,
  parseMetaContext,
  parseOptionReplyHeader,
  parseStatusExtents,
  peerText,
  readOffset,
  writeOffset,
} from './codec.ts';
import { blockSizeInfo, exportInfo, greeting, optionReply, u16, u32 } from './doubles.ts';

const isBreach = (error: unknown): boolean => hasCode(error, 'NBD_PROTOCOL');

test('a request is the 28 bytes of the specification', () => {
  const header = Buffer.alloc(28);
  encodeRequest(header, { command: 1, flags: 1, handle: 0x0102030405, offset: 0x1_2345_6789_ab00, length: 0x10000 });
  assert.equal(spaced(header, 4, 2, 2, 8, 8, 4), '25609513 0001 0001 0000000102030405 000123456789ab00 00010000');
});

test('offsets up to 2^53 survive the two halves they travel in', () => {
  const bytes = Buffer.alloc(8);
  fc.assert(
    fc.property(fc.maxSafeNat(), (offset) => {
      writeOffset(bytes, offset, 0);
      assert.equal(bytes.readBigUInt64BE(), BigInt(offset));
      assert.equal(readOffset(bytes, 0), offset);
    }),
  );
});

test('only a fixed newstyle greeting is accepted', () => {
  assert.equal(parseGreeting(greeting()), 3);
  const notNbd = greeting();
  notNbd.write('SSH-2.0-');
  assert.throws(() => parseGreeting(notNbd), isBreach);
  const oldstyle = greeting();
  oldstyle.writeBigUInt64BE(0x00420281861253n, 8);
  assert.throws(() => parseGreeting(oldstyle), isBreach);
  const unfixed = greeting();
  unfixed.writeUInt16BE(2, 16);
  assert.throws(() => parseGreeting(unfixed), isBreach);
});

test('options carry their length and UTF-8 names', () => {
  assert.equal(spaced(encodeOption(5), 8, 4, 4), '49484156454f5054 00000005 00000000');
  const go = encodeGo('dé', [3]);
  assert.equal(spaced(go, 4, 3, 2, 2), '00000003 64c3a9 0001 0003');
  assert.equal(encodeOption(7, go).readUInt32BE(12), go.length);
  assert.equal(spaced(encodeMetaContexts('d', ['a:b']), 4, 1, 4, 4, 3), '00000001 64 00000001 00000003 613a62');
});

test('an option reply must have the magic number and answer the option that was sent', () => {
  assert.deepEqual(parseOptionReplyHeader(optionReply(7, 1, Buffer.alloc(9)), 7), { type: 1, length: 9 });
  assert.throws(() => parseOptionReplyHeader(optionReply(6, 1), 7), isBreach);
  assert.throws(() => parseOptionReplyHeader(Buffer.alloc(20), 7), isBreach);
});

test('export and block size information is checked before it is believed', () => {
  assert.deepEqual(parseInfo(exportInfo(2 ** 46, 0xded)), { kind: 'export', sizeBytes: 2 ** 46, flags: 0xded });
  assert.deepEqual(parseInfo(blockSizeInfo(512, 4096, 2 ** 25)), {
    kind: 'blockSize',
    blockSize: { minimum: 512, preferred: 4096, maximum: 2 ** 25 },
  });
  assert.deepEqual(parseInfo(u16(2)), { kind: 'other' });
  for (const [minimum, preferred, maximum] of [
    [0, 4096, 65536],
    [3, 4096, 65536],
    [4096, 512, 65536],
    [4096, 4096, 512],
    [1, 3000, 65536],
  ] as const) {
    assert.throws(() => parseInfo(blockSizeInfo(minimum, preferred, maximum)), isBreach);
  }
  const huge = exportInfo(0, 0);
  huge.writeBigUInt64BE(2n ** 63n, 2);
  for (const wrong of [
    huge,
    exportInfo(1, 1).subarray(0, 11),
    blockSizeInfo(1, 1, 1).subarray(0, 13),
    u16(0).subarray(1),
  ]) {
    assert.throws(() => parseInfo(wrong), isBreach);
  }
});

test('a metadata context has an id and a name of sane length', () => {
  assert.deepEqual(parseMetaContext(Buffer.concat([u32(9), Buffer.from('a:b')])), { id: 9, name: 'a:b' });
  assert.throws(() => parseMetaContext(u32(9)), isBreach);
  assert.throws(() => parseMetaContext(Buffer.alloc(4 + 4097)), isBreach);
});

test('neighbouring block status extents with equal flags become one, and an empty one is a breach', () => {
  const payload = (...pairs: number[]): Buffer => Buffer.concat([u32(1), ...pairs.map(u32)]);
  assert.deepEqual(parseStatusExtents(payload(512, 0, 512, 0, 1024, 3, 512, 0)), [
    { length: 1024, flags: 0 },
    { length: 1024, flags: 3 },
    { length: 512, flags: 0 },
  ]);
  assert.throws(() => parseStatusExtents(payload(512, 0, 0, 3)), isBreach);
});

test('text of a server is one short line without control characters', () => {
  assert.equal(peerText(Buffer.from('no\r\nspace\u001b[31m left\u202e')), 'no space [31m left');
  assert.equal(peerText(Buffer.alloc(100_000, 'x')).length, 500);
});

test('error numbers of the protocol have their names, others keep their number', () => {
  assert.equal(errnoName(28), 'ENOSPC');
  assert.equal(errnoName(12_345), 'errno 12345');
});

/** Hex with a space after each field of the given lengths. */
function spaced(bytes: Buffer, ...lengths: number[]): string {
  let at = 0;
  assert.equal(
    bytes.length,
    lengths.reduce((sum, length) => sum + length, 0),
  );
  return lengths.map((length) => bytes.subarray(at, (at += length)).toString('hex')).join(' ');
}
