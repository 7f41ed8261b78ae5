/** What every kind of source proves about itself; a kind's test file calls this and adds what is special about it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SendenseError } from '#/lib/errors.ts';
import { endOf } from '#/lib/extents.ts';
import type { KnownExtent } from '#/lib/extents.ts';
import type { DiskSource } from './source.ts';

const BLOCK_BYTES = 64 * 1024;

export interface SourceUnderTest extends AsyncDisposable {
  /** Opens the disk whose whole content is `content`. */
  open: (signal: AbortSignal) => Promise<DiskSource>;
  /** From 1 to 16 MiB, not a multiple of 64 KiB but of 512; data and runs of zeroes. */
  content: Buffer;
}

/** Content as `SourceUnderTest` wants it: every sector differs from its neighbours, and every other 256 KiB is zero. */
export function sampleContent(): Buffer {
  const content = Buffer.alloc(2 * 1024 * 1024 + 3 * 512);
  for (let at = 0; at < content.length; at += 512) {
    if ((at >> 18) % 2 === 0) content.fill(1 + ((at / 512) % 251), at, at + 512);
  }
  return content;
}

export function proveSource(kind: string, make: () => Promise<SourceUnderTest>): void {
  async function withSource(use: (source: DiskSource, content: Buffer, signal: AbortSignal) => Promise<void>) {
    await using subject = await make();
    const { signal } = new AbortController();
    await using source = await subject.open(signal);
    await use(source, subject.content, signal);
  }

  test(`${kind} says the size of the disk and bounds that can be worked with`, async () => {
    await withSource(async (source, content) => {
      assert.equal(source.sizeBytes, content.length);
      assert.ok(Number.isInteger(source.parallel) && source.parallel >= 1);
      assert.ok(source.maxReadBytes >= BLOCK_BYTES && source.maxReadBytes % BLOCK_BYTES === 0);
      assert.match(source.transport, /^[a-z][a-z0-9-]*$/);
    });
  });

  test(`${kind} reads every block, the short last one too`, async () => {
    await withSource(async (source, content, signal) => {
      for (let offset = 0; offset < content.length; offset += BLOCK_BYTES) {
        await same(source, content, offset, Math.min(BLOCK_BYTES, content.length - offset), signal);
      }
    });
  });

  test(`${kind} answers more parallel reads than it wants, each with its own bytes`, async () => {
    await withSource(async (source, content, signal) => {
      const reads = Array.from({ length: source.parallel * 4 }, async (_, i) => {
        const offset = ((i * 7919 * 512) % (content.length - 4096)) & ~511;
        await same(source, content, offset, 512 * (1 + (i % 8)), signal);
      });
      await Promise.all(reads);
    });
  });

  test(`${kind} refuses to read past the end and goes on working`, async () => {
    await withSource(async (source, content, signal) => {
      for (const [offset, length] of [
        [content.length, 512],
        [content.length - 512, 1024],
        [content.length * 1000, 512],
      ] as const) {
        await assert.rejects(source.read(offset, Buffer.alloc(length), signal), { code: 'READ_FAILED' });
      }
      await same(source, content, content.length - 512, 512, signal);
    });
  });

  test(`${kind} ends a read that is aborted with the reason, and others go on`, async () => {
    await withSource(async (source, content, signal) => {
      const controller = new AbortController();
      const reason = new SendenseError('CANCELLED', 'enough');
      const aborted = source.read(0, Buffer.alloc(BLOCK_BYTES), controller.signal);
      const other = same(source, content, BLOCK_BYTES, BLOCK_BYTES, signal);
      controller.abort(reason);
      // It may have been answered before the abort came through; anything else but the reason is wrong.
      await aborted.catch((error: unknown) => assert.equal(error, reason));
      await other;
      await assert.rejects(source.read(0, Buffer.alloc(512), controller.signal), (error) => error === reason);
    });
  });

  test(`${kind} never touches a buffer after the read has settled`, async () => {
    await withSource(async (source, content, signal) => {
      const controller = new AbortController();
      const buffers = Array.from({ length: source.parallel }, () => Buffer.alloc(BLOCK_BYTES));
      const reads = buffers.map((buffer, i) => source.read(i * BLOCK_BYTES, buffer, controller.signal));
      controller.abort();
      await Promise.allSettled(reads);
      for (const buffer of buffers) buffer.fill(0xa5);
      await same(source, content, 0, BLOCK_BYTES, signal);
      for (const buffer of buffers) assert.ok(buffer.equals(Buffer.alloc(BLOCK_BYTES, 0xa5)));
    });
  });

  test(`${kind} describes ranges exactly and never calls data zero`, async () => {
    await withSource(async (source, content, signal) => {
      if (!source.allocation) return;
      for (const range of [
        { offset: 0, length: content.length },
        { offset: BLOCK_BYTES, length: content.length - BLOCK_BYTES },
        { offset: 512, length: 512 },
      ]) {
        const extents: KnownExtent[] = await Array.fromAsync(source.allocation(range, signal));
        let at = range.offset;
        for (const extent of extents) {
          assert.equal(extent.offset, at);
          assert.ok(extent.length > 0);
          at = endOf(extent);
          if (extent.kind !== 'data') assert.ok(content.subarray(extent.offset, at).every((byte) => byte === 0));
        }
        assert.equal(at, endOf(range));
      }
    });
  });

  test(`${kind} ends running reads when it is closed, and closing twice is harmless`, async () => {
    await withSource(async (source, content, signal) => {
      const reads = Array.from({ length: 4 }, (_, i) => source.read(i * 4096, Buffer.alloc(4096), signal));
      const settled = Promise.allSettled(reads);
      await source[Symbol.asyncDispose]();
      await source[Symbol.asyncDispose]();
      await settled;
      await assert.rejects(source.read(0, Buffer.alloc(Math.min(512, content.length)), signal), {
        code: 'READ_FAILED',
      });
    });
  });
}

async function same(source: DiskSource, content: Buffer, offset: number, length: number, signal: AbortSignal) {
  const target = Buffer.alloc(length, 0xee);
  await source.read(offset, target, signal);
  assert.ok(target.equals(content.subarray(offset, offset + length)), `${length} bytes at ${offset}`);
}
