/**
 * Reading properties of the server's objects. Pages are followed whether we asked for them or the server made them;
 * a property that is unset is absent, one that may not be read is in `missing` and fails nothing.
 */
import { SendenseError } from '#/lib/errors.ts';
import type { Call, Caller } from './session.ts';
import { data, faultError, isFault, moRef, readLocalizedFault, readMoRef } from './soap.ts';
import type { DataObject, MoRef } from './soap.ts';
import { child, childrenOf, textOf } from './xml.ts';
import type { XmlNode } from './xml.ts';

const MAX_OBJECTS = 200_000;
const METHOD = 'RetrievePropertiesEx';

export interface ObjectProperties {
  ref: MoRef;
  values: ReadonlyMap<string, XmlNode>;
  /** Path of an unreadable property to the type of the fault. */
  missing: ReadonlyMap<string, string>;
}

/** Properties of one object; the fault ManagedObjectNotFound when it is gone. */
export async function getProperties(
  session: Caller,
  ref: MoRef,
  paths: readonly string[],
  signal?: AbortSignal,
): Promise<ObjectProperties> {
  const propSet = data('PropertySpec', { type: ref.type, all: false, pathSet: paths });
  const filter = data('PropertyFilterSpec', { propSet, objectSet: data('ObjectSpec', { obj: ref }) });
  const found = await session.renewing((call) => retrieve(session, call, filter, undefined, signal), signal);
  const first = found[0];
  if (!first) throw faultError(METHOD, { fault: 'ManagedObjectNotFound', message: '', fields: { obj: ref.value } });
  return first;
}

/** Properties of all objects of the given types below the root folder, in pages of `pageSize`. */
export async function listProperties(
  session: Caller,
  types: Readonly<Record<string, readonly string[]>>,
  pageSize: number,
  signal?: AbortSignal,
): Promise<ObjectProperties[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await session.renewing((call) => listOnce(session, call, { types, pageSize, signal }), signal);
    } catch (error) {
      // An object that disappears while it is being listed can fail the whole call.
      if (attempt >= 3 || !isFault(error, 'ManagedObjectNotFound')) throw error;
    }
  }
}

interface Listing {
  types: Readonly<Record<string, readonly string[]>>;
  pageSize: number;
  signal: AbortSignal | undefined;
}

async function listOnce(
  session: Caller,
  call: Call,
  { types, pageSize, signal }: Listing,
): Promise<ObjectProperties[]> {
  const { viewManager, rootFolder } = session.content;
  const args = { container: rootFolder, type: Object.keys(types), recursive: true };
  const view = readMoRef(
    child(await call(viewManager, 'CreateContainerView', args, signal), 'returnval'),
    'CreateContainerView',
  );
  try {
    const traversal = data('TraversalSpec', { name: 'members', type: 'ContainerView', path: 'view', skip: false });
    const filter = data('PropertyFilterSpec', {
      propSet: Object.entries(types).map(([type, pathSet]) => data('PropertySpec', { type, all: false, pathSet })),
      objectSet: data('ObjectSpec', { obj: view, skip: true, selectSet: traversal }),
    });
    return await retrieve(session, call, filter, pageSize, signal);
  } finally {
    await destroyView(call, view);
  }
}

/** The view dies with the session anyway, so failing to end it early is nobody's problem. */
async function destroyView(call: Call, view: MoRef): Promise<void> {
  try {
    await call(view, 'DestroyView', {}, AbortSignal.timeout(10_000));
  } catch (error) {
    if (!(error instanceof SendenseError) && !(error instanceof DOMException)) throw error;
  }
}

async function retrieve(
  session: Caller,
  call: Call,
  specSet: DataObject,
  maxObjects: number | undefined,
  signal: AbortSignal | undefined,
): Promise<ObjectProperties[]> {
  const collector = session.content.propertyCollector;
  const options = data('RetrieveOptions', { maxObjects });
  let answer = await call(collector, METHOD, { specSet, options }, signal);
  const found: ObjectProperties[] = [];
  for (;;) {
    const result = child(answer, 'returnval');
    const objects = childrenOf(result, 'objects');
    for (const object of objects) found.push(readObject(object));
    const token = textOf(result, 'token');
    if (!token) return found;
    if (objects.length === 0 || found.length > MAX_OBJECTS) {
      throw faultError(METHOD, { fault: 'MalformedAnswer', message: 'the pages do not come to an end', fields: {} });
    }
    answer = await call(collector, 'ContinueRetrievePropertiesEx', { token }, signal);
  }
}

function readObject(node: XmlNode): ObjectProperties {
  const values = new Map<string, XmlNode>();
  for (const property of childrenOf(node, 'propSet')) {
    const name = textOf(property, 'name');
    const value = child(property, 'val');
    if (name !== undefined && value) values.set(name, value);
  }
  const missing = new Map<string, string>();
  for (const entry of childrenOf(node, 'missingSet')) {
    const fault = readLocalizedFault(child(entry, 'fault') ?? entry);
    // An expired session may show up as success with nothing in it.
    if (fault.fault === 'NotAuthenticated') throw faultError(METHOD, fault);
    missing.set(textOf(entry, 'path') ?? '', fault.fault);
  }
  return { ref: readMoRef(child(node, 'obj'), METHOD), values, missing };
}

export function vmRef(moref: string): MoRef {
  return moRef('VirtualMachine', moref);
}
