import { sleep } from '#/lib/clock.ts';
import { isFinal } from '#/api/common.ts';
import type { Job, JobLogLine } from '#/api/job.ts';
import { connect } from './discovery.ts';
import type { HubClient } from './discovery.ts';
import { follow, jobError } from './follow.ts';
import { between, clean, count, duration, instant, size } from './format.ts';
import { facts, table } from './output.ts';
import { command } from './spec.ts';

const LOG_PAGE = 1000;
const LOG_POLL_MS = 500;

export const jobCommands = [
  command({
    words: 'job ls',
    summary: 'List the jobs, newest first',
    client: true,
    options: {
      vm: { value: 'VM', help: 'only those of this VM (name or id)' },
      open: { help: 'only those that have not ended' },
      limit: { value: 'N', default: '100', help: 'at most this many' },
    },
    async run(context, { options }) {
      const hub = await connect(context);
      const limit = count('--limit', options.limit, { min: 1, max: 1000 });
      const query = { vm: options.vm, limit, ...(options.open && { open: 'true' }) };
      const page = await hub.listJobs({ query }, context.signal);
      const more = page.nextCursor === null ? '' : 'there are more: raise --limit\n';
      context.answer({ document: page, text: jobTable(page.items) + more });
    },
  }),
  command({
    words: 'job log',
    summary: 'Print the log of a job',
    client: true,
    args: { job: { help: 'id of the job' } },
    options: { follow: { help: 'go on until the job ends' } },
    async run(context, { args, options }) {
      const hub = await connect(context);
      const items: JobLogLine[] = [];
      const show = (line: JobLogLine): void => {
        if (context.json) items.push(line);
        else context.io.stdout.write(logLine(line));
      };
      for (let after = 0; ; ) {
        // Asked before the lines, so that lines written up to the end are not missed.
        const job = await hub.getJob({ params: { job: args.job } }, context.signal);
        after = await drain(hub, args.job, after, show, context.signal);
        if (!options.follow || isFinal(job.status)) break;
        await sleep(LOG_POLL_MS, context.signal);
      }
      context.answer({ document: { items }, text: '' });
    },
  }),
  command({
    words: 'job watch',
    summary: 'Show the progress of a job until it ends',
    about: 'Ends with the exit code of the job. Interrupting it leaves the job running.',
    client: true,
    args: { job: { help: 'id of the job' } },
    async run(context, { args }) {
      const hub = await connect(context);
      const job = await follow(context, hub, args.job);
      context.answer({ document: job, text: jobText(job) });
      const error = jobError(job);
      if (error) throw error;
    },
  }),
  command({
    words: 'job cancel',
    summary: 'Cancel a job',
    about: 'What it has made so far is removed: snapshot, export and unfinished files.',
    client: true,
    args: { job: { help: 'id of the job' } },
    options: { wait: { help: 'wait until it has ended' } },
    async run(context, { args, options }) {
      const hub = await connect(context);
      const asked = await hub.cancelJob({ params: { job: args.job } }, context.signal);
      const job = options.wait ? await follow(context, hub, asked.id) : asked;
      const text = isFinal(job.status) ? jobText(job) : `job ${job.id} is being cancelled\n`;
      context.answer({ document: job, text });
    },
  }),
];

async function drain(
  hub: HubClient,
  job: string,
  from: number,
  show: (line: JobLogLine) => void,
  signal: AbortSignal,
): Promise<number> {
  for (let after = from; ; ) {
    const { items } = await hub.getJobLog({ params: { job }, query: { after, limit: LOG_PAGE } }, signal);
    for (const line of items) show(line);
    after = items.at(-1)?.id ?? after;
    if (items.length < LOG_PAGE) return after;
  }
}

function logLine(line: JobLogLine): string {
  const data = line.data === null ? '' : `  ${clean(JSON.stringify(line.data))}`;
  const level = line.level === 'info' ? '' : `${line.level}: `;
  return `${instant(line.time)}  ${clean(line.step).padEnd(12)}  ${level}${clean(line.message)}${data}\n`;
}

export function jobTable(jobs: readonly Job[]): string {
  return table(
    jobs,
    [
      { title: 'job', cell: (row) => row.id },
      { title: 'kind', cell: (row) => row.kind },
      { title: 'subject', cell: (row) => row.subject },
      { title: 'status', cell: (row) => (row.cancelRequested && !isFinal(row.status) ? 'cancelling' : row.status) },
      { title: 'done', right: true, cell: doneOf },
      { title: 'created', cell: (row) => instant(row.createdAt) },
      { title: 'took', right: true, cell: tookOf },
      { title: 'error', cell: (row) => row.error?.code ?? '-' },
    ],
    'no jobs',
  );
}

export function jobText(job: Job): string {
  return facts([
    ['job', job.id],
    ['kind', job.kind],
    ['subject', job.subject],
    ['status', job.status],
    ['restore point', job.restorePointId],
    ['took', tookOf(job)],
    ['error', job.error === null ? null : `${job.error.code}: ${job.error.message}`],
  ]);
}

function doneOf(job: Job): string {
  if (!job.progress) return '-';
  const { doneBytes, totalBytes } = job.progress;
  return totalBytes === null ? size(doneBytes) : `${size(doneBytes)} of ${size(totalBytes)}`;
}

function tookOf(job: Job): string {
  const ms = between(job.startedAt, job.finishedAt);
  return ms === null ? '-' : duration(ms);
}
