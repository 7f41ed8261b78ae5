import assert from 'node:assert/strict';
import test from 'node:test';
import * as fc from 'fast-check';
import { hasCode } from '#/lib/errors.ts';
import type { StatusExtent } from './codec.ts';
import { chunk, dataChunk, doneChunk, errorChunk, holeChunk, simpleReply, statusChunk, u16, u32 } from './doubles.ts';
import { ReplyParser } from './replies.ts';
import type { ReplyEvents } from './replies.ts';

const isBreach = (error: unknown): boolean => hasCode(error, 'NBD_PROTOCOL');
const BASE = 2 ** 40;

/** Reads are 64 bytes at BASE; what the parser says is kept as text, what it receives as bytes. */
class Recorder implements ReplyEvents {
  readonly said: string[] = [];
  readonly memory = new Map<number, Buffer>();
  readonly simpleReads: ReadonlySet<number>;
  discard = false;

  constructor(simpleReads: readonly number[] = []) {
    this.simpleReads = new Set(simpleReads);
  }

  simple(handle: number): number | undefined {
    return this.simpleReads.has(handle) ? 64 : undefined;
  }

  data(handle: number, offset: number | undefined, length: number): Buffer | undefined {
    this.said.push(`data ${handle} ${offset === undefined ? 'all' : offset - BASE} ${length}`);
    const at = (offset ?? BASE) - BASE;
    return this.discard ? undefined : this.of(handle, at + length).subarray(at, at + length);
  }

  hole(handle: number, offset: number, length: number): void {
    this.said.push(`hole ${handle} ${offset - BASE} ${length}`);
  }

  status(handle: number, contextId: number, extents: StatusExtent[]): void {
    this.said.push(`status ${handle} ${contextId} ${extents.map((e) => `${e.length}:${e.flags}`).join(' ')}`);
  }

  failed(handle: number, errno: number, message: string): void {
    this.said.push(`failed ${handle} ${errno} ${message}`);
  }

  done(handle: number): void {
    this.said.push(`done ${handle}`);
  }

  of(handle: number, length: number): Buffer {
    let memory = this.memory.get(handle) ?? Buffer.alloc(64);
    if (memory.length < length) memory = Buffer.concat([memory, Buffer.alloc(length - memory.length)]);
    this.memory.set(handle, memory);
    return memory;
  }
}

/** Gives the parser `bytes`, at most `cuts(position)` at a time, the way a socket would. */
function feed(parser: ReplyParser, bytes: Buffer, cut: (at: number) => number = () => Infinity): void {
  for (let at = 0; at < bytes.length; ) {
    const room = parser.buffer();
    assert.ok(room.length > 0, 'a receive buffer is never empty');
    const count = bytes.copy(room, 0, at, at + Math.min(room.length, bytes.length - at, cut(at)));
    parser.received(count);
    at += count;
  }
}

const STREAM = Buffer.concat([
  simpleReply(1),
  dataChunk(2, BASE + 16, Buffer.alloc(48, 0xaa)),
  errorChunk(3, 28, 'disk is full', true),
  holeChunk(2, BASE, 16, true),
  statusChunk(4, 7, [
    [512, 0],
    [1024, 3],
  ]),
  statusChunk(4, 8, [[1536, 1]], true),
  simpleReply(5, 5),
  dataChunk(6, BASE, Buffer.alloc(64, 0xbb)),
  doneChunk(6),
  chunk(9, 0x8002, Buffer.concat([u32(5), u16(3), Buffer.from('bad'), Buffer.alloc(8)]), true),
  chunk(10, 0x8123, Buffer.concat([u32(22), u16(0), Buffer.from('new kind')]), true),
]);
const MEANING = [
  'done 1',
  'data 2 16 48',
  'failed 3 28 disk is full',
  'done 3',
  'hole 2 0 16',
  'done 2',
  'status 4 7 512:0 1024:3',
  'status 4 8 1536:1',
  'done 4',
  'failed 5 5 ',
  'done 5',
  'data 6 0 64',
  'done 6',
  'failed 9 5 bad',
  'done 9',
  'failed 10 22 ',
  'done 10',
];

test('a stream of mixed replies means the same wherever it is cut in two', () => {
  for (let split = 0; split <= STREAM.length; split++) {
    const recorder = new Recorder();
    const parser = new ReplyParser(recorder, true);
    feed(parser, STREAM, (at) => (at < split ? split - at : Infinity));
    assert.deepEqual(recorder.said, MEANING, `cut at ${split}`);
    assert.deepEqual(recorder.memory.get(2), Buffer.concat([Buffer.alloc(16), Buffer.alloc(48, 0xaa)]));
    assert.deepEqual(recorder.memory.get(6), Buffer.alloc(64, 0xbb));
    assert.ok(parser.idle);
  }
});

test('a stream of mixed replies means the same byte by byte', () => {
  const recorder = new Recorder();
  feed(new ReplyParser(recorder, true), STREAM, () => 1);
  assert.deepEqual(recorder.said, MEANING);
});

test('a simple reply to a read brings its payload, cut anywhere', () => {
  const payload = Buffer.from(Array.from({ length: 64 }, (_, index) => index));
  const stream = Buffer.concat([simpleReply(1, 0, payload), simpleReply(2, 5), simpleReply(3, 0, payload)]);
  for (let split = 0; split <= stream.length; split++) {
    const recorder = new Recorder([1, 2, 3]);
    feed(new ReplyParser(recorder, false), stream, (at) => (at < split ? split - at : Infinity));
    assert.deepEqual(recorder.said, ['data 1 all 64', 'done 1', 'failed 2 5 ', 'done 2', 'data 3 all 64', 'done 3']);
    assert.deepEqual([recorder.memory.get(1), recorder.memory.get(3)], [payload, payload]);
  }
});

test('a large payload is received straight into the memory of its request', () => {
  const recorder = new Recorder();
  const parser = new ReplyParser(recorder, true);
  const size = 300_000;
  recorder.of(1, size);
  const stream = dataChunk(1, BASE, Buffer.alloc(size, 0xcc), true);
  let inPlace = 0;
  for (let at = 0; at < stream.length; ) {
    const room = parser.buffer();
    if (room.buffer === recorder.of(1, size).buffer) inPlace += Math.min(room.length, stream.length - at);
    const count = stream.copy(room, 0, at);
    assert.equal(parser.receiving, at === 0 ? -1 : 1);
    parser.received(count);
    at += count;
  }
  assert.ok(inPlace > size - 1024, `${inPlace} of ${size} bytes came in place`);
  assert.deepEqual(recorder.of(1, size), Buffer.alloc(size, 0xcc));
});

test('a payload nobody wants any more is thrown away without losing step', () => {
  const recorder = new Recorder();
  recorder.discard = true;
  const parser = new ReplyParser(recorder, true);
  feed(parser, Buffer.concat([dataChunk(1, BASE, Buffer.alloc(200_000, 1), true), simpleReply(2)]));
  assert.deepEqual(recorder.said, ['data 1 0 200000', 'done 1', 'done 2']);
  assert.equal(recorder.memory.size, 0);
});

test('replies in any order, cut into any chunks and any pieces, fill every read correctly', () => {
  const reply = fc.record({
    cuts: fc.uniqueArray(fc.integer({ min: 1, max: 63 }), { maxLength: 6 }),
    holes: fc.array(fc.boolean(), { minLength: 7, maxLength: 7 }),
    order: fc.infiniteStream(fc.nat(1000)),
    byte: fc.integer({ min: 1, max: 255 }),
    lateDone: fc.boolean(),
  });
  const runs = fc.tuple(
    fc.array(reply, { minLength: 1, maxLength: 8 }),
    fc.infiniteStream(fc.nat(1000)),
    fc.infiniteStream(fc.integer({ min: 1, max: 90 })),
  );
  fc.assert(
    fc.property(runs, ([replies, interleave, pieces]) => {
      const queues = replies.map((spec, index) => chunksOf(index + 1, spec));
      const stream: Buffer[] = [];
      for (const pick of interleave) {
        const open = queues.filter((queue) => queue.length > 0);
        if (open.length === 0) break;
        const next = open[pick % open.length]?.shift();
        if (next) stream.push(next.bytes);
      }
      const recorder = new Recorder();
      const expected = replies.map(expectedBytes);
      feed(new ReplyParser(recorder, true), Buffer.concat(stream), () => pieces.next().value ?? 1);
      assert.deepEqual(
        replies.map((_, index) => recorder.of(index + 1, 64)),
        expected,
      );
      const finished = recorder.said.filter((line) => line.startsWith('done')).sort();
      assert.deepEqual(finished, replies.map((_, index) => `done ${index + 1}`).sort());
    }),
    { numRuns: 300 },
  );
});

interface ReplySpec {
  cuts: number[];
  holes: boolean[];
  order: Iterable<number>;
  byte: number;
  lateDone: boolean;
}

function rangesOf(spec: ReplySpec): { at: number; length: number; hole: boolean }[] {
  const edges = [0, ...spec.cuts.sort((a, b) => a - b), 64];
  return edges.slice(1).map((end, index) => {
    const at = edges[index] ?? 0;
    return { at, length: end - at, hole: spec.holes[index] ?? false };
  });
}

function chunksOf(handle: number, spec: ReplySpec): { bytes: Buffer }[] {
  const order = spec.order[Symbol.iterator]();
  const shuffled = rangesOf(spec)
    .map((range) => ({ range, rank: order.next().value as number }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ range }) => range);
  const chunks = shuffled.map(({ at, length, hole }, index) => {
    const done = !spec.lateDone && index === shuffled.length - 1;
    const bytes = hole
      ? holeChunk(handle, BASE + at, length, done)
      : dataChunk(handle, BASE + at, Buffer.alloc(length, spec.byte), done);
    return { bytes };
  });
  return spec.lateDone ? [...chunks, { bytes: doneChunk(handle) }] : chunks;
}

function expectedBytes(spec: ReplySpec): Buffer {
  const memory = Buffer.alloc(64);
  for (const { at, length, hole } of rangesOf(spec)) if (!hole) memory.fill(spec.byte, at, at + length);
  return memory;
}

test('whatever does not follow the protocol is a breach', () => {
  const bad: [why: string, stream: Buffer][] = [
    ['garbage', Buffer.from('HTTP/1.1 400 Bad Request\r\n')],
    ['an empty data chunk', chunk(1, 1, Buffer.alloc(8), true)],
    ['a data chunk shorter than its offset', chunk(1, 1, Buffer.alloc(7), true)],
    ['a hole chunk of the wrong size', chunk(1, 2, Buffer.alloc(11), true)],
    ['a none chunk with payload', chunk(1, 0, Buffer.alloc(1), true)],
    ['a none chunk that is not the last', chunk(1, 0, Buffer.alloc(0), false)],
    ['block status without an extent', chunk(1, 5, Buffer.alloc(4), true)],
    ['block status with half an extent', chunk(1, 5, Buffer.alloc(16), true)],
    ['block status with an empty extent', statusChunk(1, 7, [[0, 1]], true)],
    ['an unknown kind of chunk', chunk(1, 6, Buffer.alloc(12), true)],
    ['an error without room for its number', chunk(1, 0x8001, Buffer.alloc(5), true)],
    ['an error number of zero', errorChunk(1, 0, 'fine', true)],
    ['an error text longer than its chunk', chunk(1, 0x8001, Buffer.concat([u32(5), u16(100)]), true)],
    [
      'an error text that runs into its offset',
      chunk(1, 0x8002, Buffer.concat([u32(5), u16(3), Buffer.alloc(8)]), true),
    ],
  ];
  for (const [why, stream] of bad) {
    assert.throws(() => feed(new ReplyParser(new Recorder(), true), stream), isBreach, why);
  }
  assert.throws(() => feed(new ReplyParser(new Recorder(), false), doneChunk(1)), isBreach, 'structured unasked');
});

test('chunks that announce more than is sane are refused before memory is set aside', () => {
  for (const type of [5, 0x8001]) {
    const header = chunk(1, type, Buffer.alloc(0));
    header.writeUInt32BE(0xfffffffc, 16);
    assert.throws(() => feed(new ReplyParser(new Recorder(), true), header), isBreach);
  }
});
