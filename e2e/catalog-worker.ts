/**
 * A process of its own for the suite `catalog`. `write PLACE` appends log lines as fast as it can and prints the number
 * of each one that was acknowledged; `claim PLACE OWNER` claims and finishes jobs until none is left and prints each.
 */
import { leaseOf } from '#/catalog/job-states.ts';
import { openCatalog } from '#/catalog/catalog.ts';
import type { CatalogPlace } from '#/catalog/catalog.ts';
import { sleep } from '#/lib/clock.ts';

const [mode, place, subject] = process.argv.slice(2);
await using catalog = await openCatalog(JSON.parse(place ?? '') as CatalogPlace);
if (mode === 'write') {
  for (let count = 1; ; count++) {
    await catalog.jobLog.append({ jobId: subject ?? '', step: 'write', message: String(count) });
    process.stdout.write(`${count}\n`);
  }
}
for (let idle = 0; idle < 20; ) {
  const job = await catalog.jobs.claim(subject ?? '', 60_000, ['backup']);
  if (!job) {
    idle++;
    await sleep(20);
    continue;
  }
  idle = 0;
  const before = Date.now();
  await sleep(15);
  await catalog.jobs.finish(leaseOf(job), { status: 'completed' });
  process.stdout.write(`${JSON.stringify({ id: job.id, from: before, to: Date.now(), payload: job.payload })}\n`);
}
