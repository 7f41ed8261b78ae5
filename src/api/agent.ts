import { z } from 'zod';
import { Id, Instant, Name } from './common.ts';

export const NewAgent = z.strictObject({
  name: Name,
  /** Where the hub reaches the agent. Plain http is accepted for a loopback address only. */
  url: z.url({ protocol: /^https?$/ }),
});
export type NewAgent = z.output<typeof NewAgent>;

export const Agent = z.object({
  id: Id,
  name: Name,
  url: z.string(),
  version: z.string().nullable(),
  state: z.enum(['online', 'offline']),
  registeredAt: Instant,
  lastSeenAt: Instant.nullable(),
});
export type Agent = z.infer<typeof Agent>;

/** Certificate and key of a new agent, shown once and kept nowhere by the hub. */
export const AgentCredentials = z.object({ agent: Agent, caCert: z.string(), cert: z.string(), key: z.string() });
