/** What a backup costs when there is nothing to copy, from the request to the committed restore point. */
import type { BenchOptions } from './main.ts';
import { median } from './ratio.ts';
import { Stack } from '../e2e/harness.ts';

export async function overhead({ pairs }: BenchOptions): Promise<Record<string, unknown>> {
  await using stack = await Stack.start({
    scenario: { vms: [{ name: 'empty', disks: [{ sizeBytes: 10 * 1024 ** 3, content: 'blank' }] }] },
  });
  await stack.settings({ keepSnapshots: false });
  const timed = async (type: 'full' | 'incremental'): Promise<number> => {
    const started = performance.now();
    await stack.backup('empty', type);
    return performance.now() - started;
  };
  const fulls: number[] = [];
  const incrementals: number[] = [];
  for (let turn = 0; turn < pairs; turn++) {
    fulls.push(await timed('full'));
    incrementals.push(await timed('incremental'));
  }
  return {
    unit: 'milliseconds, median',
    runs: pairs,
    fullOfEmptyDiskMs: Math.round(median(fulls)),
    incrementalWithoutChangesMs: Math.round(median(incrementals)),
  };
}
