/** Turns records into rows and back. Every column is named here once; nothing ever asks for `*`. */

export type Snake<S extends string> = S extends `${infer Head}${infer Rest}`
  ? `${Head extends Lowercase<Head> ? Head : `_${Lowercase<Head>}`}${Snake<Rest>}`
  : '';

type Plain = string | number | Uint8Array;
type Cell<T> = T extends null ? null : T extends Temporal.Instant | boolean ? number : T extends Plain ? T : string;

/** The table's row for a record. */
export type Row<R> = {
  [K in keyof R as K extends string ? Snake<K> : never]: unknown extends R[K] ? string : Cell<R[K]>;
};

type Kind<T> = [NonNullable<T>] extends [Temporal.Instant]
  ? 'instant'
  : [NonNullable<T>] extends [boolean]
    ? 'flag'
    : [NonNullable<T>] extends [Plain]
      ? 'plain'
      : 'json';
type Kinds<R> = { [K in keyof R & string]-?: Kind<R[K]> };

export class Columns<R extends object> {
  /** All columns of the record, for `select` and `returning`. */
  readonly names: readonly (keyof Row<R> & string)[];
  readonly #fields: readonly { field: string; column: string; kind: string }[];
  readonly #byField: ReadonlyMap<string, { column: string; kind: string }>;

  constructor(kinds: Kinds<R>) {
    this.#fields = Object.entries<string>(kinds).map(([field, kind]) => ({ field, column: snake(field), kind }));
    this.#byField = new Map(this.#fields.map((entry) => [entry.field, entry]));
    this.names = this.#fields.map(({ column }) => column as keyof Row<R> & string);
  }

  record(row: Row<R>): R {
    const cells = row as Record<string, unknown>;
    return Object.fromEntries(
      this.#fields.map(({ field, column, kind }) => [field, decode(kind, cells[column])]),
    ) as unknown as R;
  }

  row(record: R): Row<R> {
    return this.patch(record) as unknown as Row<R>;
  }

  /** The columns of the fields that are given; undefined fields are left out. */
  patch(part: Partial<R>): Partial<Row<R>> {
    const row: Record<string, unknown> = {};
    for (const [field, value] of Object.entries(part)) {
      const entry = this.#byField.get(field);
      if (entry && value !== undefined) row[entry.column] = encode(entry.kind, value);
    }
    return row as Partial<Row<R>>;
  }
}

function decode(kind: string, cell: unknown): unknown {
  if (cell === null) return null;
  if (kind === 'instant') return Temporal.Instant.fromEpochMilliseconds(cell as number);
  if (kind === 'flag') return cell === 1;
  return kind === 'json' ? (JSON.parse(cell as string) as unknown) : cell;
}

function encode(kind: string, value: unknown): unknown {
  if (kind === 'json') return value === null ? null : JSON.stringify(value);
  if (value instanceof Temporal.Instant) return value.epochMilliseconds;
  return typeof value === 'boolean' ? Number(value) : value;
}

function snake(field: string): string {
  return field.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
