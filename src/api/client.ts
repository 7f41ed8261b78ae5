/** A typed client made from a route table; works wherever there is a fetch. */
import { fromWire, SendenseError } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';
import type { CallArgs, Reply, Route } from './route.ts';

export interface ClientOptions {
  baseUrl: string;
  /** Bearer token; asked for each call so that it can be renewed. */
  token?: () => string | undefined;
  fetch?: typeof fetch;
  /** Code thrown when nobody answers at all. */
  unreachable: ErrorCode;
  timeoutMs?: number;
}

export type Client<T extends Record<string, Route>> = {
  [K in keyof T]: (args: CallArgs<T[K]>, signal?: AbortSignal) => Promise<Reply<T[K]>>;
};

interface AnyArgs {
  params?: Record<string, string>;
  query?: Record<string, string | number | boolean | undefined>;
  body?: unknown;
}

export function createClient<T extends Record<string, Route>>(table: T, options: ClientOptions): Client<T> {
  const entries = Object.entries(table).map(([name, route]) => [
    name,
    (args: AnyArgs, signal?: AbortSignal) => call(route, args, options, signal),
  ]);
  return Object.fromEntries(entries) as Client<T>;
}

async function call(route: Route, args: AnyArgs, options: ClientOptions, signal?: AbortSignal): Promise<unknown> {
  const response = await send(route, args, options, signal);
  const text = await response.text();
  if (!response.ok)
    throw fromWire(parseError(text, response.status), response.status === 401 ? 'UNAUTHENTICATED' : 'INTERNAL');
  return route.reply.parse(JSON.parse(text));
}

async function send(route: Route, args: AnyArgs, options: ClientOptions, signal?: AbortSignal): Promise<Response> {
  const path = route.path.replaceAll(/:(\w+)/g, (_, name: string) => encodeURIComponent(args.params?.[name] ?? ''));
  const url = new URL(options.baseUrl.replace(/\/$/, '') + path);
  for (const [key, value] of Object.entries(args.query ?? {})) {
    if (value !== undefined) url.searchParams.set(key, String(value));
  }
  const token = options.token?.();
  const timeout = AbortSignal.timeout(options.timeoutMs ?? 60_000);
  try {
    return await (options.fetch ?? fetch)(url, {
      method: route.method,
      headers: {
        accept: 'application/json',
        ...(args.body !== undefined && { 'content-type': 'application/json' }),
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
      },
      ...(args.body !== undefined && { body: JSON.stringify(args.body) }),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  } catch (error) {
    signal?.throwIfAborted();
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new SendenseError(options.unreachable, `no answer from ${url.origin}: ${why}`, { cause: error });
  }
}

function parseError(text: string, status: number): { code?: unknown; message?: unknown; details?: unknown } {
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === 'object' && parsed !== null) return parsed;
  } catch {
    // not JSON: somebody else answered; the status is all there is to say
  }
  return { message: `HTTP ${status} from something that is not a sendense server` };
}
