import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { findHub, isLoopback, stateDir } from './discovery.ts';

async function stateWith(t: TestContext, files: Record<string, string>): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sendense-discovery-'));
  t.after(async () => rm(dir, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
  return dir;
}

const HUB = JSON.stringify({ url: 'http://127.0.0.1:8440', pid: 1 });

test('the state folder is the option, then the environment, then the default of the user', () => {
  const where = { cwd: '/work', env: { SENDENSE_STATE: '/env', HOME: '/home/ann' }, isRoot: false };
  assert.equal(stateDir({ ...where, connection: { state: 'given' } }), '/work/given');
  assert.equal(stateDir({ ...where, connection: {} }), '/env');
  const bare = { ...where, env: { HOME: '/home/ann', SENDENSE_STATE: '' }, connection: {} };
  assert.equal(stateDir(bare), '/home/ann/.local/share/sendense');
  assert.equal(stateDir({ ...bare, isRoot: true }), '/var/lib/sendense');
});

test('the hub is the option, then the environment, then what the hub wrote', async (t) => {
  const state = await stateWith(t, { 'hub.json': HUB, token: 'secret\n' });
  const where = { cwd: '/', env: { SENDENSE_STATE: state, SENDENSE_HUB: 'http://localhost:2' } };
  const given = await findHub({ ...where, connection: { hub: 'http://[::1]:3' } });
  assert.deepEqual(given, { url: 'http://[::1]:3', token: 'secret' });
  assert.equal((await findHub({ ...where, connection: {} })).url, 'http://localhost:2');
  const recorded = await findHub({ cwd: '/', env: {}, connection: { state } });
  assert.deepEqual(recorded, { url: 'http://127.0.0.1:8440', token: 'secret' });
});

test('the token file is the option, then the environment, then the one in the state folder', async (t) => {
  const state = await stateWith(t, { 'hub.json': HUB, token: 'from-state', a: 'from-option\n', b: 'from-env\n' });
  const env = { SENDENSE_TOKEN_FILE: join(state, 'b') };
  const option = await findHub({ cwd: state, env, connection: { state, tokenFile: 'a' } });
  assert.equal(option.token, 'from-option');
  assert.equal((await findHub({ cwd: '/', env, connection: { state } })).token, 'from-env');
});

test('the token of this machine is not sent to a hub on another one', async (t) => {
  const state = await stateWith(t, { 'hub.json': HUB, token: 'secret', other: 'meant for it' });
  const away = { hub: 'http://hub.example.org:8440', state };
  assert.equal((await findHub({ cwd: '/', env: {}, connection: away })).token, undefined);
  const named = await findHub({ cwd: state, env: {}, connection: { ...away, tokenFile: 'other' } });
  assert.equal(named.token, 'meant for it');
  assert.ok(!isLoopback('http://127.0.0.1.example.org/'));
});

test('without a hub the error says how to get one', async (t) => {
  const state = await stateWith(t, {});
  const error = await findHub({ cwd: '/', env: {}, connection: { state } }).catch((thrown: unknown) => thrown);
  assert.ok(error instanceof Error);
  assert.equal((error as Error & { code?: string }).code, 'HUB_UNREACHABLE');
  assert.match(error.message, /sendense up.*--hub.*--state/);
});

test('a missing token file and broken files are told apart', async (t) => {
  const state = await stateWith(t, { 'hub.json': HUB });
  const where = { cwd: '/', env: {}, connection: { state } };
  await assert.rejects(findHub(where), { code: 'HUB_UNREACHABLE', message: /token/ });
  await assert.rejects(findHub({ ...where, connection: { state, tokenFile: '/nowhere/t' } }), { code: 'USAGE' });
  await assert.rejects(findHub({ ...where, connection: { hub: 'ftp://x' } }), { code: 'USAGE' });
  await writeFile(join(state, 'hub.json'), '{"url": 7}');
  await assert.rejects(findHub(where), { code: 'CONFIG_INVALID' });
  await rm(join(state, 'hub.json'));
  await mkdir(join(state, 'hub.json'));
  await assert.rejects(findHub(where), { code: 'CONFIG_INVALID' });
});
