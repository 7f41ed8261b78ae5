/** The hub's API: every operation once. The server registers from this table and the client calls through it. */
import { z } from 'zod';
import { Agent, AgentCredentials, NewAgent } from './agent.ts';
import { Id, page, Ref } from './common.ts';
import { Job, JobLogLine, JobLogQuery, JobQuery, NewDiskRestore } from './job.ts';
import { Replication } from './replication.ts';
import { NewRepository, Repository } from './repository.ts';
import {
  Chain,
  ChainQuery,
  NewBackup,
  RestorePoint,
  RestorePointQuery,
  Statistics,
  StatisticsQuery,
} from './restore-point.ts';
import type { Route } from './route.ts';
import { Certificate, NewSource, ProbeRequest, Source } from './source.ts';
import { Vm, VmQuery } from './vm.ts';

const V1 = '/api/v1';

export const routes = {
  getStatus: {
    method: 'GET',
    path: `${V1}/status`,
    summary: 'Version and identity of the hub',
    reply: z.object({
      hubId: Id,
      version: z.string(),
      catalog: z.enum(['sqlite', 'postgres']),
      openJobs: z.number().int(),
    }),
  },
  listSources: { method: 'GET', path: `${V1}/sources`, summary: 'Sources (vCenters and hosts)', reply: page(Source) },
  addSource: {
    method: 'POST',
    path: `${V1}/sources`,
    summary: 'Add a source; it is logged in to once before it is kept',
    body: NewSource,
    reply: Source,
    status: 201,
  },
  probeSource: {
    method: 'POST',
    path: `${V1}/sources/probe`,
    summary: 'Show the certificate of a server',
    body: ProbeRequest,
    reply: Certificate,
  },
  listVms: { method: 'GET', path: `${V1}/vms`, summary: 'VMs of all sources', query: VmQuery, reply: page(Vm) },
  getVm: { method: 'GET', path: `${V1}/vms/:vm`, summary: 'One VM', params: z.object({ vm: Ref }), reply: Vm },
  listRepositories: { method: 'GET', path: `${V1}/repositories`, summary: 'Repositories', reply: page(Repository) },
  addRepository: {
    method: 'POST',
    path: `${V1}/repositories`,
    summary: 'Add a repository',
    body: NewRepository,
    reply: Repository,
    status: 201,
  },
  listAgents: { method: 'GET', path: `${V1}/agents`, summary: 'Capture agents', reply: page(Agent) },
  addAgent: {
    method: 'POST',
    path: `${V1}/agents`,
    summary: 'Register a capture agent and issue its certificate',
    body: NewAgent,
    reply: AgentCredentials,
    status: 201,
  },
  runBackup: {
    method: 'POST',
    path: `${V1}/backups`,
    summary: 'Back up one VM now',
    body: NewBackup,
    reply: Job,
    status: 202,
  },
  listRestorePoints: {
    method: 'GET',
    path: `${V1}/restore-points`,
    summary: 'Restore points, newest first',
    query: RestorePointQuery,
    reply: page(RestorePoint),
  },
  getRestorePoint: {
    method: 'GET',
    path: `${V1}/restore-points/:point`,
    summary: 'One restore point',
    params: z.object({ point: Ref }),
    reply: RestorePoint,
  },
  listChains: {
    method: 'GET',
    path: `${V1}/chains`,
    summary: 'Chains of a VM, one per disk and repository',
    query: ChainQuery,
    reply: page(Chain),
  },
  getStatistics: {
    method: 'GET',
    path: `${V1}/statistics`,
    summary: 'Counts and sizes',
    query: StatisticsQuery,
    reply: Statistics,
  },
  listJobs: { method: 'GET', path: `${V1}/jobs`, summary: 'Jobs, newest first', query: JobQuery, reply: page(Job) },
  getJob: {
    method: 'GET',
    path: `${V1}/jobs/:job`,
    summary: 'One job with its live progress',
    params: z.object({ job: Ref }),
    reply: Job,
  },
  getJobLog: {
    method: 'GET',
    path: `${V1}/jobs/:job/log`,
    summary: 'Log of a job',
    params: z.object({ job: Ref }),
    query: JobLogQuery,
    reply: z.object({ items: z.array(JobLogLine) }),
  },
  cancelJob: {
    method: 'POST',
    path: `${V1}/jobs/:job/cancel`,
    summary: 'Cancel a job',
    params: z.object({ job: Ref }),
    reply: Job,
    status: 202,
  },
  restoreDisk: {
    method: 'POST',
    path: `${V1}/restores/disk`,
    summary: 'Restore one disk into a file',
    body: NewDiskRestore,
    reply: Job,
    status: 202,
  },
  reportReplication: {
    method: 'POST',
    path: `${V1}/callbacks/replications/:job`,
    summary: 'Progress from the capture agent (authenticated by the token of the replication)',
    params: z.object({ job: Id }),
    body: Replication,
    reply: z.object({ accepted: z.literal(true) }),
  },
} as const satisfies Record<string, Route>;

export type Routes = typeof routes;
