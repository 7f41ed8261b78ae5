/** A run of bytes of a disk; both numbers in bytes, length at least 1. */
export interface Extent {
  offset: number;
  length: number;
}

/** Cuts an extent into pieces of at most `maxBytes`, in order. */
export function* splitExtent(extent: Extent, maxBytes: number): Generator<Extent> {
  const end = extent.offset + extent.length;
  for (let offset = extent.offset; offset < end; offset += maxBytes) {
    yield { offset, length: Math.min(maxBytes, end - offset) };
  }
}
