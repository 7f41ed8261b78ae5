/**
 * `sendense up`: export daemon, agent and hub on one machine, each a process of its own, on loopback. A part that dies
 * is started again; stopped in the order hub, agent, export daemon; nothing is left behind, not even after kill -9.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient } from '#/api/client.ts';
import { routes } from '#/api/routes.ts';
import { hasCode } from '#/lib/errors.ts';
import { writeSecretFile } from '#/lib/files.ts';
import type { Context } from './context.ts';
import { stateDir } from './discovery.ts';
import { clean } from './format.ts';
import { Part } from './part.ts';
import { address } from './parts.ts';
import type { PartSpec } from './part.ts';
import { say } from './progress.ts';
import { readJson, StateLock, waitForLeftovers } from './state-lock.ts';
import { command } from './spec.ts';

export const upCommands = [
  command({
    words: 'up',
    summary: 'Run hub, export daemon and agent together on this machine',
    about:
      'Everything is kept in the state folder and reached over loopback. A part that dies is started again; its log is ' +
      'in logs/ below the state folder. Ctrl-C stops all parts in order.',
    options: {
      state: { value: 'DIR', help: 'folder for all state (else SENDENSE_STATE, else the default)' },
      listen: { value: 'HOST:PORT', default: '127.0.0.1:8440', help: 'where the hub listens; port 0 takes a free one' },
    },
    async run(context, { options }) {
      const state = stateDir({ ...context, connection: { state: options.state } });
      await using up = await Up.start(context, state, address('--listen', options.listen));
      context.answer({ document: up.document, text: up.text });
      await untilStopped(context.signal);
    },
  }),
];

interface Listening {
  url: string;
  pid: number;
}

export class Up implements AsyncDisposable {
  readonly document: Record<string, unknown>;
  readonly text: string;
  readonly #parts: AsyncDisposableStack;

  private constructor(parts: AsyncDisposableStack, state: string, url: string, pids: Record<string, number | null>) {
    this.#parts = parts;
    this.document = { url, stateDir: state, tokenFile: join(state, 'token'), pid: process.pid, parts: pids };
    this.text =
      `sendense is up at ${url}, state in ${state}\n` +
      `In another shell: export SENDENSE_STATE=${shellWord(state)}, then for example \`sendense status\`. Ctrl-C stops all parts.\n`;
  }

  static async start(context: Context, state: string, listen: string): Promise<Up> {
    await using stack = new AsyncDisposableStack();
    const paths = await prepare(state);
    stack.use(await StateLock.take(state));
    await waitForLeftovers(state, [paths.hubFile, paths.agentFile, paths.statusFile], context.signal);
    await rm(paths.agentFile, { force: true });
    await writeSecretFile(paths.agentToken, `${randomBytes(32).toString('base64url')}\n`);
    const { signal } = context;
    const [exportd, agent] = await both(
      Part.start(exportdSpec(context, state, paths), signal),
      Part.start(agentSpec(context, state, paths), signal),
    );
    // Disposed in reverse: hub first, export daemon last.
    stack.use(exportd);
    stack.use(agent);
    const agentUrl = agent.facts?.url ?? '';
    const hub = stack.use(await Part.start(hubSpec(context, state, paths, { listen, agentUrl }), signal));
    const pids = { hub: hub.pid, agent: agent.pid, exportd: exportd.pid };
    return new Up(stack.move(), state, hub.facts?.url ?? '', pids);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
  }
}

/** Waits for both to start; when one fails the other is stopped again. */
export async function both<A extends AsyncDisposable, B extends AsyncDisposable>(
  first: Promise<A>,
  second: Promise<B>,
): Promise<[A, B]> {
  const results = await Promise.allSettled([first, second]);
  const [a, b] = results;
  if (a.status === 'fulfilled' && b.status === 'fulfilled') return [a.value, b.value];
  for (const result of results) if (result.status === 'fulfilled') await result.value[Symbol.asyncDispose]();
  throw a.status === 'rejected' ? a.reason : (b as PromiseRejectedResult).reason;
}

interface Paths {
  configDir: string;
  runDir: string;
  hubFile: string;
  agentFile: string;
  agentToken: string;
  statusFile: string;
}

async function prepare(state: string): Promise<Paths> {
  const paths = {
    configDir: join(state, 'exports/config.d'),
    runDir: join(state, 'exports/run'),
    hubFile: join(state, 'hub.json'),
    agentFile: join(state, 'agent.json'),
    agentToken: join(state, 'agent-token'),
    statusFile: join(state, 'exports/run/status.json'),
  };
  for (const folder of [state, paths.configDir, paths.runDir, join(state, 'logs')]) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  }
  return paths;
}

function base(context: Context, state: string, name: string): Omit<PartSpec<never>, 'args' | 'ready'> {
  return {
    name,
    self: context.self,
    logFile: join(state, 'logs', `${name}.log`),
    notice: (line) => say(context.io.stderr, clean(line)),
  };
}

function exportdSpec(context: Context, state: string, paths: Paths): PartSpec<number> {
  return {
    ...base(context, state, 'exportd'),
    args: () => ['exportd', '--config', paths.configDir, '--run', paths.runDir, '--exit-with-parent'],
    ready: async (pid) => ((await readJson<{ pid?: number }>(paths.statusFile))?.pid === pid ? pid : undefined),
  };
}

function agentSpec(context: Context, state: string, paths: Paths): PartSpec<Listening> {
  const port = new KeptAddress('127.0.0.1:0');
  return {
    ...base(context, state, 'agent'),
    args: () =>
      ['agent', 'run', '--name', 'local', '--exit-with-parent']
        .concat('--listen', port.listen)
        .concat('--token-file', paths.agentToken)
        .concat('--ready-file', paths.agentFile),
    ready: async (pid) => port.keep(await listening(paths.agentFile, pid)),
  };
}

function hubSpec(
  context: Context,
  state: string,
  paths: Paths,
  where: { listen: string; agentUrl: string },
): PartSpec<Listening> {
  const port = new KeptAddress(where.listen);
  return {
    ...base(context, state, 'hub'),
    args: () =>
      ['hub', '--state', state, '--exit-with-parent']
        .concat('--listen', port.listen)
        .concat('--exports-config', paths.configDir, '--exports-run', paths.runDir)
        .concat('--local-agent', where.agentUrl, '--local-agent-token', paths.agentToken),
    ready: async (pid) => {
      const found = await listening(paths.hubFile, pid);
      return found && (await answers(found.url, join(state, 'token'))) ? port.keep(found) : undefined;
    },
  };
}

/** A port that was free at the first start is asked for again at the next, so that addresses stay what they were. */
class KeptAddress {
  listen: string;

  constructor(listen: string) {
    this.listen = listen;
  }

  keep(found: Listening | undefined): Listening | undefined {
    if (found) this.listen = this.listen.replace(/:0$/, `:${new URL(found.url).port}`);
    return found;
  }
}

async function listening(file: string, pid: number): Promise<Listening | undefined> {
  const found = await readJson<Listening>(file);
  return found?.pid === pid && typeof found.url === 'string' ? found : undefined;
}

async function answers(url: string, tokenFile: string): Promise<boolean> {
  const token = (await readFile(tokenFile, 'utf8')).trim();
  const hub = createClient(routes, {
    baseUrl: url,
    token: () => token,
    unreachable: 'HUB_UNREACHABLE',
    timeoutMs: 5_000,
  });
  try {
    await hub.getStatus({});
    return true;
  } catch (error) {
    if (hasCode(error, 'HUB_UNREACHABLE')) return false;
    throw error;
  }
}

export function shellWord(text: string): string {
  return /^[\w./:@=,+-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

export async function untilStopped(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
}
