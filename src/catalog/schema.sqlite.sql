CREATE TABLE agents (
  id text PRIMARY KEY NOT NULL,
  name text NOT NULL UNIQUE,
  url text NOT NULL,
  version text,
  certificate_sha256 text UNIQUE,
  registered_at bigint NOT NULL,
  last_seen_at bigint);

CREATE TABLE backup_chains (
  id text PRIMARY KEY NOT NULL,
  vm_id text NOT NULL REFERENCES vms (id),
  disk_uuid text NOT NULL,
  vm_disk_id text NOT NULL REFERENCES vm_disks (id),
  repository_id text NOT NULL REFERENCES repositories (id),
  full_backup_id text NOT NULL UNIQUE REFERENCES backup_jobs (id),
  latest_backup_id text NOT NULL UNIQUE REFERENCES backup_jobs (id),
  total_backups integer NOT NULL CHECK (total_backups >= 1),
  total_bytes bigint NOT NULL CHECK (total_bytes >= 0),
  state text NOT NULL CHECK (state IN ('active', 'closed', 'quarantined', 'broken')),
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL);

CREATE INDEX backup_chains_by_repository ON backup_chains (repository_id);

CREATE INDEX backup_chains_by_vm ON backup_chains (vm_id, disk_uuid, repository_id);

CREATE UNIQUE INDEX backup_chains_one_active ON backup_chains (vm_disk_id, repository_id) WHERE state = 'active';

CREATE TABLE backup_jobs (
  id text PRIMARY KEY NOT NULL,
  restore_point_id text NOT NULL REFERENCES restore_points (id),
  vm_disk_id text NOT NULL REFERENCES vm_disks (id),
  disk_uuid text NOT NULL,
  disk_index integer NOT NULL CHECK (disk_index >= 0),
  disk_key integer NOT NULL,
  label text NOT NULL,
  type text NOT NULL CHECK (type IN ('full', 'incremental')),
  type_reason text NOT NULL,
  status text NOT NULL CHECK (status IN ('queued', 'preparing', 'snapshotting', 'copying', 'committing', 'completed', 'failed', 'cancelled')),
  parent_backup_id text REFERENCES backup_jobs (id),
  chain_id text REFERENCES backup_chains (id),
  previous_change_id text,
  change_tracking integer NOT NULL CHECK (change_tracking IN (0, 1)),
  change_id text,
  image_path text,
  export_name text,
  virtual_bytes bigint NOT NULL CHECK (virtual_bytes >= 0),
  changed_bytes bigint NOT NULL CHECK (changed_bytes >= 0),
  read_bytes bigint NOT NULL CHECK (read_bytes >= 0),
  transferred_bytes bigint NOT NULL CHECK (transferred_bytes >= 0),
  zero_bytes bigint NOT NULL CHECK (zero_bytes >= 0),
  skipped_bytes bigint NOT NULL CHECK (skipped_bytes >= 0),
  stored_bytes bigint NOT NULL CHECK (stored_bytes >= 0),
  transport text,
  transport_reason text,
  started_at bigint NOT NULL,
  completed_at bigint,
  error_code text,
  error_message text,
  UNIQUE (restore_point_id, disk_uuid),
  UNIQUE (restore_point_id, disk_index),
  CONSTRAINT backup_jobs_completed_is_whole CHECK (status <> 'completed'
    OR (image_path IS NOT NULL AND chain_id IS NOT NULL)),
  CONSTRAINT backup_jobs_completed_has_change_id CHECK (status <> 'completed'
    OR change_tracking = 0 OR (change_id IS NOT NULL AND change_id <> '')),
  CONSTRAINT backup_jobs_completed_full_has_no_parent CHECK (status <> 'completed'
    OR (type = 'full') = (parent_backup_id IS NULL)),
  CONSTRAINT backup_jobs_final_is_finished CHECK ((status IN ('queued', 'preparing', 'snapshotting', 'copying', 'committing')) = (completed_at IS NULL)),
  CONSTRAINT backup_jobs_failed_says_why CHECK (status <> 'failed' OR error_code IS NOT NULL));

CREATE INDEX backup_jobs_by_chain ON backup_jobs (chain_id, id);

CREATE INDEX backup_jobs_by_disk ON backup_jobs (vm_disk_id, id);

CREATE INDEX backup_jobs_by_parent ON backup_jobs (parent_backup_id);

CREATE UNIQUE INDEX backup_jobs_one_child ON backup_jobs (parent_backup_id) WHERE status = 'completed';

CREATE TABLE cbt_history (
  id text PRIMARY KEY NOT NULL,
  vm_disk_id text NOT NULL REFERENCES vm_disks (id),
  change_id text NOT NULL,
  workflow text NOT NULL,
  recorded_at bigint NOT NULL);

CREATE INDEX cbt_history_by_disk ON cbt_history (vm_disk_id, id);

CREATE TABLE job_log (
  id integer PRIMARY KEY AUTOINCREMENT,
  job_id text NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  time bigint NOT NULL,
  level text NOT NULL CHECK (level IN ('info', 'warn', 'error')),
  step text NOT NULL,
  message text NOT NULL,
  data text);

CREATE INDEX job_log_by_job ON job_log (job_id, id);

CREATE TABLE job_resources (
  job_id text NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  resource text NOT NULL,
  cap integer NOT NULL CHECK (cap >= 1),
  PRIMARY KEY (job_id, resource));

CREATE INDEX job_resources_by_resource ON job_resources (resource, job_id);

CREATE TABLE jobs (
  id text PRIMARY KEY NOT NULL,
  kind text NOT NULL CHECK (kind IN ('backup', 'restore')),
  status text NOT NULL CHECK (status IN ('queued', 'preparing', 'snapshotting', 'copying', 'committing', 'completed', 'failed', 'cancelled')),
  subject_key text,
  vm_id text REFERENCES vms (id),
  priority integer NOT NULL,
  run_at bigint NOT NULL,
  payload text NOT NULL,
  result text,
  attempt integer NOT NULL CHECK (attempt >= 0),
  max_attempts integer NOT NULL CHECK (max_attempts >= 1),
  lease_owner text,
  lease_expires_at bigint,
  cancel_requested integer NOT NULL CHECK (cancel_requested IN (0, 1)),
  cancel_reason text,
  error_code text,
  error_message text,
  error_details text,
  created_at bigint NOT NULL,
  started_at bigint,
  finished_at bigint,
  created_by text NOT NULL,
  CONSTRAINT jobs_running_is_leased CHECK ((status IN ('preparing', 'snapshotting', 'copying', 'committing')) = (lease_owner IS NOT NULL)),
  CONSTRAINT jobs_lease_ends CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL)),
  CONSTRAINT jobs_final_is_finished CHECK ((status IN ('queued', 'preparing', 'snapshotting', 'copying', 'committing')) = (finished_at IS NULL)),
  CONSTRAINT jobs_failed_says_why CHECK (status <> 'failed' OR error_code IS NOT NULL));

CREATE INDEX jobs_by_vm ON jobs (vm_id, id);

CREATE UNIQUE INDEX jobs_one_open_per_subject ON jobs (kind, subject_key)
  WHERE subject_key IS NOT NULL AND status IN ('queued', 'preparing', 'snapshotting', 'copying', 'committing');

CREATE INDEX jobs_open ON jobs (lease_expires_at) WHERE status IN ('queued', 'preparing', 'snapshotting', 'copying', 'committing');

CREATE INDEX jobs_queue ON jobs (priority DESC, run_at, id) WHERE status = 'queued';

CREATE TABLE repositories (
  id text PRIMARY KEY NOT NULL,
  name text NOT NULL UNIQUE,
  kind text NOT NULL,
  root text NOT NULL,
  settings text NOT NULL,
  identity text NOT NULL UNIQUE,
  state text NOT NULL CHECK (state IN ('online', 'frozen')),
  problem text,
  capacity_bytes bigint CHECK (capacity_bytes >= 0),
  free_bytes bigint CHECK (free_bytes >= 0),
  checked_at bigint,
  created_at bigint NOT NULL);

CREATE TABLE restore_points (
  id text PRIMARY KEY NOT NULL,
  vm_id text NOT NULL REFERENCES vms (id),
  repository_id text NOT NULL REFERENCES repositories (id),
  job_id text NOT NULL REFERENCES jobs (id),
  status text NOT NULL CHECK (status IN ('queued', 'preparing', 'snapshotting', 'copying', 'committing', 'completed', 'failed', 'cancelled')),
  requested_type text NOT NULL CHECK (requested_type IN ('auto', 'full', 'incremental')),
  consistency text CHECK (consistency IN ('application', 'crash')),
  folder text,
  disk_count integer NOT NULL CHECK (disk_count >= 0),
  virtual_bytes bigint NOT NULL CHECK (virtual_bytes >= 0),
  transferred_bytes bigint NOT NULL CHECK (transferred_bytes >= 0),
  stored_bytes bigint NOT NULL CHECK (stored_bytes >= 0),
  snapshot_at bigint,
  started_at bigint NOT NULL,
  completed_at bigint,
  error_code text,
  error_message text,
  CONSTRAINT restore_points_completed_is_whole CHECK (status <> 'completed'
    OR (folder IS NOT NULL AND consistency IS NOT NULL AND disk_count > 0)),
  CONSTRAINT restore_points_final_is_finished CHECK ((status IN ('queued', 'preparing', 'snapshotting', 'copying', 'committing')) = (completed_at IS NULL)),
  CONSTRAINT restore_points_failed_says_why CHECK (status <> 'failed' OR error_code IS NOT NULL));

CREATE INDEX restore_points_by_job ON restore_points (job_id);

CREATE INDEX restore_points_by_repository ON restore_points (repository_id, id);

CREATE INDEX restore_points_by_vm ON restore_points (vm_id, repository_id, id);

CREATE UNIQUE INDEX restore_points_folder ON restore_points (repository_id, folder) WHERE status = 'completed';

CREATE UNIQUE INDEX restore_points_one_open_per_job ON restore_points (job_id) WHERE status IN ('queued', 'preparing', 'snapshotting', 'copying', 'committing');

CREATE TABLE schema_steps
  (version integer PRIMARY KEY NOT NULL, name text NOT NULL, applied_at bigint NOT NULL);

CREATE TABLE settings (key text PRIMARY KEY NOT NULL, value text NOT NULL);

CREATE TABLE snapshots (
  id text PRIMARY KEY NOT NULL,
  job_id text NOT NULL REFERENCES jobs (id),
  source_id text NOT NULL REFERENCES sources (id),
  vm_moref text NOT NULL,
  name text NOT NULL,
  moref text,
  state text NOT NULL CHECK (state IN ('intended', 'live', 'removed')),
  created_at bigint NOT NULL,
  removed_at bigint,
  CONSTRAINT snapshots_removed_when CHECK ((state = 'removed') = (removed_at IS NOT NULL)));

CREATE INDEX snapshots_by_job ON snapshots (job_id);

CREATE INDEX snapshots_not_removed ON snapshots (source_id, id) WHERE state <> 'removed';

CREATE TABLE sources (
  id text PRIMARY KEY NOT NULL,
  name text NOT NULL UNIQUE,
  kind text NOT NULL CHECK (kind IN ('vcenter', 'esxi')),
  address text NOT NULL,
  username text NOT NULL,
  sealed_password blob NOT NULL,
  thumbprint text NOT NULL,
  instance_uuid text,
  created_at bigint NOT NULL,
  checked_at bigint);

CREATE TABLE vm_disks (
  id text PRIMARY KEY NOT NULL,
  vm_id text NOT NULL REFERENCES vms (id),
  disk_uuid text NOT NULL,
  key integer NOT NULL,
  label text NOT NULL,
  capacity_bytes bigint NOT NULL CHECK (capacity_bytes >= 0),
  present integer NOT NULL CHECK (present IN (0, 1)),
  disk_change_id text,
  UNIQUE (vm_id, disk_uuid));

CREATE TABLE vms (
  id text PRIMARY KEY NOT NULL,
  source_id text NOT NULL REFERENCES sources (id),
  moref text NOT NULL,
  instance_uuid text NOT NULL,
  bios_uuid text NOT NULL,
  name text NOT NULL,
  path text NOT NULL,
  power_state text NOT NULL,
  guest_name text NOT NULL,
  facts text NOT NULL,
  first_seen_at bigint NOT NULL,
  last_seen_at bigint NOT NULL,
  UNIQUE (source_id, instance_uuid));

CREATE INDEX vms_by_name ON vms (name, id);
