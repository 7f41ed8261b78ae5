import { SendenseError } from '#/lib/errors.ts';
import type { RestorePoint } from '#/api/restore-point.ts';
import { connect } from './discovery.ts';
import type { HubClient } from './discovery.ts';
import { follow, jobError } from './follow.ts';
import { between, byteCount, count, duration, instant, rate, reduction, size } from './format.ts';
import { facts, table } from './output.ts';
import { command } from './spec.ts';

export const backupCommands = [
  command({
    words: 'backup run',
    summary: 'Back up one VM now',
    about:
      'All disks of the VM are read at one instant. With `auto` each disk is read incrementally when its chain and the ' +
      "source's change tracking allow it and in full otherwise; the reason is kept with the backup. The job runs in the " +
      'hub: interrupting this command leaves it running.',
    client: true,
    args: { vm: { help: 'name or id of the VM' } },
    options: {
      source: { value: 'SOURCE', help: 'source of the VM, when several know one of that name' },
      repository: { value: 'REPOSITORY', help: 'where to put it; may be left out when there is just one' },
      type: { value: 'TYPE', choices: ['auto', 'full', 'incremental'], default: 'auto', help: 'what to read' },
      quiesce: {
        value: 'POLICY',
        choices: ['never', 'try', 'require'],
        default: 'try',
        help: 'ask the guest to bring its files to rest first',
      },
      rateLimit: { value: 'BYTES', help: 'read at most this much per second, such as 50M' },
      wait: { help: 'show progress and end with the job' },
      cancelOnInterrupt: { help: 'with --wait: Ctrl-C cancels the job' },
    },
    examples: ['sendense backup run web-01 --wait', 'sendense backup run web-01 --type full --repository offsite'],
    async run(context, { args, options }) {
      const hub = await connect(context);
      const limit = options.rateLimit === undefined ? undefined : byteCount('--rate-limit', options.rateLimit);
      const body = {
        vm: args.vm,
        type: options.type,
        quiesce: options.quiesce,
        ...(options.source !== undefined && { source: options.source }),
        ...(options.repository !== undefined && { repository: options.repository }),
        ...(limit !== undefined && { bytesPerSecond: limit }),
      };
      const job = await hub.runBackup({ body }, context.signal);
      if (!options.wait) {
        const text = `job ${job.id} started; \`sendense job watch ${job.id}\` follows it\n`;
        context.answer({ document: job, text });
        return;
      }
      const done = await follow(context, hub, job.id, { cancelOnInterrupt: options.cancelOnInterrupt });
      const point = done.status === 'completed' ? await pointOf(hub, done.restorePointId) : undefined;
      context.answer({ document: done, text: point ? pointText(point) : '' });
      const error = jobError(done);
      if (error) throw error;
    },
  }),
  command({
    words: 'backup ls',
    summary: 'List the restore points, newest first',
    client: true,
    options: {
      vm: { value: 'VM', help: 'only those of this VM (name or id)' },
      repository: { value: 'REPOSITORY', help: 'only those in this repository' },
      status: {
        value: 'STATUS',
        choices: ['queued', 'preparing', 'snapshotting', 'copying', 'committing', 'completed', 'failed', 'cancelled'],
        help: 'only those in this state',
      },
      limit: { value: 'N', default: '100', help: 'at most this many' },
    },
    async run(context, { options }) {
      const hub = await connect(context);
      const limit = count('--limit', options.limit, { min: 1, max: 1000 });
      const query = { vm: options.vm, repository: options.repository, status: options.status, limit };
      const page = await hub.listRestorePoints({ query }, context.signal);
      const text = table(
        page.items,
        [
          { title: 'restore point', cell: (row) => row.id },
          { title: 'vm', cell: (row) => row.vm },
          { title: 'repository', cell: (row) => row.repository },
          { title: 'taken', cell: (row) => instant(row.snapshotAt ?? row.startedAt) },
          { title: 'status', cell: (row) => row.status },
          { title: 'type', cell: typeOf },
          { title: 'disks', right: true, cell: (row) => String(row.disks.length) },
          { title: 'size', right: true, cell: (row) => size(row.virtualBytes) },
          { title: 'transferred', right: true, cell: (row) => size(row.transferredBytes) },
          { title: 'stored', right: true, cell: (row) => size(row.storedBytes) },
        ],
        'no restore points',
      );
      const more = page.nextCursor === null ? '' : 'there are more: raise --limit\n';
      context.answer({ document: page, text: text + more });
    },
  }),
  command({
    words: 'backup show',
    summary: 'Show one restore point and its disks',
    client: true,
    args: { point: { help: 'id of the restore point' } },
    async run(context, { args }) {
      const hub = await connect(context);
      const point = await hub.getRestorePoint({ params: { point: args.point } }, context.signal);
      context.answer({ document: point, text: pointText(point) });
    },
  }),
];

async function pointOf(hub: HubClient, id: string | null): Promise<RestorePoint> {
  if (id === null) throw new SendenseError('INTERNAL', 'a completed backup names no restore point');
  return hub.getRestorePoint({ params: { point: id } });
}

/** `full`, `incremental`, or `mixed` when the disks differ. */
export function typeOf(point: RestorePoint): string {
  const types = new Set(point.disks.map((disk) => disk.type));
  return types.size > 1 ? 'mixed' : ([...types][0] ?? point.requestedType);
}

function pointText(point: RestorePoint): string {
  const elapsed = between(point.startedAt, point.completedAt);
  const head = facts([
    ['restore point', point.id],
    ['vm', point.vm],
    ['status', point.error ? `${point.status}: ${point.error.code}: ${point.error.message}` : point.status],
    ['taken', instant(point.snapshotAt)],
    ['consistency', point.consistency],
    ['repository', point.repository],
    ['folder', point.folder],
    ['took', elapsed === null ? null : duration(elapsed)],
    ['rate', elapsed === null || elapsed <= 0 ? null : rate((point.transferredBytes / elapsed) * 1000)],
  ]);
  return `${head}\n${diskTable(point)}`;
}

function diskTable(point: RestorePoint): string {
  return table(
    point.disks,
    [
      { title: 'disk', right: true, cell: (row) => String(row.diskIndex) },
      { title: 'label', cell: (row) => row.label },
      { title: 'type', cell: (row) => row.type },
      { title: 'size', right: true, cell: (row) => size(row.virtualBytes) },
      { title: 'changed', right: true, cell: (row) => size(row.changedBytes) },
      { title: 'read', right: true, cell: (row) => size(row.readBytes) },
      { title: 'transferred', right: true, cell: (row) => size(row.transferredBytes) },
      { title: 'reduction', right: true, cell: (row) => reduction(row.virtualBytes, row.transferredBytes) },
      { title: 'stored', right: true, cell: (row) => size(row.storedBytes) },
      { title: 'why', cell: (row) => row.typeReason },
    ],
    'no disks',
  );
}
