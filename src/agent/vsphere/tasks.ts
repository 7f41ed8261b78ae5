/** Waiting for the server's long work by asking, which survives lost connections and new logins. */
import { sleep } from '#/lib/clock.ts';
import { hasCode } from '#/lib/errors.ts';
import { retry } from '#/lib/retry.ts';
import { getProperties } from './properties.ts';
import type { MethodName } from './schema.ts';
import type { Caller } from './session.ts';
import { faultError, isFault, moRef, readLocalizedFault, readMoRef, readMoRefs } from './soap.ts';
import type { Fields, MoRef } from './soap.ts';
import { child, integerOf, textOf } from './xml.ts';
import type { XmlNode } from './xml.ts';

const FIRST_POLL_MS = 10;
const SLOWEST_POLL_MS = 1000;

export interface TaskOptions {
  signal?: AbortSignal | undefined;
  /** Called with 0 to 100 whenever the server tells another figure. */
  onProgress?: ((percent: number) => void) | undefined;
}

/** Starts a `…_Task` method and waits for its end. */
export async function runTask(
  session: Caller,
  target: MoRef,
  method: MethodName,
  args: Fields,
  options: TaskOptions = {},
): Promise<XmlNode | undefined> {
  const answer = await session.call(target, method, args, options.signal);
  return waitForTask(session, readMoRef(child(answer, 'returnval'), method), method, options);
}

/**
 * Resolves with the task's result. Rejects with SOURCE_FAULT: the fault the task ended with, or ManagedObjectNotFound
 * when the server has forgotten the task, which says nothing about how it ended. An abort leaves the task running.
 */
export async function waitForTask(
  session: Caller,
  task: MoRef,
  method: string,
  { signal, onProgress }: TaskOptions,
): Promise<XmlNode | undefined> {
  let told = -1;
  for (let wait = FIRST_POLL_MS; ; wait = Math.min(wait * 2, SLOWEST_POLL_MS)) {
    const info = (await getProperties(session, task, ['info'], signal)).values.get('info');
    const state = textOf(info, 'state')?.trim();
    if (state === 'success') return child(info, 'result');
    if (state === 'error') throw faultError(method, readLocalizedFault(child(info, 'error') ?? EMPTY));
    const progress = integerOf(info, 'progress');
    if (progress !== undefined && progress !== told) onProgress?.((told = progress));
    await sleep(wait, signal);
  }
}

/**
 * Waits for snapshots that the server is still making of a VM, whoever asked for them. For the moment after an answer
 * got lost or an agent died: only then does the tree of the VM tell whether the order was carried out.
 */
export async function waitForSnapshotsInMaking(session: Caller, vm: MoRef, signal?: AbortSignal): Promise<void> {
  const { values } = await getProperties(session, vm, ['recentTask'], signal);
  for (const task of readMoRefs(values.get('recentTask'), 'ManagedObjectReference')) {
    await waitForOther(session, task, signal, /createSnapshot/i);
  }
}

/** Waits for a task that is not ours, if its kind fits. How it ends is not our business, only that it does. */
async function waitForOther(session: Caller, task: MoRef, signal: AbortSignal | undefined, kind = /./): Promise<void> {
  try {
    const info = (await getProperties(session, task, ['info'], signal)).values.get('info');
    if (kind.test(textOf(info, 'descriptionId') ?? '')) await waitForTask(session, task, 'other task', { signal });
  } catch (error) {
    if (!hasCode(error, 'SOURCE_FAULT') || isFault(error, 'NotAuthenticated')) throw error;
  }
}

const EMPTY: XmlNode = { name: 'error', xsiType: undefined, refType: undefined, text: '', children: [] };

/** Another operation has the VM, or the host is slow to answer: the same call may succeed in a moment. */
const BUSY = ['TaskInProgress', 'ConcurrentAccess', 'ResourceInUse', 'HostCommunication', 'HostNotConnected'];

/**
 * Repeats work that the server was too busy for, with growing waits, `attempts` times in all; where it names the task
 * in the way, that is waited for first.
 */
export async function whenFree<T>(
  session: Caller,
  work: () => Promise<T>,
  options: { signal?: AbortSignal | undefined; attempts?: number; alsoBusy?: readonly string[] } = {},
): Promise<T> {
  const { signal, attempts = 6, alsoBusy = [] } = options;
  return retry(
    async () => {
      try {
        return await work();
      } catch (error) {
        const task = isFault(error, 'TaskInProgress') ? error.details['task'] : undefined;
        if (typeof task === 'string') await waitForOther(session, moRef('Task', task), signal);
        throw error;
      }
    },
    {
      attempts,
      delayMs: session.retryDelayMs,
      ...(signal && { signal }),
      shouldRetry: (error) => isFault(error, ...BUSY, ...alsoBusy),
    },
  );
}
