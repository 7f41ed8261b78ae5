import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { SendenseError } from '#/lib/errors.ts';
import type { ErrorCode } from '#/lib/errors.ts';
import { describe } from './cli.ts';
import { commands } from './commands.ts';
import { cli, FakeHub, JOB, POINT } from './test-kit.ts';

async function temporary(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'sendense-cli-'));
  t.after(async () => rm(dir, { recursive: true, force: true }));
  return dir;
}

const DONE = { ...JOB, status: 'completed', finishedAt: '2026-11-23T10:00:05Z', progress: null } as const;
const page = (...items: unknown[]): unknown => ({ items, nextCursor: null });

test('a wrong command line is USAGE with exit code 2, names what is wrong and where to read on', async () => {
  const cases: [argv: string, stderr: RegExp][] = [
    ['nonsense', /unknown command 'nonsense'.*`sendense --help`/],
    ['backup rnu', /Did you mean run\?.*`sendense backup --help`/],
    ['vm', /sendense vm needs a command/],
    ['backup run', /missing required argument 'vm'.*`sendense backup run --help`/],
    ['backup run a b', /too many arguments/],
    ['backup run a --type sometimes', /--type.*sometimes.*auto, full, incremental/],
    ['backup run a --rate-limit fast', /--rate-limit takes a size/],
    ['backup ls --limit 0', /--limit takes a whole number from 1 to 1000/],
    ['restore disk p', /--to <FILE>/],
    ['source add x --username u', /--address <HOST>/],
    ['source add x --address a --username u --password geheim', /unknown option '--password'/],
    ['up --listen nowhere', /--listen takes HOST:PORT/],
    ['exportd --config c --run r --listen 127.0.0.1:1', /--listen and --tls go together/],
    ['agent --listen 127.0.0.1:0', /either --tls or --token-file/],
    ['hub --local-agent http://127.0.0.1:1', /go together/],
  ];
  for (const [argv, expected] of cases) {
    const { code, stdout, stderr } = await cli(argv.split(' '), { env: { SENDENSE_HUB: 'http://127.0.0.1:9' } });
    assert.equal(code, 2, `${argv}: ${stderr}`);
    assert.match(stderr, /^sendense: USAGE: /, argv);
    assert.match(stderr, expected, argv);
    assert.equal(stdout, '', argv);
  }
});

test('help of the program and of every command is what the recorded text says', async (t) => {
  let text = (await cli(['--help'])).stdout;
  const nouns = new Set(
    commands.filter((entry) => entry.words.includes(' ')).map((entry) => entry.words.split(' ')[0]),
  );
  for (const words of [...nouns, ...commands.map((entry) => entry.words)]) {
    const { code, stdout } = await cli([...(words ?? '').split(' '), '--help']);
    assert.equal(code, 0, String(words));
    text += `\n---- ${words}\n${stdout}`;
  }
  t.assert.fileSnapshot(text, join(import.meta.dirname, 'help.snapshot.txt'), {
    serializers: [(value) => value as string],
  });
});

test('with --json a failure is one document on standard output as well', async () => {
  const { code, stdout, stderr } = await cli(['vm', 'ls', '--hub', 'http://127.0.0.1:1', '--json']);
  assert.equal(code, 1);
  assert.equal((JSON.parse(stdout) as { error: { code: string } }).error.code, 'HUB_UNREACHABLE');
  assert.match(stderr, /^sendense: HUB_UNREACHABLE: no answer from http:\/\/127.0.0.1:1/);
  const usage = await cli(['backup', 'run', '--json']);
  assert.equal((JSON.parse(usage.stdout) as { error: { code: string } }).error.code, 'USAGE');
});

test('exit codes are those of the error table, whatever the hub answers', async () => {
  const cases: [ErrorCode, number][] = [
    ['VM_NOT_FOUND', 10],
    ['BUSY', 11],
    ['NOT_ALLOWED', 12],
    ['AMBIGUOUS', 2],
    ['REPOSITORY_FULL', 1],
  ];
  let thrown: ErrorCode = 'INTERNAL';
  await using hub = await FakeHub.start({
    runBackup: () => {
      throw new SendenseError(thrown, 'so it is', { details: { vm: 'web-01' } });
    },
  });
  for (const [code, exit] of cases) {
    thrown = code;
    const outcome = await cli(['backup', 'run', 'web-01', '--hub', hub.url]);
    assert.equal(outcome.code, exit, code);
    assert.match(outcome.stderr, new RegExp(`^sendense: ${code}: so it is\n {2}.+\n {2}vm: web-01\n$`));
  }
});

test('an error shows its hint, details and causes on lines of their own and no control characters', () => {
  const cause = new Error('write failed', { cause: new Error('EIO') });
  const text = describe(new SendenseError('READ_FAILED', 'disk\n1 \u001B[31m', { details: { offset: 5 }, cause }));
  assert.equal(
    text,
    'sendense: READ_FAILED: disk 1 \u{FFFD}[31m\n' +
      '  Reading the disk from the source failed; the details carry offset and cause.\n' +
      '  offset: 5\n  cause: write failed\n  cause: EIO\n',
  );
});

test('the token of the file goes with every call', async (t) => {
  const dir = await temporary(t);
  await writeFile(join(dir, 'token'), 's3cret\n');
  await using hub = await FakeHub.start({ listVms: () => page() });
  const { code, stdout } = await cli(['vm', 'ls', '--hub', hub.url, '--state', dir]);
  assert.equal(code, 0);
  assert.match(stdout, /no VMs known/);
  assert.equal(hub.calls[0]?.token, 's3cret');
});

test('backup run without --wait starts the job and says how to follow it', async () => {
  await using hub = await FakeHub.start({ runBackup: () => JOB });
  const argv = ['backup', 'run', 'web-01', '--type', 'full', '--repository', 'main', '--rate-limit', '50M'];
  const { code, stdout } = await cli([...argv, '--hub', hub.url]);
  assert.equal(code, 0);
  assert.match(stdout, /`sendense job watch job-1`/);
  assert.deepEqual(hub.calls[0]?.body, {
    vm: 'web-01',
    repository: 'main',
    type: 'full',
    quiesce: 'try',
    bytesPerSecond: 50 * 1024 ** 2,
  });
});

test('backup run --wait follows the job to its end and shows the restore point', async () => {
  let asked = 0;
  await using hub = await FakeHub.start({
    runBackup: () => JOB,
    getJob: () => (++asked < 3 ? JOB : DONE),
    getRestorePoint: () => POINT,
  });
  const { code, stdout, stderr } = await cli(['backup', 'run', 'web-01', '--wait', '--hub', hub.url]);
  assert.equal(code, 0, stderr);
  assert.equal(asked, 3);
  assert.match(stderr, /^backup of web-01 {2}copying {2}25 %/);
  assert.match(stdout, /restore point +point-1/);
  assert.match(stdout, /full +2\.0 GiB +1\.0 GiB +1\.0 GiB +512 MiB +75\.0 %/);
});

test('with --json waiting prints the finished job once and nothing else', async () => {
  await using hub = await FakeHub.start({ runBackup: () => JOB, getJob: () => DONE, getRestorePoint: () => POINT });
  const { code, stdout, stderr } = await cli(['backup', 'run', 'web-01', '--wait', '--json', '--hub', hub.url]);
  assert.equal(code, 0);
  assert.deepEqual(JSON.parse(stdout), DONE);
  assert.equal(stderr, '');
});

test('a failed job ends the command with its own error and exit code, and is still the one document', async () => {
  const error = { code: 'BUSY', message: 'the chain is in use' };
  const failed = { ...DONE, status: 'failed', error } as const;
  await using hub = await FakeHub.start({ runBackup: () => JOB, getJob: () => failed });
  const { code, stdout, stderr } = await cli(['backup', 'run', 'web-01', '--wait', '--json', '--hub', hub.url]);
  assert.equal(code, 11);
  assert.equal((JSON.parse(stdout) as typeof failed).error.code, 'BUSY');
  assert.match(stderr, /^sendense: BUSY: the chain is in use/);
});

test('interrupted while waiting, the command ends with 130 and the job goes on', async () => {
  const stop = new AbortController();
  await using hub = await FakeHub.start({
    runBackup: () => JOB,
    getJob: () => {
      stop.abort(new SendenseError('CANCELLED', 'stopped by SIGINT'));
      return JOB;
    },
  });
  const { code, stderr } = await cli(['backup', 'run', 'web-01', '--wait', '--hub', hub.url], { signal: stop.signal });
  assert.equal(code, 130);
  assert.match(stderr, /job job-1 goes on: `sendense job watch job-1`/);
  assert.ok(!hub.calls.some((call) => call.operation === 'cancelJob'));
});

test('with --cancel-on-interrupt an interruption cancels the job and waits for its end', async () => {
  const stop = new AbortController();
  let cancelled = false;
  await using hub = await FakeHub.start({
    runBackup: () => JOB,
    getJob: () => {
      stop.abort(new SendenseError('CANCELLED', 'stopped by SIGINT'));
      return cancelled ? { ...DONE, status: 'cancelled' } : JOB;
    },
    cancelJob: () => {
      cancelled = true;
      return JOB;
    },
  });
  const argv = ['backup', 'run', 'web-01', '--wait', '--cancel-on-interrupt', '--json', '--hub', hub.url];
  const { code, stdout } = await cli(argv, { signal: stop.signal });
  assert.equal(code, 130);
  assert.equal((JSON.parse(stdout) as { status: string }).status, 'cancelled');
});

test('job log follows over pages and ends with the job', async () => {
  const lines = Array.from({ length: 1001 }, (_, index) => ({
    id: index + 1,
    time: '2026-11-23T10:00:00Z',
    level: 'info',
    step: 'copy',
    message: `line ${index + 1}`,
    data: null,
  }));
  await using hub = await FakeHub.start({
    getJob: () => DONE,
    getJobLog: ({ query }) => ({ items: lines.filter((line) => line.id > Number(query['after'])).slice(0, 1000) }),
  });
  const text = await cli(['job', 'log', 'job-1', '--follow', '--hub', hub.url]);
  assert.equal(text.stdout.split('\n').length, 1002);
  const document = await cli(['job', 'log', 'job-1', '--json', '--hub', hub.url]);
  assert.equal((JSON.parse(document.stdout) as { items: unknown[] }).items.length, 1001);
});

const CERTIFICATE = {
  sha256: Array.from({ length: 32 }, () => 'AB').join(':'),
  sha1: Array.from({ length: 20 }, () => 'CD').join(':'),
  subject: 'CN=vc',
  issuer: 'CN=vc',
  validUntil: '2030-01-01T00:00:00Z',
};
const SOURCE = {
  id: 'source-1',
  name: 'main',
  kind: 'vcenter',
  address: 'https://vc.example.org',
  username: 'backup',
  thumbprint: CERTIFICATE.sha256,
  createdAt: '2026-11-23T10:00:00Z',
  checkedAt: null,
};

test('without a terminal a source needs a thumbprint; the one of the server is shown and nothing secret is sent', async () => {
  await using hub = await FakeHub.start({ probeSource: () => CERTIFICATE, addSource: () => SOURCE });
  const argv = ['source', 'add', 'main', '--address', 'vc.example.org', '--username', 'backup', '--hub', hub.url];
  const { code, stderr } = await cli([...argv, '--password-file', '/nowhere']);
  assert.equal(code, 2);
  assert.match(stderr, /sha256: AB:AB/);
  assert.deepEqual(
    hub.calls.map((call) => call.operation),
    ['probeSource'],
  );
});

test('the password of a source comes from a file without its line end and is not printed', async (t) => {
  const dir = await temporary(t);
  await writeFile(join(dir, 'pw'), ' geheim \n');
  await using hub = await FakeHub.start({ addSource: () => SOURCE });
  const argv = ['source', 'add', 'main', '--address', 'vc.example.org', '--username', 'backup', '--hub', hub.url];
  const { code, stdout, stderr } = await cli(
    argv.concat('--password-file', join(dir, 'pw'), '--thumbprint', CERTIFICATE.sha256.toLowerCase()),
  );
  assert.equal(code, 0, stderr);
  const body = hub.calls[0]?.body as Record<string, string>;
  assert.equal(body['password'], ' geheim ');
  assert.equal(body['address'], 'https://vc.example.org');
  assert.equal(body['thumbprint'], CERTIFICATE.sha256);
  assert.doesNotMatch(stdout + stderr, /geheim/);
});

const AGENT = {
  id: 'agent-1',
  name: 'site-b',
  url: 'https://b:8443',
  version: null,
  state: 'offline',
  registeredAt: '2026-11-23T10:00:00Z',
  lastSeenAt: null,
};

test('agent add writes key and certificates for their owner only and prints no key', async (t) => {
  const dir = await temporary(t);
  await using hub = await FakeHub.start({ addAgent: () => ({ agent: AGENT, caCert: 'CA', cert: 'CERT', key: 'KEY' }) });
  const argv = ['agent', 'add', 'site-b', '--url', 'https://b:8443', '--hub', hub.url, '--out', join(dir, 'out')];
  const { code, stdout, stderr } = await cli([...argv, '--json']);
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stdout, /KEY/);
  const key = join(dir, 'out/client-key.pem');
  assert.equal(await readFile(key, 'utf8'), 'KEY');
  assert.equal((await stat(key)).mode & 0o777, 0o600);
  const again = await cli(argv);
  assert.equal(again.code, 1);
  assert.match(again.stderr, /ALREADY_EXISTS/);
  assert.equal(hub.calls.length, 1, 'the hub is not asked for a certificate that has no place');
  assert.equal(await readFile(key, 'utf8'), 'KEY');
});

test('agent add leaves no empty files when the hub refuses', async (t) => {
  const dir = await temporary(t);
  await mkdir(join(dir, 'out'));
  await using hub = await FakeHub.start({});
  const argv = ['agent', 'add', 'b', '--url', 'https://b:1', '--hub', hub.url, '--out', join(dir, 'out')];
  assert.equal((await cli(argv)).code, 10);
  await assert.rejects(stat(join(dir, 'out/client-key.pem')), { code: 'ENOENT' });
});

test('restore disk waits by default, gives the hub an absolute path and says where the file is', async () => {
  const restored = { ...DONE, kind: 'restore' } as const;
  await using hub = await FakeHub.start({
    restoreDisk: () => ({ ...restored, status: 'queued' }),
    getJob: () => restored,
  });
  const argv = ['restore', 'disk', 'point-1', '--disk', '0', '--to', 'out.raw', '--hub', hub.url];
  const { code, stdout } = await cli(argv, { cwd: '/srv' });
  assert.equal(code, 0);
  assert.equal(stdout, 'restored into /srv/out.raw in 4.0 s\n');
  const body = { restorePoint: 'point-1', disk: '0', path: '/srv/out.raw', format: 'raw', overwrite: false };
  assert.deepEqual(hub.calls[0]?.body, body);
  await cli([...argv, '--no-wait'], { cwd: '/srv' });
  assert.equal(hub.calls.at(-1)?.operation, 'restoreDisk');
});

test('every command has a summary without a full stop and help for each of its options', () => {
  const seen = new Set<string>();
  for (const entry of commands) {
    assert.ok(!seen.has(entry.words), `${entry.words} is there twice`);
    seen.add(entry.words);
    assert.match(entry.summary, /^[A-Z].*[^.]$/);
    for (const [name, spec] of Object.entries({ ...entry.options, ...entry.args })) {
      assert.ok(spec.help.length > 10, `${entry.words} --${name}`);
    }
  }
});
