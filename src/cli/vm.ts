import { connect } from './discovery.ts';
import { instant, size } from './format.ts';
import { table } from './output.ts';
import { command } from './spec.ts';

export const vmCommands = [
  command({
    words: 'vm ls',
    summary: 'List the VMs of all sources',
    client: true,
    options: {
      source: { value: 'SOURCE', help: 'only those of this source (name or id)' },
      name: { value: 'NAME', help: 'only VMs of this name' },
      refresh: { help: 'ask the sources anew instead of answering from the catalog' },
    },
    async run(context, { options }) {
      const hub = await connect(context);
      const query = { source: options.source, name: options.name, refresh: String(options.refresh) };
      const page = await hub.listVms({ query }, context.signal);
      const text = table(
        page.items,
        [
          { title: 'name', cell: (row) => row.name },
          { title: 'source', cell: (row) => row.source },
          { title: 'power', cell: (row) => row.powerState },
          { title: 'disks', right: true, cell: (row) => String(row.disks.length) },
          { title: 'size', right: true, cell: (row) => size(row.capacityBytes) },
          { title: 'tracking', cell: (row) => (row.changeTrackingEnabled ? 'on' : 'off') },
          { title: 'latest restore point', cell: (row) => instant(row.lastRestorePointAt) },
          { title: 'id', cell: (row) => row.id },
        ],
        'no VMs known: `sendense vm ls --refresh` asks the sources',
      );
      context.answer({ document: page, text });
    },
  }),
];
