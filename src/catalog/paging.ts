import { SendenseError } from '#/lib/errors.ts';

/** One page of a list. `nextCursor` continues after its last item and is null on the last page. */
export interface Page<T> {
  items: T[];
  nextCursor: string | null;
}

export interface PageOptions {
  /** 1 to 1000; 100 when left out. */
  limit?: number;
  cursor?: string;
}

const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1000;

export function pageLimit(options: PageOptions): number {
  return Math.max(1, Math.min(options.limit ?? DEFAULT_LIMIT, MAX_LIMIT));
}

/** Makes a page of rows that were asked for with one more than its limit. */
export function pageOf<T>(rows: T[], options: PageOptions, cursorOf: (item: T) => string): Page<T> {
  const limit = pageLimit(options);
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  return { items, nextCursor: rows.length > limit && last !== undefined ? cursorOf(last) : null };
}

/** A cursor over two columns, opaque to whoever carries it. */
export function pairCursor(first: string, second: string): string {
  return Buffer.from(JSON.stringify([first, second])).toString('base64url');
}

export function readPairCursor(cursor: string): [string, string] {
  try {
    const pair: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'));
    if (Array.isArray(pair) && typeof pair[0] === 'string' && typeof pair[1] === 'string') return [pair[0], pair[1]];
  } catch (cause) {
    throw new SendenseError('INVALID_REQUEST', 'the cursor is not one of ours', { cause });
  }
  throw new SendenseError('INVALID_REQUEST', 'the cursor is not one of ours');
}
