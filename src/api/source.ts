import { z } from 'zod';
import { Id, Instant, Name } from './common.ts';

export const SourceKind = z.enum(['vcenter', 'esxi']);

/** Hash of the server's leaf certificate: SHA-256 or SHA-1, upper-case hex with colons. */
export const Thumbprint = z
  .string()
  .transform((text) => text.toUpperCase())
  .pipe(
    z.string().regex(/^(?:[0-9A-F]{2}:){19}(?:(?:[0-9A-F]{2}:){12})?[0-9A-F]{2}$/, 'not a SHA-1 or SHA-256 thumbprint'),
  );

/** `https://host[:port]`, nothing more: the rest of the address is ours to add. */
export const SourceAddress = z
  .url({ protocol: /^https$/ })
  .refine((text) => new URL(text).pathname === '/' && new URL(text).username === '', 'only https://host[:port]')
  .transform((text) => new URL(text).origin);

export const NewSource = z.strictObject({
  name: Name,
  kind: SourceKind.default('vcenter'),
  address: SourceAddress,
  username: z.string().min(1).max(256),
  /** Sealed before it reaches the catalog; never part of an answer. */
  password: z.string().min(1).max(1024),
  thumbprint: Thumbprint,
});
export type NewSource = z.output<typeof NewSource>;

export const Source = z.object({
  id: Id,
  name: Name,
  kind: SourceKind,
  address: z.string(),
  username: z.string(),
  thumbprint: z.string(),
  createdAt: Instant,
  checkedAt: Instant.nullable(),
});
export type Source = z.infer<typeof Source>;

export const ProbeRequest = z.strictObject({ address: SourceAddress });

/** The certificate a server shows, for a person to confirm before anything secret is sent to it. */
export const Certificate = z.object({
  sha256: z.string(),
  sha1: z.string(),
  subject: z.string(),
  issuer: z.string(),
  validUntil: Instant,
});
export type Certificate = z.infer<typeof Certificate>;
