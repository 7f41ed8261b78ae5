import { XMLParser } from 'fast-xml-parser';

const MAX_DEPTH = 40;

export interface XmlElement {
  namespace: string;
  name: string;
  /** Local name without namespace, or `{namespace}local`. */
  attributes: Map<string, string>;
  children: XmlElement[];
  text: string;
  /** The value of an attribute such as `xsi:type="a:b"` with its prefix cut off. */
  xsiType: string | undefined;
}

export class XmlError extends Error {}

const XSI = 'http://www.w3.org/2001/XMLSchema-instance';
const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: '',
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  // It would leave numbers such as &#39; as they are; decodeXml does them all.
  processEntities: false,
  cdataPropName: '#cdata',
  ignoreDeclaration: true,
  ignorePiTags: true,
});

/** Parses a whole document with its namespaces; anything with a document type, malformed or too deep is refused. */
export function parseXml(text: string): XmlElement {
  if (/<!DOCTYPE|<!ENTITY/i.test(text)) throw new XmlError('a document type is not allowed');
  let nodes: unknown;
  try {
    nodes = parser.parse(text, true);
  } catch (error) {
    throw new XmlError(error instanceof Error ? error.message : 'not well-formed');
  }
  const roots = elementNodes(nodes);
  if (roots.length !== 1 || !roots[0]) throw new XmlError('exactly one root element is expected');
  return toElement(roots[0], new Map([['', '']]), 0);
}

type RawNode = Record<string, unknown>;

function elementNodes(nodes: unknown): RawNode[] {
  return Array.isArray(nodes) ? (nodes as RawNode[]).filter((node) => nameOf(node) !== undefined) : [];
}

function nameOf(node: RawNode): string | undefined {
  return Object.keys(node).find((key) => key !== ':@' && !key.startsWith('#') && !key.startsWith('?'));
}

function toElement(node: RawNode, outer: Map<string, string>, depth: number): XmlElement {
  if (depth > MAX_DEPTH) throw new XmlError('nested too deeply');
  const tag = nameOf(node) ?? '';
  const raw = (node[':@'] ?? {}) as Record<string, string>;
  const scope = new Map(outer);
  for (const [key, value] of Object.entries(raw)) {
    if (key === 'xmlns') scope.set('', decodeXml(value));
    else if (key.startsWith('xmlns:')) scope.set(key.slice(6), decodeXml(value));
  }
  const content = node[tag] as RawNode[];
  const attributes = new Map<string, string>();
  for (const [key, value] of Object.entries(raw)) {
    if (key === 'xmlns' || key.startsWith('xmlns:')) continue;
    const name = split(key, scope, false);
    attributes.set(name.namespace === '' ? name.local : `{${name.namespace}}${name.local}`, decodeXml(value));
  }
  const name = split(tag, scope, true);
  const xsiType = attributes.get(`{${XSI}}type`);
  return {
    namespace: name.namespace,
    name: name.local,
    attributes,
    children: elementNodes(content).map((child) => toElement(child, scope, depth + 1)),
    text: content.map(textOf).join(''),
    xsiType: xsiType?.slice(xsiType.indexOf(':') + 1),
  };
}

function split(tag: string, scope: Map<string, string>, useDefault: boolean): { namespace: string; local: string } {
  const colon = tag.indexOf(':');
  if (colon < 0) return { namespace: useDefault ? (scope.get('') ?? '') : '', local: tag };
  const namespace = scope.get(tag.slice(0, colon));
  if (namespace === undefined) throw new XmlError(`prefix of ${tag} is not declared`);
  return { namespace, local: tag.slice(colon + 1) };
}

function textOf(node: RawNode): string {
  if (typeof node['#text'] === 'string') return decodeXml(node['#text']);
  return Array.isArray(node['#cdata'])
    ? (node['#cdata'] as RawNode[]).map((part) => (typeof part['#text'] === 'string' ? part['#text'] : '')).join('')
    : '';
}

const NAMED: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };

function decodeXml(text: string): string {
  return text.replaceAll(/&([^;\s]{0,12});?/g, (reference: string, name: string) => {
    const number = /^#(?:x([0-9a-f]{1,6})|(\d{1,7}))$/i.exec(name);
    const code = number?.[1] === undefined ? Number(number?.[2]) : Number.parseInt(number[1], 16);
    const character = number && code > 0 && code <= 0x10_ffff ? String.fromCodePoint(code) : NAMED[name];
    if (character === undefined || !reference.endsWith(';')) throw new XmlError(`${reference} is not known`);
    return character;
  });
}

export function escapeXml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll(/(?![\t\n\r])\p{Cc}|[\ufffe\uffff]/gu, '');
}
