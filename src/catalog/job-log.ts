import type { Database } from './database.ts';
import type { JobLogLine, JsonObject } from './records.ts';
import { JOB_LOG_LINE } from './tables.ts';

/** Guests and peers have a say in messages; their length is bounded here, for good. */
const MAX_MESSAGE_CHARS = 4000;
const MAX_LINES = 5000;

export interface NewJobLogLine {
  jobId: string;
  level?: JobLogLine['level'];
  step: string;
  message: string;
  data?: JsonObject | null;
}

export class JobLog {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  async append(line: NewJobLogLine): Promise<JobLogLine> {
    const { id: _, ...row } = JOB_LOG_LINE.row({
      id: 0,
      jobId: line.jobId,
      time: this.#on.now(),
      level: line.level ?? 'info',
      step: line.step,
      message: line.message.slice(0, MAX_MESSAGE_CHARS),
      data: line.data ?? null,
    });
    const written = await this.#on.db
      .insertInto('job_log')
      .values(row)
      .returning(JOB_LOG_LINE.names)
      .executeTakeFirstOrThrow();
    return JOB_LOG_LINE.record(written);
  }

  /** Lines with an id above `after`, oldest first: ask again with the last id to follow a job. */
  async list(jobId: string, options: { after?: number; limit?: number } = {}): Promise<JobLogLine[]> {
    const rows = await this.#on.db
      .selectFrom('job_log')
      .select(JOB_LOG_LINE.names)
      .where('job_id', '=', jobId)
      .where('id', '>', options.after ?? 0)
      .orderBy('id')
      .limit(Math.max(1, Math.min(options.limit ?? 1000, MAX_LINES)))
      .execute();
    return rows.map((row) => JOB_LOG_LINE.record(row));
  }
}
