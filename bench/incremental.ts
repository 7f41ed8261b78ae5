/**
 * An incremental of a 16 GiB disk with one block of 64 KiB in a hundred changed, scattered: bytes moved against bytes
 * changed, and the time against nbdcopy, which has to look at the whole disk.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { serveRaw, startExportd } from './full.ts';
import type { BenchOptions } from './main.ts';
import { median } from './ratio.ts';
import { run } from '#/lib/run.ts';
import { compareImages, createImage } from '#/qemu/img.ts';

const SIZE_BYTES = 16 * 1024 ** 3;
const BLOCK_BYTES = 65_536;
const STRIDE = 100;
const MAX_RUNS = 3;

export async function incremental({ pairs }: BenchOptions): Promise<Record<string, unknown>> {
  const dir = await mkdtemp(join(tmpdir(), 'sd-bench-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const [raw, list, socket] = [join(dir, 'source.raw'), join(dir, 'areas.json'), join(dir, 's.sock')];
  const areas = await makeSource(raw);
  await writeFile(list, JSON.stringify(areas));
  stack.use(await serveRaw(raw, socket, join(dir, 's.pid')));
  const exports = stack.use(await startExportd(dir));
  const source = `nbd+unix:///source?socket=${socket}`;
  await createImage({ path: join(dir, 'base.qcow2'), sizeBytes: SIZE_BYTES });
  const ms: Record<'ours' | 'nbdcopy', number[]> = { ours: [], nbdcopy: [] };
  const changedBytes = areas.length * BLOCK_BYTES;
  let movedBytes = 0;
  for (let turn = 0; turn < Math.min(pairs, MAX_RUNS); turn++) {
    for (const tool of ['ours', 'nbdcopy'] as const) {
      const path = join(dir, `t${turn}-${tool}.qcow2`);
      await createImage({ path, sizeBytes: SIZE_BYTES, backing: { relativeName: 'base.qcow2' } });
      const { signal } = new AbortController();
      const name = `t${turn}-${tool}`;
      const target = await exports.of.open(
        { name, imagePath: path, readOnly: false, agent: 'bench', virtualBytes: SIZE_BYTES },
        signal,
      );
      const started = performance.now();
      if (tool === 'ours') {
        const child = fileURLToPath(new URL('copy-child.ts', import.meta.url));
        const { stdout } = await run(process.execPath, [child, source, target.localUri, list]);
        movedBytes = (JSON.parse(stdout) as { writtenBytes: number }).writtenBytes;
      } else {
        await run('nbdcopy', ['--flush', source, target.localUri]);
      }
      ms[tool].push(performance.now() - started);
      await target.close();
      const same = await compareImages({ path: raw, format: 'raw' }, { path, format: 'qcow2' });
      if (!same.identical) throw new Error(`what ${tool} has copied differs from its source`);
      await rm(path);
    }
  }
  return {
    unit: 'milliseconds from start to end of the process, median',
    changedBytes,
    movedBytes,
    movedPerChanged: movedBytes / changedBytes,
    reductionAgainstDisk: 1 - movedBytes / SIZE_BYTES,
    time: {
      ours: median(ms.ours),
      other: median(ms.nbdcopy),
      ratio: median(ms.nbdcopy) / median(ms.ours),
      runs: ms.ours.length,
    },
  };
}

async function makeSource(path: string): Promise<{ offset: number; length: number }[]> {
  const file = await open(path, 'w');
  const areas: { offset: number; length: number }[] = [];
  const block = randomBytes(BLOCK_BYTES);
  try {
    await file.truncate(SIZE_BYTES);
    for (let offset = 0; offset < SIZE_BYTES; offset += STRIDE * BLOCK_BYTES) {
      block.writeBigUInt64LE(BigInt(offset), 0);
      await file.write(block, 0, BLOCK_BYTES, offset);
      areas.push({ offset, length: BLOCK_BYTES });
    }
  } finally {
    await file.close();
  }
  return areas;
}
