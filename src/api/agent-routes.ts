/** The capture agent's API, called by the hub only. */
import { z } from 'zod';
import { Id } from './common.ts';
import {
  AgentStatus,
  Inventory,
  RemoveSnapshotReply,
  RemoveSnapshotRequest,
  ReplicateRequest,
  Replication,
  SourceLogin,
  Target,
} from './replication.ts';
import type { Route } from './route.ts';
import { Certificate, ProbeRequest } from './source.ts';

const V1 = '/api/v1';
const replicationParams = z.object({ replication: Id });

export const agentRoutes = {
  getStatus: { method: 'GET', path: `${V1}/status`, summary: 'Identity and load', reply: AgentStatus },
  probeSource: {
    method: 'POST',
    path: `${V1}/sources/probe`,
    summary: 'Certificate of a server',
    body: ProbeRequest,
    reply: Certificate,
  },
  putSource: {
    method: 'PUT',
    path: `${V1}/sources/:source`,
    summary: 'Give the agent address and credentials of a source; kept in memory only',
    params: z.object({ source: Id }),
    body: SourceLogin,
    reply: z.object({ known: z.literal(true) }),
  },
  getInventory: {
    method: 'GET',
    path: `${V1}/inventory`,
    summary: 'VMs of a source; SOURCE_NOT_FOUND when the agent does not hold its credentials',
    /** `vm` (a moref) narrows the answer to one VM. */
    query: z.strictObject({ source: Id, vm: z.string().max(256).optional() }),
    reply: Inventory,
  },
  replicate: {
    method: 'POST',
    path: `${V1}/replicate`,
    summary: 'Start a replication; the same job id again returns the same one',
    body: ReplicateRequest,
    reply: Replication,
    status: 202,
  },
  getReplication: {
    method: 'GET',
    path: `${V1}/replications/:replication`,
    summary: 'State of a replication by its id or job id; renews its lease',
    params: replicationParams,
    reply: Replication,
  },
  getVmConfig: {
    method: 'GET',
    path: `${V1}/replications/:replication/vm-config`,
    summary: 'Configuration of the VM at the snapshot, raw XML',
    params: replicationParams,
    reply: z.object({ xml: z.string().nullable() }),
  },
  putTarget: {
    method: 'PUT',
    path: `${V1}/replications/:replication/targets/:disk`,
    summary: 'Answer to the phase awaiting-target: the new export of a disk that must be read in full',
    params: z.object({ replication: Id, disk: z.string() }),
    body: Target,
    reply: Replication,
  },
  cancelReplication: {
    method: 'DELETE',
    path: `${V1}/replications/:replication`,
    summary: 'Cancel: readers closed, snapshot removed',
    params: replicationParams,
    reply: Replication,
    status: 202,
  },
  removeSnapshot: {
    method: 'POST',
    path: `${V1}/snapshots/remove`,
    summary: 'Remove a left-over snapshot of ours',
    body: RemoveSnapshotRequest,
    reply: RemoveSnapshotReply,
  },
} as const satisfies Record<string, Route>;

export type AgentRoutes = typeof agentRoutes;
