/** Manual pages and the command reference, made from the command table. */
import { ERRORS } from '#/lib/errors.ts';
import { commands, NOUNS } from './commands.ts';
import { flagOf, optionsOf } from './spec.ts';
import type { Command, OptionSpec } from './spec.ts';

export interface Page {
  /** File name below docs/. */
  file: string;
  text: string;
}

const EXIT_CODES: readonly (readonly [code: number, meaning: string])[] = [
  [0, 'done'],
  [1, 'failed'],
  [2, 'the command line or the request is wrong'],
  [3, 'done in part'],
  [10, 'something that was named does not exist'],
  [11, 'something that is needed is in use'],
  [12, 'not allowed: token, certificate, password or rights'],
  [130, 'stopped or cancelled on request'],
];

const ENVIRONMENT: readonly (readonly [name: string, meaning: string])[] = [
  ['SENDENSE_HUB', 'address of the hub, when --hub is not given'],
  ['SENDENSE_TOKEN_FILE', 'file with the access token, when --token-file is not given'],
  [
    'SENDENSE_STATE',
    'state folder, when --state is not given; without both it is /var/lib/sendense for root and ~/.local/share/sendense for others',
  ],
  ['SENDENSE_LOG', 'least level that hub, export daemon and agent log: debug, info, warn or error'],
];

/** `man/sendense.1` and one page per noun or single command, such as `man/sendense-backup.1`. */
export function renderManPages(): Page[] {
  return [
    { file: 'man/sendense.1', text: overview() },
    ...[...byNoun()].map(([name, entries]) => ({ file: `man/sendense-${name}.1`, text: nounPage(name, entries) })),
  ];
}

/** `cli.md`: every command on one page. */
export function renderReference(): Page {
  const blocks = commands.map((entry) => {
    const parts = [`## sendense ${entry.words}`, `${entry.summary}.${entry.about ? ` ${entry.about}` : ''}`];
    parts.push(`\`\`\`text\n${synopsis(entry)}\n\`\`\``);
    const rows = [
      ...Object.entries(entry.args ?? {}).map(([name, spec]) => `| \`<${name}>\` | ${spec.help} |`),
      ...Object.entries(entry.options ?? {}).map(
        ([key, spec]) => `| \`${flagOf(key, spec)}\` | ${optionText(spec).replaceAll('|', String.raw`\|`)} |`,
      ),
    ];
    if (rows.length > 0) parts.push(`| argument | meaning |\n|---|---|\n${rows.join('\n')}`);
    if (entry.examples) parts.push(`\`\`\`sh\n${entry.examples.join('\n')}\n\`\`\``);
    return parts.join('\n\n');
  });
  const shared = [
    'Every command that answers something takes `--json` and then prints exactly one JSON document on standard output;',
    'when it fails the document is `{"error": {"code", "message", "details"}}`. Commands that talk to the hub take',
    '`--hub`, `--token-file` and `--state`. Names and ids are both accepted wherever something is pointed at.',
  ].join('\n');
  const codes = EXIT_CODES.map(([code, meaning]) => `| ${code} | ${meaning} |`).join('\n');
  const env = ENVIRONMENT.map(([name, meaning]) => `| \`${name}\` | ${meaning} |`).join('\n');
  return {
    file: 'cli.md',
    text: [
      '# Commands',
      'Made from the command table by `npm run generate`; the manual pages in `man/` say the same.',
      shared,
      `| exit code | meaning |\n|---|---|\n${codes}`,
      `| environment | meaning |\n|---|---|\n${env}`,
      ...blocks,
      '',
    ]
      .join('\n\n')
      .trimEnd()
      .concat('\n'),
  };
}

function byNoun(): Map<string, Command[]> {
  return Map.groupBy(commands, (entry) => entry.words.split(' ')[0] ?? '');
}

function overview(): string {
  const list = commands.map((entry) => `.TP\n.B sendense ${roff(entry.words)}\n${roff(entry.summary)}.`);
  const pages = [...byNoun().keys()].toSorted().map((name) => `.BR sendense\\-${name} (1)`);
  return manual('sendense', 'agentless backup of VMware VMs into plain QCOW2 chains', [
    section('SYNOPSIS', ['.B sendense\n.I command\n[\n.I options\n]']),
    section('DESCRIPTION', [
      roff(
        'sendense backs up the VMs of a vCenter or ESXi host, in full and incrementally, into QCOW2 files that qemu-img ' +
          'alone can restore. A hub keeps catalog and jobs, an export daemon opens the files over NBD, capture agents read ' +
          'the disks; `sendense up` runs all three on one machine. All other commands are clients of the hub.',
      ),
      '.PP',
      roff('With --json a command prints exactly one JSON document on standard output, also when it fails.'),
    ]),
    section('COMMANDS', list),
    section(
      'ENVIRONMENT',
      ENVIRONMENT.map(([name, meaning]) => `.TP\n.B ${name}\n${roff(meaning)}`),
    ),
    exitStatus(),
    section('SEE ALSO', [pages.join(',\n'), '.BR qemu\\-img (1)']),
  ]);
}

function nounPage(name: string, entries: readonly Command[]): string {
  const title = NOUNS[name] ?? entries[0]?.summary ?? '';
  const brief = title.slice(0, 1).toLowerCase() + title.slice(1);
  const described = entries.flatMap((entry) => [
    ...(entries.length > 1 ? [`.SS ${roff(`sendense ${entry.words}`)}`] : []),
    roff(`${entry.summary}.${entry.about ? ` ${entry.about}` : ''}`),
    ...(entry.isDefault ? ['.PP', roff(`This is also what \`sendense ${name}\` alone does.`)] : []),
    ...Object.entries(entry.args ?? {}).map(([arg, spec]) => `.TP\n.I ${roff(arg)}\n${roff(spec.help)}`),
    ...Object.entries(optionsOf(entry)).map(
      ([key, spec]) => `.TP\n.B ${roff(flagOf(key, spec))}\n${roff(optionText(spec))}`,
    ),
  ]);
  const examples = entries.flatMap((entry) => entry.examples ?? []);
  return manual(`sendense-${name}`, brief, [
    section('SYNOPSIS', [entries.map((entry) => `.B ${roff(synopsis(entry))}`).join('\n.br\n')]),
    section(entries.length > 1 ? 'COMMANDS' : 'DESCRIPTION', described),
    ...(examples.length > 0 ? [section('EXAMPLES', [`.nf\n${examples.map(roff).join('\n')}\n.fi`])] : []),
    exitStatus(),
    section('SEE ALSO', ['.BR sendense (1)']),
  ]);
}

function manual(name: string, brief: string, sections: readonly string[]): string {
  const head = `.TH ${roff(name).toUpperCase()} 1 "" sendense "sendense manual"`;
  return `${[head, section('NAME', [`${roff(name)} \\- ${roff(brief)}`]), ...sections].join('\n')}\n`;
}

function section(title: string, body: readonly string[]): string {
  return `.SH ${title}\n${body.join('\n')}`;
}

function exitStatus(): string {
  const used = new Set<number>([0, ...Object.values(ERRORS).map((entry) => entry.exit)]);
  const rows = EXIT_CODES.filter(([code]) => used.has(code));
  return section(
    'EXIT STATUS',
    rows.map(([code, meaning]) => `.TP\n.B ${code}\n${meaning}`),
  );
}

function synopsis(entry: Command): string {
  const required = Object.entries(entry.options ?? {}).filter(([, spec]) => spec.required);
  return [
    `sendense ${entry.words}`,
    ...Object.entries(entry.args ?? {}).map(([name, spec]) => (spec.optional ? `[${name}]` : `<${name}>`)),
    ...required.map(([key, spec]) => flagOf(key, spec)),
    '[options]',
  ].join(' ');
}

function optionText(spec: OptionSpec): string {
  const choices = spec.choices ? ` (${spec.choices.join(', ')})` : '';
  const otherwise = spec.default === undefined ? '' : `; default ${spec.default}`;
  return `${spec.help}${choices}${otherwise}`;
}

/** Text that roff takes literally: hyphens stay hyphens, and no line begins with a request. */
function roff(text: string): string {
  const escaped = text
    .replaceAll('\\', String.raw`\e`)
    .replaceAll('-', String.raw`\-`)
    .replaceAll("'", String.raw`\(aq`);
  return escaped.replaceAll(/^\./gm, String.raw`\&.`);
}
