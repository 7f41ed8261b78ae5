import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { hasCode } from '#/lib/errors.ts';
import { connectQmp } from './qmp.ts';

const GREETING = '{"QMP": {"version": {}, "capabilities": []}}\r\n';

/** A control socket whose answers the test writes; each command is handed to `answer`. */
async function serve(
  t: TestContext,
  answer: (command: { execute: string; id: number }, socket: Socket) => void,
  greeting = GREETING,
): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sd-qmp-'));
  const path = join(dir, 's');
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.write(greeting);
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('utf8');
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const command = JSON.parse(text.slice(0, end)) as { execute: string; id: number };
        text = text.slice(end + 1);
        if (command.execute === 'qmp_capabilities') socket.write(`{"return": {}, "id": ${command.id}}\r\n`);
        else answer(command, socket);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    await rm(dir, { recursive: true, force: true });
  });
  return path;
}

test('answers find their command although they come late, in pieces and among events', async (t) => {
  const events: string[] = [];
  let first: number | undefined;
  const path = await serve(t, ({ id }, socket) => {
    if (first === undefined) {
      first = id;
      return;
    }
    const text = `{"event": "X", "data": {}}\r\n{"return": "second ü", "id": ${id}}\r\n{"return": "first", "id": ${first}}\r\n`;
    const bytes = Buffer.from(text);
    for (const byte of bytes) socket.write(Buffer.from([byte]));
  });
  await using qmp = await connectQmp(path, { onEvent: (event) => events.push(event) });
  const both = await Promise.all([qmp.execute('one'), qmp.execute('two')]);
  assert.deepEqual(both, ['first', 'second ü']);
  assert.deepEqual(events, ['X']);
});

test('a refusal carries the words of QEMU', async (t) => {
  const path = await serve(t, ({ id }, socket) => {
    socket.write(`{"error": {"class": "GenericError", "desc": "no such node"}, "id": ${id}}\r\n`);
  });
  await using qmp = await connectQmp(path);
  await assert.rejects(
    qmp.execute('x'),
    (error) => hasCode(error, 'TOOL_FAILED') && /x: no such node/.test(String(error)),
  );
});

test('a command without answer ends in time and the next one is not confused by its late answer', async (t) => {
  const late: number[] = [];
  const path = await serve(t, ({ id }, socket) => {
    if (late.push(id) === 1) return;
    socket.write(`{"return": "late", "id": ${late[0]}}\r\n{"return": "right", "id": ${id}}\r\n`);
  });
  await using qmp = await connectQmp(path);
  await assert.rejects(qmp.execute('x', {}, 20), (error) => hasCode(error, 'TIMEOUT'));
  assert.equal(await qmp.execute('y'), 'right');
});

test('a socket that another client holds, an end and nonsense are errors', async (t) => {
  const silent = await serve(t, () => undefined, '');
  await assert.rejects(connectQmp(silent, { timeoutMs: 30 }), (error) => hasCode(error, 'TIMEOUT'));
  const nonsense = await serve(t, () => undefined, 'HTTP/1.1 400\r\n');
  await assert.rejects(connectQmp(nonsense), (error) => hasCode(error, 'TOOL_FAILED'));
  await assert.rejects(connectQmp(`${nonsense}.none`), (error) => hasCode(error, 'TOOL_FAILED'));
  const ending = await serve(t, (_command, socket) => socket.destroy());
  const qmp = await connectQmp(ending);
  await assert.rejects(qmp.execute('x'), (error) => hasCode(error, 'TOOL_FAILED'));
  await qmp.closed;
  await assert.rejects(qmp.execute('y'), (error) => hasCode(error, 'TOOL_FAILED'));
});

test('aborting ends the wait for the greeting', async (t) => {
  const silent = await serve(t, () => undefined, '');
  await assert.rejects(connectQmp(silent, { signal: AbortSignal.timeout(20) }));
});
