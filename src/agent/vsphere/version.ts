import { SendenseError } from '#/lib/errors.ts';
import type { Connection } from './connection.ts';
import { child, childrenOf, parseXml, textOf } from './xml.ts';

/** Newest API version whose answers we have read the description of. */
const NEWEST_KNOWN = '9.0.0.0';
/** What a server too old to publish its versions is spoken to with. */
const OLDEST = '6.0';

/** Compares `8.0.3.0` and `9.0.0.0` part by part as numbers. */
export function compareVersions(left: string, right: string): number {
  const a = left.split('.').map(Number);
  const b = right.split('.').map(Number);
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return Math.sign(difference);
  }
  return 0;
}

/** The highest version that both sides know. */
export async function chooseVersion(connection: Connection, signal?: AbortSignal): Promise<string> {
  const { status, text } = await connection.get('/sdk/vimServiceVersions.xml', signal);
  if (status === 404) return OLDEST;
  if (status !== 200) {
    const message = `${connection.origin} answered with HTTP status ${status} where a vCenter tells its versions`;
    throw new SendenseError('SOURCE_UNREACHABLE', message, { details: { status } });
  }
  try {
    return highestKnown(text);
  } catch (cause) {
    const message = `${connection.origin} does not answer like a vCenter or ESXi host`;
    throw new SendenseError('SOURCE_UNREACHABLE', message, { details: { status }, cause });
  }
}

export function highestKnown(text: string): string {
  const vim = childrenOf(parseXml(text), 'namespace').find((entry) => textOf(entry, 'name')?.trim() === 'urn:vim25');
  const prior = childrenOf(child(vim, 'priorVersions'), 'version').map((entry) => entry.text.trim());
  const offered = [textOf(vim, 'version')?.trim() ?? '', ...prior].filter((version) =>
    /^[0-9]+(\.[0-9]+)*$/.test(version),
  );
  const known = offered.filter((version) => compareVersions(version, NEWEST_KNOWN) <= 0);
  return known.sort(compareVersions).at(-1) ?? OLDEST;
}
