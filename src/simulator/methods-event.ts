import { invalidArgument } from './faults.ts';
import { method, returnval } from './method.ts';
import type { Call, Method } from './method.ts';
import type { RecordedEvent } from './state.ts';
import { Data, Ref } from './values.ts';
import { escapeName } from './vm-properties.ts';

const MAX_ANSWER = 1000;

export const EVENT_METHODS: Readonly<Record<string, Method>> = {
  QueryEvents: method('EventManager', 'filter:EventFilterSpec eventViewSpec:any?', queryEvents),
};

/** What was done to VMs, oldest first: each operation as the TaskEvent by whose `descriptionId` clients know it. */
function queryEvents(call: Call): string {
  const filter = call.args.object('filter');
  if (!filter) throw invalidArgument('filter');
  const entity = filter.object('entity')?.ref('entity');
  const begin = instant(filter.object('time')?.optionalText('beginTime'));
  const end = instant(filter.object('time')?.optionalText('endTime'));
  const types = [...filter.texts('type'), ...filter.texts('eventTypeId')];
  const wanted = types.length === 0 || types.some((type) => type.endsWith('TaskEvent'));
  const chosen = call.world.store.state.events.filter((event) => {
    const at = Date.parse(event.time);
    const inside = (begin === undefined || at >= begin) && (end === undefined || at <= end);
    return wanted && inside && (entity?.type !== 'VirtualMachine' || entity.id === event.vm);
  });
  const limit = Math.min(filter.number('maxCount') ?? MAX_ANSWER, MAX_ANSWER);
  return chosen
    .slice(-limit)
    .map((event) => returnval('Event', taskEvent(event)))
    .join('');
}

function instant(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Date.parse(text);
}

function taskEvent(event: RecordedEvent): Data {
  const vm = new Ref('VirtualMachine', event.vm);
  const task = `task-event-${event.key}`;
  return new Data('TaskEvent', {
    key: event.key,
    chainId: event.key,
    createdTime: event.time,
    userName: event.userName,
    vm: new Data('VmEventArgument', { name: escapeName(event.vmName), vm }),
    fullFormattedMessage: `Task: ${event.descriptionId}`,
    info: new Data('TaskInfo', {
      key: task,
      task: new Ref('Task', task),
      descriptionId: event.descriptionId,
      entity: vm,
      entityName: escapeName(event.vmName),
      state: 'success',
      cancelled: false,
      cancelable: false,
      reason: new Data('TaskReasonUser', { userName: event.userName }),
      queueTime: event.time,
      startTime: event.time,
      completeTime: event.time,
      eventChainId: event.key,
    }),
  });
}
