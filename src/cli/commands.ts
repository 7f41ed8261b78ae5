/** Every command of sendense, in the order of the help. Help, man pages and parsing come from this table alone. */
import { agentCommands } from './agent.ts';
import { backupCommands } from './backup.ts';
import { chainCommands } from './chain.ts';
import { demoCommands } from './demo.ts';
import { jobCommands } from './job.ts';
import { partCommands } from './parts.ts';
import { repositoryCommands } from './repository.ts';
import { restoreCommands } from './restore.ts';
import { simulatorCommands } from './simulator.ts';
import { sourceCommands } from './source.ts';
import type { Command } from './spec.ts';
import { statusCommands } from './status.ts';
import { upCommands } from './up.ts';
import { vmCommands } from './vm.ts';

export const commands: readonly Command[] = [
  ...upCommands,
  ...demoCommands,
  ...statusCommands,
  ...sourceCommands,
  ...vmCommands,
  ...repositoryCommands,
  ...backupCommands,
  ...chainCommands,
  ...jobCommands,
  ...restoreCommands,
  ...agentCommands,
  ...partCommands,
  ...simulatorCommands,
];

/** One line for each noun that has verbs. */
export const NOUNS: Readonly<Record<string, string>> = {
  agent: 'Capture agents: read disks of VMs and write them into exports',
  backup: 'Make backups and look at restore points',
  chain: 'Chains: a full backup and the incrementals on it',
  job: 'Jobs of the hub',
  repository: 'Repositories: places for backups',
  restore: 'Bring data back',
  simulator: 'A vCenter with VMs and real disks, for trying out and tests',
  source: 'Sources: vCenters and ESXi hosts',
  vm: 'VMs of the sources',
};
