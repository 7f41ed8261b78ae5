import { randomUUID } from 'node:crypto';
import { invalidArgument, VimFault } from './faults.ts';
import { method, returnval, sessionOf } from './method.ts';
import type { Call, Method } from './method.ts';
import { collect, objectContent } from './property-collector.ts';
import { Data } from './values.ts';

export const PROPERTY_METHODS: Readonly<Record<string, Method>> = {
  RetrieveProperties: method('PropertyCollector', 'specSet:PropertyFilterSpec+', (call) =>
    collect(call.world, call.session, call.args.objects('specSet'))
      .map((collected) => returnval('ObjectContent', objectContent(collected)))
      .join(''),
  ),
  RetrievePropertiesEx: method('PropertyCollector', 'specSet:PropertyFilterSpec+ options:RetrieveOptions', retrieve),
  ContinueRetrievePropertiesEx: method('PropertyCollector', 'token', (call) => {
    const pending = takePending(call);
    return nextPage(call, pending.objects, pending.pageSize);
  }),
  CancelRetrievePropertiesEx: method('PropertyCollector', 'token', (call) => {
    takePending(call);
    return '';
  }),
};

interface Pending {
  collector: string;
  objects: Data[];
  pageSize: number;
}

function retrieve(call: Call): string {
  const maxObjects = call.args.object('options')?.number('maxObjects');
  if (maxObjects !== undefined && maxObjects <= 0) throw invalidArgument('options.maxObjects');
  const objects = collect(call.world, call.session, call.args.objects('specSet')).map(objectContent);
  if (objects.length === 0) return '';
  return nextPage(call, objects, Math.min(maxObjects ?? Number.MAX_SAFE_INTEGER, call.world.settings.pageObjects));
}

function nextPage(call: Call, objects: Data[], pageSize: number): string {
  const rest = objects.slice(pageSize);
  let token: string | undefined;
  if (rest.length > 0) {
    token = randomUUID();
    const pending: Pending = { collector: call.self.id, objects: rest, pageSize };
    sessionOf(call).objects.set(`token ${token}`, pending);
  }
  return returnval('RetrieveResult', new Data('RetrieveResult', { token, objects: objects.slice(0, pageSize) }));
}

/** A token works once, in its own session and on its own collector. */
function takePending(call: Call): Pending {
  const key = `token ${call.args.text('token')}`;
  const { objects } = sessionOf(call);
  const pending = objects.get(key) as Pending | undefined;
  if (!pending || pending.collector !== call.self.id) {
    throw new VimFault('InvalidProperty', 'The token is not known', { name: 'token' });
  }
  objects.delete(key);
  return pending;
}
