import { mkdir, open, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { SendenseError } from '#/lib/errors.ts';
import { syncFolder } from '#/lib/files.ts';
import { connect } from './discovery.ts';
import { instant } from './format.ts';
import { table } from './output.ts';
import { command } from './spec.ts';

/** Names that QEMU's and libnbd's TLS folders have, so that the bundle serves them too. */
const BUNDLE = { caCert: 'ca-cert.pem', cert: 'client-cert.pem', key: 'client-key.pem' } as const;

export const agentCommands = [
  command({
    words: 'agent add',
    summary: 'Register a capture agent and write its certificate',
    about:
      "The certificate and its key are written into --out once and kept nowhere else. Bring the folder to the agent's " +
      'machine and start the agent there with `--tls`.',
    client: true,
    args: { name: { help: 'name of the agent' } },
    options: {
      url: { value: 'URL', required: true, help: 'where the hub reaches the agent, https://HOST:PORT' },
      out: { value: 'DIR', required: true, help: 'new folder for certificate and key' },
    },
    examples: ['sendense agent add site-b --url https://agent-b.example.org:8443 --out ./site-b'],
    async run(context, { args, options }) {
      const hub = await connect(context);
      const folder = resolve(context.cwd, options.out);
      await using bundle = await Bundle.reserve(folder);
      const { agent, ...credentials } = await hub.addAgent(
        { body: { name: args.name, url: options.url } },
        context.signal,
      );
      await bundle.write(credentials);
      const text = `agent ${agent.name} registered; its certificate is in ${folder}\n`;
      context.answer({ document: { ...agent, folder }, text });
    },
  }),
  command({
    words: 'agent ls',
    summary: 'List the capture agents',
    client: true,
    async run(context) {
      const hub = await connect(context);
      const page = await hub.listAgents({}, context.signal);
      const text = table(
        page.items,
        [
          { title: 'name', cell: (row) => row.name },
          { title: 'state', cell: (row) => row.state },
          { title: 'version', cell: (row) => row.version ?? '-' },
          { title: 'last seen', cell: (row) => instant(row.lastSeenAt) },
          { title: 'url', cell: (row) => row.url },
        ],
        'no agents: `sendense agent add` registers one',
      );
      context.answer({ document: page, text });
    },
  }),
];

/**
 * The files are made before the hub is asked: a certificate that is shown only once must not be lost to a folder that
 * cannot be written. Unless they were filled they are removed again.
 */
class Bundle implements AsyncDisposable {
  readonly #folder: string;
  readonly #made: string[] = [];
  #complete = false;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async reserve(folder: string): Promise<Bundle> {
    const bundle = new Bundle(folder);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      for (const name of Object.values(BUNDLE)) {
        const path = join(folder, name);
        await (await open(path, 'wx', 0o600)).close();
        bundle.#made.push(path);
      }
    } catch (cause) {
      await bundle[Symbol.asyncDispose]();
      const { code } = cause as NodeJS.ErrnoException;
      if (code === 'EEXIST')
        throw new SendenseError('ALREADY_EXISTS', `${folder} holds a certificate already`, { cause });
      throw new SendenseError('USAGE', `${folder} cannot be written: ${String(code)}`, { cause });
    }
    return bundle;
  }

  async write(credentials: Record<keyof typeof BUNDLE, string>): Promise<void> {
    for (const [part, name] of Object.entries(BUNDLE)) {
      const file = await open(join(this.#folder, name), 'w', 0o600);
      try {
        await file.writeFile(credentials[part as keyof typeof BUNDLE]);
        await file.sync();
      } finally {
        await file.close();
      }
    }
    await syncFolder(this.#folder);
    this.#complete = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#complete) await Promise.all(this.#made.map(async (path) => rm(path, { force: true })));
  }
}
