/** The commands that are a part of sendense themselves and run until they are stopped. */
import { isAbsolute, join, resolve } from 'node:path';
import { hostname } from 'node:os';
import { SendenseError } from '#/lib/errors.ts';
import { createLogger } from '#/lib/log.ts';
import type { Context } from './context.ts';
import { stateDir } from './discovery.ts';
import { command } from './spec.ts';

export const EXIT_WITH_PARENT = {
  exitWithParent: { help: 'stop when standard input is closed, so that no part outlives the program that started it' },
} as const;

export const partCommands = [
  command({
    words: 'hub',
    summary: 'Run the hub: API, catalog and engine',
    part: true,
    about:
      'Writes its address into hub.json and the access token into token, both in the state folder. It needs an export ' +
      'daemon on the same machine and at least one capture agent; `sendense up` runs all three.',
    options: {
      state: { value: 'DIR', help: 'folder for catalog, keys and token (else SENDENSE_STATE, else the default)' },
      listen: { value: 'HOST:PORT', default: '127.0.0.1:8440', help: 'where the API listens' },
      exportsConfig: { value: 'DIR', help: 'config.d of the export daemon; default <state>/exports/config.d' },
      exportsRun: { value: 'DIR', help: 'run folder of the export daemon; default <state>/exports/run' },
      frontDoor: { value: 'HOST:PORT', help: 'where agents on other machines reach the export daemon' },
      catalogUrlFile: { value: 'FILE', help: 'file with a PostgreSQL URL; without one the catalog is SQLite' },
      localAgent: { value: 'URL', help: 'agent on this machine, reached over loopback with a token' },
      localAgentToken: { value: 'FILE', help: 'file with the token of that agent' },
      tls: { value: 'DIR', help: 'folder with ca-cert.pem, server-cert.pem and server-key.pem of the API' },
      ...EXIT_WITH_PARENT,
    },
    async run(context, { options }) {
      const state = stateDir({ ...context, connection: { state: options.state } });
      const path = pathIn(context);
      await context.parts.hub({
        stateDir: state,
        listen: address('--listen', options.listen),
        exportsConfigDir: path(options.exportsConfig) ?? join(state, 'exports/config.d'),
        exportsRunDir: path(options.exportsRun) ?? join(state, 'exports/run'),
        frontDoor: options.frontDoor === undefined ? null : address('--front-door', options.frontDoor),
        catalogUrlFile: path(options.catalogUrlFile) ?? null,
        localAgent: localAgent(path(options.localAgentToken), options.localAgent),
        tlsDir: path(options.tls) ?? null,
        log: createLogger('hub'),
        signal: partSignal(context, options.exitWithParent),
      });
    },
  }),
  command({
    words: 'exportd',
    summary: 'Run the export daemon: NBD exports of QCOW2 images',
    part: true,
    about:
      'Serves each file of its configuration folder as one export; SIGHUP reads the folder again and disturbs no export ' +
      'that did not change. With --listen agents on other machines come in through one TLS port.',
    options: {
      config: { value: 'DIR', required: true, help: 'config.d folder, one export per *.conf file' },
      run: { value: 'DIR', required: true, help: 'folder for sockets and status.json; keep its path short' },
      listen: { value: 'HOST:PORT', help: 'where the TLS front door listens' },
      tls: { value: 'DIR', help: 'folder with ca-cert.pem, server-cert.pem and server-key.pem' },
      ...EXIT_WITH_PARENT,
    },
    async run(context, { options }) {
      if ((options.listen === undefined) !== (options.tls === undefined)) {
        throw new SendenseError('USAGE', '--listen and --tls go together: the front door never opens without TLS');
      }
      const path = pathIn(context);
      await context.parts.exportd({
        configDir: resolve(context.cwd, options.config),
        runDir: resolve(context.cwd, options.run),
        ...(options.listen !== undefined && { listen: address('--listen', options.listen) }),
        ...(options.tls !== undefined && { tlsDir: path(options.tls) }),
        log: createLogger('exportd'),
        signal: partSignal(context, options.exitWithParent),
      });
    },
  }),
  command({
    words: 'agent run',
    summary: 'Run a capture agent',
    part: true,
    isDefault: true,
    about:
      "It reads disks of VMs for a hub and writes them into the hub's exports. On another machine than the hub it is " +
      'started with the certificate that `sendense agent add` wrote.',
    options: {
      listen: { value: 'HOST:PORT', required: true, help: 'where the hub reaches it' },
      name: { value: 'NAME', help: 'name it is registered by; default the host name' },
      tls: { value: 'DIR', help: 'folder that `sendense agent add` wrote' },
      tokenFile: { value: 'FILE', help: 'file with the token a hub on this machine must show; loopback only' },
      readyFile: { value: 'FILE', help: 'written with url and pid once it listens' },
      ...EXIT_WITH_PARENT,
    },
    async run(context, { options }) {
      if ((options.tls === undefined) === (options.tokenFile === undefined)) {
        throw new SendenseError('USAGE', 'an agent takes either --tls or --token-file');
      }
      const path = pathIn(context);
      const readyFile = path(options.readyFile);
      await context.parts.agent({
        name: options.name ?? hostname(),
        listen: address('--listen', options.listen),
        tokenFile: path(options.tokenFile) ?? null,
        tlsDir: path(options.tls) ?? null,
        ...(readyFile !== undefined && { readyFile }),
        log: createLogger('agent'),
        signal: partSignal(context, options.exitWithParent),
      });
    },
  }),
];

/** `HOST:PORT`, an IPv6 host in brackets; USAGE otherwise. */
export function address(option: string, text: string): string {
  const port = /^(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})$/.exec(text)?.[1];
  if (port !== undefined && Number(port) <= 65_535) return text;
  throw new SendenseError('USAGE', `${option} takes HOST:PORT, not ${text}`);
}

function pathIn(context: Context): <T extends string | undefined>(path: T) => T {
  return (path) => (path === undefined || isAbsolute(path) ? path : (resolve(context.cwd, path) as typeof path));
}

function localAgent(tokenFile: string | undefined, url: string | undefined): { url: string; tokenFile: string } | null {
  if (url !== undefined && tokenFile !== undefined) return { url, tokenFile };
  if (url === undefined && tokenFile === undefined) return null;
  throw new SendenseError('USAGE', '--local-agent and --local-agent-token go together');
}

/** Aborted by a signal, or with `--exit-with-parent` by the end of standard input: the parent is gone then. */
export function partSignal(context: Context, exitWithParent: boolean): AbortSignal {
  if (!exitWithParent) return context.signal;
  const gone = new AbortController();
  const stop = (): void => gone.abort(new SendenseError('CANCELLED', 'the program that started this part has ended'));
  context.io.stdin.once('end', stop).once('close', stop).once('error', stop).resume();
  return AbortSignal.any([context.signal, gone.signal]);
}
