/** The control interface of a running simulator, for its commands, the demo and tests. */
import { readFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { fromWire, SendenseError } from '#/lib/errors.ts';
import type { SimulatorFacts } from './main.ts';

export interface ControlTarget {
  url: string;
  username: string;
  password: string;
  /** PEM of the simulator's own certificate. */
  cert: string;
}

/** Where the simulator that keeps its world in `dir` can be reached. */
export async function controlOf(dir: string): Promise<ControlTarget> {
  let facts: SimulatorFacts;
  try {
    facts = JSON.parse(await readFile(join(dir, 'simulator.json'), 'utf8')) as SimulatorFacts;
  } catch (cause) {
    throw new SendenseError('NOT_FOUND', `no simulator keeps its world in ${dir}`, { details: { dir }, cause });
  }
  const [password, cert] = await Promise.all(['password', 'cert.pem'].map((file) => readFile(join(dir, file), 'utf8')));
  return { url: facts.url, username: facts.username, password: (password ?? '').trim(), cert: cert ?? '' };
}

/** One call of the control interface; SOURCE_UNREACHABLE when nobody answers. */
export async function control(target: ControlTarget, method: string, path: string, body?: unknown): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
  const call = request(
    new URL(`/simulator/${path}`, target.url),
    {
      method,
      ca: target.cert,
      auth: `${target.username}:${target.password}`,
      headers: { 'content-type': 'application/json' },
    },
    (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
      );
      response.on('error', reject);
    },
  );
  call.on('error', (cause) =>
    reject(new SendenseError('SOURCE_UNREACHABLE', `the simulator does not answer: ${cause.message}`, { cause })),
  );
  call.end(body === undefined ? undefined : JSON.stringify(body));
  const { status, text } = await promise;
  const value: unknown = JSON.parse(text);
  if (status !== 200) throw fromWire(value as Record<string, unknown>, 'INTERNAL');
  return value;
}
