/** Files of a datastore by HTTPS: their addresses, and the descriptors that say where a disk's bytes lie. No I/O. */
import { SendenseError } from '#/lib/errors.ts';

export interface DatastoreFile {
  datastore: string;
  /** Below the datastore's root, with forward slashes. */
  path: string;
}

/** `[datastore] folder/file.vmdk`; TRANSPORT_UNSUPPORTED for anything that is no file of a datastore. */
export function parseDatastorePath(fileName: string): DatastoreFile {
  const match = /^\[([^\]]+)\] ?(.+)$/s.exec(fileName);
  const [, datastore, path] = match ?? [];
  const parts = path?.split('/') ?? [];
  if (!datastore || !path || parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw unsupported(`"${fileName}" is not a file of a datastore`, { fileName });
  }
  return { datastore, path };
}

/** Another file in the same folder. */
export function sibling(file: DatastoreFile, name: string): DatastoreFile {
  return { datastore: file.datastore, path: file.path.replace(/[^/]*$/, name) };
}

/** Request path of a file. `datacenterPath` is the inventory path in the server's own escaping. */
export function folderUrl(file: DatastoreFile, datacenterPath: string): string {
  const path = file.path.split('/').map(encodeURIComponent).join('/');
  const where = datacenterPath === '' ? '' : `dcPath=${encodeURIComponent(datacenterPath)}&`;
  return `/folder/${path}?${where}dsName=${encodeURIComponent(file.datastore)}`;
}

export interface FlatExtent {
  /** File beside the descriptor that holds the disk's bytes as they are. */
  fileName: string;
  sizeBytes: number;
  /** Where in the file the disk begins. */
  offsetBytes: number;
  /** Lower-case hex without separators; undefined when the descriptor carries none. */
  uuid: string | undefined;
}

const FLAT_TYPES = ['VMFS', 'FLAT'];
/** Every extent line of a descriptor, also those of types that cannot be read. */
const EXTENT = /^(?:RW|RDONLY|NOACCESS)\s+([0-9]{1,15})\s+([A-Z0-9]+)(?:\s+"([^"]*)"(?:\s+([0-9]{1,15}))?)?\s*$/gm;

/**
 * The one flat extent of a disk that depends on no other file. TRANSPORT_UNSUPPORTED with the type named for deltas,
 * sparse, split and mapped disks: their bytes are not simply there to be read.
 */
export function parseDescriptor(text: string, fileName: string): FlatExtent {
  if (!text.startsWith('# Disk DescriptorFile')) {
    throw unsupported(`${fileName} is not a plain disk descriptor`, { fileName });
  }
  const createType = /^createType\s*=\s*"([^"]*)"/m.exec(text)?.[1] ?? 'unknown';
  const extents = [...text.matchAll(EXTENT)];
  const [, sectors, type = 'none', extentFile, offset] = extents[0] ?? [];
  const details = { fileName, createType, extentType: type };
  if (extents.length !== 1) {
    throw unsupported(`${fileName} has ${extents.length} extents (createType ${createType})`, details);
  }
  if (!FLAT_TYPES.includes(type)) {
    throw unsupported(`${fileName} is of type ${createType} with a ${type} extent`, details);
  }
  const parent = /^parentCID\s*=\s*([0-9a-f]{8})/im.exec(text)?.[1]?.toLowerCase() ?? 'ffffffff';
  if (parent !== 'ffffffff' || /^parentFileNameHint/m.test(text)) {
    throw unsupported(`${fileName} of type ${createType} lies on top of another disk`, details);
  }
  if (!extentFile || /[/\\]|^\.{1,2}$/.test(extentFile)) {
    throw unsupported(`${fileName} has its data in another place: "${extentFile ?? ''}"`, details);
  }
  return {
    fileName: extentFile,
    sizeBytes: Number(sectors) * 512,
    offsetBytes: Number(offset ?? 0) * 512,
    uuid: hex(/^ddb\.uuid\s*=\s*"([^"]*)"/m.exec(text)?.[1]),
  };
}

/** A uuid in any of its spellings as bare lower-case hex; undefined for what is none. */
export function hex(uuid: string | null | undefined): string | undefined {
  const digits = uuid?.replaceAll(/[\s-]/g, '').toLowerCase();
  return digits !== undefined && /^[0-9a-f]{32}$/.test(digits) ? digits : undefined;
}

export function unsupported(message: string, details: Record<string, string | number>): SendenseError {
  return new SendenseError('TRANSPORT_UNSUPPORTED', message, { details });
}
