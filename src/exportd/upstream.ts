/**
 * The connection from the front door to an export's own socket: negotiated option by option on behalf of a client,
 * then a stream. Reading goes into a few reused buffers, see `pump`.
 */
import { connect } from 'node:net';
import type { NetConnectOpts, Socket } from 'node:net';
import { SendenseError } from '#/lib/errors.ts';
import { encodeOption, parseGreeting, parseOptionReplyHeader, protocolError } from '#/nbd/codec.ts';
import {
  NBD_GREETING_BYTES,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_FLAG_ERROR,
} from '#/nbd/constants.ts';
import { encodeOptionReply } from '#/nbd/server-codec.ts';
import { ByteFeed } from './byte-feed.ts';

const MAX_REPLY_BYTES = 64 * 1024;
const MAX_REPLIES = 256;
/** Large enough that one read of the socket fills many TLS records. */
const READ_BYTES = 256 * 1024;
/** Reads whose bytes the client has not yet taken; more would only be memory. */
const MAX_READS_AHEAD = 4;
/** Below this a copy is cheaper than keeping a whole buffer busy. */
const SMALL_BYTES = 16 * 1024;
const WRITE_AHEAD_BYTES = 4 * 1024 * 1024;

export interface Upstream {
  readonly socket: Socket;
  /** Sends one option as the client made it and passes every reply to `relay`; true when the last one was an ACK. */
  ask(option: number, data: Buffer, relay: (reply: Buffer) => void): Promise<boolean>;
  /** From now on, all that comes is written to `to`, as fast as `to` takes it. */
  pumpTo(to: Socket): void;
}

/** Connects and, if `structured`, agrees on structured replies. Aborting `signal` destroys the connection at any time. */
export async function openUpstream(path: string, structured: boolean, signal: AbortSignal): Promise<Upstream> {
  signal.throwIfAborted();
  const feed = new ByteFeed();
  const pump = new Pump(feed);
  const options: NetConnectOpts & { highWaterMark: number } = {
    path,
    highWaterMark: WRITE_AHEAD_BYTES,
    onread: { buffer: () => pump.buffer(), callback: (length, buffer) => pump.received(length, buffer) },
  };
  const socket = connect(options);
  pump.socket = socket;
  const gone = (cause?: unknown): SendenseError =>
    new SendenseError('NBD_CLOSED', 'the export ended the connection', { cause });
  socket.on('error', (error) => feed.end(gone(error)));
  socket.on('close', () => feed.end(gone()));
  const cut = (): void => void socket.destroy();
  signal.addEventListener('abort', cut, { once: true });
  socket.on('close', () => signal.removeEventListener('abort', cut));
  const ask = async (option: number, data: Buffer, relay: (reply: Buffer) => void): Promise<boolean> => {
    socket.write(encodeOption(option, data));
    for (let replies = 0; replies < MAX_REPLIES; replies++) {
      const header = await feed.read(NBD_OPTION_REPLY_HEADER_BYTES);
      const { type, length } = parseOptionReplyHeader(header, option);
      if (length > MAX_REPLY_BYTES) throw protocolError('the export answers an option with too much');
      relay(encodeOptionReply(option, type, await feed.read(length)));
      if (type === NBD_REP_ACK) return true;
      if (type >= NBD_REP_FLAG_ERROR) return false;
    }
    throw protocolError('the export answers an option without end');
  };
  try {
    parseGreeting(await feed.read(NBD_GREETING_BYTES));
    socket.write(Buffer.from([0, 0, 0, 3]));
    if (structured && !(await ask(NBD_OPT_STRUCTURED_REPLY, Buffer.alloc(0), () => undefined))) {
      throw protocolError('the export refuses structured replies');
    }
    return { socket, ask, pumpTo: (to) => pump.start(to) };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** A few buffers go round: read into, handed to the client's socket, free again when that has sent them. */
class Pump {
  socket!: Socket;
  readonly #feed: ByteFeed;
  readonly #free: Buffer[] = [];
  #to: Socket | undefined;
  #ahead = 0;

  constructor(feed: ByteFeed) {
    this.#feed = feed;
  }

  buffer(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(READ_BYTES);
  }

  /** False stops the reading until `resume`. */
  received(length: number, from: Uint8Array): boolean {
    const buffer = from as Buffer;
    const bytes = buffer.subarray(0, length);
    if (!this.#to) {
      this.#feed.feed(bytes); // copies
      this.#free.push(buffer);
      return true;
    }
    const small = length < SMALL_BYTES;
    if (small) this.#free.push(buffer);
    this.#ahead++;
    this.#to.write(small ? Buffer.from(bytes) : bytes, () => {
      if (!small) this.#free.push(buffer);
      if (this.#ahead-- === MAX_READS_AHEAD) this.socket.resume();
    });
    return this.#ahead < MAX_READS_AHEAD;
  }

  start(to: Socket): void {
    const rest = this.#feed.rest();
    if (rest.length > 0) to.write(rest);
    this.#to = to;
  }
}
