/** `/folder`: files of the datastores over HTTPS. Disks are put together from their layers as they are read. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { takeFault } from './settings.ts';
import type { DiskState, LayerState, VmState } from './state.ts';
import { contentId } from './vm-devices.ts';
import { extentFileName } from './vm-layout.ts';
import { escapeName } from './vm-properties.ts';
import type { World } from './world.ts';

const PIECE_BYTES = 1024 * 1024;

interface DatastoreFile {
  /** `[datastore] directory/file`. */
  name: string;
  sizeBytes: number;
  /** Key in World.openLayers, for files that hold data of a disk. */
  layer?: string;
  /** The host that runs the VM holds the file: nobody else can open it. */
  locked?: boolean;
  read(offset: number, target: Buffer): Promise<void>;
}

export async function answerFolder(world: World, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const refuse = (status: number): void => void response.writeHead(status).end();
  world.counters.request(`folder ${request.method}`);
  if (!mayRead(world, request)) {
    response.writeHead(401, { 'www-authenticate': 'Basic realm="simulator"' }).end();
    return;
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') return refuse(405);
  const rule = takeFault(world.settings, 'folder', false);
  if (rule) return refuse(Number(rule.fault) || 500);
  const url = URL.parse(request.url ?? '/', 'https://simulator');
  const path = url && decodePath(url);
  if (path === undefined || path === null) return refuse(400);
  const file = findFile(world, url?.searchParams ?? new URLSearchParams(), path);
  if (!file) return refuse(404);
  if (file.locked) return refuse(500);
  const range = world.settings.ignoreRange ? undefined : parseRange(request.headers.range, file.sizeBytes);
  if (range === 'unsatisfiable') {
    response.writeHead(416, { 'content-range': `bytes */${file.sizeBytes}` }).end();
    return;
  }
  const { offset, length } = range ?? { offset: 0, length: file.sizeBytes };
  response.writeHead(range ? 206 : 200, {
    'content-type': 'application/octet-stream',
    'accept-ranges': 'bytes',
    'content-length': length,
    ...(range && { 'content-range': `bytes ${offset}-${offset + length - 1}/${file.sizeBytes}` }),
  });
  if (request.method === 'HEAD') return void response.end();
  await send(world, file, { offset, length }, response);
}

/** By session cookie or by user name and password. */
export function mayRead(world: World, request: IncomingMessage): boolean {
  if (world.sessions.find(request.headers.cookie, world.settings.sessionTimeoutMs)) return true;
  const [scheme, encoded] = (request.headers.authorization ?? '').split(' ');
  if (scheme?.toLowerCase() !== 'basic' || encoded === undefined) return false;
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon > 0 && world.sessions.accepts(text.slice(0, colon), text.slice(colon + 1));
}

async function send(
  world: World,
  file: DatastoreFile,
  range: { offset: number; length: number },
  response: ServerResponse,
): Promise<void> {
  world.counters.openStreams++;
  if (file.layer !== undefined) world.openLayers.set(file.layer, (world.openLayers.get(file.layer) ?? 0) + 1);
  try {
    for (let done = 0; done < range.length && !response.destroyed; ) {
      const piece = Buffer.allocUnsafe(Math.min(pieceBytes(world), range.length - done));
      await file.read(range.offset + done, piece);
      await world.pace(piece.length);
      done += piece.length;
      world.counters.served(file.name, piece.length);
      if (!response.write(piece)) await drained(response);
    }
    response.end();
  } finally {
    world.counters.openStreams--;
    if (file.layer !== undefined) world.openLayers.set(file.layer, (world.openLayers.get(file.layer) ?? 1) - 1);
  }
}

/** Small pieces where the rate is limited, so that a slow download is slow all along. */
function pieceBytes(world: World): number {
  const rate = world.settings.folderBytesPerSecond;
  return rate === 0 ? PIECE_BYTES : Math.max(4096, Math.min(PIECE_BYTES, Math.floor(rate / 10)));
}

async function drained(response: ServerResponse): Promise<void> {
  if (response.destroyed) return; // its close has been told already
  await new Promise<void>((resolve) => {
    const go = (): void => {
      response.off('drain', go);
      response.off('close', go);
      resolve();
    };
    response.on('drain', go);
    response.on('close', go);
  });
}

function parseRange(
  header: string | undefined,
  sizeBytes: number,
): { offset: number; length: number } | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d{1,16})-(\d{0,16})$/.exec(header ?? '');
  if (!match) return undefined; // like most servers: what is not one plain range is ignored
  const offset = Number(match[1]);
  const last = match[2] === '' ? sizeBytes - 1 : Math.min(Number(match[2]), sizeBytes - 1);
  return offset >= sizeBytes || last < offset ? 'unsatisfiable' : { offset, length: last - offset + 1 };
}

/** The path on the datastore; undefined when it is not well-formed or leaves its folder. */
function decodePath(url: URL): string | undefined {
  try {
    const path = decodeURIComponent(url.pathname.replace(/^\/folder\//, ''));
    return path.split('/').includes('..') ? undefined : path;
  } catch {
    return undefined;
  }
}

function findFile(world: World, query: URLSearchParams, path: string): DatastoreFile | undefined {
  const datastore = query.get('dsName');
  const datacenter = query.get('dcPath')?.replaceAll(/^\/+|\/+$/g, '');
  if (datacenter !== undefined && datacenter !== escapeName(world.store.state.datacenter)) return undefined;
  const slash = path.indexOf('/');
  const [directory, name] = [path.slice(0, slash), path.slice(slash + 1)];
  const vm = world.vms.find((one) => one.directory === directory && one.datastore === datastore);
  if (!vm) return undefined;
  for (const disk of vm.disks) {
    for (const layer of disk.layers) {
      if (name === layer.fileName) return descriptor(vm, disk, layer);
      if (name === extentFileName(layer.fileName, layer.parent === undefined))
        return extent(world, vm, { disk, layer });
    }
  }
  return undefined;
}

function extent(
  world: World,
  vm: VmState,
  { disk, layer }: { disk: DiskState; layer: LayerState },
): DatastoreFile | undefined {
  if (layer.parent !== undefined) return undefined; // a delta cannot be had this way
  const opened = world.disk(vm, disk);
  // NFS lets others read what the guest no longer writes to; VMFS lets nobody near a running VM's disks.
  const onVmfs = world.datastore(vm.datastore)?.type === 'VMFS';
  const locked = vm.powerState === 'poweredOn' && (onVmfs || (disk.present && disk.head === layer.id));
  return {
    locked,
    name: `[${vm.datastore}] ${vm.directory}/${extentFileName(layer.fileName, true)}`,
    sizeBytes: layer.capacityBytes,
    layer: opened.layerPath(layer.id),
    read: (offset, target) => opened.read(layer.id, offset, target),
  };
}

function descriptor(vm: VmState, disk: DiskState, layer: LayerState): DatastoreFile {
  const isBase = layer.parent === undefined;
  const parent = disk.layers.find((one) => one.id === layer.parent);
  const uuid = disk.uuid.replaceAll('-', '').toLowerCase().match(/../g) ?? [];
  const text = Buffer.from(
    [
      '# Disk DescriptorFile',
      'version=1',
      `CID=${contentId(layer.id)}`,
      `parentCID=${parent ? contentId(parent.id) : 'ffffffff'}`,
      `createType="${isBase ? 'vmfs' : 'seSparse'}"`,
      ...(parent ? [`parentFileNameHint="${parent.fileName}"`] : []),
      '',
      '# Extent description',
      `RW ${layer.capacityBytes / 512} ${isBase ? 'VMFS' : 'SESPARSE'} "${extentFileName(layer.fileName, isBase)}"`,
      '',
      '# The Disk Data Base',
      'ddb.adapterType = "lsilogic"',
      `ddb.uuid = "${uuid.slice(0, 8).join(' ')}-${uuid.slice(8).join(' ')}"`,
      'ddb.virtualHWVersion = "19"',
      '',
    ].join('\n'),
  );
  return {
    name: `[${vm.datastore}] ${vm.directory}/${layer.fileName}`,
    sizeBytes: text.length,
    read: async (offset, target) => void text.copy(target, 0, offset, offset + target.length),
  };
}
