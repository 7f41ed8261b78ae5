/** The form of one entry of the command table, with the types of its arguments and options inferred from it. */
import type { Context } from './context.ts';

export interface OptionSpec {
  /** Placeholder of the value; without one the option is a flag. */
  readonly value?: string;
  readonly help: string;
  readonly choices?: readonly string[];
  readonly default?: string;
  readonly required?: true;
  /** A flag that is on unless `--no-<name>` is given. */
  readonly onByDefault?: true;
}

export interface ArgumentSpec {
  readonly help: string;
  readonly optional?: true;
}

export type OptionSpecs = Readonly<Record<string, OptionSpec>>;
export type ArgumentSpecs = Readonly<Record<string, ArgumentSpec>>;

type Text<S extends OptionSpec> = S extends { choices: readonly (infer C extends string)[] } ? C : string;
type Value<S extends OptionSpec> = S extends { value: string }
  ? Text<S> | (S extends { required: true } | { default: string } ? never : undefined)
  : boolean;

export type OptionValues<O extends OptionSpecs> = { readonly [K in keyof O]: Value<O[K]> };
export type ArgumentValues<A extends ArgumentSpecs> = {
  readonly [K in keyof A]: A[K] extends { optional: true } ? string | undefined : string;
};

export interface Call<A extends ArgumentSpecs, O extends OptionSpecs> {
  readonly args: ArgumentValues<A>;
  readonly options: OptionValues<O>;
}

export interface CommandSpec<A extends ArgumentSpecs, O extends OptionSpecs> {
  /** The words that select it: `backup run`. */
  readonly words: string;
  /** One line, no full stop. */
  readonly summary: string;
  /** What a person should know before using it, in whole sentences. */
  readonly about?: string;
  readonly args?: A;
  readonly options?: O;
  /** Talks to the hub, so it takes `--hub`, `--token-file` and `--state`. */
  readonly client?: true;
  /** Runs until it is stopped and answers nothing, so it takes no `--json`. */
  readonly part?: true;
  /** Chosen when its noun stands alone: `sendense agent` is `sendense agent run`. */
  readonly isDefault?: true;
  readonly examples?: readonly string[];
  run(context: Context, call: Call<A, O>): Promise<void>;
}

/** A table entry with its inferred types folded away. */
export type Command = CommandSpec<ArgumentSpecs, OptionSpecs>;

export function command<const A extends ArgumentSpecs, const O extends OptionSpecs>(spec: CommandSpec<A, O>): Command {
  return spec;
}

export const CONNECTION_OPTIONS = {
  hub: { value: 'URL', help: 'address of the hub (else SENDENSE_HUB, else <state>/hub.json)' },
  tokenFile: { value: 'FILE', help: 'file with the access token (else SENDENSE_TOKEN_FILE, else <state>/token)' },
  state: { value: 'DIR', help: 'state folder of a hub on this machine (else SENDENSE_STATE, else the default)' },
} as const satisfies OptionSpecs;

export const JSON_OPTION = {
  json: { help: 'print one JSON document instead of text' },
} as const satisfies OptionSpecs;

/** Every option of a command, the shared ones last. */
export function optionsOf(entry: Command): OptionSpecs {
  return { ...entry.options, ...(entry.client && CONNECTION_OPTIONS), ...(!entry.part && JSON_OPTION) };
}

/** `passwordFile` to `--password-file`, as it is typed. */
export function flagOf(name: string, spec: OptionSpec): string {
  const dashed = name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return `--${spec.onByDefault ? 'no-' : ''}${dashed}${spec.value === undefined ? '' : ` <${spec.value}>`}`;
}
