import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Pki } from './pki.ts';
import { run } from '#/lib/run.ts';

const dir = await mkdtemp(join(tmpdir(), 'sd-pki-'));
after(() => rm(dir, { recursive: true }));

test('the authority is founded once and its certificates verify with openssl for their purpose only', async () => {
  const first = await Pki.open(join(dir, 'a'));
  const pki = await Pki.open(join(dir, 'a'));
  assert.equal(pki.caCert.trim(), first.caCert.trim());
  const agent = await pki.issue('agent-1', 'client');
  await writeFile(join(dir, 'agent.pem'), agent.cert);
  const verify = (purpose: string): Promise<unknown> =>
    run('openssl', ['verify', '-purpose', purpose, '-CAfile', join(dir, 'a/ca-cert.pem'), join(dir, 'agent.pem')]);
  await verify('sslclient');
  await assert.rejects(verify('sslserver'));
  assert.equal(new X509Certificate(agent.cert).subject, 'O=sendense\nCN=agent-1');
});

test('a folder of certificates is kept while it fits and issued anew for another address', async () => {
  const pki = await Pki.open(join(dir, 'b'));
  const folder = await pki.ensureFolder('door', 'door', 'server', ['127.0.0.1']);
  const read = (): Promise<string> => readFile(join(folder, 'server-cert.pem'), 'utf8');
  const before = await read();
  await pki.ensureFolder('door', 'door', 'server', ['127.0.0.1']);
  assert.equal(await read(), before);
  await pki.ensureFolder('door', 'door', 'server', ['127.0.0.2']);
  assert.notEqual(await read(), before);
  assert.equal((await stat(join(folder, 'server-key.pem'))).mode & 0o777, 0o600);
});
