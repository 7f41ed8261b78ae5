import { assert } from '#/lib/errors.ts';
import { fieldsOf, isBasicType } from './vim-types.ts';
import type { Field } from './vim-types.ts';
import { escapeXml } from './xml.ts';

/** A reference to a managed object. */
export class Ref {
  readonly type: string;
  readonly id: string;

  constructor(type: string, id: string) {
    this.type = type;
    this.id = id;
  }
}

/** A data object: fields by name; an undefined field is unset. */
export class Data {
  readonly type: string;
  readonly fields: Readonly<Record<string, Value | undefined>>;

  constructor(type: string, fields: Record<string, Value | undefined>) {
    this.type = type;
    this.fields = fields;
  }
}

/** A value together with its type, for fields that may hold anything. */
export class Typed {
  readonly type: string;
  readonly many: boolean;
  readonly value: Value;

  constructor(type: string, value: Value, many = false) {
    this.type = type;
    this.value = value;
    this.many = many;
  }
}

export type Value = string | number | boolean | Ref | Data | Typed | readonly Value[];

/** The fields of `data` as elements in schema order. */
export function renderFields(data: Data): string {
  const known = fieldsOf(data.type);
  for (const name of Object.keys(data.fields)) {
    assert(known.length === 0 || known.some((field) => field.name === name), `${data.type} has a field ${name}`);
  }
  return known.map((field) => renderField(field, data.fields[field.name])).join('');
}

export function renderField(field: Field, value: Value | undefined): string {
  if (value === undefined) return '';
  if (field.many) {
    assert(Array.isArray(value), `${field.name} is a list`);
    return (value as readonly Value[]).map((item) => renderElement(field.name, field.type, item)).join('');
  }
  return renderElement(field.name, field.type, value);
}

/** One element; `xsi:type` is written where the declared type does not say it all. */
export function renderElement(name: string, declared: string, value: Value): string {
  if (value instanceof Typed) return renderTyped(name, value);
  if (value instanceof Ref) {
    const xsi = declared === 'any' ? ' xsi:type="ManagedObjectReference"' : '';
    return `<${name} type="${escapeXml(value.type)}"${xsi}>${escapeXml(value.id)}</${name}>`;
  }
  if (value instanceof Data) {
    const xsi = value.type === declared ? '' : ` xsi:type="${value.type}"`;
    return `<${name}${xsi}>${renderFields(value)}</${name}>`;
  }
  assert(typeof value !== 'object', `${name} is a single value`);
  return `<${name}>${escapeXml(String(value))}</${name}>`;
}

function renderTyped(name: string, { type, many, value }: Typed): string {
  if (!many) {
    const basic = isBasicType(type) && type !== 'ref';
    if (value instanceof Ref || value instanceof Data) return renderElement(name, 'any', value);
    assert(typeof value !== 'object', `${name} is a single value`);
    return `<${name} xsi:type="${basic ? 'xsd:' : ''}${type}">${escapeXml(String(value))}</${name}>`;
  }
  assert(Array.isArray(value), `${name} is a list`);
  const item = type === 'ref' ? 'ManagedObjectReference' : type;
  const array = `ArrayOf${item.charAt(0).toUpperCase()}${item.slice(1)}`;
  const items = (value as readonly Value[]).map((entry) => renderElement(item, type === 'ref' ? 'any' : type, entry));
  return `<${name} xsi:type="${array}">${items.join('')}</${name}>`;
}
