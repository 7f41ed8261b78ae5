import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Job } from '#/api/job.ts';
import { width } from './format.ts';
import { openProgress, say } from './progress.ts';
import { Captured, JOB } from './test-kit.ts';

const job = Job.parse(JOB);
const at = (doneBytes: number, more: Partial<Job> = {}): Job => ({
  ...job,
  progress: job.progress && { ...job.progress, doneBytes },
  ...more,
});

test('on a terminal the bar shows part, bytes, rate, time left and a line per disk', () => {
  const out = new Captured({ isTTY: true, columns: 200 });
  openProgress(out).update(job);
  assert.equal(
    out.text,
    'backup of web-01  [######..................]  copying  25 %  1.0 GiB of 4.0 GiB  300 MiB/s  ETA 10.0 s\n' +
      '  SCSI (0:0) Hard disk 1  full  copying  1.0 GiB of 2.0 GiB\n' +
      '  SCSI (0:1) Hard disk 2  waiting  0 B\n',
  );
});

test('on a terminal the next drawing replaces the one before and closing takes it away', () => {
  const out = new Captured({ isTTY: true, columns: 200 });
  const view = openProgress(out);
  view.update(job);
  out.text = '';
  view.update(at(2 * 1024 ** 3));
  assert.ok(out.text.startsWith('\u001B[3A\u001B[0J'), 'three lines up, cleared');
  assert.match(out.text, /50 %/);
  out.text = '';
  view.close();
  assert.equal(out.text, '\u001B[3A\u001B[0J');
});

test('a line never exceeds the terminal, so that rewinding stays right', () => {
  const out = new Captured({ isTTY: true, columns: 40 });
  openProgress(out).update({ ...job, subject: '仮'.repeat(60) });
  for (const line of out.text.trimEnd().split('\n')) assert.ok(width(line) <= 39, line);
});

test('a terminal that does not know its width is taken as 80 columns wide', () => {
  const out = new Captured({ isTTY: true, columns: 0 });
  openProgress(out).update(job);
  assert.match(out.text, /25 %/);
});

test('a note stays above the bar', () => {
  const out = new Captured({ isTTY: true, columns: 200 });
  const view = openProgress(out);
  view.update(job);
  out.text = '';
  view.note('the hub does not answer; waiting for it');
  assert.equal(out.text, '\u001B[3A\u001B[0Jthe hub does not answer; waiting for it\n');
});

test('in a pipe there are plain lines: at each change of state and otherwise every five seconds', () => {
  const out = new Captured();
  let now = 0;
  const view = openProgress(out, () => now);
  view.update(at(0, { status: 'preparing', progress: null }));
  for (now = 0; now < 12_000; now += 100) view.update(at(now * 1000));
  view.update(at(0, { status: 'completed' }));
  view.close();
  const lines = out.text.trimEnd().split('\n');
  assert.equal(lines.length, 5);
  assert.equal(lines[0], 'backup of web-01  preparing');
  assert.match(lines[1] ?? '', /copying {2}0 %/);
  assert.equal(lines[4], 'backup of web-01  completed');
  assert.ok(!out.text.includes('\u001B'));
});

test('lines of others go above a bar that is being drawn and plainly where there is none', () => {
  const out = new Captured({ isTTY: true, columns: 200 });
  say(out, 'before');
  const view = openProgress(out);
  view.update(job);
  out.text = '';
  say(out, 'hub: warn: slow');
  assert.equal(out.text, '\u001B[3A\u001B[0Jhub: warn: slow\n');
  view.close();
  out.text = '';
  say(out, 'after');
  assert.equal(out.text, 'after\n');
});

test('a stall is said instead of a rate', () => {
  const out = new Captured({ isTTY: true, columns: 200 });
  openProgress(out).update({ ...job, progress: job.progress && { ...job.progress, idleMs: 61_000, etaSeconds: null } });
  assert.match(out.text, /no byte for 1 m 01 s/);
  assert.doesNotMatch(out.text, /MiB\/s/);
});

test('100 % is not shown before the last byte', () => {
  const out = new Captured({ isTTY: true, columns: 200 });
  openProgress(out).update(at(4 * 1024 ** 3 - 1));
  assert.match(out.text, / 99 %/);
});
