import assert from 'node:assert/strict';
import { onBothDatabases } from './both-databases.ts';
import { makeSample, seenVm } from './sample.ts';

onBothDatabases(
  'a source is kept with its sealed password, found by id or name, changed and forgotten',
  async ({ catalog }) => {
    const { source, vm } = await makeSample(catalog);
    assert.deepEqual(await catalog.sources.get(source.id), source);
    assert.deepEqual(await catalog.sources.find('vc'), source);
    assert.deepEqual(source.sealedPassword, Uint8Array.of(0, 1, 255));
    assert.equal((await catalog.sources.get('vc')).sealedPassword.constructor, Uint8Array);
    await assert.rejects(catalog.sources.create({ ...source, address: 'https://other' }), { code: 'ALREADY_EXISTS' });
    await assert.rejects(catalog.sources.get('nobody'), { code: 'SOURCE_NOT_FOUND', details: { source: 'nobody' } });
    assert.equal(await catalog.sources.find('a\0b'), undefined);
    const checkedAt = Temporal.Instant.from('2026-11-23T10:00:00.123Z');
    const changed = await catalog.sources.update(source.id, { checkedAt, instanceUuid: 'uuid-1' });
    assert.deepEqual(changed, { ...source, checkedAt, instanceUuid: 'uuid-1' });
    assert.deepEqual(await catalog.sources.update(source.id, {}), changed);
    await assert.rejects(catalog.sources.remove(source.id), { code: 'WRONG_STATE' });
    const second = await catalog.sources.create({ ...source, name: 'an' });
    assert.deepEqual(
      (await catalog.sources.list()).map(({ name }) => name),
      ['an', 'vc'],
    );
    await catalog.sources.remove(second.id);
    assert.equal(await catalog.sources.find('an'), undefined);
    assert.equal((await catalog.vms.get('web')).id, vm.id);
  },
);

onBothDatabases('an id wins over the same word as a name', async ({ catalog }) => {
  const { repository } = await makeSample(catalog);
  await catalog.repositories.create({ name: repository.id, kind: 'local', root: '/x', settings: {}, identity: 'i2' });
  assert.equal((await catalog.repositories.get(repository.id)).name, 'main');
});

onBothDatabases('a repository keeps its settings and the reason why it is frozen', async ({ catalog }) => {
  const { repository, vm } = await makeSample(catalog);
  assert.deepEqual(await catalog.repositories.get('main'), repository);
  const patch = { state: 'frozen' as const, problem: 'not mounted', freeBytes: 2 ** 45, capacityBytes: 2 ** 46 };
  assert.deepEqual(await catalog.repositories.update(repository.id, patch), { ...repository, ...patch });
  await assert.rejects(catalog.repositories.get('other'), { code: 'REPOSITORY_NOT_FOUND' });
  const same = { name: 'copy', kind: 'local', root: '/y', settings: {}, identity: repository.identity };
  await assert.rejects(catalog.repositories.create(same), { code: 'ALREADY_EXISTS' });
  const job = await catalog.jobs.enqueue({ kind: 'backup', payload: {}, createdBy: 'test' });
  const given = { vmId: vm.id, repositoryId: repository.id, jobId: job.id, requestedType: 'auto' as const };
  await catalog.restorePoints.create(given);
  await assert.rejects(catalog.repositories.remove(repository.id), { code: 'WRONG_STATE' });
  await assert.rejects(catalog.restorePoints.create({ ...given, vmId: 'nobody', jobId: 'none' }), {
    code: 'WRONG_STATE',
  });
});

onBothDatabases('an agent that registers again keeps its id', async ({ catalog }) => {
  const identity = { name: 'local', url: 'https://127.0.0.1:1', certificateSha256: 'aa' };
  const first = await catalog.agents.create(identity);
  await assert.rejects(catalog.agents.create(identity), { code: 'ALREADY_EXISTS' });
  const again = await catalog.agents.register({ ...identity, url: 'https://127.0.0.1:2', certificateSha256: 'bb' });
  assert.deepEqual(again, { ...first, url: 'https://127.0.0.1:2', certificateSha256: 'bb' });
  await catalog.agents.seen(first.id, '0.1.0');
  const seen = await catalog.agents.get('local');
  assert.equal(seen.version, '0.1.0');
  assert.ok(seen.lastSeenAt);
  assert.equal((await catalog.agents.findByCertificate('bb'))?.id, first.id);
  assert.equal(await catalog.agents.findByCertificate('aa'), undefined);
  assert.deepEqual(await catalog.agents.list(), [seen]);
  await catalog.agents.remove(first.id);
  await assert.rejects(catalog.agents.get('local'), { code: 'NOT_FOUND' });
});

onBothDatabases(
  'a VM seen again keeps its id; its disks follow by uuid and those that are gone are kept apart',
  async ({ catalog, turnClock }) => {
    const { source, vm, disks } = await makeSample(catalog);
    turnClock(1000);
    const [a] = seenVm(source.id).disks;
    assert.ok(a);
    const grown = { ...a, key: 2001, capacityBytes: a.capacityBytes * 2 };
    const fresh = { diskUuid: 'disk-c', key: 2000, label: 'Hard disk 3', capacityBytes: 512 };
    const again = await catalog.vms.record({
      ...seenVm(source.id),
      name: 'web-2',
      moref: 'vm-77',
      disks: [grown, fresh],
    });
    assert.deepEqual(again, { ...vm, name: 'web-2', moref: 'vm-77', lastSeenAt: again.lastSeenAt });
    assert.ok(Temporal.Instant.compare(again.lastSeenAt, vm.lastSeenAt) > 0);
    const present = await catalog.vmDisks.list(vm.id);
    assert.deepEqual(
      present.map(({ diskUuid }) => diskUuid),
      ['disk-c', 'disk-a'],
    );
    assert.deepEqual(present[1], { ...disks[0], key: 2001, capacityBytes: grown.capacityBytes });
    const gone = (await catalog.vmDisks.list([vm.id], { gone: true })).find((disk) => !disk.present);
    assert.deepEqual(gone, { ...disks[1], present: false });
    assert.equal((await catalog.vmDisks.findByUuid(vm.id, 'disk-b'))?.id, disks[1]?.id);
    await catalog.vms.record(seenVm(source.id));
    assert.deepEqual(await catalog.vmDisks.get(disks[1]?.id ?? ''), disks[1]);
    await catalog.vms.record({ ...seenVm(source.id), disks: [] });
    assert.deepEqual(await catalog.vmDisks.list(vm.id), []);
    assert.deepEqual(await catalog.vmDisks.list([]), []);
  },
);

onBothDatabases(
  'a VM is found by id, instance uuid or name, and a name that several have is ambiguous',
  async ({ catalog }) => {
    const { source, vm } = await makeSample(catalog);
    const second = await catalog.sources.create({ ...source, name: 'vc2' });
    const twin = await catalog.vms.record({ ...seenVm(second.id), instanceUuid: 'instance-twin' });
    await assert.rejects(catalog.vms.get('web'), { code: 'AMBIGUOUS' });
    assert.equal((await catalog.vms.get('web', second.id)).id, twin.id);
    assert.equal((await catalog.vms.get('instance-web')).id, vm.id);
    assert.equal((await catalog.vms.get(twin.id)).id, twin.id);
    await assert.rejects(catalog.vms.get('Web'), { code: 'VM_NOT_FOUND' });
    assert.deepEqual([...(await catalog.vms.byIds([vm.id, 'nobody'])).keys()], [vm.id]);
  },
);

onBothDatabases('VMs are listed by name over pages, also when names repeat', async ({ catalog }) => {
  const { source } = await makeSample(catalog);
  const names = ['db', 'db', 'app 10%', 'Ärger', 'zz_top', 'db'];
  for (const [i, name] of names.entries()) {
    await catalog.vms.record({ ...seenVm(source.id, name, []), instanceUuid: `i-${i}` });
  }
  const seen: string[] = [];
  const ids = new Set<string>();
  let cursor: string | undefined;
  do {
    const page = await catalog.vms.list({ limit: 2, ...(cursor !== undefined && { cursor }) });
    for (const vm of page.items) {
      seen.push(vm.name);
      ids.add(vm.id);
    }
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined);
  assert.equal(ids.size, 7);
  assert.equal(seen.length, 7);
  assert.deepEqual(seen.filter((name) => name === 'db').length, 3);
  const namesOf = async (name: string): Promise<string[]> =>
    (await catalog.vms.list({ name })).items.map((vm) => vm.name);
  assert.deepEqual(await namesOf('DB'), ['db', 'db', 'db']);
  assert.deepEqual(await namesOf('%'), ['app 10%']);
  assert.deepEqual(await namesOf('_'), ['zz_top']);
  assert.deepEqual((await catalog.vms.list({ sourceId: 'nowhere' })).items, []);
  await assert.rejects(catalog.vms.list({ cursor: 'not ours' }), { code: 'INVALID_REQUEST' });
});

onBothDatabases('a snapshot is on record from before it exists until it is gone', async ({ catalog }) => {
  const { source } = await makeSample(catalog);
  const job = await catalog.jobs.enqueue({ kind: 'backup', payload: {}, createdBy: 'test' });
  const given = { jobId: job.id, sourceId: source.id, vmMoref: 'vm-1', name: 'sendense-1' };
  const snapshot = await catalog.snapshots.intend(given);
  assert.deepEqual(await catalog.snapshots.listOpen({ jobId: job.id }), [snapshot]);
  const live = await catalog.snapshots.markLive(snapshot.id, 'snapshot-9');
  assert.deepEqual([live.state, live.moref], ['live', 'snapshot-9']);
  const removed = await catalog.snapshots.markRemoved(snapshot.id);
  assert.deepEqual([removed.state, removed.moref], ['removed', 'snapshot-9']);
  assert.ok(removed.removedAt);
  assert.deepEqual(await catalog.snapshots.markRemoved(snapshot.id), removed);
  assert.equal((await catalog.snapshots.markLive(snapshot.id, 'snapshot-10')).state, 'removed');
  const other = await catalog.snapshots.intend({ ...given, name: 'sendense-2' });
  assert.deepEqual(
    (await catalog.snapshots.listOpen({ sourceId: source.id })).map(({ id }) => id),
    [other.id],
  );
  assert.deepEqual(await catalog.snapshots.listOpen({ sourceId: 'other' }), []);
  await assert.rejects(catalog.snapshots.markRemoved('nobody'), { code: 'NOT_FOUND' });
});

onBothDatabases('a setting holds any JSON and can be set once for all', async ({ catalog }) => {
  assert.equal(await catalog.settings.get('hub'), undefined);
  await catalog.settings.set('hub', { id: 'a', list: [null, 1.5] });
  assert.deepEqual(await catalog.settings.get('hub'), { id: 'a', list: [null, 1.5] });
  await catalog.settings.set('hub', null);
  assert.equal(await catalog.settings.get('hub'), null);
  assert.equal(await catalog.settings.setOnce('id', 'first'), 'first');
  assert.equal(await catalog.settings.setOnce('id', 'second'), 'first');
  await catalog.settings.remove('id');
  assert.equal(await catalog.settings.get('id'), undefined);
});
