import assert from 'node:assert/strict';
import { onBothDatabases } from './both-databases.ts';
import { seenVm, makeSample } from './sample.ts';

onBothDatabases('a transaction that throws leaves nothing behind', async ({ catalog }) => {
  const { source, vm } = await makeSample(catalog);
  const failure = new Error('stop');
  const work = catalog.transaction(async (inside) => {
    await inside.settings.set('key', 1);
    await inside.vms.record({ ...seenVm(source.id), name: 'renamed', disks: [] });
    assert.equal(await inside.settings.get('key'), 1);
    throw failure;
  });
  await assert.rejects(work, failure);
  assert.equal(await catalog.settings.get('key'), undefined);
  assert.deepEqual(await catalog.vms.get('web'), vm);
  assert.equal((await catalog.vmDisks.list(vm.id)).length, 2);
});

onBothDatabases('a transaction inside another joins it', async ({ catalog }) => {
  const work = catalog.transaction(async (outer) => {
    await outer.transaction(async (inner) => inner.settings.set('key', 1));
    throw new Error('stop');
  });
  await assert.rejects(work, /stop/);
  assert.equal(await catalog.settings.get('key'), undefined);
});

onBothDatabases(
  'the outer catalog is refused inside its own transaction instead of waiting forever',
  async ({ catalog }) => {
    await catalog.transaction(async (inside) => {
      const refused = { code: 'INTERNAL', message: /outer catalog/ };
      await assert.rejects(catalog.settings.get('key'), refused);
      await assert.rejects(catalog.jobs.claim('hub', 1000, ['backup']), refused);
      await assert.rejects(catalog.jobs.requestCancel('x', 'y'), refused);
      await assert.rejects(
        catalog.transaction(async () => undefined),
        refused,
      );
      await inside.settings.set('key', 'kept');
    });
    assert.equal(await catalog.settings.get('key'), 'kept');
  },
);

onBothDatabases('transactions that start together all happen, one without the other', async ({ catalog }) => {
  await catalog.settings.set('count', 0);
  const work = Array.from({ length: 8 }, async (_, i) =>
    catalog.transaction(async (inside) => {
      await inside.settings.set(`mine-${i}`, i);
      if (i % 2 === 1) throw new Error(`odd ${i}`);
    }),
  );
  const ends = await Promise.allSettled(work);
  assert.deepEqual(
    ends.map(({ status }) => status),
    Array.from({ length: 8 }, (_, i) => (i % 2 === 1 ? 'rejected' : 'fulfilled')),
  );
  for (let i = 0; i < 8; i++) assert.equal(await catalog.settings.get(`mine-${i}`), i % 2 === 1 ? undefined : i);
});
