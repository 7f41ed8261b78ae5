import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { test } from 'node:test';
import { SendenseError, hasCode } from '#/lib/errors.ts';
import { TinyVcenter, scriptedServer } from '../vsphere/doubles.ts';
import { openSession } from '../vsphere/session.ts';
import type { Session } from '../vsphere/session.ts';
import { proveSource, sampleContent } from './conformance.ts';
import type { DiskSource } from './source.ts';
import { openVsphereHttps } from './vsphere-https.ts';

const UUID = '6000C293-0ab1-4c5d-87aa-1e2f3a4b5c6d';
const FLAT = '/folder/web%20(1)/web-flat.vmdk?dcPath=Europe%2FDC0&dsName=ds%201';

/** One disk behind `/folder`, served as it should be unless `misbehave` takes the answer over. */
class FolderVcenter extends TinyVcenter {
  readonly content: Buffer;
  descriptor: string;
  /** Ranges of the flat file that were asked for. */
  readonly ranges: string[] = [];
  misbehave: (response: ServerResponse, range: [first: number, last: number]) => boolean = () => false;

  constructor(content: Buffer) {
    super();
    this.content = content;
    this.descriptor = descriptorOf(content.length);
    this.override = (method, response, cookie, range) => {
      if (!method.startsWith('GET /folder/')) return false;
      if (cookie === undefined || !this.sessions.has(cookie)) response.writeHead(401).end();
      else if (method.includes('web.vmdk')) response.end(this.descriptor);
      else if (method === `GET ${FLAT}`) this.#flat(response, range ?? '');
      else response.writeHead(404).end();
      return true;
    };
  }

  #flat(response: ServerResponse, range: string): void {
    this.ranges.push(range);
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(range) ?? [];
    const asked: [number, number] = [Number(first), Number(last)];
    if (this.misbehave(response, asked)) return;
    if (asked[1] >= this.content.length) response.writeHead(416).end();
    else partial(response, asked, this.content);
  }
}

function descriptorOf(sizeBytes: number): string {
  return [
    '# Disk DescriptorFile',
    'parentCID=ffffffff',
    'createType="vmfs"',
    `RW ${sizeBytes / 512} VMFS "web-flat.vmdk"`,
    'ddb.uuid = "60 00 C2 93 0a b1 4c 5d-87 aa 1e 2f 3a 4b 5c 6d"',
  ].join('\n');
}

function partial(response: ServerResponse, [first, last]: [number, number], content: Buffer): void {
  const body = content.subarray(first, last + 1);
  const range = `bytes ${first}-${last}/${content.length}`;
  response.writeHead(206, { 'content-range': range, 'content-length': body.length }).end(body);
}

interface Lab {
  vcenter: FolderVcenter;
  session: Session;
  open: (
    changes?: Partial<Parameters<typeof openVsphereHttps>[0]['disk']>,
    signal?: AbortSignal,
  ) => Promise<DiskSource>;
}

async function withLab(work: (lab: Lab) => Promise<void>, content = sampleContent()): Promise<void> {
  await using lab = await makeLab(content);
  await work(lab);
}

async function makeLab(content: Buffer): Promise<Lab & AsyncDisposable> {
  const vcenter = new FolderVcenter(content);
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await scriptedServer(vcenter.listener));
  const login = { username: 'u', password: 'secret', thumbprint: server.sha256, retryDelayMs: 1 };
  const session = stack.use(await openSession({ address: server.address, ...login }));
  const disk = { fileName: '[ds 1] web (1)/web.vmdk', capacityBytes: content.length, uuid: UUID };
  const owned = stack.move();
  return {
    vcenter,
    session,
    open: (changes = {}, signal = new AbortController().signal) =>
      openVsphereHttps({ session, disk: { ...disk, ...changes }, datacenterPath: 'Europe/DC0', signal }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

proveSource('datastore', async () => {
  const lab = await makeLab(sampleContent());
  return {
    content: lab.vcenter.content,
    open: (signal) => lab.open({}, signal),
    [Symbol.asyncDispose]: () => lab[Symbol.asyncDispose](),
  };
});

const { signal } = new AbortController();

test('a disk is opened by its descriptor and its last sector, then read by exact ranges', () =>
  withLab(async ({ vcenter, open }) => {
    await using source = await open();
    const target = Buffer.alloc(1000);
    await source.read(777, target, signal);
    assert.ok(target.equals(vcenter.content.subarray(777, 1777)));
    const end = vcenter.content.length;
    assert.deepEqual(vcenter.ranges, [`bytes=${end - 512}-${end - 1}`, 'bytes=777-1776']);
  }));

test('a disk of one sector can be read', () =>
  withLab(
    async ({ vcenter, open }) => {
      await using source = await open();
      const target = Buffer.alloc(512);
      await source.read(0, target, signal);
      assert.ok(target.equals(vcenter.content));
    },
    Buffer.alloc(512, 7),
  ));

test('an empty read asks nothing, one longer than allowed is refused', () =>
  withLab(async ({ vcenter, open }) => {
    await using source = await open();
    await source.read(0, Buffer.alloc(0), signal);
    assert.equal(vcenter.ranges.length, 1);
    await assert.rejects(source.read(0, Buffer.alloc(source.maxReadBytes + 512), signal), { code: 'READ_FAILED' });
    await assert.rejects(source.read(-512, Buffer.alloc(512), signal), { code: 'READ_FAILED' });
  }));

async function openError(open: Lab['open'], changes?: Parameters<Lab['open']>[0]): Promise<SendenseError> {
  const error: unknown = await open(changes).then(
    () => assert.fail('it was opened'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof SendenseError);
  return error;
}

test('a delta is refused with its type', () =>
  withLab(async ({ vcenter, open }) => {
    vcenter.descriptor = vcenter.descriptor
      .replace('"vmfs"', '"seSparse"')
      .replace('VMFS "web-flat', 'SESPARSE "web-sesparse');
    const error = await openError(open);
    assert.equal(error.code, 'TRANSPORT_UNSUPPORTED');
    assert.equal(error.details['createType'], 'seSparse');
    assert.deepEqual(vcenter.ranges, []);
  }));

test('another size or another uuid is another disk', () =>
  withLab(async ({ open }) => {
    assert.equal((await openError(open, { capacityBytes: 512 })).code, 'DISK_MISMATCH');
    assert.equal((await openError(open, { uuid: '6000C293-0000-0000-0000-000000000000' })).code, 'DISK_MISMATCH');
    await using source = await open({ uuid: null });
    assert.ok(source.sizeBytes > 0);
  }));

test('a file that lacks the end of the disk is refused when opening', () =>
  withLab(async ({ vcenter, open }) => {
    const capacityBytes = vcenter.content.length + 512;
    vcenter.descriptor = descriptorOf(capacityBytes);
    assert.equal((await openError(open, { capacityBytes })).code, 'DISK_MISMATCH');
  }));

test('a file that the host keeps locked is refused with the reason', () =>
  withLab(async ({ vcenter, open }) => {
    vcenter.misbehave = (response) => Boolean(response.writeHead(500).end());
    const error = await openError(open);
    assert.equal(error.code, 'TRANSPORT_UNSUPPORTED');
    assert.match(String(error.details['reason']), /locked/);
  }));

test('a file or folder that is not there fails the opening with the status', () =>
  withLab(async ({ open }) => {
    const error = await openError(open, { fileName: '[ds 1] web (1)/gone.vmdk' });
    assert.deepEqual([error.code, error.details['status']], ['READ_FAILED', 404]);
    assert.equal((await openError(open, { fileName: 'vsan://0a1b' })).code, 'TRANSPORT_UNSUPPORTED');
  }));

test('a descriptor that does not end is cut off', () =>
  withLab(async ({ vcenter, open }) => {
    vcenter.descriptor = `KDMV${'x'.repeat(64 * 1024 * 1024)}`;
    assert.equal((await openError(open)).code, 'TRANSPORT_UNSUPPORTED');
  }));

const MIB = 1024 * 1024;

test('a server that ignores the range is cut off before it sends the disk', () =>
  withLab(async ({ vcenter, open }) => {
    let sent = 0;
    const closed = Promise.withResolvers<undefined>();
    vcenter.misbehave = (response) => {
      response.writeHead(200);
      const chunk = Buffer.alloc(MIB);
      const more = (): void => {
        while (!response.destroyed && sent < 1024 && response.write(chunk)) sent += 1;
      };
      response.on('drain', () => more()).on('close', () => closed.resolve(undefined));
      more();
      return true;
    };
    const error = await openError(open);
    assert.equal(error.code, 'READ_FAILED');
    assert.match(error.message, /ignored the range/);
    await closed.promise;
    assert.ok(sent < 64, `${sent} MiB were sent`);
    assert.equal(vcenter.ranges.length, 1);
  }));

type Misbehaviour = FolderVcenter['misbehave'];

const WRONG: [what: string, misbehave: Misbehaviour][] = [
  [
    'another range',
    (response, [first, last]) => answer206(response, `bytes ${first + 512}-${last + 512}/99999999`, 512),
  ],
  ['a longer range', (response, [first, last]) => answer206(response, `bytes ${first}-${last + 512}/99999999`, 1024)],
  ['no content range', (response) => answer206(response, undefined, 512)],
  [
    'a file shorter than the range',
    (response, [first, last]) => answer206(response, `bytes ${first}-${last}/512`, 512),
  ],
  ['another length', (response, [first, last]) => answer206(response, `bytes ${first}-${last}/99999999`, 100)],
  [
    'encoded bytes',
    (response, [first, last]) => {
      const range = `bytes ${first}-${last}/99999999`;
      return Boolean(
        response.writeHead(206, { 'content-range': range, 'content-encoding': 'gzip' }).end(Buffer.alloc(512)),
      );
    },
  ],
  [
    'more bytes than asked for without announcing them',
    (response, [first, last]) => {
      response.writeHead(206, { 'content-range': `bytes ${first}-${last}/99999999` });
      return Boolean(response.end(Buffer.alloc(4096)));
    },
  ],
];

function answer206(response: ServerResponse, range: string | undefined, length: number): boolean {
  response.writeHead(206, { ...(range !== undefined && { 'content-range': range }), 'content-length': length });
  return Boolean(response.end(Buffer.alloc(length)));
}

for (const [what, misbehave] of WRONG) {
  test(`an answer with ${what} is never taken for the disk's bytes`, () =>
    withLab(async ({ vcenter, open }) => {
      await using source = await open();
      vcenter.misbehave = misbehave;
      const target = Buffer.alloc(512);
      await assert.rejects(source.read(MIB, target, signal), { code: 'READ_FAILED' });
      assert.equal(vcenter.ranges.length, 2, 'asking again would not help');
    }));
}

const TRANSIENT: [what: string, misbehave: Misbehaviour][] = [
  ['HTTP 503', (response) => Boolean(response.writeHead(503).end())],
  ['a broken connection', (response) => Boolean(response.destroy())],
  [
    'a connection that breaks in the middle',
    (response, [first, last]) => {
      const length = last - first + 1;
      response.writeHead(206, { 'content-range': `bytes ${first}-${last}/99999999`, 'content-length': length });
      response.write(Buffer.alloc(length / 2, 0xff), () => response.destroy());
      return true;
    },
  ],
  [
    'an answer that ends early',
    (response, [first, last]) => {
      response.writeHead(206, { 'content-range': `bytes ${first}-${last}/99999999` });
      return Boolean(response.end(Buffer.alloc(100, 0xff)));
    },
  ],
];

for (const [what, misbehave] of TRANSIENT) {
  test(`${what} is tried again, and given up in the end`, () =>
    withLab(async ({ vcenter, open }) => {
      await using source = await open();
      let left = 3;
      vcenter.misbehave = (response, range) => left-- > 0 && misbehave(response, range);
      const target = Buffer.alloc(4096);
      await source.read(512 * 1024, target, signal);
      assert.ok(target.equals(vcenter.content.subarray(512 * 1024, 512 * 1024 + 4096)));
      left = 100;
      await assert.rejects(source.read(0, target, signal), { code: 'READ_FAILED' });
      assert.equal(left, 95, 'five attempts');
    }));
}

test('an expired session is renewed once while many reads are under way', () =>
  withLab(async ({ vcenter, session, open }) => {
    await using source = await open();
    vcenter.sessions.clear();
    const reads = Array.from({ length: 12 }, async (_, i) => {
      const target = Buffer.alloc(4096);
      await source.read(i * 4096, target, signal);
      assert.ok(target.equals(vcenter.content.subarray(i * 4096, (i + 1) * 4096)));
    });
    await Promise.all(reads);
    assert.equal(session.generation, 2);
    assert.equal(vcenter.count('Login'), 2);
  }));

test('a session that cannot be renewed fails the read with the reason', () =>
  withLab(async ({ vcenter, open }) => {
    await using source = await open();
    vcenter.sessions.clear();
    vcenter.password = 'other';
    await assert.rejects(
      source.read(0, Buffer.alloc(512), signal),
      (error) =>
        hasCode(error, 'READ_FAILED') &&
        error instanceof SendenseError &&
        error.details['reason'] === 'SOURCE_LOGIN_FAILED',
    );
  }));

test('reads share a few connections and wait for their turn', () =>
  withLab(async ({ vcenter, open }) => {
    await using source = await open();
    let running = 0;
    let most = 0;
    vcenter.misbehave = (response, range) => {
      most = Math.max(most, ++running);
      setImmediate(() => {
        running -= 1;
        partial(response, range, vcenter.content);
      });
      return true;
    };
    await Promise.all(Array.from({ length: 64 }, (_, i) => source.read(i * 512, Buffer.alloc(512), signal)));
    assert.ok(most > 1 && most <= source.parallel, `${most} at once`);
  }));
