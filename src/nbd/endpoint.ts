import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import { NBD_DEFAULT_PORT } from './constants.ts';
import { parseNbdUri } from './uri.ts';
import type { NbdEndpoint, TlsMaterial } from './wire.ts';

/** An endpoint with its certificates read; a folder or file that is missing or unreadable is CONFIG_INVALID. */
export async function resolveEndpoint(where: { uri: string } | NbdEndpoint): Promise<NbdEndpoint> {
  if (!('uri' in where)) return { ...where, port: where.port ?? NBD_DEFAULT_PORT };
  const { tls, ...place } = parseNbdUri(where.uri);
  if (!tls) return place;
  const material = tls.certificatesDir === undefined ? {} : await readCertificates(tls.certificatesDir);
  return { ...place, tls: { ...material, ...(tls.hostname !== undefined && { hostname: tls.hostname }) } };
}

/** The client's half of a certificates folder as libnbd and QEMU lay it out; a client certificate is optional. */
async function readCertificates(dir: string): Promise<TlsMaterial> {
  const ca = await readPem(dir, 'ca-cert.pem');
  const cert = await readPem(dir, 'client-cert.pem', 'optional');
  const key = await readPem(dir, 'client-key.pem', 'optional');
  if (ca === undefined) throw new SendenseError('CONFIG_INVALID', `no ca-cert.pem in ${dir}`, { details: { dir } });
  if ((cert === undefined) !== (key === undefined)) {
    const message = `client-cert.pem and client-key.pem go together, but ${dir} has only one of them`;
    throw new SendenseError('CONFIG_INVALID', message, { details: { dir } });
  }
  return { ca, ...(cert !== undefined && { cert }), ...(key !== undefined && { key }) };
}

async function readPem(dir: string, name: string, optional?: 'optional'): Promise<string | undefined> {
  const file = join(dir, name);
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    const { code = '' } = cause as NodeJS.ErrnoException;
    if (optional && code === 'ENOENT') return undefined;
    const message = `the certificate file ${file} cannot be read (${code})`;
    throw new SendenseError('CONFIG_INVALID', message, { details: { file }, cause });
  }
}
