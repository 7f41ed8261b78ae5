/** How numbers, times and names look to a person. Nothing here reads a clock or a locale. */
import { SendenseError } from '#/lib/errors.ts';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** `1.5 GiB`; whole bytes below 1 KiB. */
export function size(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? Math.round(value) : value.toFixed(value < 99.95 ? 1 : 0)} ${UNITS[unit]}`;
}

export function rate(bytesPerSecond: number): string {
  return `${size(bytesPerSecond)}/s`;
}

/** `850 ms`, `4.2 s`, `3 m 05 s`, `2 h 10 m`, `3 d 4 h`. */
export function duration(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} m`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor(whole / 3600) % 24} h`;
}

/** Milliseconds between two instants of the wire; null while one is missing. */
export function between(from: string | null, to: string | null): number | null {
  return from === null || to === null ? null : Date.parse(to) - Date.parse(from);
}

/** `2026-11-24 00:05:17` in the given time zone; `-` for null. */
export function instant(text: string | null, timeZone: string = localZone()): string {
  if (text === null) return '-';
  const zoned = Temporal.Instant.from(text).toZonedDateTimeISO(timeZone);
  return zoned.toPlainDateTime().toString({ smallestUnit: 'second' }).replace('T', ' ');
}

/** How much of a disk did not have to travel: `99.0 %`; `-` for an empty disk. */
export function reduction(virtualBytes: number, transferredBytes: number): string {
  if (virtualBytes === 0) return '-';
  const part = Math.max(0, 1 - transferredBytes / virtualBytes) * 100;
  // 100.0 % is kept for "nothing at all travelled".
  return `${(transferredBytes > 0 ? Math.min(part, 99.9) : part).toFixed(1)} %`;
}

/** Names come from guests and hypervisors: without control and direction characters they cannot repaint a terminal. */
export function clean(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, '\u{FFFD}');
}

/** Columns that a text takes on a terminal. */
export function width(text: string): number {
  let columns = 0;
  for (const char of text) {
    if (/\p{M}/u.test(char)) continue;
    columns += /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}]/u.test(
      char,
    )
      ? 2
      : 1;
  }
  return columns;
}

/** A whole number from the command line, within bounds; USAGE otherwise. */
export function count(option: string, text: string, bounds: { min: number; max: number }): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= bounds.min && value <= bounds.max) return value;
  throw new SendenseError('USAGE', `${option} takes a whole number from ${bounds.min} to ${bounds.max}, not ${text}`);
}

/** `500`, `64K`, `1.5G`, `20MiB` in bytes; USAGE otherwise. */
export function byteCount(option: string, text: string): number {
  const match = /^(\d{1,12}(?:\.\d{1,3})?)\s*(?:([kmgt])(?:i?b)?|b)?$/i.exec(text);
  if (match?.[1] === undefined) throw new SendenseError('USAGE', `${option} takes a size such as 64M, not ${text}`);
  const power = match[2] === undefined ? 0 : 'kmgt'.indexOf(match[2].toLowerCase()) + 1;
  return Math.round(Number(match[1]) * 1024 ** power);
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}

function localZone(): string {
  return new Intl.DateTimeFormat().resolvedOptions().timeZone;
}
