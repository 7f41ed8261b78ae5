/** The server's half of the negotiation as bytes, for whoever answers options; no socket inside. */
import { protocolError } from './codec.ts';
import {
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_GREETING_BYTES,
  NBD_MAGIC,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_OPTS_MAGIC,
  NBD_REP_MAGIC,
} from './constants.ts';

export function encodeGreeting(): Buffer {
  const greeting = Buffer.alloc(NBD_GREETING_BYTES);
  greeting.writeBigUInt64BE(NBD_MAGIC, 0);
  greeting.writeBigUInt64BE(NBD_OPTS_MAGIC, 8);
  greeting.writeUInt16BE(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES, 16);
  return greeting;
}

/** NBD_PROTOCOL unless the client speaks fixed newstyle and sets no flag that was not offered. */
export function checkClientFlags(bytes: Buffer): void {
  const flags = bytes.readUInt32BE(0);
  const known = NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES;
  if ((flags & ~known) !== 0 || (flags & NBD_FLAG_C_FIXED_NEWSTYLE) === 0) {
    throw protocolError('the client flags are not those of fixed newstyle NBD');
  }
}

/** NBD_PROTOCOL when the magic is wrong; the length is as the client claims. */
export function parseOptionHeader(bytes: Buffer): { option: number; length: number } {
  if (bytes.readBigUInt64BE(0) !== NBD_OPTS_MAGIC) throw protocolError('an option has the wrong magic number');
  return { option: bytes.readUInt32BE(8), length: bytes.readUInt32BE(12) };
}

export function encodeOptionReply(option: number, type: number, payload: Buffer | string = ''): Buffer {
  const body = typeof payload === 'string' ? Buffer.from(payload) : payload;
  const header = Buffer.alloc(NBD_OPTION_REPLY_HEADER_BYTES);
  header.writeBigUInt64BE(NBD_REP_MAGIC, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(type, 12);
  header.writeUInt32BE(body.length, 16);
  return Buffer.concat([header, body]);
}

/** The export name that GO, INFO and both meta context options begin with; undefined when the data are malformed. */
export function parseOptionExportName(data: Buffer, maxBytes: number): string | undefined {
  if (data.length < 4) return undefined;
  const length = data.readUInt32BE(0);
  if (length > maxBytes || 4 + length > data.length) return undefined;
  const bytes = data.subarray(4, 4 + length);
  const name = bytes.toString('utf8');
  return Buffer.from(name).equals(bytes) ? name : undefined;
}
