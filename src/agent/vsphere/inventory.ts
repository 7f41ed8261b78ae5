/**
 * The VMs of a source. Whatever is unset or unreadable is tolerated; a VM without the facts that identify it is
 * named among the problems and never fails the list.
 */
import type { VmFacts } from '#/api/vm.ts';
import { SendenseError } from '#/lib/errors.ts';
import { readDisks } from './devices.ts';
import type { Disk } from './devices.ts';
import { getProperties, listProperties, vmRef } from './properties.ts';
import type { ObjectProperties } from './properties.ts';
import type { Caller } from './session.ts';
import { isFault, moRef, readMoRefs } from './soap.ts';
import type { MoRef } from './soap.ts';
import { countSnapshots, unescapeName } from './snapshot-tree.ts';
import { childrenOf } from './xml.ts';
import type { XmlNode } from './xml.ts';

/** Devices make a VM large: some 40 KiB of XML each. */
const PAGE_SIZE = 50;

export interface VmRecord extends VmFacts {
  disks: Disk[];
  /** Inventory path of the datacenter in the server's own escaping, for datastore addresses. */
  datacenterPath: string;
  host: { moref: string; name: string } | undefined;
  datastores: { moref: string; name: string }[];
  /** Somebody left redo files behind that belong to no snapshot any more. */
  consolidationNeeded: boolean;
  encrypted: boolean;
  faultTolerant: boolean;
}

export interface VmList {
  vms: VmRecord[];
  problems: { moref: string; reason: string }[];
}

const VM_PATHS = [
  'name',
  'parent',
  'parentVApp',
  'capability.changeTrackingSupported',
  'config.instanceUuid',
  'config.uuid',
  'config.version',
  'config.template',
  'config.guestFullName',
  'config.changeTrackingEnabled',
  'config.keyId',
  'config.hardware.device',
  'runtime.powerState',
  'runtime.connectionState',
  'runtime.host',
  'runtime.consolidationNeeded',
  'runtime.faultToleranceState',
  'guest.toolsRunningStatus',
  'snapshot',
  'datastore',
] as const;

const PLACE_PATHS: Record<string, readonly string[]> = {
  Folder: ['name', 'parent'],
  Datacenter: ['name', 'parent'],
  HostSystem: ['name'],
  Datastore: ['name'],
};

/** Rare, so they are asked for one by one where a VM is in one. */
const OTHER_PATHS: Record<string, readonly string[]> = {
  VirtualApp: ['name', 'parent', 'parentFolder'],
  ResourcePool: ['name', 'parent'],
};

export async function listVms(session: Caller, signal?: AbortSignal): Promise<VmList> {
  const objects = await listProperties(session, { ...PLACE_PATHS, VirtualMachine: VM_PATHS }, PAGE_SIZE, signal);
  const places = new Map(objects.map((object) => [object.ref.value, object]));
  const list: VmList = { vms: [], problems: [] };
  for (const object of objects) {
    if (object.ref.type !== 'VirtualMachine') continue;
    await climb(session, object, places, signal);
    const vm = readVm(object, places);
    if ('reason' in vm) list.problems.push(vm);
    else list.vms.push(vm);
  }
  return list;
}

/** One VM; VM_NOT_FOUND when it is gone or cannot be identified. */
export async function loadVm(session: Caller, moref: string, signal?: AbortSignal): Promise<VmRecord> {
  const object = await find(session, vmRef(moref), VM_PATHS, signal);
  if (!object) throw new SendenseError('VM_NOT_FOUND', `the source has no VM ${moref}`, { details: { moref } });
  const places = new Map<string, ObjectProperties>();
  const around = [refOf(object, 'runtime.host'), ...refsOf(object, 'datastore')];
  for (const ref of around) if (ref) await visit(session, ref, places, signal);
  await climb(session, object, places, signal);
  const vm = readVm(object, places);
  if (!('reason' in vm)) return vm;
  throw new SendenseError('VM_NOT_FOUND', `the VM ${moref} cannot be read: ${vm.reason}`, { details: { moref } });
}

/** Makes sure that everything above an object is among the places. */
async function climb(
  session: Caller,
  object: ObjectProperties,
  places: Map<string, ObjectProperties>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const seen = new Set<string>();
  for (let up = parentOf(object); up && !seen.has(up.value); ) {
    seen.add(up.value);
    const place: ObjectProperties = places.get(up.value) ?? (await visit(session, up, places, signal));
    up = parentOf(place);
  }
}

/** A place that is gone or hidden from us has no name and ends the path; that is no reason to fail. */
async function visit(
  session: Caller,
  ref: MoRef,
  places: Map<string, ObjectProperties>,
  signal: AbortSignal | undefined,
): Promise<ObjectProperties> {
  const paths = PLACE_PATHS[ref.type] ?? OTHER_PATHS[ref.type] ?? ['name'];
  const place = (await find(session, ref, paths, signal)) ?? { ref, values: new Map(), missing: new Map() };
  places.set(ref.value, place);
  return place;
}

async function find(
  session: Caller,
  ref: MoRef,
  paths: readonly string[],
  signal: AbortSignal | undefined,
): Promise<ObjectProperties | undefined> {
  try {
    return await getProperties(session, ref, paths, signal);
  } catch (error) {
    if (isFault(error, 'ManagedObjectNotFound', 'NoPermission')) return undefined;
    throw error;
  }
}

type Places = ReadonlyMap<string, ObjectProperties>;

function readVm(object: ObjectProperties, places: Places): VmRecord | { moref: string; reason: string } {
  const moref = object.ref.value;
  const instanceUuid = text(object, 'config.instanceUuid');
  const connectionState = text(object, 'runtime.connectionState');
  if (instanceUuid === '') {
    const fault = object.missing.get('config.instanceUuid');
    return { moref, reason: `no identity: ${fault ?? (connectionState || 'its configuration is not available')}` };
  }
  const above = ancestors(object, places);
  const name = unescapeName(text(object, 'name'));
  const host = refOf(object, 'runtime.host');
  const faultTolerance = text(object, 'runtime.faultToleranceState');
  return {
    moref,
    instanceUuid,
    biosUuid: text(object, 'config.uuid'),
    name,
    path: [...above.map((place) => unescapeName(text(place, 'name'))), name].map(pathPart).join('/'),
    datacenterPath: datacenterPath(above),
    powerState: text(object, 'runtime.powerState'),
    connectionState,
    template: flag(object, 'config.template'),
    guestName: text(object, 'config.guestFullName'),
    hardwareVersion: text(object, 'config.version'),
    toolsRunning: text(object, 'guest.toolsRunningStatus') === 'guestToolsRunning',
    changeTrackingEnabled: flag(object, 'config.changeTrackingEnabled'),
    changeTrackingSupported: flag(object, 'capability.changeTrackingSupported'),
    snapshotCount: countSnapshots(object.values.get('snapshot')),
    consolidationNeeded: flag(object, 'runtime.consolidationNeeded'),
    encrypted: object.values.has('config.keyId'),
    faultTolerant: faultTolerance !== '' && faultTolerance !== 'notConfigured',
    host: host && { moref: host.value, name: nameOf(host, places) },
    datastores: refsOf(object, 'datastore').map((ref) => ({ moref: ref.value, name: nameOf(ref, places) })),
    disks: liveDisks(object.values.get('config.hardware.device')),
  };
}

/** The change id of a running VM's disk races with snapshots made later, so nobody gets to see it. */
function liveDisks(devices: XmlNode | undefined): Disk[] {
  return readDisks(childrenOf(devices, 'VirtualDevice')).map((disk) => ({ ...disk, changeId: undefined }));
}

/** From below the root folder down to the VM's own folder. */
function ancestors(object: ObjectProperties, places: Places): ObjectProperties[] {
  const found: ObjectProperties[] = [];
  const seen = new Set<string>();
  for (let up = parentOf(object); up && !seen.has(up.value); ) {
    seen.add(up.value);
    const place = places.get(up.value);
    // The root folder has no parent and is not part of a path.
    if (!place || !parentOf(place)) break;
    found.unshift(place);
    up = parentOf(place);
  }
  return found;
}

function datacenterPath(above: readonly ObjectProperties[]): string {
  const index = above.findIndex((place) => place.ref.type === 'Datacenter');
  return above
    .slice(0, index + 1)
    .map((place) => text(place, 'name'))
    .join('/');
}

/** A VM in a vApp has no folder of its own; the vApp does. */
function parentOf(object: ObjectProperties): MoRef | undefined {
  return refOf(object, 'parentFolder') ?? refOf(object, 'parent') ?? refOf(object, 'parentVApp');
}

function nameOf(ref: MoRef, places: Places): string {
  const place = places.get(ref.value);
  return unescapeName(place ? text(place, 'name') : '') || ref.value;
}

function pathPart(name: string): string {
  return name.replaceAll('/', '%2f');
}

function text(object: ObjectProperties, path: string): string {
  return object.values.get(path)?.text.trim() ?? '';
}

function flag(object: ObjectProperties, path: string): boolean {
  return text(object, path) === 'true';
}

function refOf(object: ObjectProperties, path: string): MoRef | undefined {
  const node = object.values.get(path);
  return node?.refType && node.text ? moRef(node.refType, node.text.trim()) : undefined;
}

function refsOf(object: ObjectProperties, path: string): MoRef[] {
  return readMoRefs(object.values.get(path), 'ManagedObjectReference');
}
