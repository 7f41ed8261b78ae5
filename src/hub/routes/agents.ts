import { X509Certificate } from 'node:crypto';
import { agentView } from '../views.ts';
import type { HubContext, Some } from './context.ts';
import { SendenseError } from '#/lib/errors.ts';

const LOOPBACK = new Set(['127.0.0.1', '[::1]', 'localhost']);

export function agentRoutes({ catalog, pki }: HubContext): Some<'listAgents' | 'addAgent'> {
  return {
    listAgents: async () => ({ items: (await catalog.agents.list()).map(agentView), nextCursor: null }),

    addAgent: async ({ body }) => {
      const url = new URL(body.url);
      if (url.protocol !== 'https:' && !LOOPBACK.has(url.hostname)) {
        throw new SendenseError('INVALID_REQUEST', 'an agent on another machine is reached over https only');
      }
      if (await catalog.agents.find(body.name)) {
        throw new SendenseError('ALREADY_EXISTS', `there is an agent called ${body.name}`);
      }
      const leaf = await pki.issue(body.name, 'both', [url.hostname]);
      const certificateSha256 = new X509Certificate(leaf.cert).fingerprint256;
      const agent = await catalog.agents.create({ name: body.name, url: url.origin, certificateSha256 });
      return { agent: agentView(agent), caCert: pki.caCert, ...leaf };
    },
  };
}
