#!/usr/bin/env node
/** The one executable: chooses what to start and loads it only then. */
import { fileURLToPath } from 'node:url';
import { runCli } from '#/cli/cli.ts';
import type { Parts } from '#/cli/context.ts';
import { elapsedMs } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import { VERSION } from '#/lib/version.ts';

const parts: Parts = {
  hub: async (options) => (await import('#/hub/main.ts')).runHub(options),
  agent: async (options) => (await import('#/agent/main.ts')).runAgent(options),
  exportd: async (options) => (await import('#/exportd/main.ts')).runExportd(options),
  simulator: async (options) => (await import('#/simulator/main.ts')).runSimulator(options),
  simulatorControl: async (dir, method, path, body) => {
    const { control, controlOf } = await import('#/simulator/client.ts');
    return control(await controlOf(dir), method, path, body);
  },
  compareDisks: async (one, other, signal) => {
    const { compareImages } = await import('#/qemu/img.ts');
    return compareImages({ path: one, format: 'raw' }, { path: other, format: 'raw' }, signal);
  },
};

/** Ctrl-C under npm or make arrives twice, from the terminal and passed on; only one that comes later means it. */
const IMPATIENT_MS = 2_000;

function stopSignal(): AbortSignal {
  const stop = new AbortController();
  let firstMs = 0;
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (!stop.signal.aborted) {
        firstMs = elapsedMs();
        stop.abort(new SendenseError('CANCELLED', `stopped by ${name}`));
      } else if (name === 'SIGINT' && elapsedMs() - firstMs > IMPATIENT_MS) process.exit(130);
    });
  }
  return stop.signal;
}

// A reader that has seen enough (`sendense vm ls | head -1`) closes the pipe; that is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
process.stderr.on('error', () => undefined);

const code = await runCli({
  argv: process.argv.slice(2),
  io: { stdin: process.stdin, stdout: process.stdout, stderr: process.stderr },
  env: process.env,
  cwd: process.cwd(),
  version: VERSION,
  signal: stopSignal(),
  parts,
  self: [process.execPath, ...process.execArgv, fileURLToPath(import.meta.url)],
});
process.exit(code);
