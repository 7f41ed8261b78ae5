import type { Arguments } from './arguments.ts';
import { invalidArgument, notAuthenticated, objectNotFound, VimFault } from './faults.ts';
import { propertiesOf } from './inventory.ts';
import type { Session } from './sessions.ts';
import { Data, Ref, Typed } from './values.ts';
import type { Value } from './values.ts';
import { fieldsOf, isBasicType, isDataType, isKindOf } from './vim-types.ts';
import type { World } from './world.ts';

const MAX_OBJECTS = 50_000;

export interface CollectedProperty {
  name: string;
  value: Typed;
}

export interface Collected {
  ref: Ref;
  properties: CollectedProperty[];
}

/** What a list of PropertyFilterSpec selects, in the order of discovery. */
export function collect(world: World, session: Session | undefined, specs: readonly Arguments[]): Collected[] {
  return specs.flatMap((spec) => new Selection(world, session, spec).run());
}

/** What a server answers to an ended session: not a fault but every property missing. */
export function missingForExpired(specs: readonly Arguments[]): Data[] {
  return specs.flatMap((spec) => {
    const paths = spec.objects('propSet').flatMap((set) => set.texts('pathSet'));
    return spec.objects('objectSet').map((object) => {
      const ref = object.ref('obj') ?? new Ref('ManagedObject', '');
      const fault = notAuthenticated(ref).localized();
      const missingSet = (paths.length > 0 ? paths : ['name']).map(
        (path) => new Data('MissingProperty', { path, fault }),
      );
      return new Data('ObjectContent', { obj: ref, missingSet });
    });
  });
}

export function objectContent(collected: Collected): Data {
  return new Data('ObjectContent', {
    obj: collected.ref,
    propSet: collected.properties.map(
      (property) => new Data('DynamicProperty', { name: property.name, val: property.value }),
    ),
  });
}

class Selection {
  readonly #world: World;
  readonly #session: Session | undefined;
  readonly #propSets: Arguments[];
  readonly #objectSets: Arguments[];
  readonly #found = new Map<string, Collected>();
  readonly #visited = new Set<string>();
  readonly #named = new Map<string, Arguments>();
  readonly #specIds = new Map<Arguments, number>();

  constructor(world: World, session: Session | undefined, spec: Arguments) {
    this.#world = world;
    this.#session = session;
    this.#propSets = spec.objects('propSet');
    this.#objectSets = spec.objects('objectSet');
    for (const set of this.#propSets) {
      if (!isDataType(set.text('type')) && set.text('type') !== 'ManagedEntity') throw invalidArgument('propSet.type');
      for (const path of set.texts('pathSet')) checkPath(set.text('type'), path);
    }
  }

  run(): Collected[] {
    for (const object of this.#objectSets) {
      const ref = object.ref('obj');
      if (!ref) continue;
      if (!propertiesOf(this.#world, this.#session, ref)) throw objectNotFound(ref);
      this.#name(object.objects('selectSet'));
      this.#visit(ref, object.objects('selectSet'), object.flag('skip') ?? false);
    }
    return [...this.#found.values()];
  }

  #name(selectSet: readonly Arguments[]): void {
    for (const spec of selectSet) {
      const name = spec.optionalText('name');
      if (spec.type !== 'TraversalSpec') continue;
      if (name !== undefined) this.#named.set(name, spec);
      this.#name(spec.objects('selectSet'));
    }
  }

  #visit(ref: Ref, selectSet: readonly Arguments[], skip: boolean): void {
    if (!skip) this.#emit(ref);
    for (const entry of selectSet) {
      const spec = entry.type === 'TraversalSpec' ? entry : this.#named.get(entry.text('name'));
      if (!spec) throw invalidArgument('selectSet.name');
      const key = `${ref.type}:${ref.id} ${this.#specId(spec)}`;
      if (!isKindOf(ref.type, spec.text('type')) || this.#visited.has(key)) continue;
      this.#visited.add(key);
      for (const next of this.#follow(ref, spec.text('path'))) {
        this.#visit(next, spec.objects('selectSet'), spec.flag('skip') ?? false);
      }
    }
  }

  #specId(spec: Arguments): number {
    const id = this.#specIds.get(spec) ?? this.#specIds.size;
    this.#specIds.set(spec, id);
    return id;
  }

  #follow(ref: Ref, path: string): Ref[] {
    checkPath(ref.type, path);
    const properties = propertiesOf(this.#world, this.#session, ref);
    const value = properties && readPath(ref.type, properties, path)?.value;
    if (value instanceof Ref) return [value];
    return Array.isArray(value) ? (value as readonly Value[]).filter((entry) => entry instanceof Ref) : [];
  }

  #emit(ref: Ref): void {
    const sets = this.#propSets.filter((set) => isKindOf(ref.type, set.text('type')));
    if (sets.length === 0) return;
    const key = `${ref.type}:${ref.id}`;
    if (this.#found.has(key)) return;
    if (this.#found.size >= MAX_OBJECTS) throw new VimFault('SystemError', 'too many objects');
    const properties = propertiesOf(this.#world, this.#session, ref);
    if (!properties) return; // vanished since its parent named it
    const paths = sets.flatMap((set) => (set.flag('all') === true ? Object.keys(properties) : set.texts('pathSet')));
    const collected: CollectedProperty[] = [];
    for (const name of new Set(paths)) {
      const value = readPath(ref.type, properties, name);
      if (value) collected.push({ name, value });
    }
    this.#found.set(key, { ref, properties: collected });
  }
}

/** InvalidProperty unless `path` exists in the model, set or not. */
function checkPath(type: string, path: string): void {
  let at = type;
  for (const name of path.split('.')) {
    // Below a type that is not modelled, or where only the object itself knows its kind, anything may follow.
    if (!isDataType(at)) return;
    const field = fieldsOf(at).find((entry) => entry.name === name);
    const derived = at === 'ComputeResourceSummary' || at === 'VirtualDeviceBackingInfo';
    if (!field && derived) return;
    if (!field) throw new VimFault('InvalidProperty', `The property ${path} does not exist`, { name: path });
    at = field.type;
  }
}

function readPath(type: string, properties: Record<string, () => Value | undefined>, path: string): Typed | undefined {
  const [first = '', ...rest] = path.split('.');
  let field = fieldsOf(type).find((entry) => entry.name === first);
  let value = properties[first]?.();
  for (const name of rest) {
    if (!(value instanceof Data)) return undefined;
    field = fieldsOf(value.type).find((entry) => entry.name === name);
    value = value.fields[name];
  }
  if (value === undefined || !field) return undefined;
  if (value instanceof Typed) return value;
  const declared = field.type === 'any' && value instanceof Data ? value.type : field.type;
  const known = isBasicType(declared) || isDataType(declared) || typeof value === 'string' || field.many;
  return known ? new Typed(declared, value, field.many) : undefined;
}
