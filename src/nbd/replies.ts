/**
 * The server's half of the transmission phase as a state machine fed with received bytes, wherever they were cut.
 * It says where the next bytes shall be received: between replies into a small staging area, so that one receive call
 * may bring several replies, and while a payload is under way straight into that request's own memory. Only what
 * the staging area caught of a payload's beginning is copied.
 */
import {
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_REPLY_TYPE_FLAG_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_BYTES,
  NBD_STRUCTURED_REPLY_MAGIC,
} from './constants.ts';
import { parseStatusExtents, peerText, protocolError, readOffset } from './codec.ts';
import type { StatusExtent } from './codec.ts';

const STAGING_BYTES = 512;
const SCRATCH_BYTES = 64 * 1024;
const MAX_STATUS_BYTES = 4 + 8 * 1024 * 1024;
const MAX_ERROR_BYTES = 6 + 65535 + 8;

/** Receives what the replies mean. Every method may throw NBD_PROTOCOL, which ends the connection. */
export interface ReplyEvents {
  /** A simple reply without error: undefined when nothing follows, otherwise the length of the payload. */
  simple(handle: number): number | undefined;
  /** Where payload for `length` bytes at `offset` goes (exactly that long), undefined to throw it away. */
  data(handle: number, offset: number | undefined, length: number): Buffer | undefined;
  hole(handle: number, offset: number, length: number): void;
  status(handle: number, contextId: number, extents: StatusExtent[]): void;
  failed(handle: number, errno: number, message: string): void;
  /** Nothing more comes for this handle. */
  done(handle: number): void;
}

export class ReplyParser {
  readonly #events: ReplyEvents;
  readonly #structured: boolean;
  readonly #staging = Buffer.allocUnsafeSlow(STAGING_BYTES);
  #staged = 0;
  #scratch: Buffer | undefined;
  /** Payload under way: its memory (undefined = thrown away), how much came, how much is to come. */
  #target: Buffer | undefined;
  #targetAt = 0;
  #payloadLeft = 0;
  #handle = -1;
  #type = NBD_REPLY_TYPE_NONE;
  #done = false;

  /** `structured`: whether structured replies were negotiated; without it they are a breach. */
  constructor(events: ReplyEvents, structured: boolean) {
    this.#events = events;
    this.#structured = structured;
  }

  /** The handle whose own memory the next bytes go to, or -1. */
  get receiving(): number {
    return this.#payloadLeft > 0 && this.#type === NBD_REPLY_TYPE_OFFSET_DATA && this.#target ? this.#handle : -1;
  }

  /** Where to receive the next bytes; never empty. Asked anew after each `received`. */
  buffer(): Buffer {
    if (this.#payloadLeft === 0) return this.#staging.subarray(this.#staged);
    if (this.#target) return this.#target.subarray(this.#targetAt);
    this.#scratch ??= Buffer.allocUnsafeSlow(SCRATCH_BYTES);
    return this.#scratch.subarray(0, Math.min(this.#payloadLeft, SCRATCH_BYTES));
  }

  /** `count` bytes have come into the last `buffer()`. */
  received(count: number): void {
    if (this.#payloadLeft === 0) {
      this.#staged += count;
      this.#parse();
      return;
    }
    this.#targetAt += count;
    this.#payloadLeft -= count;
    if (this.#payloadLeft === 0) this.#payloadComplete();
  }

  /** True between replies: the stream may end here without having cut one off. */
  get idle(): boolean {
    return this.#payloadLeft === 0 && this.#staged === 0;
  }

  #parse(): void {
    let at = 0;
    for (;;) {
      const used = this.#parseOne(at);
      if (used === 0) break;
      at += used;
      if (this.#payloadLeft > 0) {
        at += this.#takeStaged(at);
        if (this.#payloadLeft > 0) break;
        this.#payloadComplete();
      }
    }
    this.#staging.copyWithin(0, at, this.#staged);
    this.#staged -= at;
  }

  /** Moves what was staged of a payload's beginning to where it belongs. */
  #takeStaged(at: number): number {
    const count = Math.min(this.#staged - at, this.#payloadLeft);
    if (this.#target) this.#staging.copy(this.#target, 0, at, at + count);
    this.#targetAt = count;
    this.#payloadLeft -= count;
    return count;
  }

  /** Understands one header at `at` of the staging area; 0 when it is not complete yet. */
  #parseOne(at: number): number {
    const available = this.#staged - at;
    if (available < 4) return 0;
    const magic = this.#staging.readUInt32BE(at);
    if (magic === NBD_SIMPLE_REPLY_MAGIC) return available < NBD_SIMPLE_REPLY_BYTES ? 0 : this.#simple(at);
    if (magic !== NBD_STRUCTURED_REPLY_MAGIC || !this.#structured) {
      throw protocolError('a reply has the wrong magic number', { magic });
    }
    return available < NBD_STRUCTURED_REPLY_BYTES ? 0 : this.#chunk(at, available);
  }

  #simple(at: number): number {
    const errno = this.#staging.readUInt32BE(at + 4);
    const handle = readOffset(this.#staging, at + 8);
    if (errno !== 0) {
      this.#events.failed(handle, errno, '');
      this.#events.done(handle);
      return NBD_SIMPLE_REPLY_BYTES;
    }
    const length = this.#events.simple(handle);
    if (length === undefined) this.#events.done(handle);
    else this.#beginPayload(handle, NBD_REPLY_TYPE_OFFSET_DATA, length, this.#events.data(handle, undefined, length));
    this.#done = true;
    return NBD_SIMPLE_REPLY_BYTES;
  }

  #chunk(at: number, available: number): number {
    const staging = this.#staging;
    const type = staging.readUInt16BE(at + 6);
    const handle = readOffset(staging, at + 8);
    const length = staging.readUInt32BE(at + 16);
    const body = at + NBD_STRUCTURED_REPLY_BYTES;
    const prefix = prefixBytes(type, length);
    if (available < NBD_STRUCTURED_REPLY_BYTES + prefix) return 0;
    this.#done = (staging.readUInt16BE(at + 4) & NBD_REPLY_FLAG_DONE) !== 0;
    if (type === NBD_REPLY_TYPE_OFFSET_DATA) {
      const target = this.#events.data(handle, readOffset(staging, body), length - 8);
      this.#beginPayload(handle, type, length - 8, target);
    } else if (type === NBD_REPLY_TYPE_OFFSET_HOLE) {
      this.#events.hole(handle, readOffset(staging, body), staging.readUInt32BE(body + 8));
      if (this.#done) this.#events.done(handle);
    } else if (type === NBD_REPLY_TYPE_NONE) {
      if (!this.#done) throw protocolError('an empty reply chunk does not end its reply');
      this.#events.done(handle);
    } else {
      this.#beginPayload(handle, type, length, Buffer.allocUnsafe(length));
    }
    return NBD_STRUCTURED_REPLY_BYTES + prefix;
  }

  #beginPayload(handle: number, type: number, length: number, target: Buffer | undefined): void {
    this.#handle = handle;
    this.#type = type;
    this.#target = target;
    this.#targetAt = 0;
    this.#payloadLeft = length;
  }

  #payloadComplete(): void {
    const payload = this.#target;
    this.#target = undefined;
    if (payload && this.#type === NBD_REPLY_TYPE_BLOCK_STATUS) {
      this.#events.status(this.#handle, payload.readUInt32BE(0), parseStatusExtents(payload));
    } else if (payload && this.#type !== NBD_REPLY_TYPE_OFFSET_DATA) {
      const text = errorText(payload, this.#type);
      this.#events.failed(this.#handle, payload.readUInt32BE(0), text);
    }
    if (this.#done) this.#events.done(this.#handle);
  }
}

/** Bytes after the chunk header that are needed before the chunk can be acted on; checks the chunk's length. */
function prefixBytes(type: number, length: number): number {
  if (type === NBD_REPLY_TYPE_OFFSET_DATA) {
    if (length <= 8) throw protocolError('a data chunk carries no data');
    return 8;
  }
  if (type === NBD_REPLY_TYPE_OFFSET_HOLE) {
    if (length !== 12) throw protocolError('a hole chunk has a wrong length', { length });
    return 12;
  }
  if (type === NBD_REPLY_TYPE_NONE) {
    if (length !== 0) throw protocolError('an empty reply chunk carries something', { length });
    return 0;
  }
  if (type === NBD_REPLY_TYPE_BLOCK_STATUS) {
    if (length < 12 || length % 8 !== 4 || length > MAX_STATUS_BYTES) {
      throw protocolError('a block status chunk has a wrong length', { length });
    }
    return 0;
  }
  if ((type & NBD_REPLY_TYPE_FLAG_ERROR) === 0) throw protocolError('a reply chunk has an unknown type', { type });
  if (length < 6 || length > MAX_ERROR_BYTES) throw protocolError('an error chunk has a wrong length', { length });
  return 0;
}

function errorText(payload: Buffer, type: number): string {
  if (payload.readUInt32BE(0) === 0) throw protocolError('an error chunk carries no error');
  const length = payload.readUInt16BE(4);
  const rest = payload.length - 6 - (type === NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0);
  if (length > rest) throw protocolError('the text of an error is longer than its chunk', { length });
  return peerText(payload.subarray(6, 6 + length));
}
