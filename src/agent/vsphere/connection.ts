/**
 * HTTPS to one server: the control pool for SOAP calls and pools of their own for disk data, all behind the same
 * certificate check. Repeats what may be repeated when the network fails; knows nothing of logins.
 */
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { Pool } from 'undici';
import type { Dispatcher } from 'undici';
import { SendenseError } from '#/lib/errors.ts';
import { retry } from '#/lib/retry.ts';
import { METHODS } from './schema.ts';
import type { MethodName } from './schema.ts';
import { buildRequest, faultError, parseResponse } from './soap.ts';
import type { Fields, MoRef } from './soap.ts';
import { parseAddress, pinnedConnector } from './tls.ts';
import type { XmlNode } from './xml.ts';

const gunzipAsync = promisify(gunzip);
/** Longest answer taken, compressed or not: some hundred VMs with all their devices, or 200 000 changed areas. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
const CONTROL_CONNECTIONS = 4;
const CONTROL_TIMEOUT_MS = 300_000;
const COOKIE_NAME = 'vmware_soap_session=';

export interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
}

export class Connection implements AsyncDisposable {
  readonly origin: string;
  /** `name=value` exactly as the server set it, quotes included. */
  cookie: string | undefined;
  /** API version that answers are to be shaped in. */
  version = '6.0';
  readonly #thumbprint: string | undefined;
  readonly #retryDelayMs: number;
  readonly #control: Pool;

  /** `retryDelayMs`: wait before the first repeat of a request; doubles. */
  constructor(address: string, thumbprint: string | undefined, retryDelayMs: number) {
    this.origin = parseAddress(address).origin;
    this.#thumbprint = thumbprint;
    this.#retryDelayMs = retryDelayMs;
    this.#control = this.newPool(CONTROL_CONNECTIONS, CONTROL_TIMEOUT_MS, MAX_ANSWER_BYTES);
  }

  /** A pool of kept connections for one purpose; the caller destroys it. */
  newPool(connections: number, timeoutMs: number, maxResponseBytes = -1): Pool {
    return new Pool(this.origin, {
      connections,
      pipelining: 1,
      connect: pinnedConnector(this.#thumbprint),
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      keepAliveTimeout: 30_000,
      maxResponseSize: maxResponseBytes,
    });
  }

  /** One SOAP call. SOURCE_FAULT for a fault, SOURCE_UNREACHABLE when no answer came in spite of repeats. */
  async call(method: MethodName, target: MoRef, args: Fields, signal?: AbortSignal): Promise<XmlNode> {
    const body = buildRequest(method, target, args);
    const headers = { 'content-type': 'text/xml; charset="utf-8"', soapaction: `"urn:vim25/${this.version}"` };
    return retry(
      async () => {
        const answer = await this.#request({ method: 'POST', path: '/sdk', body, headers }, method, signal);
        if (answer.status === 200 || (answer.status === 500 && /^\s*</.test(answer.text))) {
          return parseResponse(method, answer.text);
        }
        throw badStatus(method, answer.status);
      },
      this.#retryRules(METHODS[method].repeatable, signal),
    );
  }

  async get(path: string, signal?: AbortSignal): Promise<Answer> {
    return retry(
      async () => {
        const answer = await this.#request({ method: 'GET', path }, path, signal);
        if (TRANSIENT_STATUS.has(answer.status)) throw badStatus(path, answer.status);
        return answer;
      },
      this.#retryRules(true, signal),
    );
  }

  async #request(options: Dispatcher.RequestOptions, what: string, signal?: AbortSignal): Promise<Answer> {
    signal?.throwIfAborted();
    try {
      const { statusCode, headers, body } = await this.#control.request({
        ...options,
        headers: {
          ...(options.headers as Record<string, string> | undefined),
          'accept-encoding': 'gzip',
          ...(this.cookie !== undefined && { cookie: this.cookie }),
        },
        signal: signal ?? null,
      });
      const raw = Buffer.from(await body.arrayBuffer());
      this.#keepCookie(headers['set-cookie']);
      const plain = headers['content-encoding'] === 'gzip' ? await unpack(raw, what) : raw;
      return { status: statusCode, headers, text: plain.toString('utf8') };
    } catch (error) {
      signal?.throwIfAborted();
      throw transportError(error, what);
    }
  }

  #keepCookie(header: string | string[] | undefined): void {
    for (const line of [header ?? []].flat()) {
      const pair = line.split(';', 1)[0]?.trim() ?? '';
      if (pair.startsWith(COOKIE_NAME) && pair.length > COOKIE_NAME.length) this.cookie = pair;
    }
  }

  #retryRules(repeatable: boolean, signal: AbortSignal | undefined): Parameters<typeof retry>[1] {
    return {
      attempts: 4,
      delayMs: this.#retryDelayMs,
      maxDelayMs: 4000,
      ...(signal && { signal }),
      shouldRetry: (error) => isTransient(error) && (repeatable || (error as SendenseError).details['sent'] === false),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#control.destroy();
  }
}

async function unpack(raw: Buffer, what: string): Promise<Buffer> {
  try {
    return await gunzipAsync(raw, { maxOutputLength: MAX_ANSWER_BYTES });
  } catch (cause) {
    throw faultError(what, { fault: 'MalformedAnswer', message: (cause as Error).message, fields: {} });
  }
}

const TRANSIENT_STATUS: ReadonlySet<number> = new Set([429, 502, 503, 504]);

function badStatus(what: string, status: number): SendenseError {
  const message = `${what}: the server answered with HTTP status ${status}`;
  return new SendenseError('SOURCE_UNREACHABLE', message, { details: { status, what } });
}

/** SOURCE_UNREACHABLE for whatever the HTTP client threw; errors of our own pass through. */
export function transportError(error: unknown, what: string): SendenseError {
  if (error instanceof SendenseError) return error;
  const cause = error as NodeJS.ErrnoException;
  if (cause.code === 'UND_ERR_RES_EXCEEDED_MAX_SIZE') {
    return faultError(what, { fault: 'MalformedAnswer', message: 'the answer is too long', fields: {} });
  }
  const message = `${what}: the connection failed: ${cause.message}`;
  return new SendenseError('SOURCE_UNREACHABLE', message, { details: { reason: cause.code ?? '', what }, cause });
}

/** True for failures of the network that may be gone a moment later. */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof SendenseError) || error.code !== 'SOURCE_UNREACHABLE') return false;
  const { status, reason } = error.details;
  if (reason === 'UND_ERR_DESTROYED' || reason === 'UND_ERR_CLOSED') return false;
  return status === undefined || TRANSIENT_STATUS.has(Number(status));
}
