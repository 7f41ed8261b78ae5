import { z } from 'zod';
import { Bytes, Id, Instant, Name } from './common.ts';

export const RepositoryKind = z.enum(['local']);

export const NewRepository = z.strictObject({
  name: Name,
  kind: RepositoryKind.default('local'),
  /** Absolute path of the folder on the hub's machine; made when only its last part is missing. */
  root: z.string().startsWith('/').max(1024),
});
export type NewRepository = z.output<typeof NewRepository>;

export const Repository = z.object({
  id: Id,
  name: Name,
  kind: RepositoryKind,
  root: z.string(),
  state: z.enum(['online', 'frozen']),
  /** Why it is frozen, in plain words. */
  problem: z.string().nullable(),
  capacityBytes: Bytes.nullable(),
  freeBytes: Bytes.nullable(),
  restorePoints: z.number().int(),
  storedBytes: Bytes,
  createdAt: Instant,
});
export type Repository = z.infer<typeof Repository>;
