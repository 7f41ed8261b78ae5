import assert from 'node:assert/strict';
import { hasCode } from '#/lib/errors.ts';
import { onBothDatabases } from './both-databases.ts';
import type { Catalog } from './catalog.ts';
import { leaseOf } from './job-states.ts';
import type { Lease, NewJob } from './job-states.ts';
import { makeSample, startBackup } from './sample.ts';

async function enqueue(catalog: Catalog, given: Partial<NewJob> = {}): Promise<string> {
  return (await catalog.jobs.enqueue({ kind: 'backup', payload: {}, createdBy: 'test', ...given })).id;
}

async function claim(catalog: Catalog, owner = 'hub-1'): Promise<Lease> {
  const job = await catalog.jobs.claim(owner, 10_000, ['backup', 'restore']);
  assert.ok(job, 'a job was there to claim');
  return leaseOf(job);
}

onBothDatabases('a job goes from the queue through its states to its result', async ({ catalog }) => {
  const created = await catalog.jobs.enqueue({ kind: 'backup', payload: { a: [1, 'ü\n"'] }, createdBy: 'anna' });
  assert.deepEqual(await catalog.jobs.get(created.id), created);
  const claimed = await catalog.jobs.claim('hub-1', 10_000, ['backup']);
  assert.equal(claimed?.id, created.id);
  assert.equal(claimed?.status, 'preparing');
  assert.equal(claimed?.attempt, 1);
  assert.deepEqual(claimed?.payload, { a: [1, 'ü\n"'] });
  assert.equal(claimed?.leaseExpiresAt?.since(claimed.startedAt ?? created.createdAt).total('milliseconds'), 10_000);
  const lease = leaseOf(claimed);
  for (const status of ['snapshotting', 'copying', 'copying', 'committing'] as const) {
    assert.equal((await catalog.jobs.setStatus(lease, status)).status, status);
  }
  await assert.rejects(catalog.jobs.setStatus(lease, 'copying'), { code: 'WRONG_STATE' });
  const done = await catalog.jobs.finish(lease, { status: 'completed', result: { ok: true } });
  assert.deepEqual([done.status, done.result, done.leaseOwner], ['completed', { ok: true }, null]);
  assert.ok(done.finishedAt);
  await assert.rejects(catalog.jobs.finish(lease, { status: 'cancelled' }), { code: 'LEASE_LOST' });
});

onBothDatabases('a second open job for the same subject is refused with the id of the first', async ({ catalog }) => {
  const first = await enqueue(catalog, { subjectKey: 'vm-1' });
  const refusal = { code: 'BUSY', details: { jobId: first, status: 'queued' } };
  await assert.rejects(enqueue(catalog, { subjectKey: 'vm-1' }), refusal);
  const lease = await claim(catalog);
  await assert.rejects(enqueue(catalog, { subjectKey: 'vm-1' }), { code: 'BUSY' });
  await enqueue(catalog, { subjectKey: 'vm-2' });
  await enqueue(catalog, { subjectKey: 'vm-1', kind: 'restore' });
  await enqueue(catalog);
  await enqueue(catalog);
  await catalog.jobs.finish(lease, { status: 'completed' });
  await enqueue(catalog, { subjectKey: 'vm-1' });
});

onBothDatabases('a refused second job leaves a transaction usable', async ({ catalog }) => {
  const first = await enqueue(catalog, { subjectKey: 'vm-1' });
  const found = await catalog.transaction(async (inside) => {
    await inside.settings.set('seen', 'before');
    await assert.rejects(enqueue(inside, { subjectKey: 'vm-1' }), { code: 'BUSY' });
    return (await inside.jobs.get(first)).id;
  });
  assert.equal(found, first);
  assert.equal(await catalog.settings.get('seen'), 'before');
});

onBothDatabases(
  'jobs are claimed by priority, then by time, and only when due and of a wanted kind',
  async ({ catalog, turnClock }) => {
    const now = (await catalog.jobs.get(await enqueue(catalog, { priority: 1 }))).createdAt;
    const later = await enqueue(catalog, { runAt: now.add({ seconds: 30 }) });
    const urgent = await enqueue(catalog, { priority: 9 });
    const early = await enqueue(catalog, { priority: 1, runAt: now.subtract({ hours: 1 }) });
    const restore = await enqueue(catalog, { kind: 'restore', priority: 99 });
    const order: (string | undefined)[] = [];
    for (let i = 0; i < 4; i++) order.push((await catalog.jobs.claim('hub', 1000, ['backup']))?.id);
    assert.deepEqual(order.slice(0, 2), [urgent, early]);
    assert.equal(order[3], undefined, 'the one that is not due stays');
    assert.equal(await catalog.jobs.claim('hub', 1000, []), undefined);
    assert.equal((await catalog.jobs.claim('hub', 1000, ['restore', 'backup']))?.id, restore);
    turnClock(31_000);
    assert.equal((await catalog.jobs.claim('hub', 1000, ['backup']))?.id, later);
  },
);

onBothDatabases('a job waits while any one of its resources is full, and others overtake it', async ({ catalog }) => {
  const host = { resource: 'host:1', cap: 2 };
  const store = { resource: 'repository:1', cap: 1 };
  await enqueue(catalog, { resources: [host, store], priority: 5 });
  const waiting = await enqueue(catalog, { resources: [host, store], priority: 4 });
  const other = await enqueue(catalog, { resources: [host], priority: 3 });
  const full = await enqueue(catalog, { resources: [host], priority: 2 });
  const first = await claim(catalog);
  const second = await claim(catalog);
  assert.equal(second.jobId, other);
  assert.equal(await catalog.jobs.claim('hub', 1000, ['backup']), undefined);
  await catalog.jobs.finish(first, { status: 'cancelled' });
  assert.equal((await claim(catalog)).jobId, waiting);
  await catalog.jobs.finish(second, { status: 'completed' });
  assert.equal((await claim(catalog)).jobId, full);
  assert.deepEqual(await catalog.jobs.resources(waiting), [host, store]);
});

onBothDatabases('the heartbeat renews the lease and carries the wish to cancel', async ({ catalog, turnClock }) => {
  const id = await enqueue(catalog);
  const lease = await claim(catalog);
  turnClock(8000);
  assert.deepEqual(await catalog.jobs.heartbeat(lease, 10_000), { cancelRequested: false, cancelReason: null });
  turnClock(8000);
  assert.deepEqual(await catalog.jobs.reapExpired(), []);
  assert.equal((await catalog.jobs.requestCancel(id, 'changed my mind')).cancelRequested, true);
  const beat = await catalog.jobs.heartbeat(lease, 10_000);
  assert.deepEqual(beat, { cancelRequested: true, cancelReason: 'changed my mind' });
  const stranger = { ...lease, owner: 'hub-2' };
  await assert.rejects(catalog.jobs.heartbeat(stranger, 10_000), { code: 'LEASE_LOST' });
  await assert.rejects(catalog.jobs.heartbeat({ ...lease, attempt: 2 }, 10_000), { code: 'LEASE_LOST' });
  await assert.rejects(catalog.jobs.setStatus(stranger, 'copying'), { code: 'LEASE_LOST' });
  await assert.rejects(catalog.jobs.finish(stranger, { status: 'completed' }), { code: 'LEASE_LOST' });
});

onBothDatabases(
  'cancelling a queued job ends it with its restore point; a finished one cannot be cancelled',
  async ({ catalog }) => {
    const { vm, repository } = await makeSample(catalog);
    const id = await enqueue(catalog, { vmId: vm.id });
    const given = { vmId: vm.id, repositoryId: repository.id, jobId: id, requestedType: 'full' as const };
    const point = await catalog.restorePoints.create(given);
    await assert.rejects(catalog.restorePoints.create(given), { code: 'ALREADY_EXISTS' });
    const job = await catalog.jobs.requestCancel(id, 'not today');
    assert.deepEqual([job.status, job.cancelReason], ['cancelled', 'not today']);
    assert.equal((await catalog.restorePoints.get(point.id)).status, 'cancelled');
    assert.equal(await catalog.jobs.claim('hub', 1000, ['backup']), undefined);
    await assert.rejects(catalog.jobs.requestCancel(id, 'again'), {
      code: 'WRONG_STATE',
      details: { jobId: id, status: 'cancelled' },
    });
    await assert.rejects(catalog.jobs.requestCancel('nobody', 'x'), { code: 'NOT_FOUND' });
  },
);

onBothDatabases('a job whose lease ran out is failed with all it left unfinished', async ({ catalog, turnClock }) => {
  const sample = await makeSample(catalog);
  const started = await startBackup(catalog, sample);
  await catalog.backupJobs.update(started.backups[0]?.id ?? '', { status: 'copying', readBytes: 10 });
  assert.deepEqual(await catalog.jobs.reapExpired(), []);
  turnClock(60_001);
  const [job, ...more] = await catalog.jobs.reapExpired();
  assert.deepEqual(more, []);
  assert.deepEqual([job?.id, job?.status, job?.errorCode], [started.lease.jobId, 'failed', 'LEASE_EXPIRED']);
  const point = await catalog.restorePoints.get(started.point.id);
  assert.deepEqual([point.status, point.errorCode], ['failed', 'LEASE_EXPIRED']);
  const backups = await catalog.backupJobs.listFor(point.id);
  assert.deepEqual(
    backups.map(({ status }) => status),
    ['failed', 'failed'],
  );
  assert.equal(await catalog.restorePoints.openForJob(started.lease.jobId), undefined);
  await assert.rejects(catalog.jobs.heartbeat(started.lease, 1000), { code: 'LEASE_LOST' });
  assert.deepEqual(await catalog.jobs.reapExpired(), []);
});

onBothDatabases(
  'a job with attempts left is queued again when its lease runs out, and its former owner is fenced out',
  async ({ catalog, turnClock }) => {
    await enqueue(catalog, { maxAttempts: 2 });
    const lost = await claim(catalog);
    turnClock(10_001);
    assert.deepEqual(
      (await catalog.jobs.reapExpired()).map(({ status }) => status),
      ['queued'],
    );
    const second = await claim(catalog, 'hub-1');
    assert.equal(second.jobId, lost.jobId);
    assert.ok(second.attempt > lost.attempt);
    await assert.rejects(catalog.jobs.finish(lost, { status: 'completed' }), { code: 'LEASE_LOST' });
    turnClock(10_001);
    assert.deepEqual(
      (await catalog.jobs.reapExpired()).map(({ status }) => status),
      ['failed'],
    );
  },
);

onBothDatabases(
  'a job that was to be cancelled is cancelled, not repeated, when its lease runs out',
  async ({ catalog, turnClock }) => {
    const id = await enqueue(catalog, { maxAttempts: 5 });
    await claim(catalog);
    await catalog.jobs.requestCancel(id, 'stop');
    turnClock(10_001);
    assert.deepEqual(
      (await catalog.jobs.reapExpired()).map(({ status }) => status),
      ['cancelled'],
    );
  },
);

onBothDatabases(
  'a running job is taken over from an earlier life of the hub at once, from others only after the lease',
  async ({ catalog, turnClock }) => {
    const id = await enqueue(catalog);
    const lost = await claim(catalog, 'hub-1');
    assert.equal(await catalog.jobs.takeOver(id, { owner: 'hub-2', leaseMs: 1000 }), undefined);
    assert.equal(await catalog.jobs.takeOver(id, { owner: 'hub-2', leaseMs: 1000, from: 'hub-3' }), undefined);
    const taken = await catalog.jobs.takeOver(id, { owner: 'hub-1b', leaseMs: 1000, from: 'hub-1' });
    assert.deepEqual([taken?.leaseOwner, taken?.status], ['hub-1b', 'preparing']);
    await assert.rejects(catalog.jobs.heartbeat(lost, 1000), { code: 'LEASE_LOST' });
    turnClock(1001);
    assert.ok(await catalog.jobs.takeOver(id, { owner: 'hub-2', leaseMs: 1000 }));
  },
);

onBothDatabases('a job is given back to the queue while it has attempts left', async ({ catalog, turnClock }) => {
  const { createdAt } = await catalog.jobs.get(await enqueue(catalog, { maxAttempts: 2 }));
  const first = await claim(catalog);
  const queued = await catalog.jobs.release(first, createdAt.add({ seconds: 5 }));
  assert.deepEqual([queued.status, queued.leaseOwner], ['queued', null]);
  assert.equal(await catalog.jobs.claim('hub', 1000, ['backup']), undefined);
  turnClock(5000);
  await assert.rejects(catalog.jobs.release(await claim(catalog), createdAt), { code: 'WRONG_STATE' });
});

onBothDatabases('a job cannot complete over an unfinished restore point', async ({ catalog }) => {
  const started = await startBackup(catalog, await makeSample(catalog));
  await assert.rejects(catalog.jobs.finish(started.lease, { status: 'completed' }), { code: 'WRONG_STATE' });
  assert.equal((await catalog.jobs.get(started.lease.jobId)).status, 'preparing');
});

onBothDatabases('jobs are listed newest first, by page and by filter', async ({ catalog }) => {
  const { vm } = await makeSample(catalog);
  const ids: string[] = [];
  for (let i = 0; i < 7; i++) ids.push(await enqueue(catalog, i === 3 ? { vmId: vm.id } : {}));
  const lease = await claim(catalog);
  await catalog.jobs.finish(lease, { status: 'completed' });
  const seen: string[] = [];
  let cursor: string | undefined;
  let pages = 0;
  do {
    const page = await catalog.jobs.list({ limit: 3, ...(cursor !== undefined && { cursor }) });
    seen.push(...page.items.map(({ id }) => id));
    cursor = page.nextCursor ?? undefined;
    pages++;
  } while (cursor !== undefined);
  assert.equal(pages, 3);
  assert.deepEqual(seen, ids.toSorted().toReversed());
  const idsOf = async (filter: Parameters<typeof catalog.jobs.list>[0]): Promise<string[]> =>
    (await catalog.jobs.list(filter)).items.map(({ id }) => id);
  assert.deepEqual(await idsOf({ vmId: vm.id }), [ids[3]]);
  assert.deepEqual(await idsOf({ status: 'completed' }), [lease.jobId]);
  assert.equal((await idsOf({ open: true, kind: 'backup' })).length, 6);
  assert.deepEqual(await idsOf({ open: false }), [lease.jobId]);
  assert.equal((await catalog.jobs.listOpen()).length, 6);
});

onBothDatabases('the log of a job is followed by the id of its last line', async ({ catalog }) => {
  const jobId = await enqueue(catalog);
  const other = await enqueue(catalog);
  const first = await catalog.jobLog.append({ jobId, step: 'validate', message: 'started' });
  await catalog.jobLog.append({ jobId: other, step: 'validate', message: 'another job' });
  const hostile = `a\0b${'x'.repeat(10_000)}\ud800`;
  await catalog.jobLog.append({
    jobId,
    level: 'warn',
    step: 'capture',
    message: hostile,
    data: { bytes: 2 ** 53 - 1 },
  });
  assert.deepEqual(
    (await catalog.jobLog.list(jobId, { limit: 1 })).map(({ id }) => id),
    [first.id],
  );
  const [line, ...rest] = await catalog.jobLog.list(jobId, { after: first.id });
  assert.deepEqual(rest, []);
  assert.ok(line?.message.startsWith('a\uFFFDbxxx'));
  assert.equal(line?.message.length, 4000);
  assert.deepEqual([line?.level, line?.data], ['warn', { bytes: 2 ** 53 - 1 }]);
  await assert.rejects(catalog.jobLog.append({ jobId: 'nobody', step: 's', message: 'm' }), (error) =>
    hasCode(error, 'WRONG_STATE'),
  );
});
