import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { SendenseError } from '#/lib/errors.ts';
import { DEFAULT_SCENARIO } from './default-scenario.ts';
import { parseScenario, readScenario } from './scenario.ts';

const disk = { sizeBytes: 512 };

test('a fault in a scenario is refused with the place where it stands', () => {
  const cases: [scenario: unknown, place: RegExp][] = [
    [[], /^scenario: must be an object/],
    [{}, /^scenario\.vms: must be a list/],
    [{ vms: [], colour: 1 }, /^scenario\.colour: is not known/],
    [{ vms: [{ disks: [] }] }, /^vms\[0\]\.name: must be text/],
    [{ vms: [{ name: 'a' }] }, /^vms\[0\]\.disks: must be a list/],
    [{ vms: [{ name: 'a', disks: [{}] }] }, /^vms\[0\]\.disks\[0\]\.sizeBytes: must be a whole number from 512/],
    [{ vms: [{ name: 'a', disks: [{ sizeBytes: 513 }] }] }, /disks\[0\]\.sizeBytes: must be a multiple of 512/],
    [{ vms: [{ name: 'a', disks: [{ sizeBytes: 2 ** 46 + 512 }] }] }, /sizeBytes: must be a whole number/],
    [{ vms: [{ name: 'a', disks: [{ ...disk, content: 'ntfs' }] }] }, /disks\[0\]\.content: must be "ext4"/],
    [{ vms: [{ name: 'a', disks: [{ ...disk, content: 'random:101' }] }] }, /disks\[0\]\.content/],
    [{ vms: [{ name: 'a', disks: [{ ...disk, content: 'ext4' }] }] }, /disks\[0\]: needs at least/],
    [{ vms: [{ name: 'a', disks: [{ sizeBytes: 2 ** 45, content: 'ext4' }] }] }, /disks\[0\]: may have at most/],
    [{ vms: [{ name: 'a', disks: [{ sizeBytes: 2 ** 40, content: 'random:50' }] }] }, /disks\[0\]: would hold/],
    [{ vms: [{ name: 'a', disks: [{ ...disk, mode: 'shared' }] }] }, /disks\[0\]\.mode: must be one of persistent/],
    [{ vms: [{ name: 'a', disks: Array.from({ length: 61 }, () => disk) }] }, /vms\[0\]\.disks: a VM has at most 60/],
    [{ vms: [{ name: 'a', powerState: 'on', disks: [] }] }, /vms\[0\]\.powerState: must be one of/],
    [{ vms: [{ name: 'a', datastore: 'x', disks: [] }] }, /there is no datastore x/],
    [
      {
        vms: [
          { name: 'a', disks: [] },
          { name: 'a', disks: [] },
        ],
      },
      /vms: two entries have the name "a"/,
    ],
    [{ vms: [], settings: { taskMs: -1 } }, /settings: taskMs cannot have that value/],
    [{ vms: [], settings: { speed: 1 } }, /settings: there is no setting speed/],
    [{ vms: [], settings: { granularityBytes: 1000 } }, /settings: granularityBytes is a multiple of 512/],
    [{ vms: [], settings: { pageObjects: 0 } }, /settings: pageObjects cannot/],
  ];
  for (const [scenario, place] of cases) {
    assert.throws(
      () => parseScenario(scenario),
      (error) => error instanceof SendenseError && error.code === 'CONFIG_INVALID' && place.test(error.message),
      `${JSON.stringify(scenario).slice(0, 100)} must be refused by ${place}`,
    );
  }
});

test('the scenario without a file is valid and has a disk that is no multiple of 64 KiB', () => {
  const scenario = parseScenario(DEFAULT_SCENARIO);
  assert.deepEqual(
    scenario.vms.slice(0, 2).map((vm) => [vm.name, vm.disks.length]),
    [
      ['web01', 2],
      ['db01', 1],
    ],
  );
  assert.notEqual((scenario.vms[1]?.disks[0]?.sizeBytes ?? 0) % 65_536, 0);
});

test('a file that is missing or no JSON is a configuration error that names it', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'sendense-scenario-'));
  try {
    const path = join(dir, 'a.json');
    await assert.rejects(readScenario(path), { code: 'CONFIG_INVALID', details: { path } });
    await writeFile(path, '{"vms": [}');
    await assert.rejects(readScenario(path), { code: 'CONFIG_INVALID', message: /is not JSON/ });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
