/**
 * What a client says and hears in NBD, as bytes; no socket in here. Offsets are numbers, split into two 32-bit halves
 * on the wire, because a BigInt per request costs more than the request. Whatever a server sends is checked before
 * it is believed; a breach throws NBD_PROTOCOL.
 */
import { SendenseError } from '#/lib/errors.ts';
import type { ErrorDetails } from '#/lib/errors.ts';
import {
  NBD_ERRNO_NAMES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_EXPORT,
  NBD_MAGIC,
  NBD_MAX_STRING_BYTES,
  NBD_OPTION_HEADER_BYTES,
  NBD_OPTS_MAGIC,
  NBD_REP_MAGIC,
  NBD_REQUEST_MAGIC,
} from './constants.ts';

const TWO_32 = 2 ** 32;
const MAX_TEXT = 500;

export interface BlockSize {
  /** Offsets and lengths must be multiples of this many bytes. */
  minimum: number;
  preferred: number;
  /** Most bytes of payload in one request. */
  maximum: number;
}

export interface StatusExtent {
  length: number;
  flags: number;
}

export function protocolError(message: string, details: ErrorDetails = {}): SendenseError {
  return new SendenseError('NBD_PROTOCOL', message, { details });
}

export function readOffset(buffer: Buffer, at: number): number {
  return buffer.readUInt32BE(at) * TWO_32 + buffer.readUInt32BE(at + 4);
}

export function writeOffset(buffer: Buffer, value: number, at: number): void {
  buffer.writeUInt32BE(Math.floor(value / TWO_32), at);
  buffer.writeUInt32BE(value >>> 0, at + 4);
}

/** Text of a peer as one harmless line. */
export function peerText(bytes: Buffer): string {
  return bytes
    .toString('utf8', 0, NBD_MAX_STRING_BYTES)
    .replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ')
    .trim()
    .slice(0, MAX_TEXT);
}

export function errnoName(errno: number): string {
  return NBD_ERRNO_NAMES[errno] ?? `errno ${errno}`;
}

/** Checks the server's 18 bytes and returns its handshake flags. */
export function parseGreeting(bytes: Buffer): number {
  if (bytes.readBigUInt64BE(0) !== NBD_MAGIC) throw protocolError('the peer is not an NBD server');
  if (bytes.readBigUInt64BE(8) !== NBD_OPTS_MAGIC) throw protocolError('the server speaks only oldstyle NBD');
  const flags = bytes.readUInt16BE(16);
  if ((flags & NBD_FLAG_FIXED_NEWSTYLE) === 0) throw protocolError('the server does not speak fixed newstyle NBD');
  return flags;
}

export function encodeOption(option: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(NBD_OPTION_HEADER_BYTES);
  header.writeBigUInt64BE(NBD_OPTS_MAGIC, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

export interface OptionReplyHeader {
  type: number;
  length: number;
}

/** The header of a reply to `option`; its payload of `length` bytes follows. */
export function parseOptionReplyHeader(bytes: Buffer, option: number): OptionReplyHeader {
  if (bytes.readBigUInt64BE(0) !== NBD_REP_MAGIC) throw protocolError('an option reply has the wrong magic number');
  const answered = bytes.readUInt32BE(8);
  if (answered !== option) throw protocolError(`the server answers option ${answered} instead of ${option}`);
  return { type: bytes.readUInt32BE(12), length: bytes.readUInt32BE(16) };
}

/** Payload of NBD_OPT_GO and NBD_OPT_INFO: export name and the kinds of information asked for. */
export function encodeGo(exportName: string, infos: readonly number[]): Buffer {
  const tail = Buffer.alloc(2 + infos.length * 2);
  tail.writeUInt16BE(infos.length, 0);
  infos.forEach((info, index) => tail.writeUInt16BE(info, 2 + index * 2));
  return Buffer.concat([encodeString(exportName), tail]);
}

/** Payload of NBD_OPT_SET_META_CONTEXT: export name and the contexts asked for. */
export function encodeMetaContexts(exportName: string, contexts: readonly string[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(contexts.length, 0);
  return Buffer.concat([encodeString(exportName), count, ...contexts.map(encodeString)]);
}

function encodeString(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length, 0);
  return Buffer.concat([length, bytes]);
}

export function parseMetaContext(payload: Buffer): { id: number; name: string } {
  if (payload.length < 5 || payload.length > 4 + NBD_MAX_STRING_BYTES) {
    throw protocolError('a metadata context of the server has a wrong length');
  }
  return { id: payload.readUInt32BE(0), name: payload.toString('utf8', 4) };
}

export type ExportInfo =
  | { kind: 'export'; sizeBytes: number; flags: number }
  | { kind: 'blockSize'; blockSize: BlockSize }
  | { kind: 'other' };

/** One NBD_REP_INFO payload; kinds that nobody asked for are legal and mean nothing. */
export function parseInfo(payload: Buffer): ExportInfo {
  if (payload.length < 2) throw protocolError('an information reply is too short');
  const kind = payload.readUInt16BE(0);
  if (kind === NBD_INFO_EXPORT) {
    if (payload.length !== 12) throw protocolError('the export information has a wrong length');
    const sizeBytes = readOffset(payload, 2);
    if (!Number.isSafeInteger(sizeBytes)) throw protocolError('the export is larger than 2^53 bytes');
    return { kind: 'export', sizeBytes, flags: payload.readUInt16BE(10) };
  }
  if (kind === NBD_INFO_BLOCK_SIZE) return { kind: 'blockSize', blockSize: parseBlockSize(payload) };
  return { kind: 'other' };
}

function parseBlockSize(payload: Buffer): BlockSize {
  if (payload.length !== 14) throw protocolError('the block size information has a wrong length');
  const minimum = payload.readUInt32BE(2);
  const preferred = payload.readUInt32BE(6);
  const maximum = payload.readUInt32BE(10);
  if (!isPowerOfTwo(minimum) || !isPowerOfTwo(preferred) || preferred < minimum || maximum < minimum) {
    throw protocolError(`the server's block sizes make no sense: ${minimum}, ${preferred}, ${maximum}`);
  }
  return { minimum, preferred, maximum };
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}

export interface RequestHeader {
  command: number;
  flags: number;
  handle: number;
  offset: number;
  length: number;
}

/** Writes the 28 bytes of a request; only a WRITE is followed by payload. */
export function encodeRequest(into: Buffer, request: RequestHeader): void {
  into.writeUInt32BE(NBD_REQUEST_MAGIC, 0);
  into.writeUInt16BE(request.flags, 4);
  into.writeUInt16BE(request.command, 6);
  writeOffset(into, request.handle, 8);
  writeOffset(into, request.offset, 16);
  into.writeUInt32BE(request.length, 24);
}

/** The extents of a block status chunk, without its context id. */
export function parseStatusExtents(payload: Buffer): StatusExtent[] {
  const extents: StatusExtent[] = [];
  for (let at = 4; at < payload.length; at += 8) {
    const length = payload.readUInt32BE(at);
    if (length === 0) throw protocolError('a block status extent has no length');
    const flags = payload.readUInt32BE(at + 4);
    const last = extents.at(-1);
    if (last?.flags === flags) last.length += length;
    else extents.push({ length, flags });
  }
  return extents;
}
