/**
 * The status file of the export daemon, `<run dir>/status.json`: written by the daemon by rename after every change,
 * read by the hub. A reader never sees half a file; it may see one that is a moment old, so it waits on conditions.
 */
import { z } from 'zod';
import { Bytes, Instant } from './common.ts';

export const ExportState = z.enum(['starting', 'serving', 'restarting', 'failed', 'refused', 'stopping']);
export type ExportState = z.infer<typeof ExportState>;

export const ExportEntry = z.object({
  /** Null when the file was refused before a name could be read. */
  name: z.string().nullable(),
  /** File name inside the configuration folder. */
  file: z.string(),
  imagePath: z.string().nullable(),
  readOnly: z.boolean().nullable(),
  /** Identity that may open the export through the front door. */
  agent: z.string().nullable(),
  /** Virtual size as the serving process reports it; null until it does. */
  sizeBytes: Bytes.nullable(),
  state: ExportState,
  /** The storage daemon that serves the export, while there is one. */
  pid: z.int().positive().nullable(),
  /** Unix socket for an agent on the same machine, while the export is served. */
  socket: z.string().nullable(),
  /** How often the storage daemon was started again because it had died. */
  restarts: z.int().nonnegative(),
  /** When `state` last changed. */
  since: Instant,
  /** Line of the configuration file that `reason` is about. */
  line: z.int().positive().optional(),
  /** Why the export is refused or failed; on a serving export: why its file was not taken over as it is now. */
  reason: z.string().optional(),
});
export type ExportEntry = z.infer<typeof ExportEntry>;

export const ClosedExport = z.object({
  name: z.string(),
  imagePath: z.string(),
  /** clean: ended by itself on request, everything flushed. killed: had to be forced. died: was gone before. */
  outcome: z.enum(['clean', 'killed', 'died']),
  /** Null when it was ended by a signal or was not our child. */
  exitCode: z.int().nullable(),
  at: Instant,
  /** The end of what the storage daemon printed; empty when it said nothing. */
  lastWords: z.string(),
});
export type ClosedExport = z.infer<typeof ClosedExport>;

export const ExportStatus = z.object({
  /** Grows by one with every reading of the configuration folder; starts at 1. */
  generation: z.int().nonnegative(),
  /** Null once the daemon has stopped in order; otherwise it may still have been killed. */
  pid: z.int().positive().nullable(),
  startedAt: Instant,
  /** `HOST:PORT` of the TLS front door, as in a URI; null when there is none. */
  frontDoor: z.string().nullable(),
  /** What is wrong with the daemon as a whole: unreadable configuration folder, certificates not reloaded. */
  problems: z.array(z.string()),
  exports: z.array(ExportEntry),
  /** Most recent last; older ones are forgotten. */
  closed: z.array(ClosedExport),
});
export type ExportStatus = z.infer<typeof ExportStatus>;
