/** Tables and lists for people. `--json` never comes through here: it prints what the API said. */
import { clean, width } from './format.ts';

export interface Column<T> {
  title: string;
  /** Numbers stand on the right. */
  right?: boolean;
  cell(row: T): string;
}

/** Columns two spaces apart, no lines drawn, no trailing blanks; `empty` when there are no rows. */
export function table<T>(rows: readonly T[], columns: readonly Column<T>[], empty: string): string {
  if (rows.length === 0) return `${empty}\n`;
  const cells = rows.map((row) => columns.map((column) => clean(column.cell(row)) || '-'));
  const lines = [columns.map((column) => column.title.toUpperCase()), ...cells];
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => width(line[index] ?? ''))));
  return lines
    .map((line) => {
      const padded = line.map((text, index) => {
        const blanks = ' '.repeat((widths[index] ?? 0) - width(text));
        return columns[index]?.right ? blanks + text : text + blanks;
      });
      return `${padded.join('  ').trimEnd()}\n`;
    })
    .join('');
}

/** `name  value` lines, names aligned; a null value is left out. */
export function facts(entries: readonly (readonly [name: string, value: string | null])[]): string {
  const shown = entries.filter((entry): entry is readonly [string, string] => entry[1] !== null);
  const wide = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${name.padEnd(wide)}  ${clean(value)}\n`).join('');
}

/** One JSON document with a line end. */
export function json(document: unknown): string {
  return `${JSON.stringify(document, null, 2)}\n`;
}
