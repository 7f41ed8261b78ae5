import type { Arguments } from './arguments.ts';
import type { Session } from './sessions.ts';
import type { Ref, Value } from './values.ts';
import { renderElement } from './values.ts';
import { parseFields } from './vim-types.ts';
import type { Field } from './vim-types.ts';
import type { World } from './world.ts';

export interface Call {
  world: World;
  session: Session | undefined;
  self: Ref;
  args: Arguments;
  cookie: string | undefined;
  userAgent: string;
  /** Aborted when the client goes away or the simulator ends. */
  signal: AbortSignal;
  /** Makes the answer carry the cookie of a new session. */
  setSession(session: Session): void;
}

export interface Method {
  /** Type that `_this` must have. */
  on: string;
  fields: readonly Field[];
  /** Answered without a login. */
  anonymous: boolean;
  /** Content of the response element. */
  run(call: Call): Promise<string> | string;
}

export function method(on: string, fields: string, run: Method['run'], options: { anonymous?: boolean } = {}): Method {
  return { on, fields: parseFields(fields), anonymous: options.anonymous ?? false, run };
}

export function returnval(declared: string, value: Value | undefined): string {
  return value === undefined ? '' : renderElement('returnval', declared, value);
}

/** For methods that are only called with a session. */
export function sessionOf(call: Call): Session {
  if (!call.session) throw new TypeError('the dispatcher lets no call without session pass');
  return call.session;
}
