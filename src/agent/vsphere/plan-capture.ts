import { SendenseError } from '#/lib/errors.ts';
import { queryChangedAreas } from './changed-areas.ts';
import { decideCapture } from './decide.ts';
import type { CaptureDecision, CaptureQuestion } from './decide.ts';
import type { Caller } from './session.ts';

/** Faults that are no doubt about tracking: the answer must be put right by a person, or the snapshot is gone. */
const NOT_FOR_FULL = ['NoPermission', 'ManagedObjectNotFound', 'NotAuthenticated', 'RestrictedVersion'];

/**
 * Decides one disk of a snapshot, asking the server for changed areas where that can matter. Any fault of that
 * question means a full read, except those that a full read would only hide.
 */
export async function planCapture(
  session: Caller,
  where: { vm: string; snapshot: string },
  question: Omit<CaptureQuestion, 'query'>,
  signal?: AbortSignal,
): Promise<CaptureDecision> {
  const first = decideCapture(question);
  if (first.mode !== 'full' || first.reason !== 'not-queried' || !question.previous) return first;
  const { key: deviceKey, capacityBytes } = question.disk;
  try {
    const query = { ...where, deviceKey, capacityBytes, changeId: question.previous.changeId };
    return decideCapture({ ...question, query: { areas: await queryChangedAreas(session, query, signal) } });
  } catch (error) {
    if (!(error instanceof SendenseError) || error.code !== 'SOURCE_FAULT') throw error;
    const fault = String(error.details['fault']);
    if (NOT_FOR_FULL.includes(fault)) throw error;
    return decideCapture({ ...question, query: { fault, detail: error.message } });
  }
}
