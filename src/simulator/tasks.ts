import { now, sleep } from '#/lib/clock.ts';
import type { Logger } from '#/lib/log.ts';
import { takeFault } from './settings.ts';
import type { Settings } from './settings.ts';
import { VimFault } from './faults.ts';
import { Data, Ref, Typed } from './values.ts';

const KEPT = 1000;

export interface TaskRequest {
  /** API method without `_Task`. */
  method: string;
  descriptionId: string;
  entity: Ref;
  entityName: string;
  userName: string;
}

interface Task {
  ref: Ref;
  request: TaskRequest;
  state: 'queued' | 'running' | 'success' | 'error';
  progress: number;
  queueTime: string;
  startTime?: string;
  completeTime?: string;
  result?: Ref;
  error?: VimFault;
  done: Promise<void>;
}

/** Long operations. One at a time per entity: another is refused with TaskInProgress. Tasks do not survive a restart. */
export class Tasks {
  readonly #tasks = new Map<string, Task>();
  readonly #settings: Settings;
  readonly #log: Logger;
  readonly #signal: AbortSignal;
  #next = 1;

  constructor(settings: Settings, log: Logger, signal: AbortSignal) {
    this.#settings = settings;
    this.#log = log;
    this.#signal = signal;
  }

  /** Starts `work` and returns its task at once. */
  start(request: TaskRequest, work: () => Promise<Ref | undefined>): Ref {
    const busy = this.runningOn(request.entity);
    if (busy) {
      throw new VimFault('TaskInProgress', 'The operation is not allowed: another task is already in progress.', {
        task: busy,
      });
    }
    const ref = new Ref('Task', `task-${this.#next++}`);
    const queueTime = now().toString();
    const task: Task = { ref, request, state: 'queued', progress: 0, queueTime, done: Promise.resolve() };
    this.#tasks.set(ref.id, task);
    task.done = this.#run(task, work);
    this.#forgetOld();
    return ref;
  }

  info(id: string): Data | undefined {
    const task = this.#tasks.get(id);
    return task && describe(task);
  }

  get running(): number {
    return [...this.#tasks.values()].filter(isOpen).length;
  }

  runningOn(entity: Ref): Ref | undefined {
    return [...this.#tasks.values()].find((task) => isOpen(task) && task.request.entity.id === entity.id)?.ref;
  }

  /** Waits for every task that still runs. */
  async settle(): Promise<void> {
    await Promise.all([...this.#tasks.values()].map((task) => task.done));
  }

  async #run(task: Task, work: () => Promise<Ref | undefined>): Promise<void> {
    try {
      const half = this.#settings.taskMs / 2;
      await sleep(half, this.#signal);
      task.state = 'running';
      task.startTime = now().toString();
      const rule = takeFault(this.#settings, `${task.request.method}_Task`, true);
      if (rule) throw new VimFault(rule.fault, `Injected fault ${rule.fault}`);
      const result = await work();
      if (result) task.result = result;
      task.progress = 50;
      await sleep(half, this.#signal);
      task.state = 'success';
      task.progress = 100;
    } catch (error) {
      task.state = 'error';
      task.error = error instanceof VimFault ? error : new VimFault('SystemError', 'A general system error occurred');
      if (!(error instanceof VimFault) && !this.#signal.aborted) this.#log.error({ err: error }, 'task failed');
    }
    task.completeTime = now().toString();
  }

  #forgetOld(): void {
    for (const [id, task] of this.#tasks) {
      if (this.#tasks.size <= KEPT) return;
      if (!isOpen(task)) this.#tasks.delete(id);
    }
  }
}

function isOpen(task: Task): boolean {
  return task.state === 'queued' || task.state === 'running';
}

function describe(task: Task): Data {
  return new Data('TaskInfo', {
    key: task.ref.id,
    task: task.ref,
    name: `${task.request.method}_Task`,
    descriptionId: task.request.descriptionId,
    entity: task.request.entity,
    entityName: task.request.entityName,
    state: task.state,
    cancelled: false,
    cancelable: false,
    error: task.error?.localized(),
    result: task.state === 'success' && task.result ? new Typed('ref', task.result) : undefined,
    progress: task.state === 'running' ? task.progress : undefined,
    reason: new Data('TaskReasonUser', { userName: task.request.userName }),
    queueTime: task.queueTime,
    startTime: task.startTime,
    completeTime: task.completeTime,
    eventChainId: Number(task.ref.id.slice('task-'.length)),
  });
}
