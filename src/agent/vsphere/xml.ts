/**
 * The little of XML that SOAP needs, read namespace-aware into a plain tree. What comes in is hostile: document types
 * are refused, entities are the five of XML and numeric ones, depth is bounded by the parser, size by the caller.
 */
import { XMLParser } from 'fast-xml-parser';
import { SendenseError } from '#/lib/errors.ts';

const XSI = 'http://www.w3.org/2001/XMLSchema-instance';

export interface XmlNode {
  /** Local name, whatever prefix the server chose. */
  readonly name: string;
  /** Local part of the xsi:type attribute. */
  readonly xsiType: string | undefined;
  /** The `type` attribute of a managed object reference. */
  readonly refType: string | undefined;
  /** Text of an element without children, untrimmed; empty for all others. */
  readonly text: string;
  readonly children: readonly XmlNode[];
}

type Raw = Record<string, unknown>;
type Prefixes = ReadonlyMap<string, string>;

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: '',
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  // Entities are decoded below: the parser would leave numeric ones alone and expand those of a document type.
  processEntities: false,
  cdataPropName: '#cdata',
  ignoreDeclaration: true,
  ignorePiTags: true,
  maxNestedTags: 100,
});

/** Throws INVALID_REQUEST for anything that is not one well-formed element; the caller knows who sent it. */
export function parseXml(text: string): XmlNode {
  if (/<!(?:DOCTYPE|ENTITY)/i.test(text)) throw malformed('a document type is not accepted');
  let parsed: Raw[];
  try {
    parsed = parser.parse(text, true) as Raw[];
  } catch (cause) {
    throw malformed(cause instanceof Error ? cause.message : String(cause));
  }
  const roots = parsed.filter((entry) => tagOf(entry) !== undefined);
  const root = roots[0];
  if (!root || roots.length > 1) throw malformed('one root element is expected');
  return convert(root, new Map([['xml', 'http://www.w3.org/XML/1998/namespace']]));
}

function convert(raw: Raw, outer: Prefixes): XmlNode {
  const tag = tagOf(raw) ?? '';
  const attributes = (raw[':@'] ?? {}) as Record<string, string>;
  const prefixes = declare(attributes, outer);
  let xsiType: string | undefined;
  let refType: string | undefined;
  for (const [name, value] of Object.entries(attributes)) {
    const [prefix, local] = split(name);
    if (local !== 'type') continue;
    if (prefix === '') refType = decode(value);
    else if (prefixes.get(prefix) === XSI) xsiType = split(decode(value).trim())[1];
  }
  const children: XmlNode[] = [];
  let text = '';
  for (const entry of raw[tag] as Raw[]) {
    if (typeof entry['#text'] === 'string') text += decode(entry['#text']);
    else if (Array.isArray(entry['#cdata'])) text += (entry['#cdata'] as { '#text'?: string }[])[0]?.['#text'] ?? '';
    else children.push(convert(entry, prefixes));
  }
  return { name: split(tag)[1], xsiType, refType, text: children.length > 0 ? '' : text, children };
}

function declare(attributes: Record<string, string>, outer: Prefixes): Prefixes {
  let own: Map<string, string> | undefined;
  for (const [name, value] of Object.entries(attributes)) {
    if (!name.startsWith('xmlns:')) continue;
    own ??= new Map(outer);
    own.set(name.slice(6), decode(value));
  }
  return own ?? outer;
}

function tagOf(raw: Raw): string | undefined {
  for (const key in raw) if (key !== ':@' && key !== '#text' && key !== '#cdata') return key;
  return undefined;
}

function split(name: string): [prefix: string, local: string] {
  const colon = name.indexOf(':');
  return colon < 0 ? ['', name] : [name.slice(0, colon), name.slice(colon + 1)];
}

const NAMED: Record<string, string> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };

function decode(text: string): string {
  if (!text.includes('&')) return text;
  return text.replaceAll(/&(?:#x([0-9a-f]{1,8})|#([0-9]{1,10})|(lt|gt|amp|quot|apos));/gi, (whole, hex, dec, name) => {
    if (typeof name === 'string') return NAMED[name] ?? whole;
    const code = typeof hex === 'string' ? Number.parseInt(hex, 16) : Number(dec);
    return code <= 0x10_ff_ff ? String.fromCodePoint(code) : '\ufffd';
  });
}

/** Control characters but for tab, line feed, carriage return and the upper block, and the two non-characters. */
const UNWRITABLE = /[^\P{Cc}\t\n\r\u007f-\u009f]|[\ufffe\uffff]/u;

/**
 * Text as element content or attribute value. XML 1.0 has no way to write most control characters, not even escaped,
 * and dropping them would change a name or a password: INVALID_REQUEST, without the text itself.
 */
export function escapeXml(text: string): string {
  if (UNWRITABLE.test(text) || !text.isWellFormed()) {
    throw new SendenseError('INVALID_REQUEST', 'a value holds a control character that XML cannot carry');
  }
  return text.replaceAll(/[<>&"'\t\n\r\u007f-\u009f]/g, (char) => `&#${char.charCodeAt(0)};`);
}

/** A document of its own with the names of the vSphere schema, whatever prefixes the answer used. */
export function serializeXml(node: XmlNode, rootName: string): string {
  const space = ` xmlns="urn:vim25" xmlns:xsi="${XSI}"`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n${write({ ...node, name: rootName }, space, 0)}\n`;
}

function write(node: XmlNode, attributes: string, depth: number): string {
  const indent = '  '.repeat(depth);
  const type = node.refType === undefined ? '' : ` type="${escapeLoose(node.refType)}"`;
  const xsiType = node.xsiType === undefined ? '' : ` xsi:type="${escapeLoose(node.xsiType)}"`;
  const open = `${indent}<${node.name}${attributes}${type}${xsiType}`;
  if (node.children.length > 0) {
    return `${open}>\n${node.children.map((child) => write(child, '', depth + 1)).join('\n')}\n${indent}</${node.name}>`;
  }
  return node.text === '' ? `${open}/>` : `${open}>${escapeLoose(node.text)}</${node.name}>`;
}

/** What a server sent may hold what XML cannot carry; in a record for people a replacement character is right. */
function escapeLoose(text: string): string {
  return escapeXml(text.toWellFormed().replaceAll(new RegExp(UNWRITABLE, 'gu'), '\ufffd'));
}

function malformed(why: string): SendenseError {
  return new SendenseError('INVALID_REQUEST', `malformed XML: ${why.slice(0, 300)}`);
}

export function child(node: XmlNode | undefined, ...path: string[]): XmlNode | undefined {
  let found = node;
  for (const name of path) found = found?.children.find((entry) => entry.name === name);
  return found;
}

export function childrenOf(node: XmlNode | undefined, name: string): XmlNode[] {
  return node?.children.filter((entry) => entry.name === name) ?? [];
}

export function textOf(node: XmlNode | undefined, ...path: string[]): string | undefined {
  return child(node, ...path)?.text;
}

export function booleanOf(node: XmlNode | undefined, ...path: string[]): boolean | undefined {
  const text = textOf(node, ...path)?.trim();
  return text === 'true' || text === '1' ? true : text === 'false' || text === '0' ? false : undefined;
}

/** A whole number that a JavaScript number holds exactly, else undefined. */
export function integerOf(node: XmlNode | undefined, ...path: string[]): number | undefined {
  const text = textOf(node, ...path)?.trim();
  if (text === undefined || !/^[+-]?[0-9]{1,16}$/.test(text)) return undefined;
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : undefined;
}
