import { resolve } from 'node:path';
import { connect } from './discovery.ts';
import { size } from './format.ts';
import { table } from './output.ts';
import { command } from './spec.ts';

export const repositoryCommands = [
  command({
    words: 'repository add',
    summary: 'Add a folder as a place for backups',
    about:
      "The folder is on the hub's machine and is marked as this repository; it is made when only its last part is " +
      'missing. A folder that already holds something else is refused.',
    client: true,
    args: { name: { help: 'name of the repository' }, folder: { help: "its folder on the hub's machine" } },
    options: { kind: { value: 'KIND', choices: ['local'], default: 'local', help: 'how it is reached' } },
    examples: ['sendense repository add main /srv/backup'],
    async run(context, { args, options }) {
      const hub = await connect(context);
      const body = { name: args.name, kind: options.kind, root: resolve(context.cwd, args.folder) };
      const repository = await hub.addRepository({ body }, context.signal);
      const text = `repository ${repository.name} added (${repository.root})\n`;
      context.answer({ document: repository, text });
    },
  }),
  command({
    words: 'repository ls',
    summary: 'List the repositories',
    client: true,
    async run(context) {
      const hub = await connect(context);
      const page = await hub.listRepositories({}, context.signal);
      const text = table(
        page.items,
        [
          { title: 'name', cell: (row) => row.name },
          { title: 'kind', cell: (row) => row.kind },
          { title: 'state', cell: (row) => (row.problem === null ? row.state : `${row.state}: ${row.problem}`) },
          { title: 'points', right: true, cell: (row) => String(row.restorePoints) },
          { title: 'stored', right: true, cell: (row) => size(row.storedBytes) },
          { title: 'free', right: true, cell: (row) => (row.freeBytes === null ? '-' : size(row.freeBytes)) },
          { title: 'folder', cell: (row) => row.root },
        ],
        'no repositories yet: `sendense repository add` adds one',
      );
      context.answer({ document: page, text });
    },
  }),
];
