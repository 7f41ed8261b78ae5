import { SendenseError } from '#/lib/errors.ts';
import { connect } from './discovery.ts';
import { facts, table } from './output.ts';
import { instant } from './format.ts';
import { confirm, isInteractive, password } from './prompt.ts';
import { command } from './spec.ts';
import type { Context } from './context.ts';
import type { HubClient } from './discovery.ts';

export const sourceCommands = [
  command({
    words: 'source add',
    summary: 'Add a vCenter or ESXi host',
    about:
      'The certificate of the server is shown and must be confirmed before anything secret is sent to it; without a ' +
      'terminal its thumbprint is given with --thumbprint. The password is asked for, or read from a file or standard ' +
      'input; it is kept sealed and never shown.',
    client: true,
    args: { name: { help: 'name of the source in sendense' } },
    options: {
      address: { value: 'HOST', required: true, help: 'host[:port] of the server; https is the only way in' },
      username: { value: 'USER', required: true, help: 'user to log in as' },
      passwordFile: { value: 'FILE', help: 'file with the password, - for standard input' },
      thumbprint: { value: 'HASH', help: 'SHA-256 or SHA-1 of the certificate, as hex with colons' },
      kind: { value: 'KIND', choices: ['vcenter', 'esxi'], default: 'vcenter', help: 'what the server is' },
    },
    examples: [
      'sendense source add main --address vc.example.org --username backup@vsphere.local',
      'sendense source add main --address vc.example.org --username backup@vsphere.local \\\n' +
        '    --password-file /run/secrets/vc --thumbprint 5A:0C:...',
    ],
    async run(context, { args, options }) {
      const hub = await connect(context);
      const address = /^[a-z]+:\/\//i.test(options.address) ? options.address : `https://${options.address}`;
      const thumbprint = options.thumbprint ?? (await confirmed(context, hub, address));
      const source = await hub.addSource(
        {
          body: {
            name: args.name,
            kind: options.kind,
            address,
            username: options.username,
            password: await password(context, options.passwordFile, `password of ${options.username}`),
            thumbprint,
          },
        },
        context.signal,
      );
      context.answer({ document: source, text: `source ${source.name} added (${source.address})\n` });
    },
  }),
  command({
    words: 'source ls',
    summary: 'List the sources',
    client: true,
    async run(context) {
      const hub = await connect(context);
      const page = await hub.listSources({}, context.signal);
      const text = table(
        page.items,
        [
          { title: 'name', cell: (row) => row.name },
          { title: 'kind', cell: (row) => row.kind },
          { title: 'address', cell: (row) => row.address },
          { title: 'user', cell: (row) => row.username },
          { title: 'checked', cell: (row) => instant(row.checkedAt) },
        ],
        'no sources yet: `sendense source add` adds one',
      );
      context.answer({ document: page, text });
    },
  }),
];

async function confirmed(context: Context, hub: HubClient, address: string): Promise<string> {
  const certificate = await hub.probeSource({ body: { address } }, context.signal);
  if (!isInteractive(context)) {
    throw new SendenseError(
      'USAGE',
      'without a terminal the certificate is confirmed with --thumbprint; compare the one below with the server',
      {
        details: {
          sha256: certificate.sha256,
          subject: oneLine(certificate.subject),
          issuer: oneLine(certificate.issuer),
        },
      },
    );
  }
  context.io.stderr.write(
    `${address} shows this certificate:\n${facts([
      ['  subject', oneLine(certificate.subject)],
      ['  issuer', oneLine(certificate.issuer)],
      ['  valid until', instant(certificate.validUntil)],
      ['  SHA-256', certificate.sha256],
      ['  SHA-1', certificate.sha1],
    ])}`,
  );
  if (!(await confirm(context, 'Is this the right server?'))) {
    throw new SendenseError('CANCELLED', 'the certificate was not confirmed; nothing was sent and nothing added');
  }
  return certificate.sha256;
}

/** Node gives the parts of a distinguished name on lines of their own. */
function oneLine(name: string): string {
  return name.trim().replaceAll('\n', ', ');
}
