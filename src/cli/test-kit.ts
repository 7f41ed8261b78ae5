/** For the tests of this folder: captured streams and a hub that answers from the real route table on loopback. */
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PassThrough } from 'node:stream';
import { text as readAll } from 'node:stream/consumers';
import { routes } from '#/api/routes.ts';
import type { Routes } from '#/api/routes.ts';
import type { Route } from '#/api/route.ts';
import { ERRORS, SendenseError, toSendenseError } from '#/lib/errors.ts';
import { runCli } from './cli.ts';
import type { Parts } from './context.ts';
import type { CliOptions } from './cli.ts';

export class Captured {
  text = '';
  readonly isTTY: boolean;
  readonly columns: number;

  constructor(terminal: { isTTY?: boolean; columns?: number } = {}) {
    this.isTTY = terminal.isTTY ?? false;
    this.columns = terminal.columns ?? 80;
  }

  write(text: string): boolean {
    this.text += text;
    return true;
  }
}

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

const refuse = async (): Promise<never> => Promise.reject(new SendenseError('INTERNAL', 'this test starts no parts'));

export const NO_PARTS: Parts = {
  hub: refuse,
  agent: refuse,
  exportd: refuse,
  simulator: refuse,
  simulatorControl: refuse,
  compareDisks: refuse,
};

/** Runs a command line with nothing of the machine's environment. */
export async function cli(
  argv: readonly string[],
  options: Partial<CliOptions> & { tty?: boolean } = {},
): Promise<Outcome> {
  const stdout = new Captured();
  const stderr = new Captured({ isTTY: options.tty ?? false });
  const stdin = Object.assign(new PassThrough(), { isTTY: options.tty ?? false }) as unknown as NodeJS.ReadStream;
  const code = await runCli({
    argv,
    io: { stdin, stdout, stderr },
    env: {},
    cwd: '/',
    version: '0.0.0',
    signal: new AbortController().signal,
    parts: NO_PARTS,
    self: [process.execPath],
    ...options,
  });
  return { code, stdout: stdout.text, stderr: stderr.text };
}

interface FakeCall {
  params: Record<string, string>;
  query: Record<string, unknown>;
  body: unknown;
  token: string | undefined;
}

type Handler = (call: FakeCall) => unknown;

/** Parses every request with the schemas of its route, so that a command that sends a wrong form is found out. */
export class FakeHub implements AsyncDisposable {
  readonly handlers: Partial<Record<keyof Routes, Handler>>;
  readonly calls: (FakeCall & { operation: string })[] = [];
  readonly #server = createServer((request, response) => void this.#serve(request, response));

  private constructor(handlers: Partial<Record<keyof Routes, Handler>>) {
    this.handlers = handlers;
  }

  static async start(handlers: Partial<Record<keyof Routes, Handler>>): Promise<FakeHub> {
    const hub = new FakeHub(handlers);
    const { promise, resolve } = Promise.withResolvers<void>();
    hub.#server.listen(0, '127.0.0.1', resolve);
    await promise;
    return hub;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    this.#server.closeAllConnections();
    await promise;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const answer = (status: number, document: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(document));
    };
    try {
      const url = new URL(request.url ?? '/', this.url);
      for (const [operation, route] of Object.entries<Route>(routes)) {
        const params = request.method === route.method ? matchPath(route.path, url.pathname) : undefined;
        if (!params) continue;
        const body = await readAll(request);
        const call = {
          params,
          query: (route.query?.parse(Object.fromEntries(url.searchParams)) ?? {}) as Record<string, unknown>,
          body: route.body?.parse(JSON.parse(body)),
          token: request.headers.authorization?.replace('Bearer ', ''),
        };
        this.calls.push({ operation, ...call });
        const handler = this.handlers[operation as keyof Routes];
        if (!handler) throw new SendenseError('NOT_FOUND', `the test gives no answer to ${operation}`);
        return answer(route.status ?? 200, route.reply.parse(await handler(call)));
      }
      throw new SendenseError('NOT_FOUND', `no route ${request.method} ${url.pathname}`);
    } catch (thrown) {
      const error = toSendenseError(thrown);
      answer(ERRORS[error.code].status, error.toWire('req-1'));
    }
  }
}

function matchPath(pattern: string, path: string): Record<string, string> | undefined {
  const wanted = pattern.split('/');
  const given = path.split('/');
  if (wanted.length !== given.length) return undefined;
  const params: Record<string, string> = {};
  for (const [index, part] of wanted.entries()) {
    const value = decodeURIComponent(given[index] ?? '');
    if (part.startsWith(':')) params[part.slice(1)] = value;
    else if (part !== value) return undefined;
  }
  return params;
}

export const JOB = {
  id: 'job-1',
  kind: 'backup',
  status: 'copying',
  subject: 'web-01',
  vmId: 'vm-1',
  restorePointId: 'point-1',
  attempt: 1,
  cancelRequested: false,
  progress: {
    totalBytes: 4 * 1024 ** 3,
    doneBytes: 1024 ** 3,
    bytesPerSecond: 300 * 1024 ** 2,
    etaSeconds: 10.4,
    idleMs: 3,
    disks: [
      {
        diskUuid: 'u0',
        label: 'SCSI (0:0) Hard disk 1',
        phase: 'copying',
        totalBytes: 2 * 1024 ** 3,
        doneBytes: 1024 ** 3,
        type: 'full',
      },
      { diskUuid: 'u1', label: 'SCSI (0:1) Hard disk 2', phase: 'waiting', totalBytes: null, doneBytes: 0, type: null },
    ],
  },
  result: null,
  error: null,
  createdAt: '2026-11-23T10:00:00Z',
  startedAt: '2026-11-23T10:00:01Z',
  finishedAt: null,
} as const;

const DISK = {
  id: 'backup-1',
  diskIndex: 0,
  diskUuid: 'u0',
  label: 'SCSI (0:0) Hard disk 1',
  type: 'full',
  typeReason: 'first backup of this disk in this repository',
  status: 'completed',
  chainId: 'chain-1',
  parentBackupId: null,
  previousChangeId: null,
  changeId: '52 de/4',
  imagePath: 'vms/web-01/p/disk-0.qcow2',
  transport: 'datastore',
  transportReason: 'the only one',
  virtualBytes: 2 * 1024 ** 3,
  changedBytes: 1024 ** 3,
  readBytes: 1024 ** 3,
  transferredBytes: 512 * 1024 ** 2,
  zeroBytes: 512 * 1024 ** 2,
  skippedBytes: 1024 ** 3,
  storedBytes: 513 * 1024 ** 2,
  error: null,
} as const;

export const POINT = {
  id: 'point-1',
  vmId: 'vm-1',
  vm: 'web-01',
  repositoryId: 'repo-1',
  repository: 'main',
  jobId: 'job-1',
  status: 'completed',
  requestedType: 'auto',
  consistency: 'crash',
  folder: 'vms/web-01-1a2b/20261123T100000Z-1',
  virtualBytes: 2 * 1024 ** 3,
  transferredBytes: 512 * 1024 ** 2,
  storedBytes: 513 * 1024 ** 2,
  snapshotAt: '2026-11-23T10:00:02Z',
  startedAt: '2026-11-23T10:00:00Z',
  completedAt: '2026-11-23T10:00:04Z',
  error: null,
  disks: [DISK],
} as const;
