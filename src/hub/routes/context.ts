import type { Agents } from '../agents.ts';
import type { JobRunner } from '../jobs.ts';
import type { Pki } from '../pki.ts';
import type { ProgressBoard } from '../progress.ts';
import type { Repositories } from '../repositories.ts';
import type { KeyRing } from '../secrets.ts';
import type { Routes } from '#/api/routes.ts';
import type { Catalog } from '#/catalog/catalog.ts';
import type { Handlers } from '#/http/server.ts';
import type { Logger } from '#/lib/log.ts';

/** What handlers reach. */
export interface HubContext {
  hubId: string;
  catalog: Catalog;
  keys: KeyRing;
  pki: Pki;
  agents: Agents;
  repositories: Repositories;
  progress: ProgressBoard;
  runner: JobRunner;
  log: Logger;
}

/** The handlers of one noun. */
export type Some<K extends keyof Routes> = Pick<Handlers<Routes>, K>;
