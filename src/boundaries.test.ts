/** Who may import whom, as data. A new edge is a new entry here, with its reason, in the commit that needs it. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseSync } from 'oxc-parser';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

const AREAS: Record<string, Record<string, string>> = {
  lib: {},
  api: { lib: 'errors cross the wire with their codes' },
  http: { lib: 'errors, log', api: 'serves a route table' },
  nbd: { lib: 'errors, limits, clock' },
  qemu: { lib: 'starts its programs through run.ts' },
  repository: {
    lib: 'errors, ids, clock',
    qemu: 'images are QCOW2',
    api: 'the schema of point.json is read by repository and hub alike',
  },
  catalog: { lib: 'errors, ids, clock', api: 'rows carry the words of the API' },
  hub: {
    lib: 'all of it',
    api: 'implements the routes, calls the agent',
    http: 'serves them',
    nbd: 'asks an export for its size',
    qemu: 'creates and checks images',
    repository: 'keeps restore points',
    catalog: 'records everything',
  },
  exportd: {
    lib: 'errors, log, clock',
    nbd: 'speaks the handshake at the front door',
    qemu: 'runs storage daemons',
    api: 'the schemas of its config files and status, which the hub writes and reads',
  },
  agent: {
    lib: 'all of it',
    api: 'implements the agent routes, calls the hub back',
    http: 'serves them',
    nbd: 'writes into exports',
    qemu: 'reads images as a source',
  },
  cli: { lib: 'errors, log', api: 'a client and nothing more' },
  simulator: { lib: 'errors, log, ids' },
  /** Not a folder: the one executable, which loads every part lazily. */
  main: {
    lib: 'errors',
    cli: 'commands',
    hub: 'started by a command',
    agent: 'started by a command',
    exportd: 'started by a command',
    simulator: 'started by a command',
    qemu: 'the demo compares its disks with qemu-img',
  },
};

/** Folders of `hub` that others in it must not be imported by: routes use the work, never the other way round. */
const HUB_FORBIDDEN: Record<string, string[]> = {
  backup: ['routes', 'schedule', 'restore'],
  restore: ['routes', 'schedule', 'backup'],
  schedule: ['routes'],
  export: ['routes', 'schedule', 'restore', 'backup'],
  chain: ['routes', 'schedule', 'restore', 'backup', 'export'],
};

/** Files that exist for tests only, besides the tests themselves. */
const FOR_TESTS = /\.test\.ts$|\/(?:conformance|doubles|both-databases|test-[a-z-]+)\.ts$/;

/** Modules that are used as values in these places only; their types may be named anywhere. */
const ONLY_HERE: { module: RegExp; files: RegExp; reason: string }[] = [
  { module: /^(node:)?child_process$/, files: /^src\/lib\/run\.ts$/, reason: 'programs are started in one place' },
  { module: /^zod$/, files: /^src\/(api|http)\//, reason: 'schemas are the contract between parts' },
  { module: /^(kysely|kysely\/.*|pg|node:sqlite)$/, files: /^src\/catalog\//, reason: 'no SQL outside the catalog' },
  {
    module: /^fastify$|^@fastify\//,
    files: /^src\/http\//,
    reason: 'one way to serve, authenticate and answer errors',
  },
  { module: /^fast-xml-parser$/, files: /^src\/(agent\/vsphere|simulator)\//, reason: 'SOAP is vSphere only' },
  { module: /^undici$/, files: /^src\/(agent|hub)\//, reason: 'pinned and mutual TLS; everything else has fetch' },
  {
    module: /^@peculiar\/x509$|^reflect-metadata$/,
    files: /^src\/(hub|simulator)\//,
    reason: 'the hub is the CA; the simulator signs for itself',
  },
  { module: /^commander$/, files: /^src\/cli\//, reason: 'the command line' },
  { module: /^pino$/, files: /^src\/lib\/log\.ts$/, reason: 'one form of log line' },
  {
    module: /^node:(test|assert|assert\/strict)$|^fast-check$|^oxc-parser$/,
    files: FOR_TESTS,
    reason: 'for tests',
  },
];

/** What is said without an import. */
const TEXT_ONLY_HERE: { text: RegExp; files: RegExp; reason: string }[] = [
  { text: /\bTemporal\.Now\b/, files: /^src\/lib\/clock\.ts$/, reason: 'tests turn the clock there' },
  {
    text: /['"`]qemu-(?:img|io|nbd|storage-daemon)['"`]/,
    files: /^src\/(qemu|simulator)\//,
    reason: 'QEMU has one home; a stand-in shares no code',
  },
  { text: /(?:eslint|oxlint)-disable(?!.* -- )|@ts-(?:ignore|nocheck)/, files: /^$/, reason: 'an exception says why' },
];

interface Source {
  file: string;
  text: string;
}

interface Edge {
  to: string;
  typeOnly: boolean;
}

const isTest = (file: string): boolean => FOR_TESTS.test(file) || /^(?:e2e|bench|scripts)\//.test(file);

function areaOf(file: string): string {
  const [, first = '', second] = file.split('/');
  return second === undefined ? path.basename(first, '.ts') : first;
}

function edgesOf({ file, text }: Source, problems: string[]): Edge[] {
  const { module, errors } = parseSync(file, text);
  for (const error of errors) problems.push(`${file}: ${error.message}`);
  const edges: Edge[] = module.staticImports.map(({ moduleRequest, entries }) => ({
    to: moduleRequest.value,
    typeOnly: entries.length > 0 && entries.every((entry) => entry.isType),
  }));
  for (const { moduleRequest: at } of module.dynamicImports) {
    const literal = /^(['"])([^'"]+)\1$/.exec(text.slice(at.start, at.end));
    if (literal?.[2] !== undefined) edges.push({ to: literal[2], typeOnly: false });
    else problems.push(`${file}: a dynamic import must name its module literally`);
  }
  for (const entry of module.staticExports.flatMap((statement) => statement.entries)) {
    const kind: string = entry.exportName.kind;
    if (kind === 'Default' || entry.exportName.name === 'default') {
      problems.push(`${file}: default export`);
    }
    const from = entry.moduleRequest?.value;
    if (from === undefined) continue;
    edges.push({ to: from, typeOnly: entry.isType });
    if (kind === 'None') problems.push(`${file}: export * from ${from}`);
    else if (/^[.#]/.test(from)) problems.push(`${file}: passes on what ${from} exports (a barrel)`);
  }
  return edges;
}

/** The file that an import of our own means, from the root; undefined for a package. */
function target(file: string, to: string): string | undefined {
  if (to.startsWith('#/')) return `src/${to.slice(2)}`;
  if (to.startsWith('.')) return path.posix.join(path.posix.dirname(file), to);
  return undefined;
}

function checkEdge(file: string, edge: Edge, problems: string[]): void {
  const to = target(file, edge.to);
  if (to === undefined) {
    const rule = ONLY_HERE.find(({ module }) => module.test(edge.to));
    if (rule && !edge.typeOnly && !rule.files.test(file) && !isTest(file)) {
      problems.push(`${file}: ${edge.to} only in ${rule.files.source}: ${rule.reason}`);
    }
    return;
  }
  if (!to.endsWith('.ts')) problems.push(`${file}: ${edge.to} must name a .ts file`);
  const [from, into] = [areaOf(file), areaOf(to)];
  if (!file.startsWith('src/')) return;
  if (from === into && edge.to.startsWith('#'))
    problems.push(`${file}: ${edge.to} is in its own area: import it relatively`);
  if (from !== into && edge.to.startsWith('.') && !isTest(file))
    problems.push(`${file}: ${edge.to} is in another area: use #/`);
  if (isTest(file)) return;
  if (isTest(to)) problems.push(`${file}: imports ${to}, which is for tests`);
  if (from !== into && AREAS[from]?.[into] === undefined) problems.push(`${file}: ${from} may not import ${into}`);
  const [inner, outer] = [file.split('/')[2], to.split('/')[2]];
  if (from === 'hub' && into === 'hub' && inner !== outer && HUB_FORBIDDEN[inner ?? '']?.includes(outer ?? '')) {
    problems.push(`${file}: hub/${inner} may not import hub/${outer}`);
  }
}

function checkShape({ file, text }: Source, problems: string[]): void {
  const area = areaOf(file);
  if (file.startsWith('src/') && !isTest(file) && AREAS[area] === undefined) problems.push(`${file}: no area ${area}`);
  if (!/^[a-z0-9]+(-[a-z0-9]+)*(\.(test|generated))?\.ts$/.test(path.basename(file))) {
    problems.push(`${file}: not kebab-case`);
  }
  if (/(^|-)(manager|service|helper|util|base)s?\.ts$/.test(path.basename(file))) problems.push(`${file}: empty word`);
  const lines = text.split('\n').length - 1;
  if (lines > 400 && !/\.(test|generated)\.ts$/.test(file)) problems.push(`${file}: ${lines} lines, at most 400`);
  if (isTest(file) || !file.startsWith('src/')) return;
  for (const rule of TEXT_ONLY_HERE) {
    if (rule.text.test(text) && !rule.files.test(file)) {
      problems.push(`${file}: ${rule.text.source} only in ${rule.files.source}: ${rule.reason}`);
    }
  }
}

function findCycles(graph: Map<string, string[]>): string[] {
  const cycles: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, trail: string[]): void => {
    const at = trail.indexOf(file);
    if (at >= 0) cycles.push(`cycle: ${[...trail.slice(at), file].join(' -> ')}`);
    if (at >= 0 || done.has(file)) return;
    for (const next of graph.get(file) ?? []) visit(next, [...trail, file]);
    done.add(file);
  };
  for (const file of graph.keys()) visit(file, []);
  return cycles;
}

function problemsOf(sources: Source[]): string[] {
  const problems: string[] = [];
  const graph = new Map<string, string[]>();
  for (const source of sources) {
    checkShape(source, problems);
    const edges = edgesOf(source, problems);
    for (const edge of edges) checkEdge(source.file, edge, problems);
    graph.set(
      source.file,
      // A type is gone at run time: the steps of a main path may name the types that it declares.
      edges.flatMap((edge) => (edge.typeOnly ? [] : (target(source.file, edge.to) ?? []))),
    );
  }
  return [...problems, ...findCycles(graph)];
}

function readSources(): Source[] {
  const files = globSync(['src/**/*.ts', 'e2e/**/*.ts', 'bench/**/*.ts', 'scripts/**/*.ts'], { cwd: ROOT });
  // Somebody may be moving files while this runs.
  return files
    .filter((file) => existsSync(path.join(ROOT, file)))
    .map((file) => ({ file: file.split(path.sep).join('/'), text: readFileSync(path.join(ROOT, file), 'utf8') }));
}

test('every import, name and size keeps to the table', () => {
  const sources = readSources();
  assert.ok(sources.length > 20, 'the sources were found');
  assert.deepEqual(problemsOf(sources), []);
});

test('the table speaks of areas that exist, and of no edge twice forbidden and allowed', () => {
  for (const [area, edges] of Object.entries(AREAS)) {
    for (const [into, reason] of Object.entries(edges)) {
      assert.ok(AREAS[into], `${area} may import ${into}, which is no area`);
      assert.ok(reason.length > 3, `${area} -> ${into} has a reason`);
      assert.ok(into === 'lib' || AREAS[into]?.[area] === undefined, `${area} and ${into} import each other`);
    }
  }
});

test('each planted violation is found, and what is allowed is not', () => {
  const planted: [string, string, RegExp | null][] = [
    ['src/agent/x.ts', `import { a } from '#/catalog/catalog.ts';`, /agent may not import catalog/],
    ['src/agent/x.ts', `import type { A } from '#/catalog/catalog.ts';`, /agent may not import catalog/],
    ['src/hub/x.ts', `const m = await import('#/agent/main.ts');`, /hub may not import agent/],
    ['src/cli/x.ts', `import { a } from '#/simulator/vsphere.ts';`, /cli may not import simulator/],
    ['src/lib/x.ts', `import { a } from '../api/common.ts';`, /another area/],
    ['src/lib/x.ts', `import { a } from '#/lib/errors.ts';`, /relatively/],
    ['src/hub/export/x.ts', `import { a } from '../routes/jobs.ts';`, /hub\/export may not import hub\/routes/],
    ['src/hub/routes/x.ts', `import { a } from '../backup/engine.ts';`, null],
    ['src/hub/x.ts', `import { spawn } from 'node:child_process';`, /one place/],
    ['src/hub/x.ts', `import type { ChildProcess } from 'node:child_process';`, null],
    ['src/hub/x.ts', `import { sql } from 'kysely';`, /no SQL/],
    ['src/hub/x.ts', `import { DatabaseSync } from 'node:sqlite';`, /no SQL/],
    ['src/hub/x.ts', `import test from 'node:test';`, /for tests/],
    ['src/hub/x.ts', `import { fill } from '#/repository/conformance.ts';`, /for tests/],
    ['src/hub/x.ts', `const t = Temporal.Now.instant();`, /turn the clock/],
    ['src/hub/x.ts', `run('qemu-img', []);`, /one home/],
    ['src/hub/x.ts', `const a = await import(name);`, /literally/],
    ['src/hub/x.ts', `export default 1;`, /default export/],
    ['src/hub/x.ts', `export { a as default } from './y.ts';`, /default export/],
    ['src/hub/x.ts', `export * from './y.ts';`, /export \*/],
    ['src/hub/x.ts', `export { a } from './y.ts';`, /barrel/],
    ['src/hub/x.ts', `import { a } from './y.js';`, /\.ts file/],
    ['src/hub/x.ts', 'const a = 1;\n'.repeat(401), /401 lines/],
    ['src/hub/x.ts', `const = ;`, /./],
    ['src/hub/newPart.ts', '', /kebab-case/],
    ['src/hub/job-manager.ts', '', /empty word/],
    ['src/other/x.ts', '', /no area other/],
    ['src/hub/x.test.ts', `import { a } from '#/simulator/vsphere.ts';`, null],
    ['src/repository/x.ts', `import { checkImage } from '#/qemu/img.ts';`, null],
  ];
  for (const [file, text, wanted] of planted) {
    const problems = problemsOf([{ file, text }]);
    if (wanted === null) assert.deepEqual(problems, [], `${file}: ${text}`);
    else assert.match(problems.join('\n'), wanted, `${file}: ${text}`);
  }
});

test('a planted cycle is found, and types that point back are none', () => {
  const cycleWith = (back: string): string[] =>
    problemsOf([
      { file: 'src/hub/a.ts', text: `import { b } from './backup/b.ts';` },
      { file: 'src/hub/backup/b.ts', text: `import { c } from '../c.ts';` },
      { file: 'src/hub/c.ts', text: back },
    ]);
  const found = cycleWith(`import { a } from './a.ts';`);
  assert.equal(found.length, 1);
  assert.match(found[0] ?? '', /cycle: .*a\.ts -> .*b\.ts -> .*c\.ts -> .*a\.ts/);
  assert.deepEqual(cycleWith(`import type { A } from './a.ts';`), []);
});
