/**
 * Names inside a repository. Pure: nothing here looks at a disk. All paths are relative to the root, with `/`.
 *
 *     vms/<vm name>-<short id>/<UTC time>-<point id>[.unfinished]/disk-N.qcow2
 */
import path from 'node:path';
import { fileTimestamp } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';

export const IDENTITY_FILE = '.sendense-repository.json';
export const VMS_FOLDER = 'vms';
export const UNFINISHED_SUFFIX = '.unfinished';
export const POINT_FILE = 'point.json';
export const VM_CONFIG_FILE = 'vm-config.xml';
export const RESTORE_FILE = 'RESTORE.txt';

const MAX_SLUG_BYTES = 60;
const POINT_NAME = /^(\d{8}T\d{6}Z)-([0-9A-Za-z]{1,64})(\.unfinished)?$/;
/** Names that Windows servers refuse whatever follows the first dot. */
const RESERVED = /^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)/i;

export function diskImage(index: number): string {
  if (!Number.isInteger(index) || index < 0 || index > 9999) throw invalid(`no disk has the index ${index}`);
  return `disk-${index}.qcow2`;
}

/** Readable, legal on every file system, at most 60 bytes; different VMs may share it, the short id tells them apart. */
export function slug(name: string): string {
  const readable = name
    .normalize('NFC')
    .replaceAll(/[^\p{L}\p{M}\p{N}._-]+/gu, '-')
    .replaceAll(/-{2,}/g, '-')
    .replaceAll(/\.{2,}/g, '.');
  const trimmed = cut(readable.replace(/^[-._\p{M}]+/u, '')).replace(/[-._]+$/, '');
  if (trimmed === '') return 'vm';
  return RESERVED.test(trimmed) ? cut(`vm-${trimmed}`) : trimmed;
}

function cut(text: string): string {
  let bytes = 0;
  let result = '';
  for (const character of text) {
    bytes += Buffer.byteLength(character);
    if (bytes > MAX_SLUG_BYTES) break;
    result += character;
  }
  return result;
}

/** The part of a VM's folder that does not change when the VM is renamed. */
export function shortId(vmId: string): string {
  const plain = vmId.toLowerCase().replaceAll(/[^0-9a-z]/g, '');
  if (plain === '') throw invalid(`not an id: ${JSON.stringify(vmId)}`);
  return plain.slice(-8);
}

export function vmFolder(vmName: string, vmId: string): string {
  return `${slug(vmName)}-${shortId(vmId)}`;
}

export function pointName(startedAt: Temporal.Instant, pointId: string): string {
  if (!/^[0-9A-Za-z]{1,64}$/.test(pointId)) throw invalid(`not a restore point id: ${JSON.stringify(pointId)}`);
  return `${fileTimestamp(startedAt)}-${pointId}`;
}

export interface ParsedFolder {
  vmFolder: string;
  /** Last part of the path. */
  name: string;
  pointId: string;
  unfinished: boolean;
}

/** The parts of a point's folder; undefined for anything that is not exactly `vms/<vm>/<point>`. */
export function parsePointFolder(folder: string): ParsedFolder | undefined {
  const [top, vm, name, ...more] = folder.split('/');
  if (top !== VMS_FOLDER || vm === undefined || name === undefined || more.length > 0) return undefined;
  if (vm === '' || vm.startsWith('.') || vm.includes('\0')) return undefined;
  const match = POINT_NAME.exec(name);
  if (!match?.[2]) return undefined;
  return { vmFolder: vm, name, pointId: match[2], unfinished: match[3] !== undefined };
}

/** Like parsePointFolder, for callers whose folder must be of the given state; INVALID_REQUEST otherwise. */
export function requirePointFolder(folder: string, state: 'finished' | 'unfinished' | 'any'): ParsedFolder {
  const parsed = parsePointFolder(folder);
  if (!parsed || (state !== 'any' && parsed.unfinished !== (state === 'unfinished'))) {
    const wanted = state === 'any' ? 'the folder of a restore point' : `the folder of a restore point, ${state}`;
    throw invalid(`${JSON.stringify(folder)} is not ${wanted}`);
  }
  return parsed;
}

/**
 * What an image in `fromFolder` writes into its header to name `toImage` (a path from the root). The same whether
 * `fromFolder` has the unfinished suffix or not, so the rename that commits does not break it.
 */
export function backingReference(fromFolder: string, toImage: string): string {
  requirePointFolder(fromFolder, 'any');
  const folder = path.posix.dirname(toImage);
  requirePointFolder(folder, 'finished');
  if (!/^disk-\d{1,4}\.qcow2$/.test(path.posix.basename(toImage))) {
    throw invalid(`${JSON.stringify(toImage)} is not a disk image`);
  }
  const bare = fromFolder.slice(0, -UNFINISHED_SUFFIX.length);
  if (folder === (fromFolder.endsWith(UNFINISHED_SUFFIX) ? bare : fromFolder)) {
    throw invalid(`${JSON.stringify(toImage)} would lie below an image of its own restore point`);
  }
  return path.posix.relative(fromFolder, toImage);
}

function invalid(message: string): SendenseError {
  return new SendenseError('INVALID_REQUEST', message);
}
