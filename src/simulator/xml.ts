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
  return Object.keys(node).find((key) => key !== ':@' && key !== '#text' && !key.startsWith('?'));
}

function toElement(node: RawNode, outer: Map<string, string>, depth: number): XmlElement {
  if (depth > MAX_DEPTH) throw new XmlError('nested too deeply');
  const tag = nameOf(node) ?? '';
  const raw = (node[':@'] ?? {}) as Record<string, string>;
  const scope = new Map(outer);
  for (const [key, value] of Object.entries(raw)) {
    if (key === 'xmlns') scope.set('', value);
    else if (key.startsWith('xmlns:')) scope.set(key.slice(6), value);
  }
  const content = node[tag] as RawNode[];
  const attributes = new Map<string, string>();
  for (const [key, value] of Object.entries(raw)) {
    if (key === 'xmlns' || key.startsWith('xmlns:')) continue;
    const name = split(key, scope, false);
    attributes.set(name.namespace === '' ? name.local : `{${name.namespace}}${name.local}`, value);
  }
  const name = split(tag, scope, true);
  const xsiType = attributes.get(`{${XSI}}type`);
  return {
    namespace: name.namespace,
    name: name.local,
    attributes,
    children: elementNodes(content).map((child) => toElement(child, scope, depth + 1)),
    text: content.map((child) => (typeof child['#text'] === 'string' ? child['#text'] : '')).join(''),
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

export function escapeXml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll(/(?![\t\n\r])\p{Cc}|[\ufffe\uffff]/gu, '');
}
