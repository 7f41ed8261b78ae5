import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode } from './errors.ts';
import { run } from './run.ts';

const sh = (script: string): [string, string[]] => ['/bin/sh', ['-c', script]];

test('output and exit code come back, and only the codes asked for are answers', async () => {
  assert.deepEqual(await run(...sh('echo out; echo err >&2; exit 3'), { okCodes: [0, 3] }), {
    code: 3,
    stdout: 'out\n',
    stderr: 'err\n',
  });
  await assert.rejects(run(...sh('echo why >&2; exit 3')), (error) => {
    return hasCode(error, 'TOOL_FAILED') && /why/.test(String(error));
  });
  await assert.rejects(run(...sh('kill -9 $$'), { okCodes: [0, 137] }), (error) => hasCode(error, 'TOOL_FAILED'));
});

test('a program that is not there is TOOL_MISSING', async () => {
  await assert.rejects(run('sendense-no-such-program', []), (error) => hasCode(error, 'TOOL_MISSING'));
});

test('arguments reach the program as they are, never through a shell', async () => {
  const hostile = ['$(touch /tmp/x)', 'a b', "'", '"', '\n', '*', ';'];
  const { stdout } = await run('printf', ['%s\\0', ...hostile]);
  assert.deepEqual(stdout.split('\0').slice(0, -1), hostile);
});

test('programs in the folders of administrators are found without root, and messages are not translated', async (t) => {
  const path = process.env['PATH'];
  t.after(() => (process.env['PATH'] = path));
  process.env['PATH'] = '/usr/bin:/bin';
  const { stdout } = await run(...sh('echo "$PATH $LC_ALL"'));
  assert.equal(stdout, '/usr/bin:/bin:/usr/sbin:/sbin C.UTF-8\n');
});

test('a program that does not end in time is killed, and so is one whose caller gives up', async () => {
  await assert.rejects(run('sleep', ['60'], { timeoutMs: 50 }), (error) => hasCode(error, 'TIMEOUT'));
  const reason = new Error('enough');
  const stop = new AbortController();
  const attempt = run(...sh('echo up; exec sleep 60'), { signal: stop.signal });
  stop.abort(reason);
  await assert.rejects(attempt, (error) => error === reason);
  await assert.rejects(run('true', [], { signal: AbortSignal.abort(reason) }), (error) => error === reason);
});

test('input is written, and a program that does not read it decides by its exit code', async () => {
  assert.equal((await run('cat', [], { input: 'text' })).stdout, 'text');
  assert.equal((await run('true', [], { input: Buffer.alloc(1 << 20) })).code, 0);
});
