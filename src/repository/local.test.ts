import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { repositoryConformance } from './conformance.ts';

repositoryConformance('local', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'sendense-repository-'));
  return {
    settings: { kind: 'local', root: path.join(dir, 'backups') },
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
  };
});
