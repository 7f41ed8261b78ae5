import { randomUUID } from 'node:crypto';
import { elapsedMs, sleep } from '#/lib/clock.ts';
import type { Arguments } from './arguments.ts';
import { invalidArgument, objectNotFound, VimFault } from './faults.ts';
import { SINGLETONS } from './inventory.ts';
import { method, returnval, sessionOf } from './method.ts';
import type { Call, Method } from './method.ts';
import { collect } from './property-collector.ts';
import type { Collected } from './property-collector.ts';
import type { Session } from './sessions.ts';
import { Data, Ref, renderElement } from './values.ts';

const EVERY_MS = 50;
const LONGEST_WAIT_SECONDS = 1800;
const MAX_FILTERS = 1000;

interface Filter {
  ref: Ref;
  spec: Arguments;
  /** What the client was told: object to property to the XML of its value. */
  known: Map<string, { ref: Ref; values: Map<string, string> }>;
}

interface Collector {
  ref: Ref;
  version: number;
  filters: Map<string, Filter>;
  cancelled: boolean;
}

export const UPDATE_METHODS: Readonly<Record<string, Method>> = {
  CreatePropertyCollector: method('PropertyCollector', '', (call) => {
    const { ref } = addCollector(sessionOf(call), `session[${randomUUID()}]${randomUUID()}`);
    return returnval('ref', ref);
  }),
  DestroyPropertyCollector: method('PropertyCollector', '', (call) => {
    if (call.self.id === SINGLETONS.PropertyCollector.id) throw invalidArgument('_this');
    const collector = collectorOf(call);
    collector.cancelled = true;
    for (const id of [...collector.filters.keys(), call.self.id]) sessionOf(call).objects.delete(id);
    return '';
  }),
  CreateFilter: method('PropertyCollector', 'spec:PropertyFilterSpec partialUpdates:boolean', (call) => {
    const collector = collectorOf(call);
    const spec = call.args.object('spec');
    if (!spec || collector.filters.size >= MAX_FILTERS) throw invalidArgument('spec');
    collect(call.world, call.session, [spec]); // refuses now what could never be answered
    const filter: Filter = {
      ref: new Ref('PropertyFilter', `${collector.ref.id}${randomUUID()}`),
      spec,
      known: new Map(),
    };
    collector.filters.set(filter.ref.id, filter);
    sessionOf(call).objects.set(filter.ref.id, collector);
    return returnval('ref', filter.ref);
  }),
  DestroyPropertyFilter: method('PropertyFilter', '', (call) => {
    const { objects } = sessionOf(call);
    (objects.get(call.self.id) as Collector | undefined)?.filters.delete(call.self.id);
    objects.delete(call.self.id);
    return '';
  }),
  WaitForUpdatesEx: method('PropertyCollector', 'version? options:WaitOptions?', waitForUpdates),
  CancelWaitForUpdates: method('PropertyCollector', '', (call) => {
    collectorOf(call).cancelled = true;
    return '';
  }),
};

function addCollector(session: Session, id: string): Collector {
  const made: Collector = { ref: new Ref('PropertyCollector', id), version: 0, filters: new Map(), cancelled: false };
  session.objects.set(id, made);
  return made;
}

function collectorOf(call: Call): Collector {
  const session = sessionOf(call);
  const known = session.objects.get(call.self.id) as Collector | undefined;
  if (known) return known;
  if (call.self.id !== SINGLETONS.PropertyCollector.id) throw objectNotFound(call.self);
  return addCollector(session, call.self.id);
}

/** Answers as soon as anything differs from what the client was told; empty when the wait is over. */
async function waitForUpdates(call: Call): Promise<string> {
  const collector = collectorOf(call);
  const version = call.args.text('version');
  if (version === '') for (const filter of collector.filters.values()) filter.known.clear();
  else if (version !== String(collector.version)) {
    throw new VimFault('InvalidCollectorVersion', 'The version is not the one that was given last.');
  }
  collector.cancelled = false;
  const asked = call.args.object('options')?.number('maxWaitSeconds') ?? LONGEST_WAIT_SECONDS;
  if (asked < 0) throw invalidArgument('options.maxWaitSeconds');
  const deadline = elapsedMs() + Math.min(asked, LONGEST_WAIT_SECONDS) * 1000;
  for (;;) {
    if (collector.cancelled) throw new VimFault('RequestCanceled', 'The wait was cancelled.');
    const filterSet = [...collector.filters.values()].flatMap((filter) => {
      const objectSet = differences(call, filter);
      return objectSet.length === 0 ? [] : [new Data('PropertyFilterUpdate', { filter: filter.ref, objectSet })];
    });
    if (filterSet.length > 0) {
      collector.version++;
      return returnval('UpdateSet', new Data('UpdateSet', { version: String(collector.version), filterSet }));
    }
    if (elapsedMs() >= deadline) return '';
    await sleep(EVERY_MS, call.signal);
  }
}

function differences(call: Call, filter: Filter): Data[] {
  const updates: Data[] = [];
  const present = new Set<string>();
  for (const collected of collectNow(call, filter)) {
    const key = `${collected.ref.type}:${collected.ref.id}`;
    present.add(key);
    const before = filter.known.get(key);
    const values = new Map(collected.properties.map(({ name, value }) => [name, renderElement('val', 'any', value)]));
    filter.known.set(key, { ref: collected.ref, values });
    const changeSet = changes(collected, values, before?.values);
    if (before && changeSet.length === 0) continue;
    updates.push(new Data('ObjectUpdate', { kind: before ? 'modify' : 'enter', obj: collected.ref, changeSet }));
  }
  for (const [key, { ref }] of filter.known) {
    if (present.has(key)) continue;
    filter.known.delete(key);
    updates.push(new Data('ObjectUpdate', { kind: 'leave', obj: ref }));
  }
  return updates;
}

function collectNow(call: Call, filter: Filter): Collected[] {
  try {
    return collect(call.world, call.session, [filter.spec]);
  } catch (error) {
    // The object that the filter starts from is gone; its properties leave.
    if (error instanceof VimFault && error.data.type === 'ManagedObjectNotFound') return [];
    throw error;
  }
}

function changes(
  { properties }: Collected,
  values: ReadonlyMap<string, string>,
  before: ReadonlyMap<string, string> | undefined,
): Data[] {
  const assigned = properties
    .filter(({ name }) => before?.get(name) !== values.get(name))
    .map(({ name, value }) => new Data('PropertyChange', { name, op: 'assign', val: value }));
  const gone = [...(before?.keys() ?? [])].filter((name) => !values.has(name));
  return [...assigned, ...gone.map((name) => new Data('PropertyChange', { name, op: 'remove' }))];
}
