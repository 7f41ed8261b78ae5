/** The catalog under several processes and kill -9, on both databases. What single processes promise is tested beside the code. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { onBothPlaces, onPostgres } from '#/catalog/both-databases.ts';
import { openCatalog } from '#/catalog/catalog.ts';
import type { CatalogPlace } from '#/catalog/catalog.ts';
import { dumpSchema } from '#/catalog/schema.ts';
import { waitFor } from '#/lib/retry.ts';
import { ended, run, start } from '#/lib/run.ts';

const WORKER = fileURLToPath(new URL('catalog-worker.ts', import.meta.url));

async function newJob(place: CatalogPlace): Promise<string> {
  await using catalog = await openCatalog(place);
  return (await catalog.jobs.enqueue({ kind: 'backup', payload: {}, createdBy: 'test' })).id;
}

onBothPlaces('a writer killed at any moment loses nothing that it was told is kept', async (place) => {
  const jobId = await newJob(place);
  for (const round of [1, 2, 3]) {
    const child = start(process.execPath, [WORKER, 'write', JSON.stringify(place), jobId], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const end = ended('worker', child);
    let output = '';
    child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
    await waitFor('some lines', () => (output.split('\n').length > 40 * round ? true : undefined), {
      timeoutMs: 30_000,
    });
    child.kill('SIGKILL');
    assert.equal((await end).signal, 'SIGKILL');
    const acknowledged = output.slice(0, output.lastIndexOf('\n')).split('\n');
    await using catalog = await openCatalog(place);
    const lines = await catalog.jobLog.list(jobId, { limit: 5000 });
    const kept = new Set(lines.map((line) => line.message));
    assert.deepEqual(
      acknowledged.filter((count) => !kept.has(count)),
      [],
    );
    // The catalog goes on being usable after each kill.
    await catalog.jobLog.append({ jobId, step: 'after', message: `round ${round}` });
  }
});

onPostgres('processes that claim together take every job once and keep to all caps', async (place) => {
  const caps = { 'host:1': 2, 'repository:1': 3 };
  {
    await using catalog = await openCatalog(place);
    for (let number = 0; number < 60; number++) {
      const host = number % 2 === 0 ? [{ resource: 'host:1', cap: caps['host:1'] }] : [];
      await catalog.jobs.enqueue({
        kind: 'backup',
        payload: { onHost: host.length > 0 },
        createdBy: 'test',
        resources: [...host, { resource: 'repository:1', cap: caps['repository:1'] }],
      });
    }
  }
  const workers = ['a', 'b', 'c', 'd'].map((owner) =>
    run(process.execPath, [WORKER, 'claim', JSON.stringify(place), owner], { timeoutMs: 60_000 }),
  );
  const done = (await Promise.all(workers)).flatMap(({ stdout }) =>
    stdout
      .trim()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { id: string; from: number; to: number; payload: { onHost: boolean } }),
  );
  assert.equal(done.length, 60);
  assert.equal(new Set(done.map(({ id }) => id)).size, 60);
  for (const one of done) {
    const together = done.filter((other) => other.from <= one.from && other.to > one.from);
    assert.ok(together.length <= caps['repository:1'], `${together.length} at once in the repository`);
    assert.ok(together.filter(({ payload }) => payload.onHost).length <= caps['host:1'], 'at once on the host');
  }
});

onBothPlaces('migrating again changes nothing, also when two start together', async (place) => {
  // One hub at a time opens a SQLite catalog.
  const opened = await Promise.all(
    place.kind === 'sqlite' ? [openCatalog(place)] : [openCatalog(place), openCatalog(place)],
  );
  const [first] = opened;
  assert.ok(first);
  const before = await dumpSchema(first);
  for (const catalog of opened) await catalog.close();
  await using again = await openCatalog(place);
  assert.equal(await dumpSchema(again), before);
});
