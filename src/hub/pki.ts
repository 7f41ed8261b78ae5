/**
 * The hub's internal certificate authority: certificates for the front door, the hub's own server and client side, and
 * for each agent (common name = agent name, which is the identity that exports are opened to).
 */
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { X509Certificate } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { now } from '#/lib/clock.ts';
import { writeFileDurably, writeSecretFile } from '#/lib/files.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const CA_DAYS = 3650;
const LEAF_DAYS = 825;
const RENEW_DAYS = 60;
/** Clocks differ: a certificate starts this much in the past. */
const SKEW_MS = 3_600_000;

export interface Leaf {
  cert: string;
  key: string;
}

export class Pki {
  readonly dir: string;
  readonly caCert: string;
  readonly #ca: x509.X509Certificate;
  readonly #caKey: CryptoKey;

  private constructor(dir: string, ca: x509.X509Certificate, caKey: CryptoKey) {
    this.dir = dir;
    this.#ca = ca;
    this.#caKey = caKey;
    this.caCert = ca.toString('pem');
  }

  /** Opens the authority in `dir`, or founds it there. */
  static async open(dir: string): Promise<Pki> {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const existing = await readLeaf(dir, 'ca');
    if (existing) {
      const key = await importKey(existing.key);
      return new Pki(dir, new x509.X509Certificate(existing.cert), key);
    }
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
    const ca = await x509.X509CertificateGenerator.createSelfSigned({
      name: 'O=sendense, CN=sendense hub CA',
      keys,
      signingAlgorithm: ALGORITHM,
      ...validity(CA_DAYS),
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ],
    });
    await writeLeaf(dir, 'ca', { cert: ca.toString('pem'), key: await exportKey(keys.privateKey) });
    return new Pki(dir, ca, keys.privateKey);
  }

  /**
   * A certificate for one name; `hosts` are the DNS names and addresses it is reached by. An agent is both: it calls
   * the hub and the front door, and the hub calls it.
   */
  async issue(name: string, use: 'server' | 'client' | 'both', hosts: readonly string[] = []): Promise<Leaf> {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
    const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
    const purposes = { server: [serverAuth], client: [clientAuth], both: [serverAuth, clientAuth] }[use];
    const names = [...new Set([name, ...hosts])].map(
      (host) => ({ type: isIP(host) > 0 ? 'ip' : 'dns', value: host }) satisfies x509.JsonGeneralName,
    );
    const cert = await x509.X509CertificateGenerator.create({
      subject: `O=sendense, CN=${name}`,
      issuer: this.#ca.subject,
      publicKey: keys.publicKey,
      signingKey: this.#caKey,
      signingAlgorithm: ALGORITHM,
      ...validity(LEAF_DAYS),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension(purposes),
        new x509.SubjectAlternativeNameExtension(names),
        await x509.AuthorityKeyIdentifierExtension.create(this.#ca),
      ],
    });
    return { cert: cert.toString('pem'), key: await exportKey(keys.privateKey) };
  }

  /** Files `ca-cert.pem`, `<use>-cert.pem`, `<use>-key.pem` in `<dir>/<folder>`, renewed in time; the form QEMU and libnbd expect. */
  async ensureFolder(
    folder: string,
    name: string,
    use: 'server' | 'client',
    hosts: readonly string[] = [],
  ): Promise<string> {
    const path = join(this.dir, folder);
    await mkdir(path, { recursive: true, mode: 0o700 });
    const existing = await readLeaf(path, use);
    if (existing && isFresh(existing.cert, [name, ...hosts])) return path;
    await writeFileDurably(join(path, 'ca-cert.pem'), this.caCert);
    await writeLeaf(path, use, await this.issue(name, use, hosts));
    return path;
  }
}

function isFresh(pem: string, names: readonly string[]): boolean {
  const cert = new X509Certificate(pem);
  const left = new Date(cert.validTo).getTime() - now().epochMilliseconds;
  const covers = names.every((name) => (isIP(name) > 0 ? cert.checkIP(name) : cert.checkHost(name)) !== undefined);
  return covers && left > RENEW_DAYS * 86_400_000;
}

function validity(days: number): { notBefore: Date; notAfter: Date; serialNumber: string } {
  const start = now().epochMilliseconds - SKEW_MS;
  const serial = Buffer.from(crypto.getRandomValues(new Uint8Array(16)));
  serial[0] = (serial[0] ?? 0) & 0x7f; // serial numbers are positive
  return {
    notBefore: new Date(start),
    notAfter: new Date(start + days * 86_400_000),
    serialNumber: serial.toString('hex'),
  };
}

async function exportKey(key: CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await crypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY');
}

async function importKey(pem: string): Promise<CryptoKey> {
  const [der] = x509.PemConverter.decode(pem);
  if (!der) throw new Error('no key in the file');
  return crypto.subtle.importKey('pkcs8', der, ALGORITHM, true, ['sign']);
}

async function readLeaf(dir: string, use: string): Promise<Leaf | undefined> {
  try {
    const [cert, key] = await Promise.all(
      ['cert', 'key'].map((part) => readFile(join(dir, `${use}-${part}.pem`), 'utf8')),
    );
    return cert && key ? { cert, key } : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

async function writeLeaf(dir: string, use: string, leaf: Leaf): Promise<void> {
  // The key goes first: a certificate is never found without its key after a crash in between.
  await writeSecretFile(join(dir, `${use}-key.pem`), `${leaf.key}\n`);
  await writeFileDurably(join(dir, `${use}-cert.pem`), `${leaf.cert}\n`);
}
