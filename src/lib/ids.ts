import { randomBytes } from 'node:crypto';

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';

/** A new id: 26 lower-case characters, time first, so that ids sort by age (the layout of ULID). */
export function newId(epochMs: number = Date.now()): string {
  let time = '';
  for (let i = 0, rest = epochMs; i < 10; i++, rest = Math.floor(rest / 32)) time = ALPHABET.charAt(rest % 32) + time;
  let random = '';
  for (const byte of randomBytes(16)) random += ALPHABET.charAt(byte % 32);
  return time + random;
}
