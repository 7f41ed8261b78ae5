import type { Extent, KnownExtent } from '#/lib/extents.ts';
import type { NbdClient } from './client.ts';
import { BASE_ALLOCATION, STATE_HOLE, STATE_ZERO } from './constants.ts';

/**
 * Walks a range in order as merged runs of data, zeroes and holes that cover it exactly. It asks as it goes, so a disk of any
 * size takes little memory. Where the server does not tell, all is data.
 */
export async function* allocation(
  client: Pick<NbdClient, 'contexts' | 'blockStatusOnce'>,
  range: Extent,
  signal?: AbortSignal,
): AsyncGenerator<KnownExtent> {
  const end = range.offset + range.length;
  if (!client.contexts.includes(BASE_ALLOCATION)) {
    if (range.length > 0) yield { ...range, kind: 'data' };
    return;
  }
  let held: KnownExtent | undefined;
  for (let at = range.offset; at < end; ) {
    for (const { offset, length, flags } of await client.blockStatusOnce(BASE_ALLOCATION, at, end - at, { signal })) {
      const kind = kindOf(flags);
      at += length;
      if (held?.kind === kind) {
        held.length += length;
        continue;
      }
      if (held) yield held;
      held = { offset, length, kind };
    }
  }
  if (held) yield held;
}

/** A hole that is not said to read as zeroes may hold anything. */
function kindOf(flags: number): KnownExtent['kind'] {
  if ((flags & STATE_ZERO) === 0) return 'data';
  return (flags & STATE_HOLE) === 0 ? 'zero' : 'hole';
}
