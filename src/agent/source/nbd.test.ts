import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { retry, waitFor } from '#/lib/retry.ts';
import { ended, start } from '#/lib/run.ts';
import { contentRuns } from '../copy/zeroes.ts';
import { proveSource, sampleContent } from './conformance.ts';
import type { SourceUnderTest } from './conformance.ts';
import { openNbdSource } from './nbd.ts';

/** Runs `program` with the arguments made for a raw disk and a socket in a folder that goes with it. */
async function serve(program: string, args: (disk: string, socket: string) => string[]): Promise<SourceUnderTest> {
  const folder = await mkdtemp(join(tmpdir(), 'sendense-source-'));
  const [disk, socket] = [join(folder, 'disk.raw'), join(folder, 's')];
  const content = sampleContent();
  await using file = await open(disk, 'w');
  for (const run of contentRuns(content)) {
    if (!run.zero) await file.write(content, run.start, run.end - run.start, run.start);
  }
  await file.truncate(content.length);
  const child = start(program, args(disk, socket));
  const end = ended(program, child);
  await waitFor(`${program} to listen`, async () => stat(socket).catch(() => undefined), {
    timeoutMs: 10_000,
    everyMs: 5,
  });
  const uri = `nbd+unix:///?socket=${socket}`;
  return {
    content,
    // The socket exists an instant before it is listened to.
    open: async (signal) =>
      retry(async () => openNbdSource({ uri, connections: 2, signal }), {
        attempts: 50,
        delayMs: 10,
        maxDelayMs: 50,
        shouldRetry: () => true,
      }),
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM');
      await end;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

proveSource('an NBD source over nbdkit', async () =>
  serve('nbdkit', (disk, socket) => ['--foreground', '--exit-with-parent', '--readonly', '-U', socket, 'file', disk]),
);

proveSource('an NBD source over qemu-nbd', async () =>
  serve('qemu-nbd', (disk, socket) => ['-t', '-r', '-f', 'raw', '--shared=4', '-k', socket, disk]),
);

test('an NBD source that loses its server says so as a failed read', async () => {
  await using subject = await serve('qemu-nbd', (disk, socket) => [
    '-t',
    '-r',
    '-f',
    'raw',
    '--shared=4',
    '-k',
    socket,
    disk,
  ]);
  const { signal } = new AbortController();
  await using source = await subject.open(signal);
  await source.read(0, Buffer.alloc(512), signal);
  await subject[Symbol.asyncDispose]();
  await assert.rejects(source.read(0, Buffer.alloc(512), signal), { code: 'READ_FAILED' });
});
