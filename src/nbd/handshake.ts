/**
 * The negotiation of one connection, written as a plain sequence that yields what it wants done (send, receive
 * exactly so many bytes, begin TLS) and touches no socket. Order: STARTTLS, structured replies, contexts, GO.
 */
import { SendenseError } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';
import {
  encodeGo,
  encodeMetaContexts,
  encodeOption,
  parseGreeting,
  parseInfo,
  parseMetaContext,
  parseOptionReplyHeader,
  peerText,
  protocolError,
} from './codec.ts';
import type { BlockSize } from './codec.ts';
import {
  NBD_DEFAULT_BLOCK_SIZE,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_NO_ZEROES,
  NBD_GREETING_BYTES,
  NBD_INFO_BLOCK_SIZE,
  NBD_OPT_GO,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_OPTION_REPLY_HEADER_BYTES,
  NBD_REP_ACK,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_FLAG_ERROR,
  NBD_REP_INFO,
  NBD_REP_META_CONTEXT,
} from './constants.ts';

const MAX_REPLY_BYTES = 64 * 1024;
const MAX_REPLIES = 1000;

export interface Wanted {
  exportName: string;
  tls: boolean;
  metaContexts: readonly string[];
}

export interface Negotiated {
  sizeBytes: number;
  /** Transmission flags, NBD_FLAG_*. */
  flags: number;
  blockSize: BlockSize;
  structured: boolean;
  /** Ids of the contexts the server agreed to. */
  contexts: ReadonlyMap<string, number>;
}

export type Step = { kind: 'send'; bytes: Buffer } | { kind: 'receive'; length: number } | { kind: 'startTls' };
type Negotiation<T> = Generator<Step, T, Buffer>;

/** Runs the negotiation; `next()` takes the bytes of the last `receive` step and anything for the other two. */
export function* negotiate(wanted: Wanted): Negotiation<Negotiated> {
  const flags = parseGreeting(yield { kind: 'receive', length: NBD_GREETING_BYTES });
  const answer = Buffer.alloc(4);
  const noZeroes = (flags & NBD_FLAG_NO_ZEROES) === 0 ? 0 : NBD_FLAG_C_NO_ZEROES;
  answer.writeUInt32BE(NBD_FLAG_C_FIXED_NEWSTYLE | noZeroes, 0);
  yield { kind: 'send', bytes: answer };
  if (wanted.tls) yield* startTls();
  const structured = yield* structuredReplies();
  const contexts =
    structured && wanted.metaContexts.length > 0 ? yield* metaContexts(wanted) : new Map<string, number>();
  return { ...(yield* go(wanted.exportName)), structured, contexts };
}

function* startTls(): Negotiation<void> {
  yield { kind: 'send', bytes: encodeOption(NBD_OPT_STARTTLS) };
  const reply = yield* receiveReply(NBD_OPT_STARTTLS);
  if (reply.type !== NBD_REP_ACK) throw new SendenseError('TLS_FAILED', 'the NBD server does not offer TLS');
  yield { kind: 'startTls' };
}

function* structuredReplies(): Negotiation<boolean> {
  yield { kind: 'send', bytes: encodeOption(NBD_OPT_STRUCTURED_REPLY) };
  const reply = yield* receiveReply(NBD_OPT_STRUCTURED_REPLY);
  if (reply.type === NBD_REP_ERR_TLS_REQD) throw refusal(reply, '');
  return reply.type === NBD_REP_ACK;
}

function* metaContexts(wanted: Wanted): Negotiation<Map<string, number>> {
  const contexts = new Map<string, number>();
  const data = encodeMetaContexts(wanted.exportName, wanted.metaContexts);
  yield { kind: 'send', bytes: encodeOption(NBD_OPT_SET_META_CONTEXT, data) };
  for (let count = 0; count < MAX_REPLIES; count++) {
    const reply = yield* receiveReply(NBD_OPT_SET_META_CONTEXT);
    if (reply.type === NBD_REP_ACK) return contexts;
    if (reply.type === NBD_REP_ERR_UNSUP) return new Map();
    if (reply.type !== NBD_REP_META_CONTEXT) throw refusal(reply, wanted.exportName);
    const { id, name } = parseMetaContext(reply.payload);
    if (wanted.metaContexts.includes(name)) contexts.set(name, id);
  }
  throw protocolError('the server names metadata contexts without end');
}

type Exported = Pick<Negotiated, 'sizeBytes' | 'flags' | 'blockSize'>;

function* go(exportName: string): Negotiation<Exported> {
  let found: { sizeBytes: number; flags: number } | undefined;
  let blockSize: BlockSize = NBD_DEFAULT_BLOCK_SIZE;
  yield { kind: 'send', bytes: encodeOption(NBD_OPT_GO, encodeGo(exportName, [NBD_INFO_BLOCK_SIZE])) };
  for (let count = 0; count < MAX_REPLIES; count++) {
    const reply = yield* receiveReply(NBD_OPT_GO);
    if (reply.type === NBD_REP_ACK) {
      if (!found) throw protocolError('the server opened the export without saying its size');
      return { ...found, blockSize };
    }
    if (reply.type !== NBD_REP_INFO) throw refusal(reply, exportName);
    const info = parseInfo(reply.payload);
    if (info.kind === 'export') found = { sizeBytes: info.sizeBytes, flags: info.flags };
    else if (info.kind === 'blockSize') blockSize = info.blockSize;
  }
  throw protocolError('the server gives information about the export without end');
}

interface OptionReply {
  type: number;
  payload: Buffer;
}

function* receiveReply(option: number): Negotiation<OptionReply> {
  const header = yield { kind: 'receive', length: NBD_OPTION_REPLY_HEADER_BYTES };
  const { type, length } = parseOptionReplyHeader(header, option);
  if (length > MAX_REPLY_BYTES) throw protocolError('an option reply is too long', { option, length });
  const payload = length === 0 ? Buffer.alloc(0) : yield { kind: 'receive', length };
  return { type, payload };
}

function refusal(reply: OptionReply, exportName: string): SendenseError {
  if (reply.type < NBD_REP_FLAG_ERROR) return protocolError(`the server sent an option reply of type ${reply.type}`);
  const text = peerText(reply.payload);
  const said = text === '' ? '' : `: ${text}`;
  const details = { replyType: reply.type - NBD_REP_FLAG_ERROR, exportName };
  const [code, message] = REFUSALS[reply.type] ?? ['NBD_PROTOCOL', 'the server refused to open the export'];
  return new SendenseError(code, message + said, { details });
}

const REFUSALS: Readonly<Record<number, [ErrorCode, string]>> = {
  [NBD_REP_ERR_TLS_REQD]: ['TLS_FAILED', 'the NBD server demands TLS'],
  [NBD_REP_ERR_UNKNOWN]: ['NBD_UNKNOWN_EXPORT', 'the NBD server has no such export'],
  [NBD_REP_ERR_POLICY]: ['NOT_ALLOWED', 'the NBD server does not allow this client to open the export'],
  [NBD_REP_ERR_SHUTDOWN]: ['NBD_UNREACHABLE', 'the NBD server is shutting down'],
  [NBD_REP_ERR_UNSUP]: ['NBD_PROTOCOL', 'the server does not speak NBD_OPT_GO'],
};
