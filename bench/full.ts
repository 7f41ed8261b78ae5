/**
 * A full copy between an NBD source and a fresh QCOW2 image of the export daemon: ours, nbdcopy and qemu-img convert
 * between the same two endpoints on unix sockets, in turns. Ours runs in a process of its own, timed like the others
 * from start to end; its copy time without the start of Node is reported beside it.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BenchOptions } from './main.ts';
import { median, ratio } from './ratio.ts';
import { Exports } from '#/hub/export/exports.ts';
import { silentLogger } from '#/lib/log.ts';
import { waitFor } from '#/lib/retry.ts';
import { ended, run, start } from '#/lib/run.ts';
import { compareImages, createImage } from '#/qemu/img.ts';

const MIB = 1024 ** 2;
const here = (file: string): string => fileURLToPath(new URL(file, import.meta.url));

export async function full({ pairs, mib }: BenchOptions): Promise<Record<string, unknown>> {
  const dir = await mkdtemp(join(tmpdir(), 'sd-bench-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const raw = join(dir, 'source.raw');
  await makeSource(raw, mib);
  const socket = join(dir, 's.sock');
  stack.use(await serveRaw(raw, socket, join(dir, 's.pid')));
  const exports = stack.use(await startExportd(dir));
  const sourceUri = `nbd+unix:///source?socket=${socket}`;
  const rates: Record<'ours' | 'oursCopyOnly' | 'nbdcopy' | 'qemuImg', number[]> = {
    ours: [],
    oursCopyOnly: [],
    nbdcopy: [],
    qemuImg: [],
  };
  let peakRssBytes = 0;
  let verified = false;
  for (let pair = 0; pair < pairs; pair++) {
    for (const tool of ['ours', 'nbdcopy', 'qemuImg'] as const) {
      const path = join(dir, `t${pair}-${tool}.qcow2`);
      await createImage({ path, sizeBytes: mib * MIB });
      const { signal } = new AbortController();
      const request = {
        name: `t${pair}-${tool.toLowerCase()}`,
        imagePath: path,
        readOnly: false,
        agent: 'bench',
        virtualBytes: mib * MIB,
      };
      const target = await exports.of.open(request, signal);
      const started = performance.now();
      if (tool === 'ours') {
        const { stdout } = await run(process.execPath, [here('copy-child.ts'), sourceUri, target.localUri]);
        rates.ours.push(rate(mib, started));
        const own = JSON.parse(stdout) as { ms: number; peakRssBytes: number };
        rates.oursCopyOnly.push((mib * MIB * 1000) / own.ms);
        peakRssBytes = Math.max(peakRssBytes, own.peakRssBytes);
      } else {
        const args =
          tool === 'nbdcopy'
            ? (['nbdcopy', ['--flush', sourceUri, target.localUri]] as const)
            : (['qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', sourceUri, target.localUri]] as const);
        await run(args[0], [...args[1]]);
        rates[tool].push(rate(mib, started));
      }
      await target.close();
      if (tool === 'ours' && !verified) {
        verified = (await compareImages({ path: raw, format: 'raw' }, { path, format: 'qcow2' })).identical;
        if (!verified) throw new Error('the copy differs from its source');
      }
      await rm(path);
    }
  }
  return {
    unit: 'bytes per second, median; unix sockets',
    mib,
    identical: verified,
    againstNbdcopy: ratio(rates.oursCopyOnly, rates.nbdcopy),
    againstNbdcopyWithStartOfNode: ratio(rates.ours, rates.nbdcopy),
    againstQemuImg: ratio(rates.oursCopyOnly, rates.qemuImg),
    peakRssMib: Math.round(peakRssBytes / MIB),
    medianMs: { ours: (mib * MIB * 1000) / median(rates.ours), nbdcopy: (mib * MIB * 1000) / median(rates.nbdcopy) },
  };
}

function rate(mib: number, started: number): number {
  return (mib * MIB * 1000) / (performance.now() - started);
}

/** Four parts of five random, one hole. */
async function makeSource(path: string, mib: number): Promise<void> {
  const file = await open(path, 'w');
  try {
    await file.truncate(mib * MIB);
    const block = randomBytes(16 * MIB);
    for (let at = 0; at + 16 <= mib; at += 16) {
      if ((at / 16) % 5 === 4) continue;
      block.writeUInt32LE(at, 0);
      await file.write(block, 0, block.length, at * MIB);
    }
  } finally {
    await file.close();
  }
}

export async function serveRaw(path: string, socket: string, pidFile: string): Promise<AsyncDisposable> {
  const child = start('qemu-storage-daemon', [
    '--blockdev',
    JSON.stringify({ driver: 'raw', 'node-name': 'n', 'read-only': true, file: { driver: 'file', filename: path } }),
    '--nbd-server',
    `addr.type=unix,addr.path=${socket},max-connections=16`,
    '--export',
    'type=nbd,id=e,node-name=n,name=source,writable=off',
    '--pidfile',
    pidFile,
  ]);
  const end = ended('qemu-storage-daemon', child);
  await waitFor('the source', () => readFile(pidFile).catch(() => undefined), { timeoutMs: 10_000 });
  return {
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM');
      await end;
    },
  };
}

export async function startExportd(dir: string): Promise<AsyncDisposable & { of: Exports }> {
  const [configDir, runDir] = [join(dir, 'c'), join(dir, 'r')];
  await mkdir(configDir);
  const child = start(process.execPath, [here('../src/main.ts'), 'exportd', '--config', configDir, '--run', runDir]);
  const end = ended('exportd', child);
  await waitFor('the export daemon', () => readFile(join(runDir, 'status.json')).catch(() => undefined), {
    timeoutMs: 20_000,
  });
  return {
    of: new Exports({ configDir, runDir, frontDoor: null, log: silentLogger() }),
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM');
      await end;
    },
  };
}
