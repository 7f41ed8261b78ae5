import { childrenOf, textOf, child } from './xml.ts';
import type { XmlNode } from './xml.ts';

export interface SnapshotInfo {
  moref: string;
  /** Unescaped. */
  name: string;
  description: string;
  /** By the clock of the server; undefined when it is not readable. */
  createdAt: Temporal.Instant | undefined;
  quiesced: boolean;
}

/** All snapshots of a `snapshot` property (VirtualMachineSnapshotInfo), parents before children. */
export function readSnapshotTree(info: XmlNode | undefined): SnapshotInfo[] {
  const found: SnapshotInfo[] = [];
  const waiting = childrenOf(info, 'rootSnapshotList');
  for (let node = waiting.shift(); node; node = waiting.shift()) {
    const moref = textOf(node, 'snapshot')?.trim();
    if (moref) found.push(readSnapshot(node, moref));
    waiting.push(...childrenOf(node, 'childSnapshotList'));
  }
  return found;
}

export function countSnapshots(info: XmlNode | undefined): number {
  return readSnapshotTree(info).length;
}

function readSnapshot(node: XmlNode, moref: string): SnapshotInfo {
  return {
    moref,
    name: unescapeName(textOf(node, 'name') ?? ''),
    description: textOf(node, 'description') ?? '',
    createdAt: readInstant(textOf(node, 'createTime')),
    quiesced: textOf(child(node, 'quiesced'))?.trim() === 'true',
  };
}

/** An xsd:dateTime; one without an offset is UTC. */
function readInstant(text: string | undefined): Temporal.Instant | undefined {
  const trimmed = text?.trim() ?? '';
  const zoned = /(?:Z|[+-]\d\d:\d\d)$/i.test(trimmed) ? trimmed : `${trimmed}Z`;
  try {
    return Temporal.Instant.from(zoned);
  } catch {
    return undefined;
  }
}

/** Names come with `%`, `/` and `\` escaped. */
export function unescapeName(name: string): string {
  return name.replaceAll(/%(25|2f|5c)/gi, (escape) => String.fromCharCode(Number.parseInt(escape.slice(1), 16)));
}

export function escapeName(name: string): string {
  return name.replaceAll(/[%/\\]/g, (char) => `%${char.charCodeAt(0).toString(16)}`);
}
