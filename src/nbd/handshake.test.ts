import assert from 'node:assert/strict';
import test from 'node:test';
import { hasCode } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';
import * as nbd from './constants.ts';
import { HandshakeReceiver } from './connect.ts';
import { blockSizeInfo, exportInfo, greeting, optionReply, u16, u32 } from './doubles.ts';
import type { Negotiated, Wanted } from './handshake.ts';

const PLAIN: Wanted = { exportName: 'disk', tls: false, metaContexts: [] };
const EXPORT = optionReply(nbd.NBD_OPT_GO, nbd.NBD_REP_INFO, exportInfo(4096, 0xded));
const ACK_GO = optionReply(nbd.NBD_OPT_GO, nbd.NBD_REP_ACK);
const ACK_STRUCTURED = optionReply(nbd.NBD_OPT_STRUCTURED_REPLY, nbd.NBD_REP_ACK);

/** Runs a negotiation against canned server bytes, `cut` at a time; returns what was negotiated and sent. */
function run(wanted: Wanted, stream: Buffer, cut = Infinity): { result: Negotiated | undefined; sent: Buffer } {
  let result: Negotiated | undefined;
  const sent: Buffer[] = [];
  const receiver = new HandshakeReceiver(wanted, (negotiated) => {
    result = negotiated;
  });
  receiver.wire = {
    send: (bytes) => void sent.push(bytes),
    startTls: (onSecure) => {
      sent.push(Buffer.from('<TLS>'));
      onSecure();
    },
  };
  for (let at = 0; at < stream.length; ) {
    const room = receiver.buffer();
    const count = stream.copy(room, 0, at, at + Math.min(room.length, cut));
    receiver.received(count);
    at += count;
  }
  return { result, sent: Buffer.concat(sent) };
}

test('the options go out in the order the protocol wants, and the answers are understood however they are cut', () => {
  const wanted = { exportName: 'disk', tls: true, metaContexts: ['base:allocation', 'x:gone'] };
  const context = Buffer.concat([u32(3), Buffer.from('base:allocation')]);
  const unasked = Buffer.concat([u32(4), Buffer.from('q:unasked')]);
  const stream = Buffer.concat([
    greeting(),
    optionReply(nbd.NBD_OPT_STARTTLS, nbd.NBD_REP_ACK),
    ACK_STRUCTURED,
    optionReply(nbd.NBD_OPT_SET_META_CONTEXT, nbd.NBD_REP_META_CONTEXT, context),
    optionReply(nbd.NBD_OPT_SET_META_CONTEXT, nbd.NBD_REP_META_CONTEXT, unasked),
    optionReply(nbd.NBD_OPT_SET_META_CONTEXT, nbd.NBD_REP_ACK),
    optionReply(nbd.NBD_OPT_GO, nbd.NBD_REP_INFO, blockSizeInfo(512, 4096, 65_536)),
    optionReply(nbd.NBD_OPT_GO, nbd.NBD_REP_INFO, Buffer.concat([u16(1), Buffer.from('canonical name')])),
    EXPORT,
    ACK_GO,
  ]);
  const expected: Negotiated = {
    sizeBytes: 4096,
    flags: 0xded,
    blockSize: { minimum: 512, preferred: 4096, maximum: 65_536 },
    structured: true,
    contexts: new Map([['base:allocation', 3]]),
  };
  const whole = run(wanted, stream);
  for (let cut = 1; cut < 40; cut++) {
    const { result, sent } = run(wanted, stream, cut);
    assert.deepEqual(result, expected, `pieces of ${cut}`);
    assert.deepEqual(sent, whole.sent);
  }
  const options = [...whole.sent.toString('latin1').matchAll(/IHAVEOPT\0\0\0(.)/gs)].map((m) => m[1]?.charCodeAt(0));
  assert.deepEqual(options, [5, 8, 10, 7]);
  assert.ok(whole.sent.indexOf('<TLS>') < whole.sent.indexOf('disk'), 'the export name travels only inside TLS');
});

test('a server without structured replies and block sizes gets the defaults and no metadata question', () => {
  const unsupported = optionReply(nbd.NBD_OPT_STRUCTURED_REPLY, nbd.NBD_REP_ERR_UNSUP, Buffer.from('no'));
  const wanted = { ...PLAIN, metaContexts: ['base:allocation'] };
  const { result } = run(wanted, Buffer.concat([greeting(), unsupported, EXPORT, ACK_GO]));
  assert.equal(result?.structured, false);
  assert.equal(result?.contexts.size, 0);
  assert.deepEqual(result?.blockSize, { minimum: 1, preferred: 4096, maximum: 32 * 1024 * 1024 });
});

test('refusals say which way out there is', () => {
  const refuse = (type: number): Buffer => optionReply(nbd.NBD_OPT_GO, type, Buffer.from('because\nof me'));
  const cases: [reply: number, code: ErrorCode][] = [
    [nbd.NBD_REP_ERR_UNKNOWN, 'NBD_UNKNOWN_EXPORT'],
    [nbd.NBD_REP_ERR_TLS_REQD, 'TLS_FAILED'],
    [nbd.NBD_REP_ERR_POLICY, 'NOT_ALLOWED'],
    [nbd.NBD_REP_ERR_SHUTDOWN, 'NBD_UNREACHABLE'],
    [nbd.NBD_REP_ERR_UNSUP, 'NBD_PROTOCOL'],
    [nbd.NBD_REP_ERR_INVALID, 'NBD_PROTOCOL'],
    [0x8000abcd, 'NBD_PROTOCOL'],
  ];
  for (const [type, code] of cases) {
    assert.throws(
      () => run(PLAIN, Buffer.concat([greeting(), ACK_STRUCTURED, refuse(type)])),
      (error) => hasCode(error, code) && error instanceof Error && error.message.endsWith(': because of me'),
      code,
    );
  }
});

test('a server that does not offer the TLS that was asked for is left before anything is told', () => {
  const stream = Buffer.concat([greeting(), optionReply(nbd.NBD_OPT_STARTTLS, nbd.NBD_REP_ERR_UNSUP)]);
  assert.throws(
    () => run({ ...PLAIN, tls: true }, stream),
    (error) => hasCode(error, 'TLS_FAILED'),
  );
});

test('a breach of the negotiation is noticed', () => {
  const tooLong = optionReply(nbd.NBD_OPT_STRUCTURED_REPLY, nbd.NBD_REP_ACK);
  tooLong.writeUInt32BE(1 << 30, 16);
  const endless = Buffer.concat(Array.from({ length: 1001 }, () => EXPORT));
  for (const stream of [
    Buffer.from('SSH-2.0-OpenSSH_9.2p1 Debian'),
    Buffer.concat([greeting(), tooLong]),
    Buffer.concat([greeting(), ACK_STRUCTURED, ACK_GO]),
    Buffer.concat([greeting(), ACK_STRUCTURED, optionReply(nbd.NBD_OPT_GO, nbd.NBD_REP_SERVER)]),
    Buffer.concat([greeting(), ACK_GO]),
    Buffer.concat([greeting(), ACK_STRUCTURED, endless]),
  ]) {
    assert.throws(
      () => run(PLAIN, stream),
      (error) => hasCode(error, 'NBD_PROTOCOL'),
    );
  }
});
