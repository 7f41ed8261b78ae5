import { SendenseError } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';

/** What the copier needs of the place it writes to; an NbdClient has this shape. */
export interface CopyTarget {
  readonly sizeBytes: number;

  /** Longest write the target takes; NBD's usual 32 MiB when absent. */
  readonly blockSize?: { readonly maximum: number };

  /** Writes all of `data`, which stays untouched until the promise settles. Several may be under way. */
  write(offset: number, data: Buffer, options: { signal: AbortSignal }): Promise<void>;

  /** Makes the range read as zeroes, whatever lies below it; never a trim. */
  writeZeroes(offset: number, length: number, options: { signal: AbortSignal }): Promise<void>;

  /** Everything whose write had ended before this call survives the death of the target once this has ended. */
  flush(options: { signal: AbortSignal }): Promise<void>;
}

/** Errors of the connection rather than of the request: they keep their code, which says whether to try again. */
const CONNECTION_CODES: readonly string[] = ['NBD_CLOSED', 'NBD_PROTOCOL', 'TIMEOUT'] satisfies ErrorCode[];

/** No space becomes REPOSITORY_FULL, errors of the connection stay what they are, everything else is NBD_IO. */
export function targetError(
  cause: unknown,
  what: string,
  details: { offset?: number; length?: number },
): SendenseError {
  const inner = cause instanceof SendenseError ? cause.details : {};
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new SendenseError(codeFor(cause), `${what} failed: ${reason}`, { details: { ...inner, ...details }, cause });
}

function codeFor(cause: unknown): ErrorCode {
  if (!(cause instanceof SendenseError)) return 'NBD_IO';
  if (cause.details['errno'] === 'ENOSPC') return 'REPOSITORY_FULL';
  return CONNECTION_CODES.includes(cause.code) ? cause.code : 'NBD_IO';
}
