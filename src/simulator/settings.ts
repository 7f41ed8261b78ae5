import { SendenseError } from '#/lib/errors.ts';

export interface FaultRule {
  /** API method or `folder`. */
  method: string;
  /** Fault type such as `FileFault`; with `folder` the HTTP status. */
  fault: string;
  /** How many more times; absent = until removed. */
  count?: number;
  /** Let this many pass first. */
  skip?: number;
  /** The method succeeds and its task fails. */
  inTask?: boolean;
}

export const DEFAULT_SETTINGS = {
  /** How long every task takes at least. */
  taskMs: 0,
  /** Wait before every SOAP answer. */
  latencyMs: 0,
  /** All `/folder` downloads together; 0 = as fast as it goes. */
  folderBytesPerSecond: 0,
  sessionTimeoutMs: 30 * 60 * 1000,
  /** Objects in one page when the client does not say. */
  pageObjects: 100,
  qcdaMaxAreas: 2000,
  qcdaRegionBytes: 2 * 1024 ** 4,
  granularityBytes: 65_536,
  /** Whether change id `*` is answered. */
  qcdaAllocated: true,
  /** Areas come unsorted and overlapping. */
  qcdaUnsorted: false,
  /** A host with a defect: this many areas of each answer are silently missing. */
  qcdaDropAreas: 0,
  /** Whether the snapshot that switches tracking on already carries a change id. */
  changeIdAtFirstStun: true,
  /** Answer 200 with the whole file to a ranged download. */
  ignoreRange: false,
  /** How long a removal waits for open downloads of its files before it leaves consolidation behind. */
  lockWaitMs: 2000,
  /** Snapshots per VM in a row. */
  snapshotLimit: 32,
  keepSnapshots: false,
  faults: [] as FaultRule[],
};

export type Settings = typeof DEFAULT_SETTINGS;

/** Takes over the named settings; INVALID_REQUEST for an unknown name or a value of the wrong type or sign. */
export function changeSettings(settings: Settings, changes: unknown): void {
  if (typeof changes !== 'object' || changes === null || Array.isArray(changes)) {
    throw new SendenseError('INVALID_REQUEST', 'settings are an object of names and values');
  }
  for (const [name, value] of Object.entries(changes)) checkSetting(name, value);
  Object.assign(settings, changes);
}

function checkSetting(name: string, value: unknown): void {
  if (!Object.hasOwn(DEFAULT_SETTINGS, name)) {
    const known = Object.keys(DEFAULT_SETTINGS);
    throw new SendenseError('INVALID_REQUEST', `there is no setting ${name}`, { details: { field: name, known } });
  }
  const fallback = DEFAULT_SETTINGS[name as keyof Settings];
  const positive = name === 'granularityBytes' || name.startsWith('qcdaMax') || name === 'qcdaRegionBytes';
  const fits = Array.isArray(fallback)
    ? Array.isArray(value) && value.every(isFaultRule)
    : typeof value === typeof fallback &&
      (typeof value !== 'number' || isWhole(value, positive || name === 'pageObjects'));
  if (!fits) {
    throw new SendenseError('INVALID_REQUEST', `${name} cannot have that value`, { details: { field: name } });
  }
  if ((name === 'granularityBytes' || name === 'qcdaRegionBytes') && (value as number) % 512 !== 0) {
    throw new SendenseError('INVALID_REQUEST', `${name} is a multiple of 512`, { details: { field: name } });
  }
}

function isWhole(value: number, positive: boolean): boolean {
  return Number.isSafeInteger(value) && value >= (positive ? 1 : 0);
}

function isFaultRule(value: unknown): value is FaultRule {
  if (typeof value !== 'object' || value === null) return false;
  const rule = value as Record<string, unknown>;
  const numbers = ['count', 'skip'].every((key) => rule[key] === undefined || isWhole(Number(rule[key]), false));
  return typeof rule['method'] === 'string' && /^\w{1,60}$/.test(String(rule['fault'])) && numbers;
}

/** Uses up one turn of the first rule that applies to `method`. */
export function takeFault(settings: Settings, method: string, inTask: boolean): FaultRule | undefined {
  for (const rule of settings.faults) {
    if (rule.method !== method || (rule.inTask ?? false) !== inTask || rule.count === 0) continue;
    if (rule.skip !== undefined && rule.skip > 0) {
      rule.skip--;
      continue;
    }
    if (rule.count !== undefined) rule.count--;
    return rule;
  }
  return undefined;
}
