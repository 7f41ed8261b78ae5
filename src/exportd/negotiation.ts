/**
 * What the front door says before data flow. Before TLS it answers STARTTLS and ABORT and nothing else. After TLS it
 * shows no names, and a name that is not this identity's gets the same answer as one that does not exist.
 */
import { SendenseError } from '#/lib/errors.ts';
import { peerText, protocolError } from '#/nbd/codec.ts';
import {
  NBD_MAX_STRING_BYTES,
  NBD_OPTION_HEADER_BYTES,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
} from '#/nbd/constants.ts';
import { checkClientFlags, encodeGreeting, encodeOptionReply, parseOptionExportName } from '#/nbd/server-codec.ts';
import { parseOptionHeader } from '#/nbd/server-codec.ts';
import type { ByteFeed } from './byte-feed.ts';
import type { Upstream } from './upstream.ts';

const MAX_OPTION_BYTES = 64 * 1024;
const MAX_OPTIONS = 64;

export interface Peer {
  feed: ByteFeed;
  send: (bytes: Buffer) => void;
}

/** Why an export is not opened; `text` goes to the client and to the log. */
export interface Denial {
  type: 'unknown' | 'busy' | 'down';
  text: string;
}

/** Opens the export for the identity of the session; called at most once with success. */
export type OpenExport = (name: string, structured: boolean) => Promise<Upstream | Denial>;

const DENIALS = {
  unknown: NBD_REP_ERR_UNKNOWN,
  busy: NBD_REP_ERR_POLICY,
  down: NBD_REP_ERR_SHUTDOWN,
} as const satisfies Record<Denial['type'], number>;

/** Greets and returns right after the ACK to STARTTLS. NBD_PROTOCOL or CANCELLED (ABORT) otherwise. */
export async function negotiatePlain(peer: Peer): Promise<void> {
  peer.send(encodeGreeting());
  checkClientFlags(await peer.feed.read(4));
  for (let options = 0; options < MAX_OPTIONS; options++) {
    const { option, data } = await readOption(peer);
    if (option === NBD_OPT_STARTTLS && data.length === 0) {
      // Bytes sent ahead of the handshake would be plaintext smuggled into the protected talk.
      if (peer.feed.rest().length > 0) throw protocolError('the client sends ahead of TLS');
      return peer.send(encodeOptionReply(option, NBD_REP_ACK));
    }
    peer.send(encodeOptionReply(option, NBD_REP_ERR_TLS_REQD, 'this server talks only through TLS'));
  }
  throw protocolError('the client asks without end and without TLS');
}

/** Returns the export's connection right after the export has acknowledged GO and the client was told so. */
export async function negotiateSecure(peer: Peer, open: OpenExport): Promise<Upstream> {
  const state: { structured: boolean; name?: string; upstream?: Upstream } = { structured: false };
  const reply = (option: number, type: number, text = ''): void => peer.send(encodeOptionReply(option, type, text));
  for (let options = 0; options < MAX_OPTIONS; options++) {
    const { option, data } = await readOption(peer);
    switch (option) {
      case NBD_OPT_STRUCTURED_REPLY:
        if (data.length > 0 || state.upstream) reply(option, NBD_REP_ERR_INVALID, 'not like this, or too late');
        else {
          state.structured = true;
          reply(option, NBD_REP_ACK);
        }
        break;
      case NBD_OPT_GO:
      case NBD_OPT_INFO:
      case NBD_OPT_LIST_META_CONTEXT:
      case NBD_OPT_SET_META_CONTEXT: {
        const name = parseOptionExportName(data, NBD_MAX_STRING_BYTES);
        const denial = name === undefined ? 'malformed' : await bind(state, name, open);
        if (denial === 'malformed') reply(option, NBD_REP_ERR_INVALID, 'the option is malformed');
        else if (denial) reply(option, DENIALS[denial.type], denial.text);
        else if ((await state.upstream?.ask(option, data, peer.send)) && option === NBD_OPT_GO && state.upstream) {
          return state.upstream;
        }
        break;
      }
      case NBD_OPT_LIST:
        reply(option, NBD_REP_ERR_POLICY, 'names are not listed');
        break;
      case NBD_OPT_STARTTLS:
        reply(option, NBD_REP_ERR_INVALID, 'TLS is on already');
        break;
      default:
        reply(option, NBD_REP_ERR_UNSUP, 'unknown option');
    }
  }
  throw protocolError('the client asks without end');
}

/** One export per connection: any other name afterwards is as unknown as one that does not exist. */
async function bind(
  state: { structured: boolean; name?: string; upstream?: Upstream },
  name: string,
  open: OpenExport,
): Promise<Denial | undefined> {
  if (state.upstream) return state.name === name ? undefined : unknownExport();
  const opened = await open(name, state.structured);
  if (!('socket' in opened)) return opened;
  state.name = name;
  state.upstream = opened;
  return undefined;
}

export function unknownExport(): Denial {
  return { type: 'unknown', text: 'no such export' };
}

async function readOption(peer: Peer): Promise<{ option: number; data: Buffer }> {
  const { option, length } = parseOptionHeader(await peer.feed.read(NBD_OPTION_HEADER_BYTES));
  if (length > MAX_OPTION_BYTES) throw protocolError('the client sends an option that is too long');
  const data = await peer.feed.read(length);
  if (option === NBD_OPT_EXPORT_NAME) {
    // This option has no answer that says no.
    throw protocolError(`the client opens ${peerText(data).slice(0, 64)} by the old option EXPORT_NAME`);
  }
  if (option === NBD_OPT_ABORT) {
    peer.send(encodeOptionReply(option, NBD_REP_ACK));
    throw new SendenseError('CANCELLED', 'the client ended the negotiation');
  }
  return { option, data };
}
