/** A server for tests that does what real ones do not: each test scripts its answers after an ordinary negotiation. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readOffset, writeOffset } from './codec.ts';
import * as nbd from './constants.ts';

const DEFAULT_FLAGS =
  nbd.NBD_FLAG_HAS_FLAGS |
  nbd.NBD_FLAG_SEND_FLUSH |
  nbd.NBD_FLAG_SEND_FUA |
  nbd.NBD_FLAG_SEND_TRIM |
  nbd.NBD_FLAG_SEND_WRITE_ZEROES;

export interface FakeOptions {
  sizeBytes?: number;
  flags?: number;
  structured?: boolean;
  blockSize?: [minimum: number, preferred: number, maximum: number];
  contexts?: readonly string[];
  /** Sent instead of the greeting; undefined = an ordinary negotiation, null = silence. */
  greeting?: Buffer | null;
  /** Called for each negotiated connection. */
  serve?: (peer: FakePeer) => Promise<void>;
}

export interface FakeRequest {
  command: number;
  flags: number;
  handle: number;
  offset: number;
  length: number;
  data: Buffer;
}

export class FakeServer implements AsyncDisposable {
  readonly uri: string;
  /** Connections accepted so far. */
  accepted = 0;
  readonly #server: Server;
  readonly #dir: string;
  readonly #sockets = new Set<Socket>();
  #failure: unknown;

  constructor(server: Server, dir: string) {
    this.#server = server;
    this.#dir = dir;
    this.uri = `nbd+unix:///disk?socket=${join(dir, 'fake.sock')}`;
  }

  adopt(socket: Socket, options: FakeOptions): void {
    this.accepted++;
    this.#sockets.add(socket);
    const peer = new FakePeer(socket);
    talk(peer, options).catch((error: unknown) => {
      if (!(error instanceof PeerGone)) this.#failure ??= error;
      socket.destroy();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
    rmSync(this.#dir, { recursive: true, force: true });
    if (this.#failure) throw this.#failure;
  }
}

/** Listens on a unix socket in a folder of its own; a script that throws fails the test when the server is disposed of. */
export async function startFake(options: FakeOptions): Promise<FakeServer> {
  const dir = mkdtempSync(join(tmpdir(), 'sendense-nbd-'));
  const server = createServer((socket) => fake.adopt(socket, options));
  const fake = new FakeServer(server, dir);
  server.listen(join(dir, 'fake.sock'));
  await once(server, 'listening');
  return fake;
}

class PeerGone extends Error {}

export class FakePeer {
  readonly #socket: Socket;
  #chunks: Buffer[] = [];
  #size = 0;
  #ended = false;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#size += chunk.length;
      this.#wake?.();
    });
    for (const event of ['end', 'close', 'error']) {
      socket.on(event, () => {
        this.#ended = true;
        this.#wake?.();
      });
    }
  }

  /** Bytes received and not yet asked for. */
  get buffered(): number {
    return this.#size;
  }

  async bytes(count: number): Promise<Buffer> {
    while (this.#size < count) {
      if (this.#ended) throw new PeerGone();
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await promise;
    }
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all.subarray(count)];
    this.#size -= count;
    return all.subarray(0, count);
  }

  async request(): Promise<FakeRequest> {
    const header = await this.bytes(nbd.NBD_REQUEST_BYTES);
    const command = header.readUInt16BE(6);
    const length = header.readUInt32BE(24);
    return {
      command,
      flags: header.readUInt16BE(4),
      handle: readOffset(header, 8),
      offset: readOffset(header, 16),
      length,
      data: command === nbd.NBD_CMD_WRITE ? await this.bytes(length) : Buffer.alloc(0),
    };
  }

  /** Resolves when the client has gone. */
  async gone(): Promise<void> {
    await this.bytes(Number.MAX_SAFE_INTEGER).catch((error: unknown) => {
      if (!(error instanceof PeerGone)) throw error;
    });
  }

  send(...parts: Buffer[]): void {
    this.#socket.write(Buffer.concat(parts));
  }

  hangUp(): void {
    this.#socket.destroy();
  }
}

export function simpleReply(handle: number, errno = 0, payload: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(nbd.NBD_SIMPLE_REPLY_BYTES);
  header.writeUInt32BE(nbd.NBD_SIMPLE_REPLY_MAGIC, 0);
  header.writeUInt32BE(errno, 4);
  writeOffset(header, handle, 8);
  return Buffer.concat([header, payload]);
}

export function chunk(handle: number, type: number, payload: Buffer, done = false): Buffer {
  const header = Buffer.alloc(nbd.NBD_STRUCTURED_REPLY_BYTES);
  header.writeUInt32BE(nbd.NBD_STRUCTURED_REPLY_MAGIC, 0);
  header.writeUInt16BE(done ? nbd.NBD_REPLY_FLAG_DONE : 0, 4);
  header.writeUInt16BE(type, 6);
  writeOffset(header, handle, 8);
  header.writeUInt32BE(payload.length, 16);
  return Buffer.concat([header, payload]);
}

export function dataChunk(handle: number, offset: number, data: Buffer, done = false): Buffer {
  return chunk(handle, nbd.NBD_REPLY_TYPE_OFFSET_DATA, Buffer.concat([u64(offset), data]), done);
}

export function holeChunk(handle: number, offset: number, length: number, done = false): Buffer {
  return chunk(handle, nbd.NBD_REPLY_TYPE_OFFSET_HOLE, Buffer.concat([u64(offset), u32(length)]), done);
}

export function doneChunk(handle: number): Buffer {
  return chunk(handle, nbd.NBD_REPLY_TYPE_NONE, Buffer.alloc(0), true);
}

export function statusChunk(
  handle: number,
  contextId: number,
  extents: readonly (readonly [length: number, flags: number])[],
  done = false,
): Buffer {
  const body = extents.flatMap(([length, flags]) => [u32(length), u32(flags)]);
  return chunk(handle, nbd.NBD_REPLY_TYPE_BLOCK_STATUS, Buffer.concat([u32(contextId), ...body]), done);
}

export function errorChunk(handle: number, errno: number, text: string, done = false): Buffer {
  const bytes = Buffer.from(text);
  const payload = Buffer.concat([u32(errno), u16(bytes.length), bytes]);
  return chunk(handle, nbd.NBD_REPLY_TYPE_ERROR, payload, done);
}

export function greeting(): Buffer {
  return Buffer.concat([u64big(nbd.NBD_MAGIC), u64big(nbd.NBD_OPTS_MAGIC), u16(3)]);
}

export function optionReply(option: number, type: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([u64big(nbd.NBD_REP_MAGIC), u32(option), u32(type), u32(payload.length), payload]);
}

export function exportInfo(sizeBytes: number, flags: number): Buffer {
  return Buffer.concat([u16(nbd.NBD_INFO_EXPORT), u64(sizeBytes), u16(flags)]);
}

export function blockSizeInfo(minimum: number, preferred: number, maximum: number): Buffer {
  return Buffer.concat([u16(nbd.NBD_INFO_BLOCK_SIZE), u32(minimum), u32(preferred), u32(maximum)]);
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u64(value: number): Buffer {
  return u64big(BigInt(value));
}

function u64big(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

async function talk(peer: FakePeer, options: FakeOptions): Promise<void> {
  if (options.greeting === null) return peer.gone();
  peer.send(options.greeting ?? greeting());
  await peer.bytes(4);
  for (let going = true; going; ) going = await answerOption(peer, options);
  await options.serve?.(peer);
  await peer.gone();
}

async function answerOption(peer: FakePeer, options: FakeOptions): Promise<boolean> {
  const header = await peer.bytes(nbd.NBD_OPTION_HEADER_BYTES);
  const option = header.readUInt32BE(8);
  await peer.bytes(header.readUInt32BE(12));
  const { sizeBytes = 1 << 20, flags = DEFAULT_FLAGS, blockSize, contexts = [] } = options;
  switch (option) {
    case nbd.NBD_OPT_STRUCTURED_REPLY:
      peer.send(optionReply(option, options.structured === false ? nbd.NBD_REP_ERR_UNSUP : nbd.NBD_REP_ACK));
      return true;
    case nbd.NBD_OPT_SET_META_CONTEXT:
      contexts.forEach((name, index) => {
        peer.send(optionReply(option, nbd.NBD_REP_META_CONTEXT, Buffer.concat([u32(index + 7), Buffer.from(name)])));
      });
      peer.send(optionReply(option, nbd.NBD_REP_ACK));
      return true;
    case nbd.NBD_OPT_GO:
      peer.send(optionReply(option, nbd.NBD_REP_INFO, exportInfo(sizeBytes, flags)));
      if (blockSize) peer.send(optionReply(option, nbd.NBD_REP_INFO, blockSizeInfo(...blockSize)));
      peer.send(optionReply(option, nbd.NBD_REP_ACK));
      return false;
    default:
      peer.send(optionReply(option, nbd.NBD_REP_ERR_UNSUP));
      return true;
  }
}
