/** The managed objects of the simulated vCenter and their properties. One cluster with one host carries everything. */
import { now } from '#/lib/clock.ts';
import type { Session } from './sessions.ts';
import { userSession } from './sessions.ts';
import type { DatastoreState, FolderState, VmState } from './state.ts';
import { Data, Ref } from './values.ts';
import type { Value } from './values.ts';
import { fieldsOf, isKindOf } from './vim-types.ts';
import { configOf, escapeName, snapshotRef, VM_PROPERTIES, vmRef } from './vm-properties.ts';
import type { World } from './world.ts';

export const ROOT_FOLDER = new Ref('Folder', 'group-d1');
export const DATACENTER = new Ref('Datacenter', 'datacenter-2');
export const SERVICE_INSTANCE = new Ref('ServiceInstance', 'ServiceInstance');
const VM_FOLDER = new Ref('Folder', 'group-v3');
const HOST_FOLDER = new Ref('Folder', 'group-h4');
const DATASTORE_FOLDER = new Ref('Folder', 'group-s5');
const NETWORK_FOLDER = new Ref('Folder', 'group-n6');
const CLUSTER = new Ref('ClusterComputeResource', 'domain-c7');
const POOL = new Ref('ResourcePool', 'resgroup-8');
const HOST = new Ref('HostSystem', 'host-9');
const NETWORK = new Ref('Network', 'network-10');
export const VERSION = '8.0.3.0';

export const SINGLETONS = {
  SessionManager: new Ref('SessionManager', 'SessionManager'),
  PropertyCollector: new Ref('PropertyCollector', 'propertyCollector'),
  ViewManager: new Ref('ViewManager', 'ViewManager'),
  TaskManager: new Ref('TaskManager', 'TaskManager'),
  EventManager: new Ref('EventManager', 'EventManager'),
  SearchIndex: new Ref('SearchIndex', 'SearchIndex'),
} as const;

export interface ContainerView {
  ref: Ref;
  container: Ref;
  types: string[];
  recursive: boolean;
}

type Properties = Record<string, () => Value | undefined>;

/** Accessors for the properties that are set on `ref`; undefined when there is no such object. */
export function propertiesOf(world: World, session: Session | undefined, ref: Ref): Properties | undefined {
  const { state } = world.store;
  switch (ref.type) {
    case 'ServiceInstance':
      if (!same(ref, SERVICE_INSTANCE)) return undefined;
      return { content: () => serviceContent(world), serverClock: () => now().toString() };
    case 'SessionManager':
      return same(ref, SINGLETONS.SessionManager) ? sessionManager(world, session) : undefined;
    case 'Folder':
      return folder(world, ref);
    case 'Datacenter':
      return same(ref, DATACENTER) ? datacenter(world) : undefined;
    case 'ClusterComputeResource':
      return same(ref, CLUSTER) ? cluster(world) : undefined;
    case 'ResourcePool':
      return same(ref, POOL) ? pool(world) : undefined;
    case 'HostSystem':
      return same(ref, HOST) ? host(world) : undefined;
    case 'Network':
      return same(ref, NETWORK) ? network(world) : undefined;
    case 'Datastore': {
      const found = state.datastores.find((entry) => entry.moref === ref.id);
      return found && datastore(world, found);
    }
    case 'VirtualMachine': {
      const vm = world.vm(ref.id);
      return vm && virtualMachine(world, vm);
    }
    case 'VirtualMachineSnapshot':
      return snapshot(world, ref.id);
    case 'Task': {
      const info = world.tasks.info(ref.id);
      return info && { info: () => info };
    }
    case 'ContainerView':
      return containerView(world, session, ref.id);
    case 'PropertyFilter':
      return session?.objects.has(ref.id) ? {} : undefined;
    default:
      return Object.values(SINGLETONS).some((one) => same(one, ref)) || session?.objects.has(ref.id) ? {} : undefined;
  }
}

/** Every object below `container` that is one of `types` (all when empty), in a stable order. */
export function contained(world: World, view: Omit<ContainerView, 'ref'>): Ref[] {
  const found: Ref[] = [];
  const visit = (ref: Ref, depth: number): void => {
    for (const child of children(world, ref)) {
      if (view.types.length === 0 || view.types.some((type) => isKindOf(child.type, type))) found.push(child);
      if (view.recursive || depth > 0) visit(child, depth - 1);
    }
  };
  visit(view.container, 0);
  return found;
}

function children(world: World, ref: Ref): Ref[] {
  if (ref.type === 'Folder') return folderChildren(world, ref.id);
  if (same(ref, DATACENTER)) return [VM_FOLDER, HOST_FOLDER, DATASTORE_FOLDER, NETWORK_FOLDER];
  if (same(ref, CLUSTER)) return [HOST, POOL];
  return [];
}

function folderChildren(world: World, id: string): Ref[] {
  const { folders, datastores } = world.store.state;
  if (id === ROOT_FOLDER.id) return [DATACENTER];
  if (id === HOST_FOLDER.id) return [CLUSTER];
  if (id === NETWORK_FOLDER.id) return [NETWORK];
  if (id === DATASTORE_FOLDER.id) return datastores.map((entry) => new Ref('Datastore', entry.moref));
  return [
    ...folders.filter((entry) => entry.parent === id).map((entry) => new Ref('Folder', entry.moref)),
    ...world.vms.filter((vm) => vm.folder === id).map(vmRef),
  ];
}

function entity(name: string, parent: Ref | undefined): Properties {
  return {
    name: () => escapeName(name),
    parent: () => parent,
    overallStatus: () => 'green',
    configStatus: () => 'green',
    alarmActionsEnabled: () => true,
    effectiveRole: () => [-1],
  };
}

function folder(world: World, ref: Ref): Properties | undefined {
  const fixed: Record<string, [string, Ref | undefined, string[]]> = {
    [ROOT_FOLDER.id]: ['Datacenters', undefined, ['Folder', 'Datacenter']],
    [VM_FOLDER.id]: ['vm', DATACENTER, ['Folder', 'VirtualMachine', 'VirtualApp']],
    [HOST_FOLDER.id]: ['host', DATACENTER, ['Folder', 'ComputeResource']],
    [DATASTORE_FOLDER.id]: ['datastore', DATACENTER, ['Folder', 'Datastore', 'StoragePod']],
    [NETWORK_FOLDER.id]: ['network', DATACENTER, ['Folder', 'Network', 'DistributedVirtualSwitch']],
  };
  const own: FolderState | undefined = world.store.state.folders.find((entry) => entry.moref === ref.id);
  const [name, parent, types] = fixed[ref.id] ?? [
    own?.name,
    own && new Ref('Folder', own.parent),
    ['Folder', 'VirtualMachine'],
  ];
  if (name === undefined) return undefined;
  return { ...entity(name, parent), childType: () => types, childEntity: () => folderChildren(world, ref.id) };
}

function datacenter(world: World): Properties {
  return {
    ...entity(world.store.state.datacenter, ROOT_FOLDER),
    vmFolder: () => VM_FOLDER,
    hostFolder: () => HOST_FOLDER,
    datastoreFolder: () => DATASTORE_FOLDER,
    networkFolder: () => NETWORK_FOLDER,
    datastore: () => folderChildren(world, DATASTORE_FOLDER.id),
    network: () => [NETWORK],
  };
}

const CAPACITY = { totalCpu: 48_000, totalMemory: 256 * 1024 ** 3, numCpuCores: 16, numCpuThreads: 32 };

function cluster(world: World): Properties {
  return {
    ...entity('cluster01', HOST_FOLDER),
    resourcePool: () => POOL,
    host: () => [HOST],
    datastore: () => folderChildren(world, DATASTORE_FOLDER.id),
    network: () => [NETWORK],
    summary: () =>
      new Data('ClusterComputeResourceSummary', {
        ...CAPACITY,
        effectiveCpu: CAPACITY.totalCpu,
        effectiveMemory: CAPACITY.totalMemory / 1024 ** 2,
        numHosts: 1,
        numEffectiveHosts: 1,
        overallStatus: 'green',
        currentFailoverLevel: 0,
        numVmotions: 0,
      }),
  };
}

function pool(world: World): Properties {
  return {
    ...entity('Resources', CLUSTER),
    owner: () => CLUSTER,
    resourcePool: () => [],
    vm: () => world.vms.filter((vm) => !vm.template).map(vmRef),
  };
}

function host(world: World): Properties {
  const runtime = (): Data =>
    new Data('HostRuntimeInfo', {
      connectionState: 'connected',
      powerState: 'poweredOn',
      inMaintenanceMode: false,
      hostMaxVirtualDiskCapacity: 64 * 1024 ** 4,
    });
  return {
    ...entity('esx01.simulator.example', CLUSTER),
    runtime,
    summary: () =>
      new Data('HostListSummary', {
        host: HOST,
        runtime: runtime(),
        config: new Data('HostConfigSummary', {
          name: 'esx01.simulator.example',
          port: 443,
          product: about(world, 'HostAgent'),
          vmotionEnabled: false,
        }),
        quickStats: new Data('HostListSummaryQuickStats', {}),
        overallStatus: 'green',
        rebootRequired: false,
        hardware: new Data('HostHardwareSummary', {
          vendor: 'sendense',
          model: 'simulated host',
          uuid: world.store.state.instanceUuid,
          memorySize: CAPACITY.totalMemory,
          cpuModel: 'simulated',
          cpuMhz: 3000,
          numCpuPkgs: 1,
          numCpuCores: CAPACITY.numCpuCores,
          numCpuThreads: CAPACITY.numCpuThreads,
          numNics: 1,
          numHBAs: 1,
        }),
      }),
    vm: () => world.vms.map(vmRef),
    datastore: () => folderChildren(world, DATASTORE_FOLDER.id),
    network: () => [NETWORK],
  };
}

function network(world: World): Properties {
  return {
    ...entity('VM Network', NETWORK_FOLDER),
    summary: () =>
      new Data('NetworkSummary', { network: NETWORK, name: 'VM Network', accessible: true, ipPoolName: '' }),
    host: () => [HOST],
    vm: () => world.vms.map(vmRef),
  };
}

function datastore(world: World, state: DatastoreState): Properties {
  const ref = new Ref('Datastore', state.moref);
  const url = `ds:///vmfs/volumes/${state.moref}/`;
  return {
    ...entity(state.name, DATASTORE_FOLDER),
    info: () =>
      new Data(state.type === 'NFS' ? 'NasDatastoreInfo' : 'VmfsDatastoreInfo', {
        name: state.name,
        url,
        freeSpace: state.capacityBytes,
        maxFileSize: 64 * 1024 ** 4,
        ...volume(state),
      }),
    summary: () =>
      new Data('DatastoreSummary', {
        datastore: ref,
        name: state.name,
        url,
        capacity: state.capacityBytes,
        freeSpace: state.capacityBytes,
        accessible: true,
        multipleHostAccess: false,
        type: state.type,
        maintenanceMode: 'normal',
      }),
    host: () => [
      new Data('DatastoreHostMount', {
        key: HOST,
        mountInfo: new Data('HostMountInfo', {
          path: `/vmfs/volumes/${state.moref}`,
          accessMode: 'readWrite',
          mounted: true,
          accessible: true,
        }),
      }),
    ],
    vm: () => world.vms.filter((vm) => vm.datastore === state.name).map(vmRef),
    browser: () => new Ref('HostDatastoreBrowser', `datastoreBrowser-${state.moref}`),
  };
}

function volume(state: DatastoreState): { nas: Data } | { vmfs: Data } {
  const common = { type: state.type, name: state.name, capacity: state.capacityBytes };
  if (state.type === 'NFS') {
    const share = { remoteHost: 'nfs.simulator.example', remotePath: `/${state.name}` };
    return { nas: new Data('HostNasVolume', { ...common, ...share }) };
  }
  return {
    vmfs: new Data('HostVmfsVolume', {
      ...common,
      blockSizeMb: 1,
      maxBlocks: 63_963_136,
      majorVersion: 6,
      version: '6.82',
      uuid: state.moref,
      extent: [new Data('HostScsiDiskPartition', { diskName: `naa.${state.moref}`, partition: 1 })],
      vmfsUpgradable: false,
    }),
  };
}

function virtualMachine(world: World, vm: VmState): Properties {
  const own = Object.entries(VM_PROPERTIES).map(([name, read]) => [name, () => read(world, vm)]);
  const busy = (): Value => (world.tasks.runningOn(vmRef(vm)) ? ['RelocateVM_Task'] : []);
  return {
    ...entity(vm.name, new Ref('Folder', vm.folder)),
    ...(Object.fromEntries(own) as Properties),
    disabledMethod: busy,
  };
}

function snapshot(world: World, moref: string): Properties | undefined {
  const found = world.snapshot(moref);
  if (!found) return undefined;
  const { vm, snapshot } = found;
  return {
    config: () => configOf(world, vm, snapshot),
    vm: () => vmRef(vm),
    childSnapshot: () => vm.snapshots.filter((entry) => entry.parent === moref).map(snapshotRef),
  };
}

function containerView(_world: World, session: Session | undefined, id: string): Properties | undefined {
  const view = session?.objects.get(id) as ContainerView | undefined;
  if (!view) return undefined;
  return {
    container: () => view.container,
    type: () => view.types,
    recursive: () => view.recursive,
    view: () => contained(_world, view),
  };
}

function sessionManager(world: World, session: Session | undefined): Properties {
  return {
    currentSession: () => session && userSession(session),
    sessionList: () => world.sessions.live(world.settings.sessionTimeoutMs).map(userSession),
    defaultLocale: () => 'en',
    supportedLocaleList: () => ['en'],
    messageLocaleList: () => ['en'],
  };
}

export function serviceContent(world: World): Data {
  const fields = fieldsOf('ServiceContent').filter((field) => field.type === 'ref');
  const offered: Record<string, Ref> = {};
  for (const ref of Object.values(SINGLETONS)) {
    const name = ref.type.charAt(0).toLowerCase() + ref.type.slice(1);
    if (fields.some((field) => field.name === name)) offered[name] = ref;
  }
  return new Data('ServiceContent', { rootFolder: ROOT_FOLDER, about: about(world, 'VirtualCenter'), ...offered });
}

function about(world: World, apiType: 'VirtualCenter' | 'HostAgent'): Data {
  const center = apiType === 'VirtualCenter';
  const product = center ? 'vCenter Server' : 'ESXi';
  return new Data('AboutInfo', {
    name: `VMware ${product}`,
    fullName: `VMware ${product} 8.0.3 (simulated by sendense)`,
    vendor: 'sendense simulator',
    version: '8.0.3',
    build: '24000000',
    localeVersion: 'INTL',
    localeBuild: '000',
    osType: center ? 'linux-x64' : 'vmnix-x86',
    productLineId: center ? 'vpx' : 'embeddedEsx',
    apiType,
    apiVersion: VERSION,
    instanceUuid: center ? world.store.state.instanceUuid : undefined,
    licenseProductName: `VMware ${product}`,
    licenseProductVersion: '8.0',
  });
}

export function same(a: Ref, b: Ref): boolean {
  return a.type === b.type && a.id === b.id;
}
