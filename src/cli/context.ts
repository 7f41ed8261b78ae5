/** What a command is given: streams, environment, the stop signal and the parts of sendense it may start. */
import type { Logger } from '#/lib/log.ts';

/** Standard output or error; the terminal's facts decide between a live bar and plain lines. */
export interface Out {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface Io {
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: Out;
  readonly stderr: Out;
}

export interface HubOptions {
  stateDir: string;
  /** `HOST:PORT`; port 0 takes a free one. */
  listen: string;
  exportsConfigDir: string;
  exportsRunDir: string;
  frontDoor: string | null;
  catalogUrlFile: string | null;
  localAgent: { url: string; tokenFile: string } | null;
  tlsDir: string | null;
  log: Logger;
  signal: AbortSignal;
}

export interface AgentOptions {
  name: string;
  listen: string;
  tokenFile: string | null;
  tlsDir: string | null;
  readyFile?: string;
  log: Logger;
  signal: AbortSignal;
}

export interface ExportdOptions {
  configDir: string;
  runDir: string;
  listen?: string;
  tlsDir?: string;
  log: Logger;
  signal: AbortSignal;
}

export interface SimulatorFacts {
  url: string;
  thumbprint: string;
  username: string;
  passwordFile: string;
  dir: string;
  pid: number;
}

export interface SimulatorOptions {
  dir: string;
  listen: string;
  scenario?: string;
  username?: string;
  passwordFile?: string;
  log: Logger;
  signal: AbortSignal;
  /** Called once it serves. */
  ready: (facts: SimulatorFacts) => void;
}

/** The parts of sendense, loaded only when a command asks for one. Each promise resolves when the part has stopped. */
export interface Parts {
  hub(options: HubOptions): Promise<void>;
  agent(options: AgentOptions): Promise<void>;
  exportd(options: ExportdOptions): Promise<void>;
  simulator(options: SimulatorOptions): Promise<void>;
  /** One call of the control interface of the simulator that keeps its world in `dir`. */
  simulatorControl(dir: string, method: string, path: string, body?: unknown): Promise<unknown>;
  /** Compares size and every byte of two raw files as `qemu-img compare` sees them. */
  compareDisks(
    one: string,
    other: string,
    signal: AbortSignal,
  ): Promise<{ identical: boolean; difference: string | null }>;
}

/** How a client command reaches the hub, as given on its command line. */
export interface Connection {
  hub?: string | undefined;
  tokenFile?: string | undefined;
  state?: string | undefined;
}

/** The answer of a command: `document` for `--json`, `text` for people. */
export interface Answer {
  document: unknown;
  text: string;
}

export interface Context {
  readonly io: Io;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** Aborted by SIGINT or SIGTERM with a CANCELLED error as its reason. */
  readonly signal: AbortSignal;
  readonly json: boolean;
  readonly connection: Connection;
  readonly parts: Parts;
  /** The program and its first arguments, for starting a part as a process of its own. */
  readonly self: readonly [program: string, ...args: string[]];
  /** Prints the answer; at most once per command, so that `--json` is exactly one document. */
  answer(answer: Answer): void;
  /** Runs another command of the table with `--json` and gives back its document; throws what it throws. */
  invoke(argv: readonly string[], connection?: Connection): Promise<unknown>;
}
