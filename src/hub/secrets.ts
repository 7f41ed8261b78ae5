/**
 * Seals credentials for the catalog with AES-256-GCM. The key lies in a file beside the catalog, never in it, so that
 * a stolen catalog (or a backup of it) gives nothing away; without the key file the credentials must be entered anew.
 */
import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { SendenseError } from '#/lib/errors.ts';
import { writeSecretFile } from '#/lib/files.ts';

const VERSION = 1;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

export class KeyRing {
  readonly #key: Buffer;

  constructor(key: Buffer) {
    this.#key = key;
  }

  /** Opens the key file, or makes it when it does not exist; CONFIG_INVALID when others may read it or it is no key. */
  static async open(path: string): Promise<KeyRing> {
    try {
      const mode = (await stat(path)).mode & 0o777;
      if ((mode & 0o077) !== 0) {
        throw new SendenseError(
          'CONFIG_INVALID',
          `${path} may be read by others (mode ${mode.toString(8)}); make it 0600`,
        );
      }
      const key = Buffer.from((await readFile(path, 'utf8')).trim(), 'base64');
      if (key.length !== KEY_BYTES)
        throw new SendenseError('CONFIG_INVALID', `${path} does not hold a ${KEY_BYTES}-byte key`);
      return new KeyRing(key);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      const key = randomBytes(KEY_BYTES);
      await writeSecretFile(path, `${key.toString('base64')}\n`);
      return new KeyRing(key);
    }
  }

  /** `context` (say, the row's id) is authenticated: a sealed value moved to another row does not open. */
  seal(plain: string, context: string): Buffer {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce).setAAD(Buffer.from(context));
    const body = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final()]);
    return Buffer.concat([Buffer.from([VERSION]), nonce, cipher.getAuthTag(), body]);
  }

  open(sealed: Uint8Array, context: string): string {
    const bytes = Buffer.from(sealed);
    try {
      if (bytes[0] !== VERSION) throw new Error('unknown version');
      const nonce = bytes.subarray(1, 1 + NONCE_BYTES);
      const tag = bytes.subarray(1 + NONCE_BYTES, 1 + NONCE_BYTES + TAG_BYTES);
      const decipher = createDecipheriv('aes-256-gcm', this.#key, nonce).setAAD(Buffer.from(context)).setAuthTag(tag);
      return decipher.update(bytes.subarray(1 + NONCE_BYTES + TAG_BYTES), undefined, 'utf8') + decipher.final('utf8');
    } catch (cause) {
      throw new SendenseError('CONFIG_INVALID', 'a stored credential does not open with this key file', { cause });
    }
  }

  /** A token that needs no storing: the same purpose and subject always give the same token. */
  token(purpose: string, subject: string): string {
    return createHmac('sha256', this.#key).update(`${purpose}\0${subject}`).digest('base64url');
  }
}
