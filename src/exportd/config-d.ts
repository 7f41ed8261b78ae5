/**
 * The configuration folder of the export daemon: one `*.conf` file per export, nbd-server's ini form. Everything here
 * is pure. A file that is wrong in any way is refused as a whole, with its line; it never takes anything else along.
 */
import { isAbsolute } from 'node:path';

export const MAX_FILE_BYTES = 64 * 1024;
const MAX_PATH_BYTES = 1024;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const AGENT = /^[A-Za-z0-9][A-Za-z0-9._@:-]{0,63}$/;
const DECIMAL = /^[1-9][0-9]{0,15}$/;
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f]/;

export interface ExportSection {
  /** File name inside the configuration folder. */
  file: string;
  /** Line that names the image, for refusals that are about the image. */
  line: number;
  name: string;
  imagePath: string;
  readOnly: boolean;
  /** Identity allowed through the front door; null: only the unix socket. Never null when writable. */
  agent: string | null;
  /** Virtual size the image must have; null: any. */
  sizeBytes: number | null;
}

export interface Refusal {
  file: string;
  /** The export's name when it could be read. */
  name: string | null;
  line: number;
  reason: string;
}

export type ParsedConfig = { section: ExportSection } | Refusal;

interface Entry {
  value: string;
  line: number;
}

interface Draft {
  name: Entry | undefined;
  values: Map<string, Entry>;
}

type KeyCheck = (value: string) => string | undefined;

const KEYS: Record<string, KeyCheck> = {
  exportname: (value) => {
    if (!isAbsolute(value)) return 'exportname must be an absolute path';
    return Buffer.byteLength(value) > MAX_PATH_BYTES ? `exportname is longer than ${MAX_PATH_BYTES} bytes` : undefined;
  },
  readonly: (value) => (value === 'true' || value === 'false' ? undefined : 'readonly must be true or false'),
  agent: (value) =>
    AGENT.test(value) ? undefined : 'agent is not an identity (letters, digits, . _ @ : -; at most 64)',
  size: (value) =>
    DECIMAL.test(value) && Number.isSafeInteger(Number(value)) ? undefined : 'size must be a number of bytes',
};

export function parseConfig(text: string, file: string): ParsedConfig {
  const draft: Draft = { name: undefined, values: new Map() };
  const lines = text.split('\n');
  for (const [index, raw] of lines.entries()) {
    const line = index + 1;
    const reason = parseLine(raw.endsWith('\r') ? raw.slice(0, -1) : raw, line, draft);
    if (reason !== undefined) return { file, name: draft.name?.value ?? null, line, reason };
  }
  return finish(draft, file);
}

/** Returns why the line is refused, or undefined. */
function parseLine(raw: string, line: number, draft: Draft): string | undefined {
  if (CONTROL.test(raw)) return 'control characters are not allowed';
  const text = raw.trim();
  if (text === '' || text.startsWith('#') || text.startsWith(';')) return undefined;
  if (text.startsWith('[')) {
    if (!text.endsWith(']')) return 'a section line must end with ]';
    if (draft.name) return 'a file holds one export; this is the second section';
    const name = text.slice(1, -1);
    if (!NAME.test(name)) return 'an export name is 1 to 63 of A-Z a-z 0-9 . _ - and starts with a letter or digit';
    if (name === 'generic') return 'generic is the name of global settings, which do not belong here';
    draft.name = { value: name, line };
    return undefined;
  }
  const equals = text.indexOf('=');
  if (equals < 0) return 'expected [name] or key = value';
  if (!draft.name) return 'a key comes before the [name] of the export';
  const key = text.slice(0, equals).trim();
  const value = text.slice(equals + 1).trim();
  const check = Object.hasOwn(KEYS, key) ? KEYS[key] : undefined;
  if (!check) return `unknown key ${JSON.stringify(key.slice(0, 64))}; known are ${Object.keys(KEYS).join(', ')}`;
  if (draft.values.has(key)) return `${key} is given twice`;
  draft.values.set(key, { value, line });
  return check(value);
}

function finish(draft: Draft, file: string): ParsedConfig {
  if (!draft.name) return { file, name: null, line: 1, reason: 'the file names no export' };
  const { value: name, line } = draft.name;
  const image = draft.values.get('exportname');
  if (!image) return { file, name, line, reason: 'exportname is missing' };
  const readOnly = draft.values.get('readonly')?.value === 'true';
  const agent = draft.values.get('agent')?.value ?? null;
  if (!readOnly && agent === null) return { file, name, line, reason: 'a writable export must name its agent' };
  const size = draft.values.get('size')?.value;
  const sizeBytes = size === undefined ? null : Number(size);
  return { section: { file, line: image.line, name, imagePath: image.value, readOnly, agent, sizeBytes } };
}

export interface Plan {
  /** What is to be served, by file name; `stale` tells why the file as it is now was not taken over. */
  sections: Map<string, ExportSection>;
  stale: Map<string, Refusal>;
  /** Files of which nothing is served. */
  refused: Refusal[];
}

/**
 * What is to be served after a reading, given what was served before. A file that has become bad keeps its old
 * section; a name belongs to the file that has it already, else to the first file by name.
 */
export function planSections(before: ReadonlyMap<string, ExportSection>, read: readonly ParsedConfig[]): Plan {
  const plan: Plan = { sections: new Map(), stale: new Map(), refused: [] };
  const owners = new Map<string, string>();
  const claim = (section: ExportSection): boolean => {
    if (owners.has(section.name)) return false;
    owners.set(section.name, section.file);
    plan.sections.set(section.file, section);
    return true;
  };
  const refuse = (refusal: Refusal): void => {
    const old = before.get(refusal.file);
    if (old && (plan.sections.get(refusal.file) === old || claim(old))) plan.stale.set(refusal.file, refusal);
    else plan.refused.push(refusal);
  };
  const sorted = [...read].sort((a, b) => (fileOf(a) < fileOf(b) ? -1 : 1));
  const later: ExportSection[] = [];
  for (const parsed of sorted) {
    if ('reason' in parsed) refuse(parsed);
    else if (before.get(parsed.section.file)?.name !== parsed.section.name || !claim(parsed.section)) {
      later.push(parsed.section);
    }
  }
  for (const section of later) {
    if (claim(section)) continue;
    const reason = `${section.name} is already the export of ${owners.get(section.name)}`;
    refuse({ file: section.file, name: section.name, line: 1, reason });
  }
  return plan;
}

export interface SectionDiff {
  added: ExportSection[];
  removed: ExportSection[];
  /** Same name, other definition: served anew. */
  changed: ExportSection[];
  /** Same definition, perhaps in another file. */
  kept: ExportSection[];
}

/** Compares by export name. */
export function diffSections(before: Iterable<ExportSection>, after: Iterable<ExportSection>): SectionDiff {
  const old = new Map([...before].map((section) => [section.name, section]));
  const diff: SectionDiff = { added: [], removed: [], changed: [], kept: [] };
  for (const section of after) {
    const previous = old.get(section.name);
    old.delete(section.name);
    if (!previous) diff.added.push(section);
    else if (sameDefinition(previous, section)) diff.kept.push(section);
    else diff.changed.push(section);
  }
  diff.removed.push(...old.values());
  return diff;
}

export function sameDefinition(a: ExportSection, b: ExportSection): boolean {
  return (
    a.name === b.name &&
    a.imagePath === b.imagePath &&
    a.readOnly === b.readOnly &&
    a.agent === b.agent &&
    a.sizeBytes === b.sizeBytes
  );
}

function fileOf(parsed: ParsedConfig): string {
  return 'reason' in parsed ? parsed.file : parsed.section.file;
}
