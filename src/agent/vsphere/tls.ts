/**
 * TLS to vCenter and ESXi, whose certificates are mostly their own. A confirmed certificate is recognised by the hash
 * of its DER form and by nothing else; without one the system's authorities decide. Either is settled before the
 * first byte of a request is written, and sessions are never resumed, because a resumed one shows no certificate.
 */
import { isIP } from 'node:net';
import { connect } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import type { buildConnector } from 'undici';
import { SendenseError } from '#/lib/errors.ts';

export const HANDSHAKE_TIMEOUT_MS = 15_000;

export interface ServerAddress {
  host: string;
  port: number;
  /** `https://host[:port]`. */
  origin: string;
}

/** Accepts `host`, `host:port` and `https://host[:port]`; INVALID_REQUEST for anything else. */
export function parseAddress(address: string): ServerAddress {
  const url = URL.parse(address.includes('://') ? address : `https://${address}`);
  const plain = url && url.protocol === 'https:' && url.username === '' && url.password === '' && url.search === '';
  if (!plain || url.hostname === '' || !['/', '/sdk', '/sdk/'].includes(url.pathname)) {
    throw new SendenseError('INVALID_REQUEST', 'the address of a source is host, host:port or https://host[:port]');
  }
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  return { host, port: url.port === '' ? 443 : Number(url.port), origin: url.origin };
}

/** Upper-case hex without separators; INVALID_REQUEST when it is neither SHA-1 nor SHA-256. */
export function normalizeThumbprint(thumbprint: string): string {
  const hex = thumbprint
    .replace(/^sha-?(?:1|256):/i, '')
    .replaceAll(/[:\s-]/g, '')
    .toUpperCase();
  if (!/^(?:[0-9A-F]{40}|[0-9A-F]{64})$/.test(hex)) {
    throw new SendenseError('INVALID_REQUEST', 'a thumbprint is the SHA-1 or SHA-256 of a certificate in hex');
  }
  return hex;
}

/** A connector for undici that hands out a socket only after the certificate was judged. */
export function pinnedConnector(thumbprint: string | undefined): buildConnector.connector {
  const pin = thumbprint === undefined ? undefined : normalizeThumbprint(thumbprint);
  return (options, callback) => {
    const address = { host: options.hostname, port: Number(options.port || 443) };
    handshake(address, undefined).then(
      (socket) => {
        const refusal = judge(socket, address, pin);
        if (!refusal) return callback(null, socket);
        socket.destroy();
        return callback(refusal, null);
      },
      (error: Error) => callback(error, null),
    );
  };
}

function judge(socket: TLSSocket, { host, port }: Endpoint, pin: string | undefined): SendenseError | undefined {
  if (pin === undefined) {
    if (socket.authorized) return undefined;
    const reason = String(socket.authorizationError);
    const message = `${host}:${port} shows a certificate that no known authority vouches for (${reason})`;
    return new SendenseError('TLS_FAILED', message, { details: { host, port, reason } });
  }
  const certificate = socket.getPeerX509Certificate();
  const shown = pin.length === 40 ? certificate?.fingerprint : certificate?.fingerprint256;
  if (shown?.replaceAll(':', '') === pin) return undefined;
  return new SendenseError('THUMBPRINT_MISMATCH', `${host}:${port} shows another certificate than the confirmed one`, {
    details: { host, port, expected: pin, shown: shown ?? '' },
  });
}

export interface ServerCertificate {
  /** Upper-case hex with colons. */
  sha256: string;
  sha1: string;
  subject: string;
  issuer: string;
  validUntil: Temporal.Instant;
}

/** The certificate that a server shows, for a person to confirm. Only a handshake: nothing is sent to the server. */
export async function fetchThumbprint(address: string, signal?: AbortSignal): Promise<ServerCertificate> {
  const { host, port } = parseAddress(address);
  const socket = await handshake({ host, port }, signal);
  try {
    const certificate = socket.getPeerX509Certificate();
    if (!certificate) throw new SendenseError('TLS_FAILED', `${host}:${port} shows no certificate`);
    return {
      sha256: certificate.fingerprint256,
      sha1: certificate.fingerprint,
      subject: certificate.subject ?? '',
      issuer: certificate.issuer,
      validUntil: Temporal.Instant.fromEpochMilliseconds(certificate.validToDate.getTime()),
    };
  } finally {
    socket.destroy();
  }
}

interface Endpoint {
  host: string;
  port: number;
}

async function handshake({ host, port }: Endpoint, signal: AbortSignal | undefined): Promise<TLSSocket> {
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>();
  const socket = connect({
    host,
    port,
    // The certificate is judged by the caller; an address is no name to ask for.
    rejectUnauthorized: false,
    ...(isIP(host) === 0 && { servername: host }),
    ALPNProtocols: ['http/1.1'],
    minVersion: 'TLSv1.2',
  });
  socket.setNoDelay(true);
  const fail = (error: Error): void => {
    socket.destroy();
    reject(error);
  };
  const onAbort = (): void => fail(signal?.reason as Error);
  const onTimeout = (): void => fail(unreachable(host, port, new Error('the handshake took too long')));
  const onError = (error: Error): void => fail(unreachable(host, port, error));
  signal?.addEventListener('abort', onAbort, { once: true });
  socket.setTimeout(HANDSHAKE_TIMEOUT_MS, onTimeout);
  socket.once('error', onError);
  socket.once('secureConnect', () => resolve(socket));
  try {
    await promise;
    socket.setTimeout(0);
    socket.off('timeout', onTimeout);
    return socket;
  } finally {
    socket.off('error', onError);
    signal?.removeEventListener('abort', onAbort);
  }
}

/** No connection, so nothing was sent: `sent` tells that the request may be repeated whatever it was. */
function unreachable(host: string, port: number, cause: NodeJS.ErrnoException): SendenseError {
  const tls = /^(?:ERR_SSL|EPROTO)/.test(cause.code ?? '');
  const message = `${host}:${port} ${tls ? 'does not speak TLS as expected' : 'cannot be reached'}: ${cause.message}`;
  const details = { host, port, reason: cause.code ?? '', sent: false };
  return new SendenseError(tls ? 'TLS_FAILED' : 'SOURCE_UNREACHABLE', message, { details, cause });
}
