/** The export daemon: config.d and SIGHUP, one storage daemon per export, the TLS front door, kills and hung peers. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFile, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { TestContext } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { hasCode } from '#/lib/errors.ts';
import { waitFor } from '#/lib/retry.ts';
import { run } from '#/lib/run.ts';
import { connectNbd } from '#/nbd/client.ts';
import type { NbdClient } from '#/nbd/client.ts';
import { encodeGo, encodeOption } from '#/nbd/codec.ts';
import { NBD_OPT_GO, NBD_OPT_STARTTLS } from '#/nbd/constants.ts';
import { ExportDaemon, entry, makeCertificates, openByHand, readRequests } from './exportd-harness.ts';
import { requireTools } from './requires.ts';

const MIB = 1024 * 1024;
let pki = '';

before(async () => {
  pki = await mkdtemp(join(tmpdir(), 'sd-pki-'));
});
after(async () => rm(pki, { recursive: true, force: true }));

function tools(t: TestContext): boolean {
  return requireTools(t, 'qemu-img', 'qemu-io', 'qemu-storage-daemon', 'nbdinfo', 'nbdcopy', 'openssl');
}

let certificates: Promise<void> | undefined;
async function frontDoor(
  t: TestContext,
): Promise<{ daemon: ExportDaemon; uri: (name: string, holder: string) => string }> {
  await (certificates ??= makeCertificates(pki));
  const daemon = await ExportDaemon.start(t, join(pki, 'server'));
  const { frontDoor: address } = await daemon.status();
  assert.ok(address);
  return { daemon, uri: (name, holder) => `nbds://${address}/${name}?tls-certificates=${join(pki, holder)}` };
}

const local = (name: string, socket: string): string => `nbd+unix:///${name}?socket=${socket}`;

/** What a client says when it is refused; fails when it is not. */
async function refusal(program: string, ...args: string[]): Promise<string> {
  const { code, stderr } = await run(program, args, { okCodes: [0, 1], timeoutMs: 30_000 });
  assert.equal(code, 1, `${program} ${args.join(' ')} was let in`);
  return stderr;
}

/** Writes block after block until stopped; every write must succeed. */
function keepWriting(client: NbdClient): { written: () => number; stop: () => Promise<number> } {
  let blocks = 0;
  const stop = new AbortController();
  const data = Buffer.alloc(65_536, 7);
  const done = (async () => {
    while (!stop.signal.aborted) {
      await client.write((blocks % 512) * 65_536, data);
      if (++blocks % 64 === 0) await client.flush();
    }
    await client.flush();
  })();
  done.catch(() => undefined); // reported by stop
  return {
    written: () => blocks,
    stop: async () => {
      stop.abort();
      await done;
      return blocks;
    },
  };
}

test('an image is exported at its virtual size and never as the bytes of its file', async (t) => {
  if (!tools(t)) return;
  const daemon = await ExportDaemon.start(t);
  await daemon.write('a.conf', { image: await daemon.image('a.qcow2', '3G'), size: 3 * 1024 * MIB });
  await daemon.reload();
  const { socket, sizeBytes } = await daemon.serving('a');
  assert.equal(sizeBytes, 3 * 1024 * MIB);
  assert.equal((await run('nbdinfo', ['--size', local('a', socket)])).stdout.trim(), String(3 * 1024 * MIB));
  await using client = await connectNbd({ uri: local('a', socket) });
  const head = Buffer.alloc(512, 1);
  await client.read(0, head);
  assert.deepEqual(head, Buffer.alloc(512));
});

test('SIGHUP adds, changes and removes exports while another export is written without an error', async (t) => {
  if (!tools(t)) return;
  const daemon = await ExportDaemon.start(t);
  const images = [await daemon.image('1.qcow2', '64M'), await daemon.image('2.qcow2', '32M')] as const;
  await daemon.write('busy.conf', { image: await daemon.image('busy.qcow2', '64M') });
  await daemon.reload();
  const busy = await daemon.serving('busy');
  await using client = await connectNbd({ uri: local('busy', busy.socket) });
  const writer = keepWriting(client);
  for (let round = 0; round < 5; round++) {
    await daemon.write('guest.conf', { image: images[0] });
    await daemon.reload();
    const first = await daemon.serving('guest');
    assert.equal(first.sizeBytes, 64 * MIB);
    const before = writer.written();
    await daemon.write('guest.conf', { image: images[1], readOnly: true });
    await daemon.reload();
    const second = await daemon.until('the change', (status) => entry(status, 'guest')?.sizeBytes === 32 * MIB);
    assert.notEqual(entry(second, 'guest')?.pid, first.pid);
    await daemon.remove('guest.conf');
    await daemon.reload();
    const gone = await daemon.until('the removal', (status) => entry(status, 'guest') === undefined);
    assert.equal(gone.closed.at(-1)?.outcome, 'clean');
    await waitFor('more writes', () => (writer.written() > before ? true : undefined), { timeoutMs: 5000 });
  }
  assert.ok((await writer.stop()) > 0);
  assert.equal((await daemon.serving('busy')).pid, busy.pid);
  assert.equal((await daemon.status()).closed.length, 10);
});

test('what was written and not flushed is in the image when the export has been removed', async (t) => {
  if (!tools(t)) return;
  const daemon = await ExportDaemon.start(t);
  const image = await daemon.image('a.qcow2', '64M');
  await daemon.write('a.conf', { image });
  await daemon.reload();
  const { socket } = await daemon.serving('a');
  const client = await connectNbd({ uri: local('a', socket) });
  for (let i = 0; i < 64; i++) await client.write(i * MIB, Buffer.alloc(65_536, 0x5a));
  await daemon.remove('a.conf');
  await daemon.reload();
  const { closed } = await daemon.until('the removal', (status) => entry(status, 'a') === undefined);
  client.destroy();
  assert.deepEqual(
    { ...closed[0], at: '' },
    {
      name: 'a',
      imagePath: image,
      outcome: 'clean',
      exitCode: 0,
      at: '',
      lastWords: '',
    },
  );
  await run('qemu-img', ['check', '-q', image]);
  for (const at of [0, 31, 63]) {
    const { stdout } = await run('qemu-io', ['-r', '-f', 'qcow2', '-c', `read -P 0x5a ${at}M 64k`, image]);
    assert.doesNotMatch(stdout, /verification failed/i);
  }
});

test('a storage daemon that is killed is started again, and only that one', async (t) => {
  if (!tools(t)) return;
  const daemon = await ExportDaemon.start(t);
  for (const name of ['a', 'b'])
    await daemon.write(`${name}.conf`, { image: await daemon.image(`${name}.qcow2`, '64M') });
  await daemon.reload();
  const [a, b] = [await daemon.serving('a'), await daemon.serving('b')];
  await using client = await connectNbd({ uri: local('b', b.socket) });
  const writer = keepWriting(client);
  process.kill(a.pid, 'SIGKILL');
  const status = await daemon.until('the restart', (now) => {
    const one = entry(now, 'a');
    return one?.state === 'serving' && one.restarts === 1;
  });
  assert.notEqual(entry(status, 'a')?.pid, a.pid);
  assert.equal(entry(status, 'b')?.pid, b.pid);
  assert.equal(entry(status, 'b')?.restarts, 0);
  await writer.stop();
  assert.match(await daemon.log(), new RegExp(`storage daemon ${a.pid} died \\(SIGKILL\\)`));
  await using again = await connectNbd({ uri: local('a', a.socket) });
  await again.write(0, Buffer.alloc(512, 1));
  await again.flush();
});

test('an export whose image stays locked is given up with the reason and tried again on SIGHUP', async (t) => {
  if (!tools(t)) return;
  const daemon = await ExportDaemon.start(t);
  const image = await daemon.image('a.qcow2', '64M');
  await daemon.write('a.conf', { image });
  await daemon.reload();
  await daemon.serving('a');
  await daemon.write('b.conf', { image });
  await daemon.reload();
  const status = await daemon.until('giving up', (now) => entry(now, 'b')?.state === 'failed');
  assert.match(entry(status, 'b')?.reason ?? '', /lock/);
  assert.equal(entry(status, 'a')?.state, 'serving');
  await daemon.remove('a.conf');
  await daemon.reload();
  await daemon.until('the removal', (now) => entry(now, 'a') === undefined);
  await daemon.reload();
  await daemon.serving('b');
});

test('killing the daemon disturbs no writer, and the next one takes the export over', async (t) => {
  if (!tools(t)) return;
  const daemon = await ExportDaemon.start(t);
  for (const name of ['a', 'stray']) {
    await daemon.write(`${name}.conf`, { image: await daemon.image(`${name}.qcow2`, '64M') });
  }
  await daemon.reload();
  const [a, stray] = [await daemon.serving('a'), await daemon.serving('stray')];
  await using client = await connectNbd({ uri: local('a', a.socket) });
  const writer = keepWriting(client);
  await daemon.kill();
  const before = writer.written();
  await daemon.remove('stray.conf');
  await waitFor('more writes', () => (writer.written() > before + 16 ? true : undefined), { timeoutMs: 5000 });
  await daemon.up();
  const status = await daemon.until('the stray to go', (now) => now.closed.length > 0);
  assert.equal((await daemon.serving('a')).pid, a.pid);
  assert.deepEqual([status.closed[0]?.name, status.closed[0]?.outcome], ['stray', 'clean']);
  assert.deepEqual(await daemon.leftovers(), [a.pid]);
  assert.notEqual(stray.pid, a.pid);
  await writer.stop();
  // Taken over means looked after: its death is noticed like that of a child.
  process.kill(a.pid, 'SIGKILL');
  await daemon.until('the restart', (now) => entry(now, 'a')?.state === 'serving' && entry(now, 'a')?.restarts === 1);
});

test('a daemon of an earlier run that serves another image is ended and not taken over', async (t) => {
  if (!tools(t)) return;
  const daemon = await ExportDaemon.start(t);
  const [one, two] = [await daemon.image('1.qcow2', '64M'), await daemon.image('2.qcow2', '32M')];
  await daemon.write('a.conf', { image: one });
  await daemon.reload();
  const before = await daemon.serving('a');
  await daemon.kill();
  await daemon.write('a.conf', { image: two });
  await daemon.up();
  const now = await daemon.serving('a');
  assert.equal(now.sizeBytes, 32 * MIB);
  assert.notEqual(now.pid, before.pid);
  assert.deepEqual(await daemon.leftovers(), [now.pid]);
});

test('a bad file is refused with name, line and reason while everything else is served', async (t) => {
  if (!tools(t)) return;
  const daemon = await ExportDaemon.start(t);
  const image = await daemon.image('a.qcow2', '64M');
  await writeFile(join(daemon.dir, 'raw'), Buffer.alloc(MIB, 1));
  await daemon.write('a.conf', { image });
  await daemon.write('b.conf', '[b]\nexportname = /x\nformat = raw\n');
  await daemon.write('c.conf', { image: join(daemon.dir, 'raw') });
  await daemon.write('d.conf', { image, size: 5 * MIB });
  await daemon.reload();
  const a = await daemon.serving('a');
  const status = await daemon.status();
  const refused = Object.fromEntries(
    status.exports.filter(({ state }) => state === 'refused').map((one) => [one.file, `${one.line} ${one.reason}`]),
  );
  assert.match(refused['b.conf'] ?? '', /^3 unknown key "format"/);
  assert.match(refused['c.conf'] ?? '', /^2 .*raw is not a QCOW2 image/);
  assert.match(refused['d.conf'] ?? '', /^2 .*has 67108864 bytes, expected are 5242880/);
  const log = await daemon.log();
  assert.match(log, /"file":"b\.conf","name":"b","line":3,"reason":"unknown key/);

  await daemon.write('a.conf', '[a\n');
  const broken = entry(await daemon.reload(), 'a');
  assert.equal(broken?.state, 'serving');
  assert.equal(broken.pid, a.pid);
  assert.equal(broken.line, 1);
  assert.match(broken.reason ?? '', /must end with \].*former definition/);

  await daemon.write('a.conf', { image });
  const mended = entry(await daemon.reload(), 'a');
  assert.equal(mended?.pid, a.pid);
  assert.equal(mended.reason, undefined);

  await rm(daemon.configDir, { recursive: true });
  const blind = await daemon.reload();
  assert.equal(entry(blind, 'a')?.pid, a.pid);
  assert.match(blind.problems.join(), /configuration was not read/);
});

test('a peer that hangs on the unix socket holds the removal of its export no longer than the grace time', async (t) => {
  if (!tools(t)) return;
  const daemon = await ExportDaemon.start(t);
  await daemon.write('a.conf', { image: await daemon.image('a.qcow2', '64M'), readOnly: true });
  await daemon.write('b.conf', { image: await daemon.image('b.qcow2', '64M') });
  await daemon.reload();
  const { socket } = await daemon.serving('a');
  const hung = await openByHand(socket, 'a');
  hung.write(readRequests(64));
  await once(hung.resume(), 'data'); // now the storage daemon is in the middle of an answer
  hung.pause();
  await daemon.remove('a.conf');
  await daemon.reload();
  // Meanwhile the daemon is as quick as ever.
  await daemon.remove('b.conf');
  await daemon.reload();
  const b = await daemon.until('the removal of b', (status) => entry(status, 'b') === undefined, 5000);
  assert.equal(entry(b, 'a')?.state, 'stopping');
  const status = await daemon.until('the removal of a', (now) => entry(now, 'a') === undefined, 20_000);
  assert.equal(status.closed.find(({ name }) => name === 'a')?.outcome, 'killed');
  hung.destroy();
});

test('a second daemon on the same run folder is refused, a run folder with a long path too', async (t) => {
  if (!tools(t)) return;
  const daemon = await ExportDaemon.start(t);
  const again = async (runDir: string): Promise<string> => {
    const args = ['src/main.ts', 'exportd', '--config', daemon.configDir, '--run', runDir];
    const { code, stderr, stdout } = await run(process.execPath, args, { okCodes: [1, 2, 11] });
    return `${code} ${stderr}${stdout}`;
  };
  assert.match(await again(daemon.runDir), new RegExp(`^11 [^]*already runs[^]*${daemon.pid}`));
  assert.match(await again(join(daemon.dir, 'x'.repeat(90))), /^2 [^]*bytes too long: a unix socket's takes 107/);
  assert.equal((await daemon.status()).pid, daemon.pid);
});

test('stopping ends every storage daemon and leaves only status and logs of the daemon behind', async (t) => {
  if (!tools(t)) return;
  const daemon = await ExportDaemon.start(t);
  for (const name of ['a', 'b', 'c']) {
    await daemon.write(`${name}.conf`, { image: await daemon.image(`${name}.qcow2`, '64M') });
  }
  await daemon.reload();
  for (const name of ['a', 'b', 'c']) await daemon.serving(name);
  assert.equal((await daemon.leftovers()).length, 3);
  await daemon.stop();
  assert.deepEqual(await daemon.leftovers(), []);
  assert.deepEqual(await readdir(daemon.runDir), ['status.json']);
  const status = await daemon.status();
  assert.equal(status.pid, null);
  assert.deepEqual(status.exports, []);
  assert.deepEqual(
    status.closed.map(({ outcome }) => outcome),
    ['clean', 'clean', 'clean'],
  );
});

test('an agent copies through the front door, and the image holds what it sent', async (t) => {
  if (!tools(t)) return;
  const { daemon, uri } = await frontDoor(t);
  const image = await daemon.image('a.qcow2', '64M');
  const source = join(daemon.dir, 'source');
  await run('dd', ['if=/dev/urandom', `of=${source}`, 'bs=1M', 'count=64', 'status=none']);
  await daemon.write('a.conf', { image });
  await daemon.reload();
  await daemon.serving('a');
  const info = await run('nbdinfo', ['--json', uri('a', 'agent-1')]);
  const [shown] = (JSON.parse(info.stdout) as { exports: Record<string, unknown>[] }).exports;
  assert.equal(shown?.['export-size'], 64 * MIB);
  assert.match(info.stdout, /"base:allocation"/);
  await run('nbdcopy', ['--flush', source, uri('a', 'agent-1')]);
  const back = join(daemon.dir, 'back');
  await run('nbdcopy', [uri('a', 'agent-1'), back]);
  assert.ok((await readFile(source)).equals(await readFile(back)));
  const [host, port] = (await daemon.status()).frontDoor?.split(':') ?? [];
  const creds = `tls-creds-x509,id=t,dir=${join(pki, 'agent-1')},endpoint=client`;
  const target = `driver=nbd,server.type=inet,server.host=${host},server.port=${port},export=a,tls-creds=t`;
  const io = await run('qemu-io', ['--object', creds, '--image-opts', '-c', 'write -P 9 1M 3M', '-c', 'flush', target]);
  assert.match(io.stdout, /wrote 3145728/);
  await daemon.remove('a.conf');
  await daemon.reload();
  await daemon.until('the removal', (status) => entry(status, 'a') === undefined);
  const expected = await readFile(source);
  expected.fill(9, MIB, 4 * MIB);
  await writeFile(source, expected);
  await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', source, image]);
});

test('only the agent that the file names comes in, and nobody learns more than that', async (t) => {
  if (!tools(t)) return;
  const { daemon, uri } = await frontDoor(t);
  await daemon.write('mine.conf', { image: await daemon.image('a.qcow2', '64M') });
  await daemon.write('hers.conf', { image: await daemon.image('b.qcow2', '64M'), agent: 'agent-2' });
  await daemon.write('local.conf', { image: await daemon.image('c.qcow2', '64M'), readOnly: true });
  await daemon.reload();
  for (const name of ['mine', 'hers', 'local']) await daemon.serving(name);

  await run('nbdinfo', ['--size', uri('mine', 'agent-1')]);
  await run('nbdinfo', ['--size', uri('hers', 'agent-2')]);
  const foreign = await refusal('nbdinfo', uri('hers', 'agent-1'));
  const absent = await refusal('nbdinfo', uri('nothing', 'agent-1'));
  const unnamed = await refusal('nbdinfo', uri('local', 'agent-1'));
  assert.match(absent, /No such file or directory/);
  assert.equal(foreign.replaceAll('hers', 'NAME'), absent.replaceAll('nothing', 'NAME'));
  assert.equal(unnamed.replaceAll('local', 'NAME'), absent.replaceAll('nothing', 'NAME'));

  const { frontDoor: address } = await daemon.status();
  const listed = await refusal('nbdinfo', '--list', `nbds://${address}/?tls-certificates=${join(pki, 'agent-1')}`);
  assert.match(listed, /list/);
  assert.doesNotMatch(listed, /mine|hers/);
  await refusal('nbdinfo', uri('mine', 'nobody'));
  await refusal('nbdinfo', `nbd://${address}/mine`);
  await refusal('nbdinfo', '--list', `nbd://${address}/`);
  assert.match(await daemon.log(), /"export":"hers","exists":true/);
});

/** The front door's TLS as somebody with any certificate; resolves with all that was said after the handshake. */
async function knock(address: string, holder: string): Promise<string> {
  const [host, port] = address.split(':');
  const raw = connect({ host: host ?? '', port: Number(port) });
  await once(raw, 'data');
  raw.write(Buffer.concat([Buffer.from([0, 0, 0, 3]), encodeOption(NBD_OPT_STARTTLS)]));
  await once(raw, 'data');
  const file = async (name: string): Promise<Buffer> => readFile(join(pki, holder, name));
  const secure = connectTls({
    socket: raw,
    cert: await file('client-cert.pem'),
    key: await file('client-key.pem'),
    rejectUnauthorized: false,
  });
  let said = '';
  secure.on('data', (chunk: Buffer) => (said += chunk.toString('latin1')));
  secure.on('secureConnect', () => secure.write(encodeOption(NBD_OPT_GO, encodeGo('a', []))));
  secure.on('error', (error: NodeJS.ErrnoException) => (said += `error ${error.code}`));
  await waitFor('an answer', () => (said !== '' || secure.destroyed ? true : undefined), { timeoutMs: 5000 });
  secure.destroy();
  return said;
}

test('a certificate of another authority with the right name is turned away before anything is answered', async (t) => {
  if (!tools(t)) return;
  const { daemon } = await frontDoor(t);
  await daemon.write('a.conf', { image: await daemon.image('a.qcow2', '64M') });
  await daemon.reload();
  await daemon.serving('a');
  const { frontDoor: address } = await daemon.status();
  assert.ok(address);
  assert.equal(await knock(address, 'other-agent-1'), '');
  assert.equal(Buffer.from(await knock(address, 'agent-1'), 'latin1').toString('hex', 0, 8), '0003e889045565a9');
  await refusal('nbdinfo', `nbds://${address}/a?tls-certificates=${join(pki, 'nobody')}`);
  const refused = (await daemon.log()).split('\n').filter((line) => line.includes('"code":"TLS_FAILED"'));
  assert.match(refused[0] ?? '', /client certificate: UNABLE_TO_VERIFY_LEAF_SIGNATURE/);
  assert.match(refused[1] ?? '', /client certificate: /);
});

test('SIGHUP renews the certificates, and bad ones leave the former in use', async (t) => {
  if (!tools(t)) return;
  await (certificates ??= makeCertificates(pki));
  const tls = await mkdtemp(join(tmpdir(), 'sd-tls-'));
  t.after(async () => rm(tls, { recursive: true, force: true }));
  const install = async (from: string): Promise<void> => {
    for (const name of ['ca-cert.pem', 'server-cert.pem', 'server-key.pem']) {
      await copyFile(join(pki, from, name), join(tls, name));
    }
  };
  await install('server');
  const daemon = await ExportDaemon.start(t, tls);
  await daemon.write('a.conf', { image: await daemon.image('a.qcow2', '64M') });
  await daemon.reload();
  await daemon.serving('a');
  const { frontDoor: address } = await daemon.status();
  const uri = (holder: string): string => `nbds://${address}/a?tls-certificates=${join(pki, holder)}`;
  await run('nbdinfo', ['--size', uri('agent-1')]);

  await writeFile(join(tls, 'server-key.pem'), 'nonsense');
  assert.match((await daemon.reload()).problems.join(), /certificates were not renewed/);
  await run('nbdinfo', ['--size', uri('agent-1')]);

  await install('other-server');
  assert.deepEqual((await daemon.reload()).problems, []);
  await refusal('nbdinfo', uri('agent-1'));
  await run('nbdinfo', ['--size', uri('other-agent-1')]);
});

async function connectAs(daemon: ExportDaemon, holder: string, exportName: string): Promise<NbdClient> {
  const file = async (name: string): Promise<string> => readFile(join(pki, holder, name), 'utf8');
  const [host = '', port] = (await daemon.status()).frontDoor?.split(':') ?? [];
  const tls = { ca: await file('ca-cert.pem'), cert: await file('client-cert.pem'), key: await file('client-key.pem') };
  return connectNbd({ host, port: Number(port), exportName, tls });
}

test('a writable export takes one writer, and the next when that has left', async (t) => {
  if (!tools(t)) return;
  const { daemon, uri } = await frontDoor(t);
  await daemon.write('a.conf', { image: await daemon.image('a.qcow2', '64M') });
  await daemon.reload();
  await daemon.serving('a');
  const first = await connectAs(daemon, 'agent-1', 'a');
  await first.write(0, Buffer.alloc(65_536, 1));
  assert.match(await refusal('nbdinfo', uri('a', 'agent-1')), /not supported|permitted|POLICY|policy/i);
  assert.match(await daemon.log(), /"export":"a","state":"serving","reason":"busy"/);
  await first.flush();
  await first.close();
  await waitFor(
    'the place to be free',
    async () => {
      const { code } = await run('nbdinfo', ['--size', uri('a', 'agent-1')], { okCodes: [0, 1] });
      return code === 0 ? true : undefined;
    },
    { timeoutMs: 5000 },
  );
});

test('readers share a read-only export up to their number', async (t) => {
  if (!tools(t)) return;
  const { daemon, uri } = await frontDoor(t);
  await daemon.write('a.conf', { image: await daemon.image('a.qcow2', '64M'), readOnly: true, agent: 'agent-1' });
  await daemon.reload();
  await daemon.serving('a');
  await using readers = new AsyncDisposableStack();
  for (let i = 0; i < 16; i++) {
    const reader = readers.use(await connectAs(daemon, 'agent-1', 'a'));
    assert.equal(reader.readOnly, true);
  }
  await assert.rejects(connectAs(daemon, 'agent-1', 'a'), (error) =>
    hasCode(error, 'NBD_PROTOCOL', 'NBD_UNKNOWN_EXPORT', 'NBD_CLOSED', 'NOT_ALLOWED'),
  );
  await refusal('nbdinfo', uri('a', 'agent-1'));
});

test('a client that hangs behind the front door is cut, so its export goes at once and clean', async (t) => {
  if (!tools(t)) return;
  const { daemon } = await frontDoor(t);
  await daemon.write('a.conf', { image: await daemon.image('a.qcow2', '64M'), readOnly: true, agent: 'agent-1' });
  await daemon.reload();
  await daemon.serving('a');
  const { frontDoor: address } = await daemon.status();
  const hung = await hangBehindTls(address ?? '');
  await idle((await daemon.serving('a')).pid);
  await daemon.remove('a.conf');
  await daemon.reload();
  const status = await daemon.until('the removal', (now) => entry(now, 'a') === undefined);
  // Not cut, it would have had to be killed when the grace time was over.
  assert.equal(status.closed[0]?.outcome, 'clean');
  hung.destroy();
});

/** Waits until the process has used no time for a while: every buffer on the way to the client is full. */
async function idle(pid: number): Promise<void> {
  let before = '';
  let calm = 0;
  await waitFor(
    'the storage daemon to be stuck',
    async () => {
      const ticks = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(' ').slice(13, 15).join();
      calm = ticks === before ? calm + 1 : 0;
      before = ticks;
      return calm >= 15 ? true : undefined;
    },
    { timeoutMs: 10_000 },
  );
}

/** Asks for much more than any buffer holds and takes none of it. */
async function hangBehindTls(address: string): Promise<Socket> {
  const [host, port] = address.split(':');
  const raw = connect({ host: host ?? '', port: Number(port) });
  raw.on('error', () => undefined);
  await once(raw, 'data');
  raw.write(Buffer.concat([Buffer.from([0, 0, 0, 3]), encodeOption(NBD_OPT_STARTTLS)]));
  await once(raw, 'data');
  const file = async (name: string): Promise<Buffer> => readFile(join(pki, 'agent-1', name));
  const secure = connectTls({
    socket: raw,
    cert: await file('client-cert.pem'),
    key: await file('client-key.pem'),
    rejectUnauthorized: false,
  });
  secure.on('error', () => undefined);
  await once(secure, 'secureConnect');
  secure.write(encodeOption(NBD_OPT_GO, encodeGo('a', [])));
  await once(secure, 'data');
  secure.write(readRequests(128));
  await once(secure, 'data'); // now the storage daemon is in the middle of an answer
  secure.pause();
  return secure;
}

test('a crowd that never speaks does not keep an agent out for good, and silence ends after the handshake time', async (t) => {
  if (!tools(t)) return;
  const { daemon, uri } = await frontDoor(t);
  await daemon.write('a.conf', { image: await daemon.image('a.qcow2', '64M') });
  await daemon.reload();
  await daemon.serving('a');
  const [host = '', port] = (await daemon.status()).frontDoor?.split(':') ?? [];
  const crowd = Array.from({ length: 20 }, () => connect({ host, port: Number(port) }).on('error', () => undefined));
  const closed = crowd.map(async (socket) => once(socket.resume(), 'close'));
  await Promise.all(crowd.map(async (socket) => (socket.connecting ? once(socket, 'connect') : undefined)));
  await refusal('nbdinfo', uri('a', 'agent-1'));
  await Promise.all(closed);
  await run('nbdinfo', ['--size', uri('a', 'agent-1')]);
});
