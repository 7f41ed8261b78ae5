import { createCipheriv, createHash } from 'node:crypto';
import type { Cipheriv } from 'node:crypto';

const ZEROES = Buffer.alloc(1024 * 1024);

/** Bytes and numbers that look random and are the same on every machine for the same seed. Not for secrets. */
export class SeededRandom {
  readonly #cipher: Cipheriv;
  #pool: Buffer = Buffer.alloc(0);

  constructor(seed: string) {
    const key = createHash('sha256').update(seed).digest();
    this.#cipher = createCipheriv('aes-128-ctr', key.subarray(0, 16), key.subarray(16));
  }

  bytes(length: number): Buffer {
    const parts: Buffer[] = [];
    for (let left = length; left > 0; left -= ZEROES.length) {
      parts.push(this.#cipher.update(left < ZEROES.length ? ZEROES.subarray(0, left) : ZEROES));
    }
    return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts, length);
  }

  /** A whole number in [0, limit). */
  below(limit: number): number {
    if (this.#pool.length < 6) this.#pool = this.bytes(6 * 512);
    const value = this.#pool.readUIntBE(0, 6);
    this.#pool = this.#pool.subarray(6);
    return value % limit;
  }

  hex(length: number): string {
    return this.bytes(Math.ceil(length / 2))
      .toString('hex')
      .slice(0, length);
  }

  /** `count` different numbers in [0, limit), ascending. */
  distinct(count: number, limit: number): number[] {
    const chosen = new Set<number>();
    for (let top = limit - Math.min(count, limit); top < limit; top++) {
      const candidate = this.below(top + 1);
      chosen.add(chosen.has(candidate) ? top : candidate);
    }
    return [...chosen].sort((a, b) => a - b);
  }
}

/** Lower-case UUID made of the generator's bytes. */
export function seededUuid(random: SeededRandom): string {
  const hex = random.hex(32);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`;
}
