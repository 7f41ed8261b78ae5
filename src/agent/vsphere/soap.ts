/**
 * SOAP 1.1 as vSphere speaks it: envelopes out, answers and faults in. No socket in here.
 * Faults are told apart by the xsi:type of the detail, never by element names or messages.
 */
import { SendenseError, assert } from '#/lib/errors.ts';
import type { ErrorDetails } from '#/lib/errors.ts';
import { DATA_TYPES, METHODS } from './schema.ts';
import type { DataTypeName, MethodName } from './schema.ts';
import { child, childrenOf, escapeXml, parseXml, textOf } from './xml.ts';
import type { XmlNode } from './xml.ts';

/** Reference to an object of the server; the value is opaque. */
export interface MoRef {
  readonly type: string;
  readonly value: string;
}

export interface DataObject {
  readonly dataType: DataTypeName;
  readonly fields: Fields;
}

/** Undefined fields are left out, arrays repeat the element. */
export interface Fields {
  readonly [name: string]: Value | readonly Value[] | undefined;
}

type Value = string | number | boolean | MoRef | DataObject;

export function moRef(type: string, value: string): MoRef {
  return { type, value };
}

export function data(dataType: DataTypeName, fields: Fields): DataObject {
  return { dataType, fields };
}

const ENVELOPE =
  '<?xml version="1.0" encoding="UTF-8"?>' +
  '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"' +
  ' xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">';

export function buildRequest(method: MethodName, target: MoRef, args: Fields): string {
  const body = element('_this', target) + fieldsOf(method, METHODS[method].fields, args);
  return `${ENVELOPE}<soapenv:Body><${method} xmlns="urn:vim25">${body}</${method}></soapenv:Body></soapenv:Envelope>`;
}

function fieldsOf(owner: string, order: readonly string[], fields: Fields): string {
  for (const name of Object.keys(fields)) assert(order.includes(name), `${owner} has no field ${name}`);
  let xml = '';
  for (const name of order) {
    const value = fields[name];
    if (value === undefined) continue;
    for (const single of isList(value) ? value : [value]) xml += element(name, single);
  }
  return xml;
}

function isList(value: Value | readonly Value[]): value is readonly Value[] {
  return Array.isArray(value);
}

function element(name: string, value: Value): string {
  if (typeof value !== 'object') return `<${name}>${escapeXml(String(value))}</${name}>`;
  if (!('dataType' in value)) return `<${name} type="${escapeXml(value.type)}">${escapeXml(value.value)}</${name}>`;
  const { fields, polymorphic } = DATA_TYPES[value.dataType];
  const type = polymorphic ? ` xsi:type="${value.dataType}"` : '';
  return `<${name}${type}>${fieldsOf(value.dataType, fields, value.fields)}</${name}>`;
}

/**
 * The response element of an answer. Throws SOURCE_FAULT for a fault, with `details.fault` its type and the fields we
 * know how to act on, and SOURCE_FAULT `MalformedAnswer` for anything that is no answer to this method.
 */
export function parseResponse(method: MethodName, text: string): XmlNode {
  let body: XmlNode | undefined;
  try {
    const envelope = parseXml(text);
    body = envelope.name === 'Envelope' ? child(envelope, 'Body') : undefined;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw faultError(method, { fault: 'MalformedAnswer', message: why, fields: {} });
  }
  const fault = child(body, 'Fault');
  if (fault) throw faultError(method, readSoapFault(fault));
  const response = child(body, `${method}Response`);
  if (response) return response;
  throw faultError(method, { fault: 'MalformedAnswer', message: 'the answer holds no response element', fields: {} });
}

export interface Fault {
  /** Name of the fault's type, such as `NotAuthenticated`. */
  fault: string;
  message: string;
  fields: Record<string, string>;
}

function readSoapFault(node: XmlNode): Fault {
  const detail = child(node, 'detail')?.children[0];
  const message = textOf(node, 'faultstring') ?? '';
  if (detail) return readFault(detail, message);
  return { fault: textOf(node, 'faultcode')?.split(':').at(-1) || 'UnknownFault', message, fields: {} };
}

/** Fields that say what a fault is about; the rest of a fault is for the server's own log. */
const FAULT_FIELDS = [
  'invalidProperty',
  'file',
  'privilegeId',
  'obj',
  'object',
  'task',
  'name',
  'requestedState',
  'existingState',
];

function readFault(node: XmlNode, message: string): Fault {
  const fields: Record<string, string> = {};
  for (const name of FAULT_FIELDS) {
    const text = textOf(node, name)?.trim();
    if (text) fields[name] = text.slice(0, 500);
  }
  // Without a type the element's name is all there is; it carries the word Fault at its end.
  const fault = node.xsiType ?? node.name.replace(/(?:Fault)+$/, '');
  return { fault: fault || 'UnknownFault', message, fields };
}

/** Reads a LocalizedMethodFault, the form in which tasks and unreadable properties carry theirs. */
export function readLocalizedFault(node: XmlNode): Fault {
  const inner = child(node, 'fault');
  return inner
    ? readFault(inner, textOf(node, 'localizedMessage') ?? '')
    : { fault: 'UnknownFault', message: textOf(node, 'localizedMessage') ?? '', fields: {} };
}

export function faultError(method: string, { fault, message, fields }: Fault): SendenseError {
  const details: ErrorDetails = { fault, method, ...fields };
  const words = message.trim().slice(0, 500);
  return new SendenseError('SOURCE_FAULT', `${method}: ${fault}${words ? `: ${words}` : ''}`, { details });
}

/** True for a SOURCE_FAULT of one of these types. */
export function isFault(error: unknown, ...faults: string[]): error is SendenseError {
  return (
    error instanceof SendenseError && error.code === 'SOURCE_FAULT' && faults.includes(String(error.details['fault']))
  );
}

/** A managed object reference in an answer; throws when the server sent something else. */
export function readMoRef(node: XmlNode | undefined, method: string): MoRef {
  const value = node?.text.trim();
  if (!node?.refType || !value) {
    throw faultError(method, { fault: 'MalformedAnswer', message: 'a reference to an object is missing', fields: {} });
  }
  return { type: node.refType, value };
}

export function readMoRefs(node: XmlNode | undefined, name: string): MoRef[] {
  return childrenOf(node, name).flatMap((entry) =>
    entry.refType && entry.text ? [{ type: entry.refType, value: entry.text.trim() }] : [],
  );
}
