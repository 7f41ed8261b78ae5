import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { hasCode, SendenseError } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';
import { connectNbd } from './client.ts';
import type { NbdClient } from './client.ts';
import * as nbd from './constants.ts';
import { chunk, dataChunk, doneChunk, errorChunk, holeChunk, simpleReply, startFake, statusChunk } from './doubles.ts';
import type { FakeOptions, FakePeer, FakeRequest } from './doubles.ts';

const STRUCTURED_FLAGS = nbd.NBD_FLAG_HAS_FLAGS | nbd.NBD_FLAG_SEND_FLUSH;

function withCode(code: ErrorCode, text = ''): (error: unknown) => boolean {
  return (error) => hasCode(error, code) && error instanceof Error && error.message.includes(text);
}

/** Answers each request with what `reply` returns for it, until the client says goodbye. */
function answering(reply: (request: FakeRequest, count: number) => Buffer): (peer: FakePeer) => Promise<void> {
  return async (peer) => {
    for (let count = 0; ; count++) {
      const request = await peer.request();
      if (request.command === nbd.NBD_CMD_DISC) return peer.hangUp();
      peer.send(reply(request, count));
    }
  };
}

async function withFake(options: FakeOptions, use: (client: NbdClient) => Promise<void>): Promise<void> {
  await using server = await startFake(options);
  await using client = await connectNbd({ uri: server.uri }, { metaContexts: options.contexts ?? [] });
  await use(client);
}

test('replies are matched by handle, in whatever order they come', async () => {
  const serve = async (peer: FakePeer): Promise<void> => {
    const requests = [await peer.request(), await peer.request(), await peer.request()];
    for (const { handle, offset, length } of requests.toReversed()) {
      peer.send(dataChunk(handle, offset, Buffer.alloc(length, offset / 4096), true));
    }
  };
  await withFake({ serve }, async (client) => {
    const targets = [1, 2, 3].map(() => Buffer.alloc(4096));
    await Promise.all(targets.map((target, index) => client.read((index + 1) * 4096, target)));
    assert.deepEqual(
      targets,
      [1, 2, 3].map((byte) => Buffer.alloc(4096, byte)),
    );
  });
});

test('one read is put together from data and holes, over what was in the memory before', async () => {
  const serve = answering(({ handle }) =>
    Buffer.concat([
      holeChunk(handle, 100, 50),
      dataChunk(handle, 0, Buffer.alloc(100, 1)),
      dataChunk(handle, 150, Buffer.alloc(50, 2)),
      doneChunk(handle),
    ]),
  );
  await withFake({ serve }, async (client) => {
    const target = Buffer.alloc(200, 0xff);
    await client.read(0, target);
    assert.deepEqual(target, Buffer.concat([Buffer.alloc(100, 1), Buffer.alloc(50), Buffer.alloc(50, 2)]));
  });
});

test('an error of the server rejects only its request and names the errno', async () => {
  const serve = answering(({ command, handle, length }) => {
    if (command === nbd.NBD_CMD_WRITE) return simpleReply(handle, 28);
    return length === 4096
      ? errorChunk(handle, 5, `bad sector\n${'x'.repeat(9000)}`, true)
      : dataChunk(handle, 0, Buffer.alloc(length, 7), true);
  });
  await withFake({ serve }, async (client) => {
    await assert.rejects(client.write(512, Buffer.alloc(1024)), (error) => {
      assert.ok(error instanceof SendenseError && error.code === 'NBD_IO');
      assert.deepEqual(error.details, { errno: 'ENOSPC', command: 'WRITE', offset: 512, length: 1024 });
      return true;
    });
    await assert.rejects(client.read(0, Buffer.alloc(4096)), (error) => {
      assert.ok(error instanceof SendenseError && error.details['errno'] === 'EIO');
      assert.ok(error.message.includes('bad sector xxx') && error.message.length < 700, 'overlong text is cut');
      return true;
    });
    const target = Buffer.alloc(10);
    await client.read(0, target);
    assert.deepEqual(target, Buffer.alloc(10, 7));
  });
});

test('an answer that breaks the protocol ends the client, and every request with it', async () => {
  const breaches: [why: string, reply: (request: FakeRequest) => Buffer][] = [
    ['garbage', () => Buffer.from('this is not an NBD reply at all')],
    ['an unknown handle', ({ handle }) => doneChunk(handle + 99)],
    ['data before the request', ({ handle }) => dataChunk(handle, 0, Buffer.alloc(4096), true)],
    ['data past the request', ({ handle, offset }) => dataChunk(handle, offset + 4000, Buffer.alloc(200), true)],
    ['a hole past the request', ({ handle, offset }) => holeChunk(handle, offset, 4097, true)],
    ['an empty hole', ({ handle, offset }) => holeChunk(handle, offset, 0)],
    ['missing data', ({ handle, offset }) => dataChunk(handle, offset, Buffer.alloc(4095), true)],
    ['nothing at all', ({ handle }) => doneChunk(handle)],
    [
      'overlapping data',
      ({ handle, offset }) =>
        Buffer.concat([
          dataChunk(handle, offset, Buffer.alloc(100)),
          dataChunk(handle, offset + 99, Buffer.alloc(3997), true),
        ]),
    ],
    ['a simple reply', ({ handle }) => simpleReply(handle, 0, Buffer.alloc(4096))],
    ['block status', ({ handle }) => statusChunk(handle, 7, [[4096, 0]], true)],
    [
      'a second reply',
      ({ handle, offset }) => Buffer.concat([holeChunk(handle, offset, 4096, true), doneChunk(handle)]),
    ],
  ];
  for (const [why, reply] of breaches) {
    await withFake({ serve: answering(reply), contexts: ['a:b'] }, async (client) => {
      const flush = client.flush().catch((error: unknown) => error);
      const read = client.read(8192, Buffer.alloc(4096)).catch((error: unknown) => error);
      const later = await Promise.all([flush, read]);
      assert.ok(later.some((error) => hasCode(error, 'NBD_PROTOCOL')) || why === 'a second reply', why);
      await assert.rejects(client.flush(), withCode('NBD_PROTOCOL'), why);
    });
  }
});

test('data in answer to a write is a breach', async () => {
  const serve = answering(({ handle, offset }) => dataChunk(handle, offset, Buffer.alloc(512), true));
  await withFake({ serve }, async (client) => {
    await assert.rejects(client.write(0, Buffer.alloc(512)), withCode('NBD_PROTOCOL'));
  });
});

test('losing the connection rejects everything in flight and everything after', async () => {
  const serve = async (peer: FakePeer): Promise<void> => {
    const { handle } = await peer.request();
    await peer.request();
    peer.send(dataChunk(handle, 0, Buffer.alloc(4096), true).subarray(0, 1000));
    peer.hangUp();
  };
  await withFake({ serve }, async (client) => {
    const calls = [client.read(0, Buffer.alloc(4096)), client.write(0, Buffer.alloc(1 << 18)), client.flush()];
    for (const result of await Promise.allSettled(calls)) {
      assert.ok(result.status === 'rejected' && hasCode(result.reason, 'NBD_CLOSED'));
    }
    await assert.rejects(client.read(0, Buffer.alloc(1)), withCode('NBD_CLOSED'));
  });
});

test('a payload that comes after its read was cancelled does not touch the memory', async () => {
  const asked = Promise.withResolvers<void>();
  const answer = Promise.withResolvers<void>();
  const serve = async (peer: FakePeer): Promise<void> => {
    const first = await peer.request();
    asked.resolve();
    await answer.promise;
    peer.send(dataChunk(first.handle, 0, Buffer.alloc(4096, 0xee), true));
    const second = await peer.request();
    peer.send(dataChunk(second.handle, second.offset, Buffer.alloc(4096, 0x11), true));
  };
  await withFake({ serve }, async (client) => {
    const controller = new AbortController();
    const memory = Buffer.alloc(4096, 1);
    const read = client.read(0, memory, { signal: controller.signal });
    await asked.promise;
    controller.abort(new SendenseError('CANCELLED', 'stop'));
    await assert.rejects(read, withCode('CANCELLED', 'stop'));
    answer.resolve();
    const other = Buffer.alloc(4096);
    await client.read(4096, other);
    assert.deepEqual(memory, Buffer.alloc(4096, 1));
    assert.deepEqual(other, Buffer.alloc(4096, 0x11));
  });
});

test('a read cancelled in the middle of its payload keeps its memory until the payload is over', async () => {
  const half = Promise.withResolvers<void>();
  const rest = Promise.withResolvers<void>();
  const serve = async (peer: FakePeer): Promise<void> => {
    const { handle } = await peer.request();
    const reply = dataChunk(handle, 0, Buffer.alloc(100_000, 0xee), true);
    peer.send(reply.subarray(0, 50_000));
    half.resolve();
    await rest.promise;
    peer.send(reply.subarray(50_000));
  };
  await withFake({ serve }, async (client) => {
    const controller = new AbortController();
    const memory = Buffer.alloc(100_000);
    let settled = false;
    const read = client.read(0, memory, { signal: controller.signal }).finally(() => (settled = true));
    await half.promise;
    while (memory[40_000] !== 0xee) await new Promise(setImmediate);
    controller.abort();
    await new Promise(setImmediate);
    assert.equal(settled, false);
    rest.resolve();
    await assert.rejects(read, { name: 'AbortError' });
    assert.equal(memory[99_999], 0xee);
  });
});

test('a cancelled write that is never answered ends the client instead of hanging', async () => {
  await withFake({ serve: async (peer) => peer.gone() }, async (client) => {
    const controller = new AbortController();
    const write = client.write(0, Buffer.alloc(4096), { signal: controller.signal });
    controller.abort();
    await assert.rejects(write, { name: 'AbortError' });
    await assert.rejects(client.flush(), withCode('NBD_CLOSED', 'cancelled'));
  });
});

test('a cancelled request that still waits in the queue is never sent', async () => {
  const offsets: number[] = [];
  const go = Promise.withResolvers<void>();
  const serve = async (peer: FakePeer): Promise<void> => {
    await go.promise;
    await answering(({ handle, offset, length }) => {
      offsets.push(offset);
      return holeChunk(handle, offset, length, true);
    })(peer);
  };
  await withFake({ serve }, async (client) => {
    const controller = new AbortController();
    const read = async (index: number, signal?: AbortSignal): Promise<void> =>
      client.read(index * 512, Buffer.alloc(512), { signal });
    const kept = Array.from({ length: 16 }, (_, index) => read(index));
    const dropped = read(16, controller.signal);
    const last = read(17);
    controller.abort();
    await assert.rejects(dropped, { name: 'AbortError' });
    go.resolve();
    await Promise.all([...kept, last]);
    assert.deepEqual(offsets, [...Array.from({ length: 16 }, (_, index) => index * 512), 17 * 512]);
  });
});

test('at most 16 requests and the given bytes are in flight', async () => {
  for (const [size, most] of [
    [512, 16],
    [4096, 4],
  ] as const) {
    let peak = 0;
    let unread = 0;
    const serve = async (peer: FakePeer): Promise<void> => {
      const waiting: FakeRequest[] = [];
      for (let count = 0; count < 40; count++) {
        waiting.push(await peer.request());
        peak = Math.max(peak, waiting.length);
        if (waiting.length < most && count < 39) continue;
        for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
        unread += peer.buffered;
        for (const { handle, offset, length } of waiting.splice(0)) {
          peer.send(holeChunk(handle, offset, length, true));
        }
      }
    };
    await using server = await startFake({ serve });
    await using client = await connectNbd({ uri: server.uri }, { maxInFlightBytes: 16_384 });
    await Promise.all(Array.from({ length: 40 }, async (_, index) => client.read(index * size, Buffer.alloc(size))));
    assert.equal(peak, most);
    assert.equal(unread, 0, 'nothing more was sent before an answer');
  }
});

test('requests larger than the server takes are split, on block boundaries', async () => {
  const seen: [command: number, offset: number, length: number][] = [];
  const serve = answering(({ command, handle, offset, length }) => {
    seen.push([command, offset, length]);
    return command === nbd.NBD_CMD_READ
      ? dataChunk(handle, offset, Buffer.alloc(length, offset / 512), true)
      : simpleReply(handle);
  });
  await withFake({ serve, sizeBytes: 2 ** 40, blockSize: [512, 512, 1300] }, async (client) => {
    const target = Buffer.alloc(2560);
    await client.read(512, target);
    assert.deepEqual(seen.splice(0), [
      [nbd.NBD_CMD_READ, 512, 1024],
      [nbd.NBD_CMD_READ, 1536, 1024],
      [nbd.NBD_CMD_READ, 2560, 512],
    ]);
    assert.deepEqual([target[0], target[1023], target[1024], target[2559]], [1, 1, 3, 5]);
    await client.writeZeroes(0, 2 ** 31 + 512);
    assert.deepEqual(seen.splice(0), [
      [nbd.NBD_CMD_WRITE_ZEROES, 0, 2 ** 30],
      [nbd.NBD_CMD_WRITE_ZEROES, 2 ** 30, 2 ** 30],
      [nbd.NBD_CMD_WRITE_ZEROES, 2 ** 31, 512],
    ]);
  });
});

test('what lies outside the export or between its blocks is refused before it is sent', async () => {
  await withFake({ sizeBytes: 10_240, blockSize: [512, 512, 4096] }, async (client) => {
    for (const [offset, length] of [
      [10_240, 512],
      [9728, 1024],
      [-512, 512],
      [0, 0],
      [0.5, 512],
      [100, 512],
      [512, 100],
      [2 ** 53, 512],
    ] as const) {
      await assert.rejects(
        client.read(offset, Buffer.alloc(length)),
        withCode('INVALID_REQUEST'),
        `${offset}+${length}`,
      );
      await assert.rejects(client.trim(offset, length), withCode('INVALID_REQUEST'));
    }
  });
});

test('commands the server does not offer are refused, durable writes fall back to a flush', async () => {
  const commands: number[] = [];
  const serve = answering(({ command, flags, handle }) => {
    assert.equal(flags, 0);
    commands.push(command);
    return simpleReply(handle);
  });
  await withFake({ serve, structured: false, flags: STRUCTURED_FLAGS }, async (client) => {
    await client.write(0, Buffer.alloc(512), { fua: true });
    assert.deepEqual(commands, [nbd.NBD_CMD_WRITE, nbd.NBD_CMD_FLUSH]);
    for (const call of [
      client.trim(0, 512),
      client.writeZeroes(0, 512),
      client.read(0, Buffer.alloc(1), { dontFragment: true }),
    ]) {
      await assert.rejects(
        call,
        (error) => hasCode(error, 'NBD_IO') && error instanceof SendenseError && error.details['errno'] === 'ENOTSUP',
      );
    }
    await assert.rejects(client.blockStatus('base:allocation', 0, 512), withCode('NOT_FOUND'));
  });
  await withFake({ flags: STRUCTURED_FLAGS | nbd.NBD_FLAG_READ_ONLY }, async (client) => {
    assert.equal(client.readOnly, true);
    await assert.rejects(client.write(0, Buffer.alloc(512)), withCode('NBD_IO', 'read-only'));
  });
});

test('flags of a command reach the server', async () => {
  const seen: number[] = [];
  const serve = answering(({ flags, handle }) => {
    seen.push(flags);
    return simpleReply(handle);
  });
  const flags = STRUCTURED_FLAGS | nbd.NBD_FLAG_SEND_FUA | nbd.NBD_FLAG_SEND_WRITE_ZEROES | nbd.NBD_FLAG_SEND_FAST_ZERO;
  await withFake({ serve, flags }, async (client) => {
    await client.write(0, Buffer.alloc(512), { fua: true });
    await client.writeZeroes(0, 512, { noHole: true });
    await client.writeZeroes(0, 512, { fastZero: true, fua: true });
    assert.deepEqual(seen, [
      nbd.NBD_CMD_FLAG_FUA,
      nbd.NBD_CMD_FLAG_NO_HOLE,
      nbd.NBD_CMD_FLAG_FAST_ZERO | nbd.NBD_CMD_FLAG_FUA,
    ]);
  });
});

test('block status goes on after a short answer, clips a long one and joins equal neighbours', async () => {
  const asked: [number, number][] = [];
  const serve = answering(({ handle, offset, length }, count) => {
    asked.push([offset, length]);
    const own = statusChunk(
      handle,
      8,
      count === 0
        ? [[512, 3]]
        : [
            [512, 3],
            [512, 0],
            [1 << 20, 0],
          ],
    );
    return Buffer.concat([own, statusChunk(handle, 7, [[4096, 9]], true)]);
  });
  await withFake({ serve, contexts: ['a:first', 'b:second'] }, async (client) => {
    assert.deepEqual(client.contexts, ['a:first', 'b:second']);
    assert.deepEqual(await client.blockStatus('b:second', 512, 4096), [
      { offset: 512, length: 1024, flags: 3 },
      { offset: 1536, length: 3072, flags: 0 },
    ]);
    assert.deepEqual(asked, [
      [512, 4096],
      [1024, 3584],
    ]);
  });
});

test('block status without the wanted context, with an unknown one, or with one twice is a breach', async () => {
  const replies: ((handle: number) => Buffer)[] = [
    (handle) => doneChunk(handle),
    (handle) => statusChunk(handle, 8, [[512, 0]], true),
    (handle) => statusChunk(handle, 99, [[512, 0]], true),
    (handle) => Buffer.concat([statusChunk(handle, 7, [[512, 0]]), statusChunk(handle, 7, [[512, 0]], true)]),
    (handle) =>
      statusChunk(
        handle,
        7,
        [
          [1024, 0],
          [512, 3],
        ],
        true,
      ),
    (handle) => simpleReply(handle),
    (handle) => chunk(handle, 5, Buffer.alloc(4), true),
  ];
  for (const reply of replies) {
    await withFake(
      { serve: answering(({ handle }) => reply(handle)), contexts: ['a:first', 'b:second'] },
      async (client) => {
        await assert.rejects(client.blockStatus('a:first', 0, 512), withCode('NBD_PROTOCOL'));
      },
    );
  }
});

test('several connections are opened only where the server says that is safe, and share the work', async () => {
  const perConnection: number[] = [];
  const serve = async (peer: FakePeer): Promise<void> => {
    const index = perConnection.push(0) - 1;
    await answering(({ handle, offset, length }) => {
      perConnection[index] = (perConnection[index] ?? 0) + 1;
      return holeChunk(handle, offset, length, true);
    })(peer);
  };
  for (const [flags, expected] of [
    [STRUCTURED_FLAGS, 1],
    [STRUCTURED_FLAGS | nbd.NBD_FLAG_CAN_MULTI_CONN, 3],
  ] as const) {
    perConnection.length = 0;
    await using server = await startFake({ serve, flags });
    await using client = await connectNbd({ uri: server.uri }, { connections: 3 });
    assert.deepEqual([client.connections, server.accepted], [expected, expected]);
    await Promise.all(Array.from({ length: 30 }, async (_, index) => client.read(index * 512, Buffer.alloc(512))));
    assert.deepEqual(
      perConnection,
      Array.from({ length: expected }, () => 30 / expected),
    );
  }
});

test('when one of several connections is lost the whole client is', async () => {
  let count = 0;
  const serve = async (peer: FakePeer): Promise<void> => {
    if (++count < 2) return peer.gone();
    await peer.request();
    peer.hangUp();
  };
  await using server = await startFake({ serve, flags: STRUCTURED_FLAGS | nbd.NBD_FLAG_CAN_MULTI_CONN });
  await using client = await connectNbd({ uri: server.uri }, { connections: 2 });
  const reads = [client.read(0, Buffer.alloc(512)), client.read(512, Buffer.alloc(512))];
  for (const result of await Promise.allSettled(reads)) {
    assert.ok(result.status === 'rejected' && hasCode(result.reason, 'NBD_CLOSED'));
  }
});

test('close waits for the answers still due and takes leave', async () => {
  const last = Promise.withResolvers<number>();
  const serve = async (peer: FakePeer): Promise<void> => {
    const { handle, offset } = await peer.request();
    await new Promise(setImmediate);
    peer.send(dataChunk(handle, offset, Buffer.alloc(512, 9), true));
    last.resolve((await peer.request()).command);
    peer.hangUp();
  };
  await using server = await startFake({ serve });
  const client = await connectNbd({ uri: server.uri });
  const target = Buffer.alloc(512);
  const read = client.read(0, target);
  const closed = client.close();
  await assert.rejects(client.flush(), withCode('NBD_CLOSED'));
  await Promise.all([read, closed]);
  assert.equal(await last.promise, nbd.NBD_CMD_DISC);
  assert.deepEqual(target, Buffer.alloc(512, 9));
  await client.close();
});

test('destroying rejects what is in flight with the reason given', async () => {
  await withFake({ serve: async (peer) => peer.gone() }, async (client) => {
    const read = client.read(0, Buffer.alloc(512));
    client.destroy(new SendenseError('STALLED', 'no progress'));
    await assert.rejects(read, withCode('STALLED', 'no progress'));
  });
});

test('a server that goes silent with requests in flight ends the client', async () => {
  await using server = await startFake({ serve: async (peer) => peer.gone() });
  await using client = await connectNbd({ uri: server.uri }, { stallTimeoutMs: 30 });
  await assert.rejects(client.read(0, Buffer.alloc(512)), withCode('TIMEOUT', 'silent'));
});

test('connecting is bounded in time and can be cancelled', async () => {
  await using server = await startFake({ greeting: null });
  await assert.rejects(connectNbd({ uri: server.uri }, { timeoutMs: 20 }), withCode('TIMEOUT'));
  const controller = new AbortController();
  const connecting = connectNbd({ uri: server.uri }, { signal: controller.signal });
  controller.abort(new SendenseError('CANCELLED', 'changed my mind'));
  await assert.rejects(connecting, withCode('CANCELLED', 'changed my mind'));
  await assert.rejects(connectNbd({ uri: server.uri }, { signal: AbortSignal.abort() }), { name: 'AbortError' });
});

test('what answers but is no NBD server, and what does not answer at all, are told apart', async () => {
  await using server = await startFake({ greeting: Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n') });
  await assert.rejects(connectNbd({ uri: server.uri }), withCode('NBD_PROTOCOL'));
  await assert.rejects(connectNbd({ uri: 'nbd+unix:///x?socket=/nonexistent/s' }), withCode('NBD_UNREACHABLE'));
  await assert.rejects(connectNbd({ uri: server.uri }, { connections: 0 }), withCode('CONFIG_INVALID'));
});

test('a folder of certificates that is missing or half filled is a configuration error', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'sendense-nbd-'));
  try {
    const uri = `nbds://localhost/x?tls-certificates=${dir}`;
    await assert.rejects(connectNbd({ uri }), withCode('CONFIG_INVALID', 'ca-cert.pem'));
    writeFileSync(join(dir, 'ca-cert.pem'), 'x');
    writeFileSync(join(dir, 'client-cert.pem'), 'x');
    await assert.rejects(connectNbd({ uri }), withCode('CONFIG_INVALID', 'client-key.pem'));
  } finally {
    rmSync(dir, { recursive: true });
  }
});
