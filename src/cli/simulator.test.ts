import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Parts } from './context.ts';
import { allIdentical, reportTable } from './demo-report.ts';
import type { DiskReport } from './demo-report.ts';
import { cli, NO_PARTS } from './test-kit.ts';

test('commands to a simulated guest become calls of the control interface of the named folder', async () => {
  const calls: unknown[][] = [];
  const parts: Parts = {
    ...NO_PARTS,
    simulatorControl: async (...call) => {
      calls.push(call);
      return { bytes: 65_536, extents: [1], writtenBytes: 7 };
    },
  };
  const cases: [argv: string[], call: unknown[]][] = [
    [
      ['write', 'a/b', '--disk', '1', '--percent', '2.5', '--seed', 's'],
      ['POST', 'vms/a%2Fb/write', { disk: '1', percent: 2.5, blockBytes: 65_536, zero: false, seed: 's' }],
    ],
    [
      ['workload', 'web01', '--rate', '2M'],
      ['POST', 'vms/web01/workload', { disk: '0', bytesPerSecond: 2 * 1024 ** 2 }],
    ],
    [
      ['workload', 'web01', '--stop'],
      ['DELETE', 'vms/web01/workload', undefined],
    ],
    [
      ['set', 'keepSnapshots', 'true'],
      ['PUT', 'settings', { keepSnapshots: true }],
    ],
  ];
  for (const [argv, expected] of cases) {
    const { code, stderr } = await cli(['simulator', ...argv, '--dir', 'vc'], { parts, cwd: '/srv' });
    assert.equal(code, 0, stderr);
    const [dir, method, path, body] = calls.at(-1) ?? [];
    assert.deepEqual([dir, method, path, body], ['/srv/vc', ...expected]);
  }
  for (const argv of [
    ['write', 'x', '--percent', '0'],
    ['write', 'x', '--percent', '101'],
    ['set', 'taskMs', 'soon'],
  ]) {
    assert.equal((await cli(['simulator', ...argv, '--dir', 'vc'], { parts })).code, 2);
  }
  assert.equal(calls.length, cases.length);
});

test('the simulator says where it is and where its password lies, never the password', async () => {
  const facts = {
    url: 'https://127.0.0.1:5',
    thumbprint: 'AB',
    username: 'u',
    passwordFile: '/srv/vc/password',
    dir: '/srv/vc',
    pid: 7,
  };
  const parts: Parts = { ...NO_PARTS, simulator: async (options) => options.ready({ ...facts, dir: options.dir }) };
  const { stdout } = await cli(['simulator', '--dir', 'vc', '--json'], { parts, cwd: '/srv' });
  assert.deepEqual(JSON.parse(stdout), facts);
});

const DISK: DiskReport = {
  disk: 0,
  label: 'Hard disk 1',
  type: 'full',
  typeReason: 'first',
  virtualBytes: 1024,
  changedBytes: 1024,
  readBytes: 1024,
  transferredBytes: 512,
  storedBytes: 600,
  bytesPerSecond: 1024,
  restored: '/r',
  reference: '/k',
  identical: true,
  difference: null,
};

test('the demo is good only when there are points and each disk of each is identical', () => {
  const good = { point: 'p', seconds: 1, disks: [DISK] };
  const bad = { ...good, disks: [DISK, { ...DISK, identical: false, difference: 'content at offset 0' }] };
  assert.equal(allIdentical([good, good]), true);
  assert.equal(allIdentical([good, bad]), false);
  assert.equal(allIdentical([good, { ...good, disks: [] }]), false);
  assert.equal(allIdentical([]), false);
  assert.match(reportTable([good, bad]), /2 {5}0 .*identical\n.*DIFFERENT: content at offset 0\n$/);
});

test('the demo does not touch a folder that holds something', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'sendense-demo-test-'));
  t.after(async () => rm(dir, { recursive: true }));
  await writeFile(join(dir, 'precious'), '');
  const { code, stderr } = await cli(['demo', '--once', '--dir', dir]);
  assert.equal(code, 1);
  assert.match(stderr, /ALREADY_EXISTS/);
});
