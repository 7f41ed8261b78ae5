/** The tables as Kysely sees them, and the list of each record's columns. */
import type { Generated } from 'kysely';
import { Columns } from './columns.ts';
import type { Row } from './columns.ts';
import type {
  Agent,
  BackupChain,
  BackupJob,
  CbtUse,
  Job,
  JobLogLine,
  Repository,
  RestorePoint,
  Setting,
  Snapshot,
  Source,
  Vm,
  VmDisk,
} from './records.ts';

export interface Tables {
  sources: Row<Source>;
  agents: Row<Agent>;
  repositories: Row<Repository>;
  vms: Row<Vm>;
  /** `disk_change_id` is replication's: no other workflow may read or write it. */
  vm_disks: Row<VmDisk> & { disk_change_id: string | null };
  cbt_history: Row<CbtUse>;
  jobs: Row<Job>;
  job_resources: { job_id: string; resource: string; cap: number };
  job_log: Omit<Row<JobLogLine>, 'id'> & { id: Generated<number> };
  restore_points: Row<RestorePoint>;
  backup_jobs: Row<BackupJob>;
  backup_chains: Row<BackupChain>;
  snapshots: Row<Snapshot>;
  settings: Row<Setting>;
}

export const SOURCE = new Columns<Source>({
  id: 'plain',
  name: 'plain',
  kind: 'plain',
  address: 'plain',
  username: 'plain',
  sealedPassword: 'plain',
  thumbprint: 'plain',
  instanceUuid: 'plain',
  createdAt: 'instant',
  checkedAt: 'instant',
});

export const AGENT = new Columns<Agent>({
  id: 'plain',
  name: 'plain',
  url: 'plain',
  version: 'plain',
  certificateSha256: 'plain',
  registeredAt: 'instant',
  lastSeenAt: 'instant',
});

export const REPOSITORY = new Columns<Repository>({
  id: 'plain',
  name: 'plain',
  kind: 'plain',
  root: 'plain',
  settings: 'json',
  identity: 'plain',
  state: 'plain',
  problem: 'plain',
  capacityBytes: 'plain',
  freeBytes: 'plain',
  checkedAt: 'instant',
  createdAt: 'instant',
});

export const VM = new Columns<Vm>({
  id: 'plain',
  sourceId: 'plain',
  moref: 'plain',
  instanceUuid: 'plain',
  biosUuid: 'plain',
  name: 'plain',
  path: 'plain',
  powerState: 'plain',
  guestName: 'plain',
  facts: 'json',
  firstSeenAt: 'instant',
  lastSeenAt: 'instant',
});

export const VM_DISK = new Columns<VmDisk>({
  id: 'plain',
  vmId: 'plain',
  diskUuid: 'plain',
  key: 'plain',
  label: 'plain',
  capacityBytes: 'plain',
  present: 'flag',
});

export const CBT_USE = new Columns<CbtUse>({
  id: 'plain',
  vmDiskId: 'plain',
  changeId: 'plain',
  workflow: 'plain',
  recordedAt: 'instant',
});

export const JOB = new Columns<Job>({
  id: 'plain',
  kind: 'plain',
  status: 'plain',
  subjectKey: 'plain',
  vmId: 'plain',
  priority: 'plain',
  runAt: 'instant',
  payload: 'json',
  result: 'json',
  attempt: 'plain',
  maxAttempts: 'plain',
  leaseOwner: 'plain',
  leaseExpiresAt: 'instant',
  cancelRequested: 'flag',
  cancelReason: 'plain',
  errorCode: 'plain',
  errorMessage: 'plain',
  errorDetails: 'json',
  createdAt: 'instant',
  startedAt: 'instant',
  finishedAt: 'instant',
  createdBy: 'plain',
});

export const JOB_LOG_LINE = new Columns<JobLogLine>({
  id: 'plain',
  jobId: 'plain',
  time: 'instant',
  level: 'plain',
  step: 'plain',
  message: 'plain',
  data: 'json',
});

export const RESTORE_POINT = new Columns<RestorePoint>({
  id: 'plain',
  vmId: 'plain',
  repositoryId: 'plain',
  jobId: 'plain',
  status: 'plain',
  requestedType: 'plain',
  consistency: 'plain',
  folder: 'plain',
  diskCount: 'plain',
  virtualBytes: 'plain',
  transferredBytes: 'plain',
  storedBytes: 'plain',
  snapshotAt: 'instant',
  startedAt: 'instant',
  completedAt: 'instant',
  errorCode: 'plain',
  errorMessage: 'plain',
});

export const BACKUP_JOB = new Columns<BackupJob>({
  id: 'plain',
  restorePointId: 'plain',
  vmDiskId: 'plain',
  diskUuid: 'plain',
  diskIndex: 'plain',
  diskKey: 'plain',
  label: 'plain',
  type: 'plain',
  typeReason: 'plain',
  status: 'plain',
  parentBackupId: 'plain',
  chainId: 'plain',
  previousChangeId: 'plain',
  changeTracking: 'flag',
  changeId: 'plain',
  imagePath: 'plain',
  exportName: 'plain',
  virtualBytes: 'plain',
  changedBytes: 'plain',
  readBytes: 'plain',
  transferredBytes: 'plain',
  zeroBytes: 'plain',
  skippedBytes: 'plain',
  storedBytes: 'plain',
  transport: 'plain',
  transportReason: 'plain',
  startedAt: 'instant',
  completedAt: 'instant',
  errorCode: 'plain',
  errorMessage: 'plain',
});

export const BACKUP_CHAIN = new Columns<BackupChain>({
  id: 'plain',
  vmId: 'plain',
  diskUuid: 'plain',
  vmDiskId: 'plain',
  repositoryId: 'plain',
  fullBackupId: 'plain',
  latestBackupId: 'plain',
  totalBackups: 'plain',
  totalBytes: 'plain',
  state: 'plain',
  createdAt: 'instant',
  updatedAt: 'instant',
});

export const SNAPSHOT = new Columns<Snapshot>({
  id: 'plain',
  jobId: 'plain',
  sourceId: 'plain',
  vmMoref: 'plain',
  name: 'plain',
  moref: 'plain',
  state: 'plain',
  createdAt: 'instant',
  removedAt: 'instant',
});

export const SETTING = new Columns<Setting>({ key: 'plain', value: 'json' });
