/**
 * The hub's way to its capture agents. Credentials of a source are given to an agent when it does not hold them (after
 * its start, say) and are never part of any other call.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent as HttpAgent, fetch as httpFetch } from 'undici';
import { agentRoutes } from '#/api/agent-routes.ts';
import type { AgentRoutes } from '#/api/agent-routes.ts';
import { createClient } from '#/api/client.ts';
import type { Client } from '#/api/client.ts';
import type { Catalog } from '#/catalog/catalog.ts';
import type { Agent, Source } from '#/catalog/records.ts';
import { hasCode, SendenseError } from '#/lib/errors.ts';
import type { KeyRing } from './secrets.ts';

export type AgentClient = Client<AgentRoutes>;

export interface AgentsOptions {
  catalog: Catalog;
  keys: KeyRing;
  /** Folder with the hub's client certificate, for agents reached over TLS. */
  tlsDir: string;
  /** The agent of `sendense up`: reached on loopback with a token from a file. */
  local: { url: string; tokenFile: string } | null;
}

export class Agents implements AsyncDisposable {
  readonly #options: AgentsOptions;
  readonly #clients = new Map<string, AgentClient>();
  #dispatcher: HttpAgent | undefined;

  constructor(options: AgentsOptions) {
    this.#options = options;
  }

  /** The agent to use for new work: the one asked longest ago that answers. AGENT_UNREACHABLE when none does. */
  async choose(): Promise<Agent> {
    const agents = await this.#options.catalog.agents.list();
    const problems: string[] = [];
    for (const agent of agents.toSorted((a, b) => age(b) - age(a))) {
      try {
        const client = await this.client(agent);
        const status = await client.getStatus({});
        await this.#options.catalog.agents.seen(agent.id, status.version);
        return agent;
      } catch (error) {
        problems.push(error instanceof Error ? error.message : String(error));
      }
    }
    const why = problems.length > 0 ? problems.join('; ') : 'none is registered';
    throw new SendenseError('AGENT_UNREACHABLE', `no capture agent answers: ${why}`);
  }

  async client(agent: Agent): Promise<AgentClient> {
    let client = this.#clients.get(agent.url);
    if (!client) {
      client = await this.#connect(agent.url);
      this.#clients.set(agent.url, client);
    }
    return client;
  }

  /** Calls the agent and, when it does not know the source, hands over the credentials and calls once more. */
  async withSource<T>(agent: Agent, source: Source, call: (client: AgentClient) => Promise<T>): Promise<T> {
    const client = await this.client(agent);
    try {
      return await call(client);
    } catch (error) {
      if (!hasCode(error, 'SOURCE_NOT_FOUND')) throw error;
      const password = this.#options.keys.open(source.sealedPassword, source.id);
      const { kind, address, username, thumbprint } = source;
      await client.putSource({
        params: { source: source.id },
        body: { kind, address, username, thumbprint, password },
      });
      return call(client);
    }
  }

  async #connect(url: string): Promise<AgentClient> {
    const { local } = this.#options;
    if (local?.url === url) {
      const token = (await readFile(local.tokenFile, 'utf8')).trim();
      return createClient(agentRoutes, { baseUrl: url, token: () => token, unreachable: 'AGENT_UNREACHABLE' });
    }
    this.#dispatcher ??= await this.#tlsDispatcher();
    const dispatcher = this.#dispatcher;
    const secureFetch = ((input: URL, init: RequestInit) =>
      httpFetch(input, { ...init, dispatcher })) as unknown as typeof fetch;
    return createClient(agentRoutes, { baseUrl: url, fetch: secureFetch, unreachable: 'AGENT_UNREACHABLE' });
  }

  async #tlsDispatcher(): Promise<HttpAgent> {
    const [ca, cert, key] = await Promise.all(
      ['ca-cert.pem', 'client-cert.pem', 'client-key.pem'].map((file) =>
        readFile(join(this.#options.tlsDir, file), 'utf8'),
      ),
    );
    return new HttpAgent({ connect: { ca: ca ?? '', cert: cert ?? '', key: key ?? '', timeout: 10_000 } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatcher?.destroy();
  }
}

function age(agent: Agent): number {
  return -(agent.lastSeenAt?.epochMilliseconds ?? 0);
}
