import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileDurably, writeSecretFile } from '#/lib/files.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DAYS = 3650;

export interface ServerCertificate {
  cert: string;
  key: string;
  /** SHA-256, upper-case hex with colons. */
  thumbprint: string;
}

/** The self-signed certificate in `dir`, made at the first start: like a real host, nobody vouches for it. */
export async function serverCertificate(dir: string): Promise<ServerCertificate> {
  const paths = { cert: join(dir, 'cert.pem'), key: join(dir, 'key.pem') };
  try {
    const [cert, key] = await Promise.all([readFile(paths.cert, 'utf8'), readFile(paths.key, 'utf8')]);
    return { cert, key, thumbprint: new X509Certificate(cert).fingerprint256 };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const made = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'O=sendense simulator, CN=127.0.0.1',
    keys,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(Date.now() - 3_600_000),
    notAfter: new Date(Date.now() + DAYS * 86_400_000),
    extensions: [
      new x509.SubjectAlternativeNameExtension([
        { type: 'ip', value: '127.0.0.1' },
        { type: 'dns', value: 'localhost' },
      ]),
    ],
  });
  const cert = made.toString('pem');
  const key = x509.PemConverter.encode(await crypto.subtle.exportKey('pkcs8', keys.privateKey), 'PRIVATE KEY');
  await writeSecretFile(paths.key, key);
  await writeFileDurably(paths.cert, cert);
  return { cert, key, thumbprint: new X509Certificate(cert).fingerprint256 };
}
