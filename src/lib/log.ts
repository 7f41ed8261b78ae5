/**
 * Logs are JSON lines on standard error. Secrets never get here: the redact list is a net under code that already
 * keeps them out, not a licence to pass them.
 */
import { pino } from 'pino';
import type { Logger } from 'pino';

export type { Logger } from 'pino';

const SECRET_KEYS = ['password', 'token', 'authorization', 'cookie', 'secret', 'key', 'credential'];

export function createLogger(part: string, level: string = process.env['SENDENSE_LOG'] ?? 'info'): Logger {
  return pino(
    {
      level,
      base: { part, pid: process.pid },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: SECRET_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]), censor: '[redacted]' },
    },
    pino.destination({ fd: 2, sync: true }),
  );
}

/** A logger that says nothing, for tests and for library code used without one. */
export function silentLogger(): Logger {
  return pino({ level: 'silent' });
}
