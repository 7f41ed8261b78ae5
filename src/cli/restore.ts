import { resolve } from 'node:path';
import { connect } from './discovery.ts';
import { follow, jobError } from './follow.ts';
import { duration, between } from './format.ts';
import { command } from './spec.ts';

export const restoreCommands = [
  command({
    words: 'restore disk',
    summary: 'Write one disk of a restore point into a file',
    about:
      "The file is made on the hub's machine, complete or not at all. A file that exists is kept unless --overwrite is " +
      'given.',
    client: true,
    args: { point: { help: 'id of the restore point' } },
    options: {
      disk: { value: 'DISK', help: 'index, uuid or label of the disk; may be left out when there is just one' },
      to: { value: 'FILE', required: true, help: 'the file to write' },
      format: { value: 'FORMAT', choices: ['raw', 'qcow2'], default: 'raw', help: 'format of the file' },
      overwrite: { help: 'replace the file if it exists' },
      wait: { onByDefault: true, help: 'start the job and do not wait for its end' },
    },
    examples: ['sendense restore disk 01kb2… --disk 0 --to /srv/out/web-01.raw'],
    async run(context, { args, options }) {
      const hub = await connect(context);
      const body = {
        restorePoint: args.point,
        path: resolve(context.cwd, options.to),
        format: options.format,
        overwrite: options.overwrite,
        ...(options.disk !== undefined && { disk: options.disk }),
      };
      const job = await hub.restoreDisk({ body }, context.signal);
      if (!options.wait) {
        const text = `job ${job.id} started; \`sendense job watch ${job.id}\` follows it\n`;
        context.answer({ document: job, text });
        return;
      }
      const done = await follow(context, hub, job.id);
      const error = jobError(done);
      const took = duration(between(done.startedAt, done.finishedAt) ?? 0);
      context.answer({ document: done, text: error ? '' : `restored into ${body.path} in ${took}\n` });
      if (error) throw error;
    },
  }),
];
