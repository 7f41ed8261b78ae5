/**
 * A full copy between an NBD source and a fresh QCOW2 image of the export daemon: ours, nbdcopy and qemu-img convert
 * between the same two endpoints in turns, by unix socket and through the TLS front door. Ours runs in a process of its
 * own; in production that is an agent long started, so the time from connecting on counts, and the other is beside it.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BenchOptions } from './main.ts';
import { ratio } from './ratio.ts';
import { Exports } from '#/hub/export/exports.ts';
import { Pki } from '#/hub/pki.ts';
import { silentLogger } from '#/lib/log.ts';
import { waitFor } from '#/lib/retry.ts';
import { ended, run, start } from '#/lib/run.ts';
import { compareImages, createImage } from '#/qemu/img.ts';

const MIB = 1024 ** 2;
const TOOLS = ['ours', 'nbdcopy', 'qemuImg'] as const;
type Tool = (typeof TOOLS)[number];
const here = (file: string): string => fileURLToPath(new URL(file, import.meta.url));

interface Bed {
  dir: string;
  mib: number;
  raw: string;
  sourceUri: string;
  certificatesDir: string;
  exports: Exports;
}

export async function full({ pairs, mib }: BenchOptions): Promise<Record<string, unknown>> {
  const dir = await mkdtemp(join(tmpdir(), 'sd-bench-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const [raw, socket] = [join(dir, 'source.raw'), join(dir, 's.sock')];
  await makeSource(raw, mib);
  stack.use(await serveRaw(raw, socket, join(dir, 's.pid')));
  const pki = await Pki.open(join(dir, 'pki'));
  const serverDir = await pki.ensureFolder('server', 'exportd', 'server', ['127.0.0.1']);
  const certificatesDir = await pki.ensureFolder('client', 'bench', 'client');
  const { of } = stack.use(await startExportd(dir, serverDir));
  const bed = { dir, mib, raw, sourceUri: `nbd+unix:///source?socket=${socket}`, certificatesDir, exports: of };
  return {
    unit: 'bytes per second, median',
    mib,
    unixSocket: await compare(bed, 'unix', pairs),
    tlsFrontDoor: await compare(bed, 'tls', pairs),
  };
}

/** Runs the tools in turns, each into a fresh image; the first copy of ours is compared with the source. */
async function compare(bed: Bed, route: 'unix' | 'tls', pairs: number): Promise<Record<string, unknown>> {
  const rates: Record<Tool | 'oursCopyOnly', number[]> = { ours: [], oursCopyOnly: [], nbdcopy: [], qemuImg: [] };
  const { signal } = new AbortController();
  let peakRssBytes = 0;
  for (let pair = 0; pair < pairs; pair++) {
    for (const tool of TOOLS) {
      const name = `${route}${pair}-${tool.toLowerCase()}`;
      const [path, virtualBytes] = [join(bed.dir, `${name}.qcow2`), bed.mib * MIB];
      await createImage({ path, sizeBytes: virtualBytes });
      const target = await bed.exports.open(
        { name, imagePath: path, readOnly: false, agent: 'bench', virtualBytes },
        signal,
      );
      const uri = route === 'unix' ? target.localUri : (target.remoteUri ?? '');
      const started = performance.now();
      const { stdout } = await run(...commandOf(tool, bed, uri));
      rates[tool].push(rate(bed.mib, started));
      await target.close();
      if (tool === 'ours') {
        const own = JSON.parse(stdout) as { ms: number; peakRssBytes: number };
        rates.oursCopyOnly.push((virtualBytes * 1000) / own.ms);
        peakRssBytes = Math.max(peakRssBytes, own.peakRssBytes);
        if (pair === 0) await verify(bed.raw, path);
      }
      await rm(path);
    }
  }
  return {
    againstNbdcopy: ratio(rates.oursCopyOnly, rates.nbdcopy),
    againstNbdcopyWithStartOfNode: ratio(rates.ours, rates.nbdcopy),
    againstQemuImg: ratio(rates.oursCopyOnly, rates.qemuImg),
    peakRssMib: Math.round(peakRssBytes / MIB),
  };
}

function commandOf(tool: Tool, bed: Bed, uri: string): [string, string[]] {
  const { certificatesDir, sourceUri } = bed;
  const isTls = uri.startsWith('nbds:');
  const withCertificates = isTls ? `${uri}?tls-certificates=${encodeURIComponent(certificatesDir)}` : uri;
  if (tool === 'ours') return [process.execPath, [here('copy-child.ts'), sourceUri, withCertificates]];
  if (tool === 'nbdcopy') return ['nbdcopy', ['--flush', sourceUri, withCertificates]];
  if (!isTls) return ['qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', sourceUri, uri]];
  // qemu-img takes no certificates in a URI.
  const { hostname, port, pathname } = new URL(uri.replace('nbds:', 'http:'));
  const place = `driver=nbd,host=${hostname},port=${port},export=${pathname.slice(1)},tls-creds=t`;
  const credentials = `tls-creds-x509,id=t,endpoint=client,dir=${certificatesDir}`;
  return ['qemu-img', ['convert', '-n', '--object', credentials, '-f', 'raw', '--target-image-opts', sourceUri, place]];
}

async function verify(raw: string, path: string): Promise<void> {
  const { identical } = await compareImages({ path: raw, format: 'raw' }, { path, format: 'qcow2' });
  if (!identical) throw new Error('the copy differs from its source');
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

/** With `tlsDir`, a folder of server certificates, it has a front door. */
export async function startExportd(dir: string, tlsDir?: string): Promise<AsyncDisposable & { of: Exports }> {
  const [configDir, runDir] = [join(dir, 'c'), join(dir, 'r')];
  await mkdir(configDir);
  const door = tlsDir === undefined ? [] : ['--listen', '127.0.0.1:0', '--tls', tlsDir];
  const args = [here('../src/main.ts'), 'exportd', '--config', configDir, '--run', runDir, ...door];
  const child = start(process.execPath, args);
  const end = ended('exportd', child);
  const status = await waitFor(
    'the export daemon',
    () => readFile(join(runDir, 'status.json')).catch(() => undefined),
    {
      timeoutMs: 20_000,
    },
  );
  const { frontDoor } = JSON.parse(status.toString('utf8')) as { frontDoor: string | null };
  return {
    of: new Exports({ configDir, runDir, frontDoor, log: silentLogger() }),
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM');
      await end;
    },
  };
}
