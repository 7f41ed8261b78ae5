import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { waitFor } from '#/lib/retry.ts';
import { important, rotateLog } from './log-tail.ts';
import { Part } from './part.ts';
import type { PartSpec } from './part.ts';
import { readJson, StateLock, waitForLeftovers } from './state-lock.ts';

async function temporary(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sendense-part-'));
  t.after(async () => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** Writes its pid to the file it is given and ends with its standard input or SIGTERM. */
const OBEDIENT = `
  const fs = require('node:fs');
  const file = process.argv[1];
  const stop = (why) => { fs.appendFileSync(file + '.end', why + '\\n'); process.exit(0); };
  process.on('SIGTERM', () => stop('term'));
  process.stdin.on('end', () => stop('parent gone')).resume();
  fs.writeFileSync(file, JSON.stringify({ pid: process.pid }));
`;

function spec(dir: string, code: string, notices: string[] = []): PartSpec<number> {
  const ready = join(dir, 'ready.json');
  return {
    name: 'hub',
    self: [process.execPath, '-e', code],
    args: () => [ready],
    logFile: join(dir, 'hub.log'),
    ready: async (pid) => ((await readJson<{ pid: number }>(ready))?.pid === pid ? pid : undefined),
    notice: (line) => notices.push(line),
  };
}

const never = new AbortController().signal;
const exists = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

test('a part that dies is started again, and stopping it ends it in order', async (t) => {
  const dir = await temporary(t);
  const notices: string[] = [];
  const part = await Part.start(spec(dir, OBEDIENT, notices), never);
  const first = part.pid ?? 0;
  process.kill(first, 'SIGKILL');
  const second = await waitFor('the next process', () => (part.pid !== first ? (part.pid ?? undefined) : undefined), {
    timeoutMs: 10_000,
  });
  assert.ok(exists(second) && !exists(first));
  assert.match(notices.join('\n'), /hub ended \(SIGKILL\); starting it again in 0.5 s\nhub runs again \(pid \d+\)/);
  await part[Symbol.asyncDispose]();
  assert.ok(!exists(second));
  assert.equal(await readFile(join(dir, 'ready.json.end'), 'utf8'), 'term\n');
});

test('a part that ends before it is ready fails the start with its own error', async (t) => {
  const dir = await temporary(t);
  const code = `console.error('sendense: BUSY: another hub uses this folder\\n  a hint'); process.exit(11)`;
  await assert.rejects(Part.start(spec(dir, code), never), {
    code: 'BUSY',
    message: 'hub: another hub uses this folder',
    details: { part: 'hub', log: join(dir, 'hub.log') },
  });
});

test('a part that crashes without a word of ours is reported with its last words', async (t) => {
  const dir = await temporary(t);
  await assert.rejects(Part.start(spec(dir, `console.error('boom'); process.exit(7)`), never), {
    code: 'TOOL_FAILED',
    message: /hub ended before it was ready \(exit code 7\): .*boom/,
  });
});

test('stopping while a part is down does not start it again', async (t) => {
  const dir = await temporary(t);
  const part = await Part.start(spec(dir, OBEDIENT), never);
  process.kill(part.pid ?? 0, 'SIGKILL');
  await waitFor('the death', () => (part.pid === null ? true : undefined), { timeoutMs: 5_000 });
  await part[Symbol.asyncDispose]();
  assert.equal(part.pid, null);
});

test('an aborted start leaves no process behind', async (t) => {
  const dir = await temporary(t);
  const stop = new AbortController();
  let pid = 0;
  const ready = async (given: number): Promise<undefined> => void (pid = given);
  const starting = Part.start({ ...spec(dir, 'setInterval(() => {}, 1000)'), ready }, stop.signal);
  await waitFor('the process', () => (pid > 0 ? pid : undefined), { timeoutMs: 5_000 });
  stop.abort(new Error('enough'));
  await assert.rejects(starting, /enough/);
  assert.ok(!exists(pid));
});

test('of a log a person sees warnings, errors and words that are no log lines', () => {
  assert.equal(important('{"level":"info","msg":"job done"}'), undefined);
  assert.equal(important('{"level":"warn","msg":"disk slow"}'), 'warn: disk slow');
  assert.equal(important('{"level":"error","msg":"no","err":{"message":"EIO"}}'), 'error: no: EIO');
  assert.equal(important('Segmentation fault'), 'Segmentation fault');
  assert.equal(important('  '), undefined);
  assert.equal(important('null'), 'null');
});

test('a small log stays and a large one is moved aside', async (t) => {
  const file = join(await temporary(t), 'x.log');
  await rotateLog(file);
  await writeFile(file, 'small');
  await rotateLog(file);
  assert.equal(await readFile(file, 'utf8'), 'small');
  await writeFile(file, Buffer.alloc(33 * 1024 * 1024));
  await rotateLog(file);
  await assert.rejects(readFile(file), { code: 'ENOENT' });
  assert.equal((await readFile(`${file}.1`)).length, 33 * 1024 * 1024);
});

test('a state folder is held by one process, and a lock left by a dead one is taken over', async (t) => {
  const dir = await temporary(t);
  const lock = await StateLock.take(dir);
  await assert.rejects(StateLock.take(dir), { code: 'BUSY', message: new RegExp(`pid ${process.pid}`) });
  await lock[Symbol.asyncDispose]();
  // Our own pid with another start: a process that had the number before us.
  await writeFile(join(dir, 'up.json'), JSON.stringify({ pid: process.pid, started: 'another boot 7' }));
  await using taken = await StateLock.take(dir);
  assert.ok(taken);
});

test('leftovers of an earlier run are waited for, other processes with their number are not', async (t) => {
  const dir = await temporary(t);
  const file = join(dir, 'hub.json');
  await writeFile(file, JSON.stringify({ pid: process.pid }));
  await waitForLeftovers(dir, [file], never);
  const part = await Part.start(spec(dir, OBEDIENT), never);
  await writeFile(file, JSON.stringify({ pid: part.pid }));
  await assert.rejects(waitForLeftovers(dir, [file], AbortSignal.timeout(150)), { name: 'TimeoutError' });
  await part[Symbol.asyncDispose]();
  await waitForLeftovers(dir, [file], never);
});
