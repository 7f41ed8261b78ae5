import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { SendenseError } from '#/lib/errors.ts';
import type { Extent } from '#/lib/extents.ts';
import { endOf } from '#/lib/extents.ts';
import { copyDisk } from './copier.ts';
import type { CopyOptions } from './copier.ts';
import { FakeSource, FakeTarget, SparseBytes } from './doubles.ts';
import { BLOCK_BYTES } from './plan.ts';
import { CopyProgress } from './progress.ts';

const K = 1024;
const B = BLOCK_BYTES;
const TiB = K ** 4;

/** Each digit of `pattern` fills one block, `0` and `.` with zeroes; `.` is a hole. */
function disk(pattern: string): SparseBytes {
  const bytes = new SparseBytes();
  for (const [i, digit] of pattern.split('').entries())
    if (digit !== '.') bytes.put(i * B, Buffer.alloc(B, Number(digit)));
  return bytes;
}

async function copy(source: FakeSource, target: FakeTarget, options: Partial<CopyOptions> = {}) {
  return copyDisk({
    source,
    target,
    areas: [{ offset: 0, length: source.sizeBytes }],
    zeroes: 'skip',
    requestBytes: 2 * B,
    inFlightBytes: 8 * B,
    signal: new AbortController().signal,
    ...options,
  });
}

function same(source: FakeSource, target: FakeTarget): void {
  for (let offset = 0; offset < source.sizeBytes; offset += B) {
    const length = Math.min(B, source.sizeBytes - offset);
    const [a, b] = [source, target].map(({ bytes }) => bytes.get(offset, Buffer.alloc(length)));
    assert.ok(a && b && a.equals(b), `content at ${offset}`);
  }
}

test('a full into a fresh image writes data and leaves zeroes out', async () => {
  const source = new FakeSource({ sizeBytes: 8 * B, bytes: disk('12003.45') });
  const target = new FakeTarget({ sizeBytes: 8 * B });
  const result = await copy(source, target);
  assert.deepEqual(target.log, [`write 0+${2 * B}`, `write ${4 * B}+${B}`, `write ${6 * B}+${2 * B}`, 'flush']);
  assert.deepEqual(result, {
    areasBytes: 8 * B,
    readBytes: 8 * B,
    writtenBytes: 5 * B,
    zeroBytes: 0,
    skippedBytes: 3 * B,
  });
  same(source, target);
});

test('an incremental writes zeroes as zeroes, joined across requests, and nothing outside its areas', async () => {
  const source = new FakeSource({ sizeBytes: 10 * B, bytes: disk('1200004500'), mapped: true });
  const target = new FakeTarget({ sizeBytes: 10 * B, bytes: disk('9999999999') });
  const areas = [
    { offset: 8 * B + 17, length: 1 },
    { offset: B, length: 6 * B },
  ];
  const result = await copy(source, target, { areas, zeroes: 'write' });
  assert.deepEqual(target.log, [
    `write ${B}+${B}`,
    `zero ${2 * B}+${4 * B}`,
    `write ${6 * B}+${B}`,
    `zero ${8 * B}+${B}`,
    'flush',
  ]);
  assert.deepEqual(result, {
    areasBytes: 7 * B,
    readBytes: 7 * B,
    writtenBytes: 2 * B,
    zeroBytes: 5 * B,
    skippedBytes: 0,
  });
  const expected = disk('9200004909');
  for (let i = 0; i < 10; i++) {
    const [a, b] = [expected, target.bytes].map((bytes) => bytes.get(i * B, Buffer.alloc(B)));
    assert.ok(a && b && a.equals(b), `block ${i}`);
  }
});

test('what the source calls a hole is not read', async () => {
  const source = new FakeSource({ sizeBytes: 8 * B, bytes: disk('1....2..'), mapped: true });
  const target = new FakeTarget({ sizeBytes: 8 * B });
  const result = await copy(source, target, { zeroes: 'write' });
  assert.deepEqual(source.reads, [
    { offset: 0, length: B },
    { offset: 5 * B, length: B },
  ]);
  assert.deepEqual(target.log, [
    `write 0+${B}`,
    `zero ${B}+${4 * B}`,
    `write ${5 * B}+${B}`,
    `zero ${6 * B}+${2 * B}`,
    'flush',
  ]);
  assert.equal(result.readBytes, 2 * B);
});

test('a short last block is copied to the byte', async () => {
  const bytes = disk('12');
  bytes.put(2 * B, Buffer.alloc(1536, 7));
  const source = new FakeSource({ sizeBytes: 2 * B + 1536, bytes });
  const target = new FakeTarget({ sizeBytes: 2 * B + 1536 });
  await copy(source, target);
  assert.deepEqual(target.log, [`write 0+${2 * B}`, `write ${2 * B}+1536`, 'flush']);
  same(source, target);
});

test('a disk of one sector is copied', async () => {
  const bytes = new SparseBytes();
  bytes.put(0, Buffer.alloc(512, 1));
  const target = new FakeTarget({ sizeBytes: 512 });
  await copy(new FakeSource({ sizeBytes: 512, bytes }), target);
  assert.deepEqual(target.log, ['write 0+512', 'flush']);
});

test('a sparse disk of 64 TiB takes a handful of requests', async () => {
  const bytes = new SparseBytes();
  bytes.put(40 * TiB, Buffer.alloc(B, 1));
  bytes.put(64 * TiB - B, Buffer.alloc(B, 2));
  const source = new FakeSource({ sizeBytes: 64 * TiB, bytes, mapped: true });
  const target = new FakeTarget({ sizeBytes: 64 * TiB });
  const result = await copy(source, target);
  assert.deepEqual(target.log, [`write ${40 * TiB}+${B}`, `write ${64 * TiB - B}+${B}`, 'flush']);
  assert.equal(result.areasBytes, 64 * TiB);
});

test('a copy of nothing still flushes', async () => {
  const target = new FakeTarget({ sizeBytes: B });
  const result = await copy(new FakeSource({ sizeBytes: B }), target, { areas: [] });
  assert.deepEqual(target.log, ['flush']);
  assert.equal(result.areasBytes, 0);
});

test('disks of different size are refused before anything is read or written', async () => {
  const source = new FakeSource({ sizeBytes: 2 * B });
  const target = new FakeTarget({ sizeBytes: B });
  await assert.rejects(copy(source, target), { code: 'DISK_MISMATCH' });
  assert.deepEqual([source.reads, target.log], [[], []]);
});

test('writes are sent in order of offset although reads overtake each other', async () => {
  const gate = Promise.withResolvers<void>();
  const source = new FakeSource({
    sizeBytes: 6 * B,
    bytes: disk('123456'),
    onRead: (offset) => (offset === 0 ? gate.promise : offset === 3 * B ? gate.resolve() : undefined),
  });
  const target = new FakeTarget({ sizeBytes: 6 * B });
  await copy(source, target, { requestBytes: B });
  assert.deepEqual(
    target.log.slice(0, -1),
    [0, 1, 2, 3, 4, 5].map((i) => `write ${i * B}+${B}`),
  );
});

test('reads stay within what the source wants and buffers within their bound', async () => {
  const pattern = '1'.repeat(64);
  const source = new FakeSource({ sizeBytes: 64 * B, bytes: disk(pattern), parallel: 3 });
  let mostWrites = 0;
  const target = new FakeTarget({
    sizeBytes: 64 * B,
    onRequest: async () => {
      mostWrites = Math.max(mostWrites, target.running);
      for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
    },
  });
  await copy(source, target, { requestBytes: B, inFlightBytes: 6 * B });
  assert.equal(source.mostRunning, 3);
  assert.ok(mostWrites > 1 && mostWrites <= 6, `${mostWrites} writes at once`);
  same(source, target);
});

test('the target is flushed each time enough was written', async () => {
  const source = new FakeSource({ sizeBytes: 16 * B, bytes: disk('1'.repeat(16)) });
  const target = new FakeTarget({ sizeBytes: 16 * B });
  await copy(source, target, { requestBytes: B, inFlightBytes: B, flushEveryBytes: 4 * B });
  const flushes = target.log.flatMap((entry, i) => (entry === 'flush' ? [i] : []));
  assert.deepEqual(flushes, [4, 9, 14, 19, 20]);
});

test('requests fit the longest write of the target', async () => {
  const source = new FakeSource({ sizeBytes: 4 * B, bytes: disk('1234') });
  const target = new FakeTarget({ sizeBytes: 4 * B, blockSize: { maximum: B } });
  await copy(source, target, { requestBytes: 4 * B });
  assert.equal(target.log.filter((entry) => entry.startsWith('write')).length, 4);
});

test('a failed read names its offset and ends the copy', async () => {
  const cause = new Error('the lease is gone');
  const source = new FakeSource({
    sizeBytes: 64 * B,
    bytes: disk('1'.repeat(64)),
    onRead: (offset) => {
      if (offset === 8 * B) throw cause;
    },
  });
  const target = new FakeTarget({ sizeBytes: 64 * B });
  await assert.rejects(copy(source, target, { requestBytes: B }), (error: unknown) => {
    assert.ok(error instanceof SendenseError);
    assert.equal(error.code, 'READ_FAILED');
    assert.equal(error.details['offset'], 8 * B);
    assert.equal(error.cause, cause);
    return true;
  });
  assert.deepEqual([source.running, target.running], [0, 0]);
  assert.ok(source.reads.length < 32, 'the rest was not read');
  assert.ok(!target.log.includes('flush'));
});

test('failures of the target keep what matters to the operator', async () => {
  const table: [string, unknown, string][] = [
    ['write', new SendenseError('NBD_IO', 'no space', { details: { errno: 'ENOSPC' } }), 'REPOSITORY_FULL'],
    ['zero', new SendenseError('NBD_IO', 'no space', { details: { errno: 'ENOSPC' } }), 'REPOSITORY_FULL'],
    ['write', new SendenseError('NBD_IO', 'bad', { details: { errno: 'EIO' } }), 'NBD_IO'],
    ['zero', new SendenseError('NBD_CLOSED', 'gone'), 'NBD_CLOSED'],
    ['write', new SendenseError('TIMEOUT', 'silent'), 'TIMEOUT'],
    ['flush', new SendenseError('NBD_IO', 'no space', { details: { errno: 'ENOSPC' } }), 'REPOSITORY_FULL'],
    ['flush', new Error('whatever'), 'NBD_IO'],
  ];
  for (const [request, cause, code] of table) {
    const source = new FakeSource({ sizeBytes: 4 * B, bytes: disk('1020') });
    const target = new FakeTarget({
      sizeBytes: 4 * B,
      onRequest: (entry) => {
        if (entry.startsWith(request)) throw cause;
      },
    });
    await assert.rejects(copy(source, target, { zeroes: 'write' }), { code, cause }, `${request} ${code}`);
    assert.deepEqual([source.running, target.running], [0, 0]);
  }
});

test('the first of several errors is the one reported', async () => {
  const source = new FakeSource({
    sizeBytes: 4 * B,
    bytes: disk('1234'),
    onRead: async (offset, signal) => {
      if (offset === 2 * B) throw new Error('first');
      await new Promise((resolve) => (signal.aborted ? resolve(0) : signal.addEventListener('abort', resolve)));
      throw new Error('second');
    },
  });
  await assert.rejects(copy(source, new FakeTarget({ sizeBytes: 4 * B }), { requestBytes: B }), /first/);
});

test('an abort ends the copy with its reason and leaves nothing running', async () => {
  for (const when of ['read', 'write', 'zero', 'flush']) {
    const controller = new AbortController();
    const reason = new SendenseError('CANCELLED', 'stop');
    const abort = (): void => controller.abort(reason);
    const source = new FakeSource({
      sizeBytes: 64 * B,
      bytes: disk('10'.repeat(32)),
      ...(when === 'read' && { onRead: abort }),
    });
    const target = new FakeTarget({
      sizeBytes: 64 * B,
      onRequest: (entry) => (entry.startsWith(when) ? abort() : undefined),
    });
    await assert.rejects(
      copy(source, target, { zeroes: 'write', signal: controller.signal }),
      (error) => error === reason,
    );
    assert.deepEqual([source.running, target.running], [0, 0], when);
  }
});

test('an abort while a rate limit holds the copy back is not waited out', async () => {
  const controller = new AbortController();
  const source = new FakeSource({ sizeBytes: 8 * B, bytes: disk('12345678') });
  setImmediate(() => controller.abort());
  const started = performance.now();
  await assert.rejects(
    copy(source, new FakeTarget({ sizeBytes: 8 * B }), { bytesPerSecond: 512, signal: controller.signal }),
    { name: 'AbortError' },
  );
  assert.ok(performance.now() - started < 5000);
});

test('a stream of areas that fails ends the copy with its own error', async () => {
  async function* areas(): AsyncGenerator<Extent> {
    yield { offset: 0, length: B };
    yield { offset: 4 * B, length: B };
    throw new SendenseError('SOURCE_FAULT', 'page two failed');
  }
  const source = new FakeSource({ sizeBytes: 8 * B, bytes: disk('12345678') });
  const target = new FakeTarget({ sizeBytes: 8 * B });
  await assert.rejects(copy(source, target, { areas: areas() }), { code: 'SOURCE_FAULT' });
  assert.equal(target.running, 0);
  assert.ok(!target.log.includes('flush'));
});

test('progress adds up to the areas', async () => {
  const progress = new CopyProgress(8 * B);
  const source = new FakeSource({ sizeBytes: 8 * B, bytes: disk('12003.45') });
  await copy(source, new FakeTarget({ sizeBytes: 8 * B }), { progress });
  const { doneBytes, readBytes, etaSeconds } = progress.snapshot();
  assert.deepEqual({ doneBytes, readBytes, etaSeconds }, { doneBytes: 8 * B, readBytes: 8 * B, etaSeconds: 0 });
});

test('after any copy the areas equal the source and the rest is as it was', async () => {
  const blocks = fc.array(fc.constantFrom(0, 0, 1, 2, 3), { minLength: 1, maxLength: 24 });
  const anyAreas = fc.array(fc.record({ offset: fc.nat(24 * B), length: fc.nat(4 * B) }), { maxLength: 8 });
  const shape = fc.record({
    tail: fc.constantFrom(0, 512, 4096, B - 512),
    requestBlocks: fc.integer({ min: 1, max: 5 }),
    mapped: fc.boolean(),
    buffers: fc.integer({ min: 1, max: 5 }),
  });
  await fc.assert(
    fc.asyncProperty(blocks, anyAreas, shape, async (content, areas, { tail, requestBlocks, mapped, buffers }) => {
      const sizeBytes = content.length * B - tail;
      const source = new FakeSource({
        sizeBytes,
        bytes: disk(content.map((c) => c || '.').join('')),
        mapped,
        parallel: buffers,
      });
      const target = new FakeTarget({ sizeBytes, bytes: disk('9'.repeat(content.length)) });
      const requestBytes = requestBlocks * B;
      const result = await copy(source, target, {
        areas,
        zeroes: 'write',
        requestBytes,
        inFlightBytes: buffers * requestBytes,
      });
      let areasBytes = 0;
      for (let offset = 0; offset < sizeBytes; offset += B) {
        const end = Math.min(offset + B, sizeBytes);
        const inside = areas.some((a) => a.length > 0 && a.offset < end && endOf(a) > offset);
        const [from, into] = [source, target].map((d) => d.bytes.get(offset, Buffer.alloc(end - offset)));
        const expected = inside ? from : Buffer.alloc(end - offset, 9);
        assert.ok(expected && into?.equals(expected), `block at ${offset}`);
        if (inside) areasBytes += end - offset;
      }
      assert.equal(result.areasBytes, areasBytes);
    }),
    { numRuns: 60 },
  );
});
