/** The NBD client against the servers of others; what it wrote is always read back by a reader that is not ours. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, copyFile, readFile, truncate, writeFile } from 'node:fs/promises';
import test from 'node:test';
import { hasCode, SendenseError } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';
import type { KnownExtent } from '#/lib/extents.ts';
import { run } from '#/lib/run.ts';
import { allocation } from '#/nbd/allocation.ts';
import { connectNbd } from '#/nbd/client.ts';
import type { NbdClient } from '#/nbd/client.ts';
import { BASE_ALLOCATION } from '#/nbd/constants.ts';
import {
  certificates,
  freePort,
  nbdkit,
  nbdServer,
  qemuNbd,
  scratch,
  ServerProcess,
  storageDaemon,
} from './nbd-servers.ts';
import type { Scratch } from './nbd-servers.ts';
import { requireTools } from './requires.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE = 32 * MIB;
const DEPTH = 'qemu:allocation-depth';

function withCode(...codes: ErrorCode[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(hasCode(error, ...codes), String(error));
    return true;
  };
}

/** Writes, zeroes, trims and flushes in parallel all over the disk; returns what the disk must then hold. */
async function exercise(client: NbdClient): Promise<Buffer> {
  const model = Buffer.alloc(SIZE);
  const put = async (offset: number, data: Buffer, fua = false): Promise<void> => {
    data.copy(model, offset);
    await client.write(offset, data, { fua });
  };
  await Promise.all(
    Array.from({ length: 40 }, async (_, index) => put(index * 640 * KIB, randomBytes(300 * KIB), index % 7 === 0)),
  );
  await client.flush();
  await put(SIZE - 512, randomBytes(512));
  await put(MIB + 512, randomBytes(3 * KIB));
  const zero = async (offset: number, length: number, noHole: boolean): Promise<void> => {
    model.fill(0, offset, offset + length);
    if (client.canZero) await client.writeZeroes(offset, length, { noHole, fua: !noHole });
    else await client.write(offset, Buffer.alloc(length));
  };
  await Promise.all([zero(2 * MIB, MIB, false), zero(5 * MIB + 4 * KIB, 200 * KIB, true), zero(0, 64 * KIB, false)]);
  if (client.canTrim) await client.trim(8 * MIB, MIB);
  await put(8 * MIB, randomBytes(MIB));
  await client.flush();
  return model;
}

async function readAll(client: NbdClient): Promise<Buffer> {
  const all = Buffer.alloc(client.sizeBytes, 0xff);
  const reads: Promise<void>[] = [];
  for (let at = 0; at < all.length; at += 300 * KIB)
    reads.push(client.read(at, all.subarray(at, Math.min(at + 300 * KIB, all.length))));
  await Promise.all(reads);
  return all;
}

/** The export's bytes as nbdcopy reads them. */
async function copyOut(dir: Scratch, uri: string): Promise<Buffer> {
  const file = dir.path('copied.raw');
  await run('nbdcopy', [`--request-size=${64 * KIB}`, uri, file]);
  return readFile(file);
}

async function assertHolds(dir: Scratch, uri: string, client: NbdClient, model: Buffer): Promise<void> {
  assert.ok((await readAll(client)).equals(model), 'our reader');
  assert.ok((await copyOut(dir, uri)).equals(model), 'nbdcopy');
}

test('qemu-storage-daemon: a qcow2 written over several connections holds exactly what was written', async (t) => {
  if (!requireTools(t, 'qemu-storage-daemon', 'qemu-img', 'nbdcopy')) return;
  await using dir = await scratch();
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', dir.path('disk.qcow2'), String(SIZE)]);
  const uri = dir.uri('s', 'disk');
  let model = Buffer.alloc(0);
  {
    await using _server = await storageDaemon(dir, 's', { image: 'disk.qcow2', writable: true });
    await using client = await connectNbd({ uri }, { connections: 4, metaContexts: [BASE_ALLOCATION] });
    assert.deepEqual([client.sizeBytes, client.readOnly, client.connections], [SIZE, false, 4]);
    assert.deepEqual(client.blockSize, { minimum: 1, preferred: 4096, maximum: 32 * MIB });
    model = Buffer.from(await exercise(client));
    await assertHolds(dir, uri, client, model);
    const whole = Buffer.alloc(64 * KIB);
    await client.read(2 * MIB - 32 * KIB, whole, { dontFragment: true });
    assert.ok(whole.equals(model.subarray(2 * MIB - 32 * KIB, 2 * MIB + 32 * KIB)), 'an unfragmented read');
  }
  await writeFile(dir.path('model.raw'), model);
  const compare = ['compare', '-f', 'raw', '-F', 'qcow2', dir.path('model.raw'), dir.path('disk.qcow2')];
  assert.match((await run('qemu-img', compare)).stdout, /identical/);
  await run('qemu-img', ['check', '-q', dir.path('disk.qcow2')]);
});

test('qemu-storage-daemon: what was flushed on any connection survives kill -9', async (t) => {
  if (!requireTools(t, 'qemu-storage-daemon', 'qemu-img')) return;
  await using dir = await scratch();
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', dir.path('disk.qcow2'), String(SIZE)]);
  await using server = await storageDaemon(dir, 's', { image: 'disk.qcow2', writable: true });
  await using client = await connectNbd({ uri: dir.uri('s', 'disk') }, { connections: 3 });
  const data = randomBytes(8 * MIB);
  const blocks = Array.from({ length: 64 }, (_, index) => index * 128 * KIB);
  await Promise.all(blocks.map((at) => client.write(at, data.subarray(at, at + 128 * KIB))));
  await client.flush();
  await client.write(16 * MIB, data.subarray(0, MIB), { fua: true });
  const late = client.read(0, Buffer.alloc(MIB)).then(
    () => 'answered',
    (error: unknown) => error,
  );
  await server.kill();
  const outcome = await late;
  assert.ok(outcome === 'answered' || hasCode(outcome, 'NBD_CLOSED'), String(outcome));
  await assert.rejects(client.flush(), withCode('NBD_CLOSED'));
  await run('qemu-img', ['convert', '-O', 'raw', dir.path('disk.qcow2'), dir.path('after.raw')]);
  const after = await readFile(dir.path('after.raw'));
  assert.ok(after.subarray(0, 8 * MIB).equals(data));
  assert.ok(after.subarray(16 * MIB, 17 * MIB).equals(data.subarray(0, MIB)));
});

test('qemu-storage-daemon: allocation and depth of a chain are what qemu-img map says', async (t) => {
  if (!requireTools(t, 'qemu-storage-daemon', 'qemu-img', 'qemu-io')) return;
  await using dir = await scratch();
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', dir.path('full.qcow2'), String(SIZE)]);
  await run('qemu-io', [
    '-f',
    'qcow2',
    '-c',
    'write -P 1 0 1M',
    '-c',
    'write -P 2 10M 64k',
    '-c',
    'write -P 2 31M 1M',
    dir.path('full.qcow2'),
  ]);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'full.qcow2', '-F', 'qcow2', dir.path('inc.qcow2')]);
  await run('qemu-io', [
    '-f',
    'qcow2',
    '-c',
    'write -P 3 512k 1M',
    '-c',
    'write -z 10M 64k',
    '-c',
    'write -z 20M 1M',
    dir.path('inc.qcow2'),
  ]);
  await using _server = await storageDaemon(dir, 's', { image: 'inc.qcow2' });
  await using client = await connectNbd(
    { uri: dir.uri('s', 'disk') },
    { metaContexts: [DEPTH, 'x:unknown', BASE_ALLOCATION] },
  );
  assert.deepEqual([...client.contexts].sort(), [BASE_ALLOCATION, DEPTH]);
  assert.equal(client.readOnly, true);
  await assert.rejects(client.write(0, Buffer.alloc(512)), withCode('NBD_IO'));

  const { stdout } = await run('qemu-img', ['map', '-U', '--output=json', dir.path('inc.qcow2')]);
  const map = JSON.parse(stdout) as {
    start: number;
    length: number;
    depth: number;
    zero: boolean;
    present?: boolean;
  }[];
  const runs = await Array.fromAsync(allocation(client, { offset: 0, length: SIZE }));
  assert.deepEqual(new Set(runs.map(({ kind }) => kind)), new Set(['data', 'hole']));
  const zeroes = (at: number): boolean | undefined =>
    map.find(({ start, length }) => at >= start && at < start + length)?.zero;
  for (let at = 0; at < SIZE; at += 64 * KIB) {
    const own = runs.find(({ offset, length }) => at >= offset && at < offset + length);
    assert.equal(own?.kind !== 'data', zeroes(at), `at ${at}`);
  }
  const depths = await client.blockStatus(DEPTH, 0, SIZE);
  const depthAt = (at: number): number | undefined =>
    depths.find(({ offset, length }) => at >= offset && at < offset + length)?.flags;
  assert.deepEqual(
    [depthAt(0), depthAt(512 * KIB), depthAt(1.25 * MIB), depthAt(10 * MIB), depthAt(31 * MIB), depthAt(5 * MIB)],
    [2, 1, 1, 1, 2, 0],
  );
});

test('qemu-storage-daemon: an unknown export is told apart from an unreachable server', async (t) => {
  if (!requireTools(t, 'qemu-storage-daemon', 'qemu-img')) return;
  await using dir = await scratch();
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', dir.path('disk.qcow2'), '1M']);
  await using _server = await storageDaemon(dir, 's', { image: 'disk.qcow2' });
  await assert.rejects(connectNbd({ uri: dir.uri('s', 'other') }), withCode('NBD_UNKNOWN_EXPORT'));
  const asking = connectNbd({ uri: dir.uri('s', 'other') }, { metaContexts: [BASE_ALLOCATION] });
  await assert.rejects(asking, withCode('NBD_UNKNOWN_EXPORT'));
  await assert.rejects(connectNbd({ uri: dir.uri('nobody', 'disk') }), withCode('NBD_UNREACHABLE'));
});

test('qemu-nbd: an existing qcow2 reads as it was written, and takes writes', async (t) => {
  if (!requireTools(t, 'qemu-nbd', 'qemu-img', 'nbdcopy')) return;
  await using dir = await scratch();
  const content = Buffer.concat([randomBytes(5 * MIB), Buffer.alloc(20 * MIB), randomBytes(7 * MIB)]);
  await writeFile(dir.path('content.raw'), content);
  await run('qemu-img', ['convert', '-O', 'qcow2', dir.path('content.raw'), dir.path('disk.qcow2')]);
  const uri = dir.uri('s', 'disk');
  {
    await using _reader = await qemuNbd(
      dir,
      's',
      '--read-only',
      '--format=qcow2',
      '--export-name=disk',
      dir.path('disk.qcow2'),
    );
    await using client = await connectNbd({ uri }, { metaContexts: [BASE_ALLOCATION], connections: 2 });
    assert.deepEqual([client.sizeBytes, client.readOnly], [SIZE, true]);
    await assertHolds(dir, uri, client, content);
    const runs = await Array.fromAsync(allocation(client, { offset: 0, length: SIZE }));
    const hole = runs.find(({ offset, length }) => offset <= 6 * MIB && offset + length >= 24 * MIB);
    assert.equal(hole?.kind, 'hole');
  }
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', dir.path('new.qcow2'), String(SIZE)]);
  await using _writer = await qemuNbd(
    dir,
    's',
    '--format=qcow2',
    '--discard=unmap',
    '--export-name=disk',
    dir.path('new.qcow2'),
  );
  await using client = await connectNbd({ uri }, { connections: 2 });
  await assertHolds(dir, uri, client, await exercise(client));
});

test('nbdkit memory: everything written over several connections is there', async (t) => {
  if (!requireTools(t, 'nbdkit', 'nbdcopy')) return;
  await using dir = await scratch();
  await using _server = await nbdkit(dir, 's', 'memory', String(SIZE));
  await using client = await connectNbd({ uri: dir.uri('s') }, { connections: 3, metaContexts: [BASE_ALLOCATION] });
  assert.equal(client.connections, 3);
  await assertHolds(dir, dir.uri('s'), client, await exercise(client));
  const kinds = new Set(
    (await Array.fromAsync(allocation(client, { offset: 0, length: SIZE }))).map(({ kind }) => kind),
  );
  assert.ok(kinds.has('data') && kinds.has('hole'));
});

test('nbdkit: odd and enormous sizes are read and written to their last byte', async (t) => {
  if (!requireTools(t, 'nbdkit', 'nbdinfo')) return;
  for (const size of [512, 2 * 2 ** 40 + 512, 64 * 2 ** 40]) {
    await using dir = await scratch();
    await using _server = await nbdkit(dir, 's', 'memory', String(size));
    await using client = await connectNbd({ uri: dir.uri('s') }, { metaContexts: [BASE_ALLOCATION] });
    assert.equal(client.sizeBytes, size);
    assert.equal((await run('nbdinfo', ['--size', dir.uri('s')])).stdout.trim(), String(size));
    const last = randomBytes(512);
    await client.write(size - 512, last);
    const target = Buffer.alloc(512);
    await client.read(size - 512, target);
    assert.deepEqual(target, last);
    await assert.rejects(client.write(size, last), withCode('INVALID_REQUEST'));
    if (size > 2 ** 45) continue; // a walk over 64 TiB takes 65,536 questions; the end of it is enough
    const walked = await Array.fromAsync(allocation(client, { offset: 0, length: size }));
    assert.deepEqual(sumOf(walked), size);
    assert.equal(walked.at(-1)?.kind, 'data');
  }
  await using dir = await scratch();
  await using _server = await nbdkit(dir, 's', 'memory', '64T');
  await using client = await connectNbd({ uri: dir.uri('s') }, { metaContexts: [BASE_ALLOCATION] });
  const tail = { offset: 64 * 2 ** 40 - 8 * 2 ** 30, length: 8 * 2 ** 30 };
  assert.deepEqual(await Array.fromAsync(allocation(client, tail)), [{ ...tail, kind: 'hole' }]);
  await client.writeZeroes(0, 16 * 2 ** 30);
});

function sumOf(runs: readonly KnownExtent[]): number {
  return runs.reduce((sum, { length }) => sum + length, 0);
}

test('nbdkit: block sizes the server demands are kept, and asked-for violations refused here', async (t) => {
  if (!requireTools(t, 'nbdkit', 'nbdcopy')) return;
  await using dir = await scratch();
  const policy = [
    'blocksize-minimum=4096',
    'blocksize-preferred=4096',
    'blocksize-maximum=64K',
    'blocksize-error-policy=error',
  ];
  await using _server = await nbdkit(dir, 's', '--filter=blocksize-policy', 'memory', String(SIZE), ...policy);
  await using client = await connectNbd({ uri: dir.uri('s') });
  assert.deepEqual(client.blockSize, { minimum: 4096, preferred: 4096, maximum: 64 * KIB });
  const data = randomBytes(SIZE);
  await client.write(0, data);
  await assertHolds(dir, dir.uri('s'), client, data);
  await assert.rejects(client.write(512, data.subarray(0, 4096)), withCode('INVALID_REQUEST'));
});

test('nbdkit: a server without block status is all data', async (t) => {
  if (!requireTools(t, 'nbdkit')) return;
  await using dir = await scratch();
  await using _server = await nbdkit(dir, 's', '--filter=noextents', 'memory', String(SIZE));
  await using client = await connectNbd({ uri: dir.uri('s') }, { metaContexts: [BASE_ALLOCATION] });
  const runs = await Array.fromAsync(allocation(client, { offset: 0, length: SIZE }));
  assert.deepEqual(runs, [{ offset: 0, length: SIZE, kind: 'data' }]);
});

test('nbdkit: an injected error names its errno and leaves the connection good', async (t) => {
  if (!requireTools(t, 'nbdkit')) return;
  await using dir = await scratch();
  const errors = ['error=ENOSPC', 'error-pwrite-rate=100%', 'error-zero=EIO', 'error-zero-rate=100%'];
  await using _server = await nbdkit(dir, 's', '--filter=error', 'memory', String(SIZE), ...errors);
  await using client = await connectNbd({ uri: dir.uri('s') });
  const errnoOf = async (call: Promise<void>): Promise<unknown> =>
    call.then(
      () => 'no error',
      (error: unknown) => (error instanceof SendenseError ? error.details['errno'] : error),
    );
  assert.equal(await errnoOf(client.write(0, Buffer.alloc(MIB))), 'ENOSPC');
  assert.equal(await errnoOf(client.writeZeroes(0, MIB)), 'EIO');
  await client.read(0, Buffer.alloc(MIB));
});

test('nbdkit: a cancelled call returns at once though the server is slow, and its late answer does no harm', async (t) => {
  if (!requireTools(t, 'nbdkit')) return;
  await using dir = await scratch();
  await using _server = await nbdkit(dir, 's', '--filter=delay', 'pattern', String(SIZE), 'rdelay=700ms');
  await using client = await connectNbd({ uri: dir.uri('s') });
  const controller = new AbortController();
  const memory = Buffer.alloc(MIB, 0xaa);
  const read = client.read(0, memory, { signal: controller.signal });
  const kept = Buffer.alloc(4096);
  const other = client.read(MIB, kept);
  controller.abort();
  const first = await Promise.race([
    read.then(
      () => 'answered',
      (error: Error) => error.name,
    ),
    other.then(() => 'the slow answer'),
  ]);
  assert.equal(first, 'AbortError');
  await other;
  await client.read(2 * MIB, Buffer.alloc(512)); // by now the late answer has come
  assert.ok(memory.equals(Buffer.alloc(MIB, 0xaa)));
  assert.equal(kept.readBigUInt64BE(8), BigInt(MIB + 8), 'the pattern is each offset itself');
});

test('nbd-server: simple replies only, and still every byte right', async (t) => {
  if (!requireTools(t, 'nbd-server', 'nbdcopy')) return;
  await using dir = await scratch();
  await writeFile(dir.path('disk.raw'), '');
  await truncate(dir.path('disk.raw'), SIZE);
  const uri = dir.uri('s', 'disk');
  await using _server = await nbdServer(dir, 's', 'disk.raw');
  await using client = await connectNbd({ uri }, { metaContexts: [BASE_ALLOCATION] });
  assert.deepEqual([client.sizeBytes, client.contexts.length], [SIZE, 0]);
  const model = await exercise(client);
  await assertHolds(dir, uri, client, model);
  assert.ok((await readFile(dir.path('disk.raw'))).equals(model), 'the file itself');
  await assert.rejects(connectNbd({ uri: dir.uri('s', 'other') }), withCode('NBD_UNKNOWN_EXPORT', 'NBD_CLOSED'));
});

async function pki(dir: Scratch): Promise<string> {
  const folder = dir.path('pki');
  await mkdir(folder);
  await certificates(folder);
  return folder;
}

test('TLS: data written through it by socket and by TCP is what a reader through TLS finds', async (t) => {
  if (!requireTools(t, 'nbdkit', 'qemu-storage-daemon', 'qemu-img', 'openssl', 'nbdcopy')) return;
  await using dir = await scratch();
  const folder = await pki(dir);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', dir.path('disk.qcow2'), String(SIZE)]);
  await using _daemon = await storageDaemon(dir, 's', { image: 'disk.qcow2', writable: true, tls: folder });
  const port = await freePort();
  const tls = ['--tls=require', `--tls-certificates=${folder}`, '--tls-verify-peer'];
  await using tcp = new ServerProcess('nbdkit', [
    '--foreground',
    '--ipaddr=127.0.0.1',
    `--port=${port}`,
    ...tls,
    'memory',
    String(SIZE),
  ]);
  await tcp.listening({ host: '127.0.0.1', port });
  const query = `tls-certificates=${folder}`;
  for (const uri of [
    `nbds+unix:///disk?socket=${dir.path('s')}&${query}`,
    `nbds://127.0.0.1:${port}/?${query}`,
    `nbds://localhost:${port}/?${query}`,
  ]) {
    await using client = await connectNbd({ uri }, { connections: 2, metaContexts: [BASE_ALLOCATION] });
    const model = await exercise(client);
    assert.ok((await readAll(client)).equals(model), uri);
    if (!uri.startsWith('nbds+unix')) assert.ok((await copyOut(dir, uri)).equals(model), uri);
  }
});

test('TLS: no encryption, no certificate, a foreign authority or a wrong name are all refused', async (t) => {
  if (!requireTools(t, 'qemu-storage-daemon', 'qemu-img', 'nbdkit', 'openssl')) return;
  await using dir = await scratch();
  const folder = await pki(dir);
  await mkdir(dir.path('foreign'));
  await certificates(dir.path('foreign'));
  await mkdir(dir.path('anonymous'));
  await copyFile(`${folder}/ca-cert.pem`, dir.path('anonymous/ca-cert.pem'));
  await mkdir(dir.path('stranger'));
  await copyFile(`${folder}/ca-cert.pem`, dir.path('stranger/ca-cert.pem'));
  for (const name of ['client-cert.pem', 'client-key.pem'])
    await copyFile(dir.path(`foreign/${name}`), dir.path(`stranger/${name}`));
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', dir.path('disk.qcow2'), '1M']);
  await using _daemon = await storageDaemon(dir, 'qemu', { image: 'disk.qcow2', tls: folder });
  const tls = ['--tls=require', `--tls-certificates=${folder}`, '--tls-verify-peer'];
  await using _nbdkit = await nbdkit(dir, 'nbdkit', ...tls, 'memory', '1M');
  await using _plain = await nbdkit(dir, 'plain', 'memory', '1M');
  for (const socket of ['qemu', 'nbdkit']) {
    const secure = `nbds+unix:///disk?socket=${dir.path(socket)}&tls-certificates=`;
    await using good = await connectNbd({ uri: `${secure}${folder}` });
    assert.equal(good.sizeBytes, MIB);
    for (const uri of [
      dir.uri(socket, 'disk'),
      `${secure}${dir.path('anonymous')}`,
      `${secure}${dir.path('stranger')}`,
      `${secure}${dir.path('foreign')}`,
      `${secure}${folder}&tls-hostname=elsewhere`,
    ]) {
      await assert.rejects(connectNbd({ uri }), withCode('TLS_FAILED'), `${socket} ${uri}`);
    }
  }
  const downgraded = `nbds+unix:///?socket=${dir.path('plain')}&tls-certificates=${folder}`;
  await assert.rejects(connectNbd({ uri: downgraded }), withCode('TLS_FAILED'));
});
