import { BLOCK_BYTES } from './plan.ts';

const ZEROES = Buffer.alloc(BLOCK_BYTES);

/** Neighbouring blocks of one buffer that are all zeroes or all not; offsets count from the buffer's start. */
export interface ContentRun {
  start: number;
  end: number;
  zero: boolean;
}

/** Splits `data`, which starts on the block grid, into its runs of zero and other blocks. */
export function contentRuns(data: Buffer): ContentRun[] {
  const runs: ContentRun[] = [];
  let run: ContentRun | undefined;
  for (let start = 0; start < data.length; start += BLOCK_BYTES) {
    const end = Math.min(start + BLOCK_BYTES, data.length);
    const zero = isZero(data, start, end);
    if (run?.zero === zero) run.end = end;
    else runs.push((run = { start, end, zero }));
  }
  return runs;
}

/** Most blocks with data differ in their first bytes, and that look costs no call out of JavaScript. */
function isZero(data: Buffer, start: number, end: number): boolean {
  for (let i = start; i < Math.min(start + 8, end); i++) if (data[i] !== 0) return false;
  return data.compare(ZEROES, 0, end - start, start, end) === 0;
}
