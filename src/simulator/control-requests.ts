/** Bodies of the control interface: INVALID_REQUEST names the field that does not fit. */
import { SendenseError } from '#/lib/errors.ts';
import type { Extent } from '#/lib/extents.ts';
import type { GuestWriteRequest, WorkloadRequest } from './guest.ts';
import type { ScenarioDisk } from './scenario.ts';
import { readDisk } from './scenario.ts';

const MAX_EXTENTS = 1_000_000;
const MAX_BLOCK_BYTES = 64 * 1024 ** 2;

type Body = Record<string, unknown>;

export function bodyOf(text: string): Body {
  let value: unknown;
  try {
    value = text === '' ? {} : JSON.parse(text);
  } catch (cause) {
    throw new SendenseError('INVALID_REQUEST', 'the body is not JSON', { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid('', 'an object');
  return value as Body;
}

export function guestWriteRequest(body: Body): GuestWriteRequest {
  onlyKeys(body, ['disk', 'percent', 'extents', 'seed', 'blockBytes', 'zero']);
  const percent = optional(body, 'percent', 'a number above 0 up to 100', isPercent);
  const blockBytes = optional(body, 'blockBytes', 'whole sectors up to 64 MiB', isBlock);
  const extents = optional(body, 'extents', 'a list of {offset, length}', isExtents);
  const zero = optional(body, 'zero', 'true or false', (value) => typeof value === 'boolean');
  if (percent !== undefined && extents !== undefined) throw invalid('percent', 'left out beside extents');
  return {
    ...diskAndSeed(body),
    ...(percent !== undefined && { percent }),
    ...(blockBytes !== undefined && { blockBytes }),
    ...(extents !== undefined && { extents }),
    ...(zero !== undefined && { zero }),
  };
}

export function workloadRequest(body: Body): WorkloadRequest {
  onlyKeys(body, ['disk', 'bytesPerSecond', 'blockBytes', 'seed']);
  const bytesPerSecond = optional(body, 'bytesPerSecond', 'a number above 0', isPositive);
  const blockBytes = optional(body, 'blockBytes', 'whole sectors up to 64 MiB', isBlock);
  if (bytesPerSecond === undefined) throw invalid('bytesPerSecond', 'given');
  return { ...diskAndSeed(body), bytesPerSecond, ...(blockBytes !== undefined && { blockBytes }) };
}

export function extendRequest(body: Body): { disk: number | string; capacityBytes: number } {
  onlyKeys(body, ['disk', 'capacityBytes']);
  const capacityBytes = optional(body, 'capacityBytes', 'whole sectors', isPositive);
  if (capacityBytes === undefined) throw invalid('capacityBytes', 'given');
  return { disk: diskAndSeed(body).disk ?? 0, capacityBytes };
}

export function newDiskRequest(body: Body): ScenarioDisk {
  try {
    return readDisk(body, 'disk');
  } catch (cause) {
    throw new SendenseError('INVALID_REQUEST', cause instanceof Error ? cause.message : 'no disk', { cause });
  }
}

export function powerRequest(body: Body): 'poweredOn' | 'poweredOff' {
  onlyKeys(body, ['state']);
  const { state } = body;
  if (state !== 'poweredOn' && state !== 'poweredOff') throw invalid('state', 'poweredOn or poweredOff');
  return state;
}

function diskAndSeed(body: Body): { disk?: number | string; seed?: string } {
  const isDisk = (value: unknown): value is number | string => typeof value === 'number' || isText(value);
  const disk = optional(body, 'disk', 'an index, key, uuid or label', isDisk);
  const seed = optional(body, 'seed', 'text', isText);
  return { ...(disk !== undefined && { disk }), ...(seed !== undefined && { seed }) };
}

function onlyKeys(body: Body, keys: readonly string[]): void {
  const other = Object.keys(body).find((key) => !keys.includes(key));
  if (other !== undefined) throw invalid(other, `one of ${keys.join(', ')}`);
}

function optional<T>(body: Body, key: string, wanted: string, fits: (value: unknown) => value is T): T | undefined {
  const value = body[key];
  if (value === undefined) return undefined;
  if (!fits(value)) throw invalid(key, wanted);
  return value;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= 1000;
}

function isPositive(value: unknown): value is number {
  return typeof value === 'number' && value > 0 && value <= Number.MAX_SAFE_INTEGER;
}

function isPercent(value: unknown): value is number {
  return isPositive(value) && value <= 100;
}

function isBlock(value: unknown): value is number {
  return isPositive(value) && value % 512 === 0 && value <= MAX_BLOCK_BYTES;
}

function isExtents(value: unknown): value is Extent[] {
  const isExtent = (one: unknown): boolean =>
    typeof one === 'object' &&
    one !== null &&
    typeof (one as Body)['offset'] === 'number' &&
    typeof (one as Body)['length'] === 'number';
  return Array.isArray(value) && value.length > 0 && value.length <= MAX_EXTENTS && value.every(isExtent);
}

function invalid(field: string, wanted: string): SendenseError {
  const message = field === '' ? `the body must be ${wanted}` : `${field} must be ${wanted}`;
  return new SendenseError('INVALID_REQUEST', message, { details: { field } });
}
