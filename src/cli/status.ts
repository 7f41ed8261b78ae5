import { connect, findHub } from './discovery.ts';
import { jobTable } from './job.ts';
import { facts } from './output.ts';
import { size } from './format.ts';
import { command } from './spec.ts';

export const statusCommands = [
  command({
    words: 'status',
    summary: 'Show the hub, its agents and repositories and the jobs under way',
    client: true,
    async run(context) {
      const { url } = await findHub(context);
      const hub = await connect(context);
      const [status, agents, repositories, jobs] = await Promise.all([
        hub.getStatus({}, context.signal),
        hub.listAgents({}, context.signal),
        hub.listRepositories({}, context.signal),
        hub.listJobs({ query: { open: 'true' } }, context.signal),
      ]);
      const online = (items: readonly { state: string }[]): string =>
        `${items.filter((item) => item.state === 'online').length} of ${items.length} online`;
      const head = facts([
        ['hub', url],
        ['version', status.version],
        ['catalog', status.catalog],
        ['agents', online(agents.items)],
        ['repositories', online(repositories.items)],
        ['open jobs', String(status.openJobs)],
      ]);
      context.answer({
        document: { url, ...status, agents: agents.items, repositories: repositories.items, jobs: jobs.items },
        text: jobs.items.length > 0 ? `${head}\n${jobTable(jobs.items)}` : head,
      });
    },
  }),
  command({
    words: 'stats',
    summary: 'Count restore points and bytes',
    client: true,
    options: {
      vm: { value: 'VM', help: 'of this VM only (name or id)' },
      repository: { value: 'REPOSITORY', help: 'of this repository only' },
    },
    async run(context, { options }) {
      const hub = await connect(context);
      const query = { vm: options.vm, repository: options.repository };
      const stats = await hub.getStatistics({ query }, context.signal);
      const text = facts([
        ['restore points', `${stats.restorePoints}`],
        ['disk backups', `${stats.fulls} full, ${stats.incrementals} incremental`],
        ['chains', `${stats.chains}, the longest of ${stats.longestChain} backups`],
        ['protected', size(stats.virtualBytes)],
        ['transferred', size(stats.transferredBytes)],
        ['stored', size(stats.storedBytes)],
      ]);
      context.answer({ document: stats, text });
    },
  }),
];
