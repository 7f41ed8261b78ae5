/**
 * Turns a command line into a call of one table entry and its outcome into an exit code. Guarantees: standard output
 * carries the answer and nothing else, with `--json` exactly one document, also when the command fails; every failure
 * is one `sendense: CODE: message` line on standard error and the exit code of the error table.
 */
import { Argument, Command as Parser, CommanderError, Option } from 'commander';
import type { OutputConfiguration } from 'commander';
import { ERRORS, SendenseError, toSendenseError } from '#/lib/errors.ts';
import { clean } from './format.ts';
import { commands, NOUNS } from './commands.ts';
import type { Answer, Connection, Context, Io, Parts } from './context.ts';
import { json } from './output.ts';
import { flagOf, optionsOf } from './spec.ts';
import type { Command } from './spec.ts';

export interface CliOptions {
  argv: readonly string[];
  io: Io;
  env: Readonly<Record<string, string | undefined>>;
  cwd: string;
  version: string;
  signal: AbortSignal;
  parts: Parts;
  self: readonly [program: string, ...args: string[]];
}

interface Chosen {
  entry: Command;
  args: Record<string, string | undefined>;
  options: Record<string, string | boolean | undefined>;
}

/** Runs one command line to its end and says how the program should exit. Never throws. */
export async function runCli(options: CliOptions): Promise<number> {
  let answered = false;
  try {
    const chosen = parse(options);
    if (!chosen) return 0;
    const print = (answer: Answer): void => {
      answered = true;
      options.io.stdout.write(chosen.options['json'] === true ? json(answer.document) : answer.text);
    };
    await call(options, chosen, print);
    return 0;
  } catch (thrown) {
    const error = toSendenseError(thrown);
    if (wantsJson(options.argv) && !answered) options.io.stdout.write(json({ error: error.toWire() }));
    options.io.stderr.write(describe(error));
    return ERRORS[error.code].exit;
  }
}

async function call(options: CliOptions, chosen: Chosen, answer: (answer: Answer) => void): Promise<void> {
  const { entry } = chosen;
  const text = (name: string): string | undefined => {
    const value = chosen.options[name];
    return entry.client && typeof value === 'string' ? value : undefined;
  };
  const context: Context = {
    io: options.io,
    env: options.env,
    cwd: options.cwd,
    signal: options.signal,
    json: chosen.options['json'] === true,
    connection: { hub: text('hub'), tokenFile: text('tokenFile'), state: text('state') },
    parts: options.parts,
    self: options.self,
    answer,
    invoke: async (argv, connection) => invoke(options, argv, connection),
  };
  await entry.run(context, { args: chosen.args as Record<string, string>, options: chosen.options as never });
}

async function invoke(options: CliOptions, argv: readonly string[], connection: Connection = {}): Promise<unknown> {
  const place = [
    ...(connection.state === undefined ? [] : ['--state', connection.state]),
    ...(connection.hub === undefined ? [] : ['--hub', connection.hub]),
    ...(connection.tokenFile === undefined ? [] : ['--token-file', connection.tokenFile]),
  ];
  const chosen = parse({ ...options, argv: [...argv, ...place, '--json'] });
  if (!chosen) throw new SendenseError('USAGE', `sendense ${argv.join(' ')} does nothing`);
  let document: unknown;
  await call(options, chosen, (answer) => (document = answer.document));
  return document;
}

/** The chosen entry; undefined when help or version was asked for and printed. */
function parse(options: CliOptions): Chosen | undefined {
  let chosen: Chosen | undefined;
  let errors = '';
  const program = buildParser(options.version, (entry, args, values) => (chosen = { entry, args, options: values }), {
    writeOut: (text) => void options.io.stdout.write(text),
    writeErr: (text) => void (errors += text),
    getOutHelpWidth: () => options.io.stdout.columns ?? 100,
    getErrHelpWidth: () => 100,
    getOutHasColors: () => false,
    getErrHasColors: () => false,
  });
  try {
    program.parse(options.argv.length > 0 ? [...options.argv] : ['--help'], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return undefined;
    throw usage(program, options.argv, error, errors);
  }
  return chosen;
}

function usage(program: Parser, argv: readonly string[], error: CommanderError, printed: string): SendenseError {
  const path = commandPath(program, argv);
  const help = `see \`${[...path, '--help'].join(' ')}\``;
  // A noun without a verb makes commander print its help instead of a sentence.
  if (error.code === 'commander.help') return new SendenseError('USAGE', `${path.join(' ')} needs a command; ${help}`);
  const message = (printed || error.message)
    .replace(/^error: /, '')
    .trim()
    .replaceAll(/\s*\n\s*/g, ' ');
  return new SendenseError('USAGE', `${message}; ${help}`);
}

function commandPath(program: Parser, argv: readonly string[]): string[] {
  const path = [program.name()];
  let at: Parser | undefined = program;
  for (const word of argv) {
    at = at?.commands.find((child) => child.name() === word);
    if (!at) break;
    path.push(word);
  }
  return path;
}

type Choose = (
  entry: Command,
  args: Record<string, string | undefined>,
  options: Record<string, string | boolean | undefined>,
) => void;

/** The parser for the whole table; help texts are printed through it too. */
export function buildParser(version: string, choose: Choose, output: OutputConfiguration = {}): Parser {
  const program = new Parser('sendense')
    .description('Agentless backup of VMware VMs into plain QCOW2 chains.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .addHelpText(
      'after',
      '\n`sendense <command> --help` explains a command. Exit codes: 0 done, 1 failed, 2 usage, 10 not\nfound, 11 busy, 12 not allowed, 130 stopped.',
    );
  setUp(program, output);
  for (const entry of commands) {
    const words = entry.words.split(' ');
    const parent = words.length > 1 ? noun(program, words[0] ?? '', output) : program;
    addEntry(parent, words.at(-1) ?? '', entry, choose, output);
  }
  return program;
}

function noun(program: Parser, name: string, output: OutputConfiguration): Parser {
  const known = program.commands.find((child) => child.name() === name);
  if (known) return known;
  const made = program
    .command(name)
    .description(NOUNS[name] ?? '')
    .helpOption('-h, --help', 'print help');
  setUp(made, output);
  return made;
}

function setUp(parser: Parser, output: OutputConfiguration): void {
  parser.exitOverride().configureOutput(output).helpCommand(false).showHelpAfterError(false);
  parser.configureHelp({ sortSubcommands: false, sortOptions: false });
}

function addEntry(parent: Parser, name: string, entry: Command, choose: Choose, output: OutputConfiguration): void {
  const parser = parent
    .command(name, { isDefault: entry.isDefault === true })
    .summary(entry.summary)
    .description(`${entry.summary}.${entry.about === undefined ? '' : ` ${entry.about}`}`)
    .helpOption('-h, --help', 'print help')
    .allowExcessArguments(false);
  setUp(parser, output);
  for (const [argument, spec] of Object.entries(entry.args ?? {})) {
    parser.addArgument(new Argument(spec.optional ? `[${argument}]` : `<${argument}>`, spec.help));
  }
  for (const [key, spec] of Object.entries(optionsOf(entry))) parser.addOption(toOption(key, spec));
  if (entry.examples)
    parser.addHelpText('after', `\nExamples:\n${entry.examples.map((line) => `  ${line}`).join('\n')}`);
  parser.action((...given: unknown[]) => {
    const names = Object.keys(entry.args ?? {});
    const args = Object.fromEntries(names.map((argument, index) => [argument, given[index] as string | undefined]));
    choose(entry, args, withFlags(entry, parser.opts()));
  });
}

function toOption(key: string, spec: ReturnType<typeof optionsOf>[string]): Option {
  const option = new Option(flagOf(key, spec), spec.help);
  if (spec.choices) option.choices([...spec.choices]);
  if (spec.default !== undefined) option.default(spec.default);
  if (spec.required) option.makeOptionMandatory();
  return option;
}

/** commander leaves out a flag that was not given; the table promises a boolean. */
function withFlags(
  entry: Command,
  values: Record<string, string | boolean>,
): Record<string, string | boolean | undefined> {
  const flags = Object.entries(optionsOf(entry)).filter(([, spec]) => spec.value === undefined);
  return { ...Object.fromEntries(flags.map(([key, spec]) => [key, spec.onByDefault === true])), ...values };
}

function wantsJson(argv: readonly string[]): boolean {
  const end = argv.indexOf('--');
  return (end < 0 ? argv : argv.slice(0, end)).includes('--json');
}

/** The error for a person: one line with the code, then what the table says of it, the details and the causes. */
export function describe(error: SendenseError): string {
  const lines = [`sendense: ${error.code}: ${oneLine(error.message)}`];
  // The two codes that a person causes on purpose or sees explained in the message need no more words.
  if (error.code !== 'USAGE' && error.code !== 'CANCELLED') lines.push(`  ${ERRORS[error.code].hint}`);
  for (const [key, value] of Object.entries(error.details)) {
    lines.push(`  ${clean(key)}: ${oneLine(Array.isArray(value) ? value.join(', ') : String(value))}`);
  }
  let said = error.message;
  for (let cause = error.cause, depth = 0; cause instanceof Error && depth < 4; cause = cause.cause, depth++) {
    if (!said.includes(cause.message)) lines.push(`  cause: ${oneLine(cause.message)}`);
    said = cause.message;
  }
  return `${lines.join('\n')}\n`;
}

function oneLine(text: string): string {
  return clean(text.trim().replaceAll(/\s+/g, ' '));
}
