import { SendenseError } from '#/lib/errors.ts';
import { NBD_DEFAULT_PORT, NBD_MAX_STRING_BYTES } from './constants.ts';

/** Where an export is, as an NBD URI says it. */
export interface NbdAddress {
  exportName: string;
  /** Either a unix socket … */
  socketPath?: string;
  /** … or a host (name or IP address, IPv6 without brackets) and a port. */
  host?: string;
  port?: number;
  /** Present: TLS or nothing. */
  tls?: {
    /** Folder with ca-cert.pem and, for a client certificate, client-cert.pem and client-key.pem. */
    certificatesDir?: string;
    /** Name the server's certificate must carry when it is not `host`. */
    hostname?: string;
  };
}

const FORM = /^(nbds?)(\+unix)?:\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/;
const HOST = /^(?:\[([0-9a-fA-F:.%]+)\]|([^:@[\]]*))(?::([0-9]{1,5}))?$/;

/** Reads nbd://, nbds://, nbd+unix:// and nbds+unix://; anything it does not understand is CONFIG_INVALID. */
export function parseNbdUri(uri: string): NbdAddress {
  const form = FORM.exec(uri);
  if (!form) throw invalid('an NBD URI begins with nbd://, nbds://, nbd+unix:// or nbds+unix:// and has no fragment');
  const [, scheme, unix, authority = '', path = '', query = ''] = form;
  const parameters = parseQuery(query);
  const exportName = decode(path, 'export name');
  if (Buffer.byteLength(exportName) > NBD_MAX_STRING_BYTES) throw invalid('the export name of an NBD URI is too long');
  const tls = takeTls(parameters, scheme === 'nbds');
  const place = unix ? unixPlace(authority, parameters) : tcpPlace(authority);
  const [unknown] = parameters.keys();
  if (unknown !== undefined) throw invalid(`an NBD URI has no parameter '${unknown.slice(0, 40)}' here`);
  return { exportName, ...place, ...(tls && { tls }) };
}

export function formatNbdUri(address: NbdAddress): string {
  const query = [
    ...(address.socketPath === undefined ? [] : [`socket=${encode(address.socketPath)}`]),
    ...(address.tls?.certificatesDir === undefined ? [] : [`tls-certificates=${encode(address.tls.certificatesDir)}`]),
    ...(address.tls?.hostname === undefined ? [] : [`tls-hostname=${encode(address.tls.hostname)}`]),
  ];
  const scheme = `${address.tls ? 'nbds' : 'nbd'}${address.socketPath === undefined ? '' : '+unix'}`;
  const suffix = query.length === 0 ? '' : `?${query.join('&')}`;
  return `${scheme}://${formatAuthority(address)}/${encodeURIComponent(address.exportName)}${suffix}`;
}

function formatAuthority({ socketPath, host = 'localhost', port = NBD_DEFAULT_PORT }: NbdAddress): string {
  if (socketPath !== undefined) return '';
  return `${host.includes(':') ? `[${host}]` : host}${port === NBD_DEFAULT_PORT ? '' : `:${port}`}`;
}

function parseQuery(query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const pair of query === '' ? [] : query.split('&')) {
    const equals = pair.indexOf('=');
    const name = decode(equals < 0 ? pair : pair.slice(0, equals), 'query');
    if (parameters.has(name)) throw invalid(`the parameter '${name.slice(0, 40)}' of an NBD URI is given twice`);
    parameters.set(name, equals < 0 ? '' : decode(pair.slice(equals + 1), 'query'));
  }
  return parameters;
}

function takeTls(parameters: Map<string, string>, wanted: boolean): NbdAddress['tls'] {
  if (!wanted) return undefined; // tls- parameters that remain are refused as unknown: they would promise too much
  const certificatesDir = take(parameters, 'tls-certificates');
  const hostname = take(parameters, 'tls-hostname');
  return { ...(certificatesDir !== undefined && { certificatesDir }), ...(hostname !== undefined && { hostname }) };
}

function unixPlace(authority: string, parameters: Map<string, string>): Pick<NbdAddress, 'socketPath'> {
  if (authority !== '') throw invalid('an NBD URI of a unix socket names no host');
  const socketPath = take(parameters, 'socket');
  if (socketPath === undefined) throw invalid('an NBD URI of a unix socket needs ?socket=PATH');
  return { socketPath };
}

function tcpPlace(authority: string): Pick<NbdAddress, 'host' | 'port'> {
  const match = HOST.exec(authority);
  if (!match) throw invalid('the host of an NBD URI is not HOST, HOST:PORT or [IPV6]:PORT');
  const port = match[3] === undefined ? NBD_DEFAULT_PORT : Number(match[3]);
  if (port < 1 || port > 65_535) throw invalid('the port of an NBD URI is not between 1 and 65535');
  return { host: decode(match[1] ?? match[2] ?? '', 'host') || 'localhost', port };
}

function take(parameters: Map<string, string>, name: string): string | undefined {
  const value = parameters.get(name);
  if (value === '') throw invalid(`the parameter '${name}' of an NBD URI is empty`);
  parameters.delete(name);
  return value;
}

function decode(text: string, what: string): string {
  let decoded: string | undefined;
  try {
    decoded = decodeURIComponent(text);
  } catch (cause) {
    throw new SendenseError('CONFIG_INVALID', `the ${what} of an NBD URI is not percent-encoded UTF-8`, { cause });
  }
  if (decoded.includes('\0')) throw invalid(`the ${what} of an NBD URI contains a NUL`);
  return decoded;
}

/** Slashes stay readable in paths. */
function encode(text: string): string {
  return encodeURIComponent(text).replaceAll('%2F', '/');
}

function invalid(message: string): SendenseError {
  return new SendenseError('CONFIG_INVALID', message);
}
