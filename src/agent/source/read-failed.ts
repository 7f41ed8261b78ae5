import { SendenseError } from '#/lib/errors.ts';

/** READ_FAILED for a range of the disk, with what the transport said of it. */
export function readFailed(cause: unknown, offset: number, length: number): SendenseError {
  if (cause instanceof SendenseError && cause.code === 'READ_FAILED') return cause;
  const inner = cause instanceof SendenseError ? { ...cause.details, reason: cause.code } : {};
  const said = cause instanceof Error ? cause.message : String(cause);
  return new SendenseError('READ_FAILED', `reading ${length} bytes at ${offset} failed: ${said}`, {
    details: { ...inner, offset, length },
    cause,
  });
}
