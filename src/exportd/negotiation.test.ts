import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { hasCode } from '#/lib/errors.ts';
import { encodeGo, encodeOption } from '#/nbd/codec.ts';
import {
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
} from '#/nbd/constants.ts';
import { encodeGreeting, encodeOptionReply } from '#/nbd/server-codec.ts';
import { ByteFeed } from './byte-feed.ts';
import { negotiatePlain, negotiateSecure, unknownExport } from './negotiation.ts';
import type { OpenExport, Peer } from './negotiation.ts';
import type { Upstream } from './upstream.ts';

const FLAGS = Buffer.from([0, 0, 0, 3]);

interface Talk {
  peer: Peer;
  /** Reply types by option, in order. */
  replies: () => [number, number][];
  sent: Buffer[];
}

function talk(...pieces: Buffer[]): Talk {
  const feed = new ByteFeed();
  const sent: Buffer[] = [];
  for (const piece of pieces) feed.feed(piece);
  feed.end(new Error('the client has said everything'));
  return {
    peer: { feed, send: (bytes) => sent.push(bytes) },
    sent,
    replies: () =>
      sent.filter((bytes) => bytes.length !== 18).map((bytes) => [bytes.readUInt32BE(8), bytes.readUInt32BE(12)]),
  };
}

/** Knows one export, `mine`, and acknowledges whatever it is asked. */
function exports(opened: [string, boolean][] = []): OpenExport {
  return async (name, structured) => {
    opened.push([name, structured]);
    if (name !== 'mine') return unknownExport();
    const upstream: Upstream = {
      socket: {} as Socket,
      ask: async (option, _data, relay) => {
        relay(encodeOptionReply(option, NBD_REP_ACK));
        return true;
      },
      pumpTo: () => undefined,
    };
    return upstream;
  };
}

test('before TLS every question is answered with TLS required', async () => {
  const { peer, replies, sent } = talk(
    FLAGS,
    encodeOption(NBD_OPT_LIST),
    encodeOption(NBD_OPT_STRUCTURED_REPLY),
    encodeOption(NBD_OPT_GO, encodeGo('mine', [])),
    encodeOption(NBD_OPT_INFO, encodeGo('mine', [])),
    encodeOption(77, Buffer.alloc(1000)),
    encodeOption(NBD_OPT_STARTTLS),
  );
  await negotiatePlain(peer);
  assert.deepEqual(sent[0], encodeGreeting());
  assert.deepEqual(
    replies().map(([, type]) => type),
    [...Array.from({ length: 5 }, () => NBD_REP_ERR_TLS_REQD), NBD_REP_ACK],
  );
});

test('bytes sent ahead of TLS end the connection', async () => {
  const { peer, replies } = talk(FLAGS, encodeOption(NBD_OPT_STARTTLS), encodeOption(NBD_OPT_LIST));
  await assert.rejects(negotiatePlain(peer), (error) => hasCode(error, 'NBD_PROTOCOL'));
  assert.deepEqual(replies(), []);
});

test('what no client would say ends the connection', async () => {
  const long = encodeOption(NBD_OPT_LIST);
  long.writeUInt32BE(65_537, 12);
  const cases: Buffer[][] = [
    [Buffer.from([0, 0, 0, 0])],
    [Buffer.from([0, 0, 0, 7])],
    [FLAGS, Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    [FLAGS, long],
    [FLAGS, encodeOption(NBD_OPT_EXPORT_NAME, Buffer.from('mine'))],
    [FLAGS, ...Array.from({ length: 70 }, () => encodeOption(NBD_OPT_LIST))],
    [FLAGS, Buffer.alloc(300 * 1024)],
  ];
  for (const pieces of cases) {
    await assert.rejects(negotiatePlain(talk(...pieces).peer), (error) => hasCode(error, 'NBD_PROTOCOL'));
  }
});

test('ABORT is acknowledged', async () => {
  const { peer, replies } = talk(FLAGS, encodeOption(NBD_OPT_ABORT));
  await assert.rejects(negotiatePlain(peer), (error) => hasCode(error, 'CANCELLED'));
  assert.deepEqual(replies(), [[NBD_OPT_ABORT, NBD_REP_ACK]]);
});

test('names are not listed, unknown options are named so, and the own export opens', async () => {
  const opened: [string, boolean][] = [];
  const { peer, replies } = talk(
    encodeOption(NBD_OPT_LIST),
    encodeOption(NBD_OPT_EXTENDED_HEADERS),
    encodeOption(NBD_OPT_STRUCTURED_REPLY),
    encodeOption(NBD_OPT_STARTTLS),
    encodeOption(NBD_OPT_GO, encodeGo('other', [])),
    encodeOption(NBD_OPT_INFO, encodeGo('mine', [])),
    encodeOption(NBD_OPT_STRUCTURED_REPLY),
    encodeOption(NBD_OPT_GO, encodeGo('mine', [])),
    Buffer.from('first request'),
  );
  await negotiateSecure(peer, exports(opened));
  assert.deepEqual(replies(), [
    [NBD_OPT_LIST, NBD_REP_ERR_POLICY],
    [NBD_OPT_EXTENDED_HEADERS, NBD_REP_ERR_UNSUP],
    [NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK],
    [NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID],
    [NBD_OPT_GO, NBD_REP_ERR_UNKNOWN],
    [NBD_OPT_INFO, NBD_REP_ACK],
    [NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID],
    [NBD_OPT_GO, NBD_REP_ACK],
  ]);
  assert.deepEqual(opened, [
    ['other', true],
    ['mine', true],
  ]);
  assert.equal(peer.feed.rest().toString(), 'first request');
});

test('a connection that has opened one export learns nothing about another', async () => {
  const opened: [string, boolean][] = [];
  const { peer, sent } = talk(
    encodeOption(NBD_OPT_INFO, encodeGo('mine', [])),
    encodeOption(NBD_OPT_GO, encodeGo('other', [])),
    encodeOption(NBD_OPT_GO, encodeGo('mine', [])),
  );
  await negotiateSecure(peer, exports(opened));
  assert.deepEqual(sent[1], encodeOptionReply(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, unknownExport().text));
  assert.equal(opened.length, 1);
});

test('malformed names are refused without asking for them', async () => {
  const opened: [string, boolean][] = [];
  const beyond = encodeGo('mine', []);
  beyond.writeUInt32BE(2 ** 31, 0);
  const bytes = Buffer.concat([Buffer.from([0, 0, 0, 1, 0xff]), Buffer.alloc(2)]);
  const { peer, replies } = talk(
    encodeOption(NBD_OPT_GO),
    encodeOption(NBD_OPT_GO, beyond),
    encodeOption(NBD_OPT_GO, bytes),
    encodeOption(NBD_OPT_GO, encodeGo('n'.repeat(5000), [])),
    encodeOption(NBD_OPT_ABORT),
  );
  await assert.rejects(negotiateSecure(peer, exports(opened)), (error) => hasCode(error, 'CANCELLED'));
  assert.deepEqual(
    replies().map(([, type]) => type),
    [...Array.from({ length: 4 }, () => NBD_REP_ERR_INVALID), NBD_REP_ACK],
  );
  assert.deepEqual(opened, []);
});

test('a feed gives exact lengths however the bytes come', async () => {
  const bytes = Buffer.from('abcdefghij');
  for (let cut = 0; cut <= bytes.length; cut++) {
    const feed = new ByteFeed();
    const first = feed.read(3);
    feed.feed(bytes.subarray(0, cut));
    feed.feed(bytes.subarray(cut));
    assert.equal((await first).toString(), 'abc');
    assert.equal((await feed.read(0)).length, 0);
    assert.equal((await feed.read(4)).toString(), 'defg');
    assert.equal(feed.rest().toString(), 'hij');
  }
});
