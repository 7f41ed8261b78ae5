import { connect } from './discovery.ts';
import { instant, size } from './format.ts';
import { facts, table } from './output.ts';
import { command } from './spec.ts';

export const chainCommands = [
  command({
    words: 'chain show',
    summary: 'Show the backup chains of a VM, one per disk and repository',
    client: true,
    args: { vm: { help: 'name or id of the VM' } },
    options: { repository: { value: 'REPOSITORY', help: 'only the chains in this repository' } },
    async run(context, { args, options }) {
      const hub = await connect(context);
      const page = await hub.listChains({ query: { vm: args.vm, repository: options.repository } }, context.signal);
      const blocks = page.items.map((chain) => {
        const head = facts([
          ['disk', chain.label],
          ['repository', chain.repository],
          ['chain', chain.id],
          ['state', chain.state],
          ['backups', `${chain.totalBackups}, ${size(chain.totalBytes)} for a disk of ${size(chain.virtualBytes)}`],
        ]);
        const links = table(
          chain.backups,
          [
            { title: 'backup', cell: (row) => row.id },
            { title: 'restore point', cell: (row) => row.restorePointId },
            { title: 'type', cell: (row) => row.type },
            { title: 'completed', cell: (row) => instant(row.completedAt) },
            { title: 'stored', right: true, cell: (row) => size(row.storedBytes) },
            { title: 'image', cell: (row) => row.imagePath ?? '-' },
          ],
          'no backups',
        );
        return `${head}\n${links}`;
      });
      context.answer({ document: page, text: blocks.length > 0 ? blocks.join('\n') : 'no chains\n' });
    },
  }),
];
