/**
 * Every error that reaches a person, a log or the wire is a SendenseError with a code of the closed table below.
 * Throw where most is known; compare codes, never messages. docs/errors.md is checked against this table both ways.
 */

/** Exit codes of the client: 1 failed, 2 usage, 3 incomplete, 10 not found, 11 busy, 12 not allowed, 130 stopped. */
type ExitCode = 1 | 2 | 3 | 10 | 11 | 12 | 130;

interface ErrorEntry {
  /** HTTP status of the answer that carries this code. */
  status: number;
  exit: ExitCode;
  /** True when the same request may succeed later without anybody changing anything. */
  retryable: boolean;
  /** One sentence for the operator: what it means and what to do next. */
  hint: string;
}

export const ERRORS = {
  INTERNAL: e(500, 1, false, 'A defect in sendense; report it with the request id and the log around it.'),
  INVALID_REQUEST: e(400, 2, false, 'The request does not fit the documented form; the details name the field.'),
  USAGE: e(400, 2, false, 'The command line is wrong; see the help of the command.'),
  UNAUTHENTICATED: e(401, 12, false, 'No valid token or certificate came with the request.'),
  NOT_ALLOWED: e(403, 12, false, 'This identity may not do that.'),
  NOT_FOUND: e(404, 10, false, 'Nothing by that id or name exists here; list what exists and try again.'),
  VM_NOT_FOUND: e(404, 10, false, 'The source knows no VM by that name or id; `sendense vm ls` shows what it has.'),
  REPOSITORY_NOT_FOUND: e(404, 10, false, 'No repository by that name; `sendense repository ls` shows what exists.'),
  SOURCE_NOT_FOUND: e(404, 10, false, 'No source by that name; `sendense source ls` shows what exists.'),
  DISK_NOT_FOUND: e(404, 10, false, 'The VM or restore point has no such disk; `sendense backup show` lists them.'),
  ALREADY_EXISTS: e(409, 1, false, 'Something by that name exists already; choose another name or remove the old one.'),
  WRONG_STATE: e(409, 1, false, 'The object is not in a state that allows this; the details name both states.'),
  BUSY: e(409, 11, true, 'Another job holds what this one needs; wait for it or cancel it.'),
  AMBIGUOUS: e(409, 2, false, 'More than one object has that name; use the id instead.'),
  CANCELLED: e(409, 130, false, 'The operation was cancelled on request.'),
  TIMEOUT: e(504, 1, true, 'The other side did not answer in time; check that it runs and is reachable.'),
  TOOL_MISSING: e(500, 1, false, 'A program that sendense needs is not installed; the details name its package.'),
  TOOL_FAILED: e(500, 1, false, 'A program that sendense started failed; the details carry its last words.'),
  HUB_UNREACHABLE: e(503, 1, true, 'No hub answers at that address; start it or correct the address.'),
  HUB_RESTARTED: e(
    500,
    1,
    true,
    'The hub stopped while the job ran and the work could not be taken up again; run it again.',
  ),
  AGENT_UNREACHABLE: e(503, 1, true, 'No capture agent answers; check that one is running and registered.'),
  AGENT_LOST: e(500, 1, true, 'The capture agent died or lost the replication while copying; run the backup again.'),
  LEASE_EXPIRED: e(500, 1, true, 'The hub was silent for longer than the lease, so the agent stopped and cleaned up.'),
  STALLED: e(500, 1, true, 'No byte moved for the stall limit; check source, network and repository.'),
  CHAIN_BROKEN: e(
    500,
    1,
    false,
    'A file of the chain is missing or damaged; run a full backup and check the repository.',
  ),
  CHANGE_ID_MISSING: e(
    500,
    1,
    false,
    'The source gave no change id for a disk although tracking is on; nothing was committed.',
  ),
  CHANGE_ID_EXPIRED: e(
    409,
    1,
    false,
    'The source no longer accepts the stored change id; the next backup of that disk is a full.',
  ),
  DISK_MISMATCH: e(409, 1, false, 'Size or identity of disk and export differ; nothing was written.'),
  IMAGE_DAMAGED: e(500, 1, false, 'The image did not pass its check after the copy; the backup was not committed.'),
  IMAGE_INVALID: e(
    409,
    1,
    false,
    'The file is not the QCOW2 image it should be; it was not opened; the message says why.',
  ),
  REPOSITORY_FULL: e(507, 1, false, 'The repository has no space left; free or add space, then run the backup again.'),
  REPOSITORY_UNAVAILABLE: e(
    503,
    1,
    true,
    'The repository is not reachable or not the one that was registered; nothing was written to it.',
  ),
  REPOSITORY_INVALID: e(409, 2, false, 'The folder cannot serve as this repository; the details say why.'),
  EXPORT_REFUSED: e(
    500,
    1,
    false,
    'The export daemon refused the export file; the details give name, line and reason.',
  ),
  EXPORT_UNAVAILABLE: e(503, 1, true, 'The export daemon did not bring the export up in time; check that it runs.'),
  EXPORT_FAILED: e(500, 1, true, 'The process that served the export died or did not end cleanly; run the job again.'),
  NBD_PROTOCOL: e(502, 1, false, 'The NBD peer broke the protocol; the details say where.'),
  NBD_UNREACHABLE: e(
    503,
    1,
    true,
    'No NBD server answers at that address; check the address and that the export is up.',
  ),
  NBD_UNKNOWN_EXPORT: e(404, 10, false, 'The NBD server has no export by that name for this client.'),
  NBD_IO: e(502, 1, false, 'The NBD server answered a request with an error; the details carry its number.'),
  NBD_CLOSED: e(502, 1, true, 'The NBD connection ended before all answers had come.'),
  TLS_FAILED: e(502, 12, false, 'The TLS handshake failed or the certificate is not the expected one.'),
  THUMBPRINT_MISMATCH: e(
    502,
    12,
    false,
    'The server shows another certificate than the one that was confirmed; nothing was sent.',
  ),
  SOURCE_UNREACHABLE: e(503, 1, true, 'The vCenter or host does not answer; check address and network.'),
  SOURCE_LOGIN_FAILED: e(502, 12, false, 'The vCenter or host refused user name or password.'),
  SOURCE_FAULT: e(502, 1, false, 'The vCenter or host answered with a fault; the details name it.'),
  SNAPSHOT_FAILED: e(502, 1, false, 'The snapshot could not be made or removed; the details carry the fault.'),
  QUIESCE_FAILED: e(502, 1, false, 'The guest could not be quiesced and the policy demands it.'),
  TRANSPORT_UNSUPPORTED: e(409, 1, false, 'No transport can read this disk in its present state; the details say why.'),
  READ_FAILED: e(502, 1, true, 'Reading the disk from the source failed; the details carry offset and cause.'),
  SCHEMA_TOO_NEW: e(
    500,
    1,
    false,
    'The catalog was written by a newer sendense; use that version or a backup of the catalog.',
  ),
  CATALOG_UNAVAILABLE: e(
    503,
    1,
    true,
    'The catalog database does not answer or is damaged; the message says what it said.',
  ),
  LEASE_LOST: e(
    409,
    1,
    false,
    'The job ended or was taken over by another hub; what this one still did was not recorded.',
  ),
  CONFIG_INVALID: e(500, 2, false, 'A configuration file or setting is wrong; the details name it.'),
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;
export type ErrorDetails = Record<string, string | number | boolean | null | string[]>;

/** The form in which an error crosses a wire. */
export interface WireError {
  code: ErrorCode;
  message: string;
  details?: ErrorDetails;
  requestId?: string;
}

export class SendenseError extends Error {
  override readonly name = 'SendenseError';
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: { details?: ErrorDetails; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }

  toWire(requestId?: string): WireError {
    return {
      code: this.code,
      message: this.message,
      ...(Object.keys(this.details).length > 0 && { details: this.details }),
      ...(requestId !== undefined && { requestId }),
    };
  }
}

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(ERRORS, value);
}

export function hasCode(error: unknown, ...codes: ErrorCode[]): boolean {
  return error instanceof SendenseError && codes.includes(error.code);
}

/** Turns whatever was thrown into a SendenseError; an abort becomes CANCELLED, anything unforeseen INTERNAL. */
export function toSendenseError(error: unknown, fallback: ErrorCode = 'INTERNAL'): SendenseError {
  if (error instanceof SendenseError) return error;
  if (error instanceof Error && error.name === 'AbortError') {
    // An abort signal carries the true reason; an abort without one is a cancellation.
    if (error.cause instanceof SendenseError) return error.cause;
    return new SendenseError('CANCELLED', 'The operation was cancelled', { cause: error });
  }
  return new SendenseError(fallback, error instanceof Error ? error.message : String(error), { cause: error });
}

/** The error that a peer sent, with its code kept when this version knows it. */
export function fromWire(
  wire: { code?: unknown; message?: unknown; details?: unknown },
  fallback: ErrorCode,
): SendenseError {
  const code = isErrorCode(wire.code) ? wire.code : fallback;
  const message = typeof wire.message === 'string' ? wire.message : `peer answered ${String(wire.code)}`;
  const details = typeof wire.details === 'object' && wire.details !== null ? (wire.details as ErrorDetails) : {};
  return new SendenseError(code, message, { details });
}

/** For our own mistakes only, never for input. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new SendenseError('INTERNAL', `assertion failed: ${message}`);
}

function e(status: number, exit: ExitCode, retryable: boolean, hint: string): ErrorEntry {
  return { status, exit, retryable, hint };
}
