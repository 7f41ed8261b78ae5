import { invalidRequest } from './faults.ts';
import { Ref } from './values.ts';
import { fieldsOf, isBasicType, isDataType, isKindOf } from './vim-types.ts';
import type { Field } from './vim-types.ts';
import type { XmlElement } from './xml.ts';

const VIM = 'urn:vim25';

type Parsed = string | number | boolean | Ref | Arguments | XmlElement;

/** Checked arguments of a method or fields of a data object that a client sent. */
export class Arguments {
  readonly type: string;
  readonly #values: ReadonlyMap<string, readonly Parsed[]>;

  constructor(type: string, values: ReadonlyMap<string, readonly Parsed[]>) {
    this.type = type;
    this.#values = values;
  }

  get names(): string[] {
    return [...this.#values.keys()];
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  text(name: string): string {
    return this.optionalText(name) ?? '';
  }

  optionalText(name: string): string | undefined {
    const value = this.#values.get(name)?.[0];
    return typeof value === 'string' ? value : undefined;
  }

  texts(name: string): string[] {
    return (this.#values.get(name) ?? []).filter((value) => typeof value === 'string');
  }

  number(name: string): number | undefined {
    const value = this.#values.get(name)?.[0];
    return typeof value === 'number' ? value : undefined;
  }

  flag(name: string): boolean | undefined {
    const value = this.#values.get(name)?.[0];
    return typeof value === 'boolean' ? value : undefined;
  }

  ref(name: string): Ref | undefined {
    const value = this.#values.get(name)?.[0];
    return value instanceof Ref ? value : undefined;
  }

  object(name: string): Arguments | undefined {
    return this.objects(name)[0];
  }

  objects(name: string): Arguments[] {
    return (this.#values.get(name) ?? []).filter((value) => value instanceof Arguments);
  }
}

/**
 * Reads the children of `element` against `fields`: InvalidRequest for an element that is unknown, in the wrong
 * place, repeated or missing, and for a value that is not of its type.
 */
export function readArguments(element: XmlElement, type: string, fields: readonly Field[]): Arguments {
  const values = new Map<string, Parsed[]>();
  let position = 0;
  if (element.text.trim() !== '') throw invalidRequest(`Unexpected text inside ${type}`);
  for (const child of element.children) {
    const index = fields.findIndex((field, at) => at >= position && field.name === child.name);
    const field = fields[index];
    if (!field || child.namespace !== VIM) {
      const expected = fields.slice(position, position + 3).map((entry) => entry.name);
      throw invalidRequest(
        `Unexpected element tag "${child.name}" seen while parsing ${type}; expected ${expected.join(', ') || 'the end'}`,
      );
    }
    checkSkipped(fields.slice(position, index), values, type);
    const list = values.get(field.name) ?? [];
    if (list.length > 0 && !field.many) throw invalidRequest(`Element "${field.name}" of ${type} may stand only once`);
    list.push(readValue(child, field));
    values.set(field.name, list);
    position = index;
  }
  checkSkipped(fields.slice(position), values, type);
  return new Arguments(type, values);
}

function checkSkipped(skipped: readonly Field[], seen: Map<string, Parsed[]>, type: string): void {
  const missing = skipped.find((field) => field.min === 1 && !seen.has(field.name));
  if (missing) throw invalidRequest(`Required property ${missing.name} is missing from data object of type ${type}`);
}

function readValue(element: XmlElement, field: Field): Parsed {
  if (field.type === 'any') return element;
  if (field.type === 'ref') return readRef(element);
  if (isDataType(field.type)) return readData(element, field.type);
  if (element.children.length > 0) throw invalidRequest(`Element "${element.name}" holds a single value`);
  if (!isBasicType(field.type)) return element.text.trim();
  return readBasic(element, field.type);
}

export function readRef(element: XmlElement): Ref {
  const type = element.attributes.get('type');
  const id = element.text.trim();
  if (type === undefined || type === '' || id === '' || element.children.length > 0) {
    throw invalidRequest(`Element "${element.name}" is a reference: it needs the attribute type and an id`);
  }
  return new Ref(type, id);
}

function readData(element: XmlElement, declared: string): Parsed {
  const type = element.xsiType ?? declared;
  // Subtypes beyond the model are taken as they come, as long as they cannot be mistaken for a known one.
  if (!isDataType(type)) {
    if (declared === 'VirtualDevice' || declared === 'VirtualDeviceBackingInfo') return new Arguments(type, new Map());
    throw invalidRequest(`Type "${type}" is unknown where ${declared} is expected`);
  }
  if (!isKindOf(type, declared)) throw invalidRequest(`Type "${type}" stands where ${declared} is expected`);
  return readArguments(element, type, fieldsOf(type));
}

function readBasic(element: XmlElement, type: string): string | number | boolean {
  const text = element.text.trim();
  const wrong = invalidRequest(`Cannot parse "${text.slice(0, 40)}" of element "${element.name}" as ${type}`);
  switch (type) {
    case 'boolean':
      if (text === 'true' || text === '1') return true;
      if (text === 'false' || text === '0') return false;
      throw wrong;
    case 'int':
    case 'long':
    case 'short':
    case 'byte':
      if (!/^[+-]?\d{1,19}$/.test(text) || !Number.isSafeInteger(Number(text))) throw wrong;
      if (type === 'int' && Math.abs(Number(text)) > 2_147_483_648) throw wrong;
      return Number(text);
    case 'dateTime':
      if (Number.isNaN(Date.parse(text))) throw wrong;
      return text;
    default:
      return element.text;
  }
}
