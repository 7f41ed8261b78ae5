/** A run of bytes of a disk. Offsets and lengths are bytes and exact: below 2^53 a number loses nothing. */
export interface Extent {
  offset: number;
  length: number;
}

/**
 * What is known of a run without reading it: `zero` and `hole` both read as zeroes, a hole takes no space either;
 * `data` may still turn out to be zeroes.
 */
export type ExtentKind = 'data' | 'zero' | 'hole';

export interface KnownExtent extends Extent {
  kind: ExtentKind;
}

export function endOf(extent: Extent): number {
  return extent.offset + extent.length;
}
