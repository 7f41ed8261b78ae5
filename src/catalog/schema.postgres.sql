CREATE TABLE agents (
  id text NOT NULL,
  name text NOT NULL,
  url text NOT NULL,
  version text,
  certificate_sha256 text,
  registered_at bigint NOT NULL,
  last_seen_at bigint,
  CONSTRAINT agents_pkey PRIMARY KEY (id),
  CONSTRAINT agents_certificate_sha256_key UNIQUE (certificate_sha256),
  CONSTRAINT agents_name_key UNIQUE (name)
);

CREATE TABLE backup_chains (
  id text NOT NULL,
  vm_id text NOT NULL,
  disk_uuid text NOT NULL,
  vm_disk_id text NOT NULL,
  repository_id text NOT NULL,
  full_backup_id text NOT NULL,
  latest_backup_id text NOT NULL,
  total_backups integer NOT NULL,
  total_bytes bigint NOT NULL,
  state text NOT NULL,
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL,
  CONSTRAINT backup_chains_state_check CHECK ((state = ANY (ARRAY['active'::text, 'closed'::text, 'quarantined'::text, 'broken'::text]))),
  CONSTRAINT backup_chains_total_backups_check CHECK ((total_backups >= 1)),
  CONSTRAINT backup_chains_total_bytes_check CHECK ((total_bytes >= 0)),
  CONSTRAINT backup_chains_full_backup_id_fkey FOREIGN KEY (full_backup_id) REFERENCES backup_jobs(id),
  CONSTRAINT backup_chains_latest_backup_id_fkey FOREIGN KEY (latest_backup_id) REFERENCES backup_jobs(id),
  CONSTRAINT backup_chains_repository_id_fkey FOREIGN KEY (repository_id) REFERENCES repositories(id),
  CONSTRAINT backup_chains_vm_disk_id_fkey FOREIGN KEY (vm_disk_id) REFERENCES vm_disks(id),
  CONSTRAINT backup_chains_vm_id_fkey FOREIGN KEY (vm_id) REFERENCES vms(id),
  CONSTRAINT backup_chains_pkey PRIMARY KEY (id),
  CONSTRAINT backup_chains_full_backup_id_key UNIQUE (full_backup_id),
  CONSTRAINT backup_chains_latest_backup_id_key UNIQUE (latest_backup_id)
);

CREATE INDEX backup_chains_by_repository ON backup_chains USING btree (repository_id);

CREATE INDEX backup_chains_by_vm ON backup_chains USING btree (vm_id, disk_uuid, repository_id);

CREATE UNIQUE INDEX backup_chains_one_active ON backup_chains USING btree (vm_disk_id, repository_id) WHERE (state = 'active'::text);

CREATE TABLE backup_jobs (
  id text NOT NULL,
  restore_point_id text NOT NULL,
  vm_disk_id text NOT NULL,
  disk_uuid text NOT NULL,
  disk_index integer NOT NULL,
  disk_key integer NOT NULL,
  label text NOT NULL,
  type text NOT NULL,
  type_reason text NOT NULL,
  status text NOT NULL,
  parent_backup_id text,
  chain_id text,
  previous_change_id text,
  change_tracking integer NOT NULL,
  change_id text,
  image_path text,
  export_name text,
  virtual_bytes bigint NOT NULL,
  changed_bytes bigint NOT NULL,
  read_bytes bigint NOT NULL,
  transferred_bytes bigint NOT NULL,
  zero_bytes bigint NOT NULL,
  skipped_bytes bigint NOT NULL,
  stored_bytes bigint NOT NULL,
  transport text,
  transport_reason text,
  started_at bigint NOT NULL,
  completed_at bigint,
  error_code text,
  error_message text,
  CONSTRAINT backup_jobs_change_tracking_check CHECK ((change_tracking = ANY (ARRAY[0, 1]))),
  CONSTRAINT backup_jobs_changed_bytes_check CHECK ((changed_bytes >= 0)),
  CONSTRAINT backup_jobs_completed_full_has_no_parent CHECK (((status <> 'completed'::text) OR ((type = 'full'::text) = (parent_backup_id IS NULL)))),
  CONSTRAINT backup_jobs_completed_has_change_id CHECK (((status <> 'completed'::text) OR (change_tracking = 0) OR ((change_id IS NOT NULL) AND (change_id <> ''::text)))),
  CONSTRAINT backup_jobs_completed_is_whole CHECK (((status <> 'completed'::text) OR ((image_path IS NOT NULL) AND (chain_id IS NOT NULL)))),
  CONSTRAINT backup_jobs_disk_index_check CHECK ((disk_index >= 0)),
  CONSTRAINT backup_jobs_failed_says_why CHECK (((status <> 'failed'::text) OR (error_code IS NOT NULL))),
  CONSTRAINT backup_jobs_final_is_finished CHECK (((status = ANY (ARRAY['queued'::text, 'preparing'::text, 'snapshotting'::text, 'copying'::text, 'committing'::text])) = (completed_at IS NULL))),
  CONSTRAINT backup_jobs_read_bytes_check CHECK ((read_bytes >= 0)),
  CONSTRAINT backup_jobs_skipped_bytes_check CHECK ((skipped_bytes >= 0)),
  CONSTRAINT backup_jobs_status_check CHECK ((status = ANY (ARRAY['queued'::text, 'preparing'::text, 'snapshotting'::text, 'copying'::text, 'committing'::text, 'completed'::text, 'failed'::text, 'cancelled'::text]))),
  CONSTRAINT backup_jobs_stored_bytes_check CHECK ((stored_bytes >= 0)),
  CONSTRAINT backup_jobs_transferred_bytes_check CHECK ((transferred_bytes >= 0)),
  CONSTRAINT backup_jobs_type_check CHECK ((type = ANY (ARRAY['full'::text, 'incremental'::text]))),
  CONSTRAINT backup_jobs_virtual_bytes_check CHECK ((virtual_bytes >= 0)),
  CONSTRAINT backup_jobs_zero_bytes_check CHECK ((zero_bytes >= 0)),
  CONSTRAINT backup_jobs_chain_id_fkey FOREIGN KEY (chain_id) REFERENCES backup_chains(id),
  CONSTRAINT backup_jobs_parent_backup_id_fkey FOREIGN KEY (parent_backup_id) REFERENCES backup_jobs(id),
  CONSTRAINT backup_jobs_restore_point_id_fkey FOREIGN KEY (restore_point_id) REFERENCES restore_points(id),
  CONSTRAINT backup_jobs_vm_disk_id_fkey FOREIGN KEY (vm_disk_id) REFERENCES vm_disks(id),
  CONSTRAINT backup_jobs_pkey PRIMARY KEY (id),
  CONSTRAINT backup_jobs_restore_point_id_disk_index_key UNIQUE (restore_point_id, disk_index),
  CONSTRAINT backup_jobs_restore_point_id_disk_uuid_key UNIQUE (restore_point_id, disk_uuid)
);

CREATE INDEX backup_jobs_by_chain ON backup_jobs USING btree (chain_id, id);

CREATE INDEX backup_jobs_by_disk ON backup_jobs USING btree (vm_disk_id, id);

CREATE INDEX backup_jobs_by_parent ON backup_jobs USING btree (parent_backup_id);

CREATE UNIQUE INDEX backup_jobs_one_child ON backup_jobs USING btree (parent_backup_id) WHERE (status = 'completed'::text);

CREATE TABLE cbt_history (
  id text NOT NULL,
  vm_disk_id text NOT NULL,
  change_id text NOT NULL,
  workflow text NOT NULL,
  recorded_at bigint NOT NULL,
  CONSTRAINT cbt_history_vm_disk_id_fkey FOREIGN KEY (vm_disk_id) REFERENCES vm_disks(id),
  CONSTRAINT cbt_history_pkey PRIMARY KEY (id)
);

CREATE INDEX cbt_history_by_disk ON cbt_history USING btree (vm_disk_id, id);

CREATE TABLE job_log (
  id bigint NOT NULL DEFAULT nextval('job_log_id_seq'::regclass),
  job_id text NOT NULL,
  time bigint NOT NULL,
  level text NOT NULL,
  step text NOT NULL,
  message text NOT NULL,
  data text,
  CONSTRAINT job_log_level_check CHECK ((level = ANY (ARRAY['info'::text, 'warn'::text, 'error'::text]))),
  CONSTRAINT job_log_job_id_fkey FOREIGN KEY (job_id) REFERENCES jobs(id) ON DELETE CASCADE,
  CONSTRAINT job_log_pkey PRIMARY KEY (id)
);

CREATE INDEX job_log_by_job ON job_log USING btree (job_id, id);

CREATE TABLE job_resources (
  job_id text NOT NULL,
  resource text NOT NULL,
  cap integer NOT NULL,
  CONSTRAINT job_resources_cap_check CHECK ((cap >= 1)),
  CONSTRAINT job_resources_job_id_fkey FOREIGN KEY (job_id) REFERENCES jobs(id) ON DELETE CASCADE,
  CONSTRAINT job_resources_pkey PRIMARY KEY (job_id, resource)
);

CREATE INDEX job_resources_by_resource ON job_resources USING btree (resource, job_id);

CREATE TABLE jobs (
  id text NOT NULL,
  kind text NOT NULL,
  status text NOT NULL,
  subject_key text,
  vm_id text,
  priority integer NOT NULL,
  run_at bigint NOT NULL,
  payload text NOT NULL,
  result text,
  attempt integer NOT NULL,
  max_attempts integer NOT NULL,
  lease_owner text,
  lease_expires_at bigint,
  cancel_requested integer NOT NULL,
  cancel_reason text,
  error_code text,
  error_message text,
  error_details text,
  created_at bigint NOT NULL,
  started_at bigint,
  finished_at bigint,
  created_by text NOT NULL,
  CONSTRAINT jobs_attempt_check CHECK ((attempt >= 0)),
  CONSTRAINT jobs_cancel_requested_check CHECK ((cancel_requested = ANY (ARRAY[0, 1]))),
  CONSTRAINT jobs_failed_says_why CHECK (((status <> 'failed'::text) OR (error_code IS NOT NULL))),
  CONSTRAINT jobs_final_is_finished CHECK (((status = ANY (ARRAY['queued'::text, 'preparing'::text, 'snapshotting'::text, 'copying'::text, 'committing'::text])) = (finished_at IS NULL))),
  CONSTRAINT jobs_kind_check CHECK ((kind = ANY (ARRAY['backup'::text, 'restore'::text]))),
  CONSTRAINT jobs_lease_ends CHECK (((lease_owner IS NULL) = (lease_expires_at IS NULL))),
  CONSTRAINT jobs_max_attempts_check CHECK ((max_attempts >= 1)),
  CONSTRAINT jobs_running_is_leased CHECK (((status = ANY (ARRAY['preparing'::text, 'snapshotting'::text, 'copying'::text, 'committing'::text])) = (lease_owner IS NOT NULL))),
  CONSTRAINT jobs_status_check CHECK ((status = ANY (ARRAY['queued'::text, 'preparing'::text, 'snapshotting'::text, 'copying'::text, 'committing'::text, 'completed'::text, 'failed'::text, 'cancelled'::text]))),
  CONSTRAINT jobs_vm_id_fkey FOREIGN KEY (vm_id) REFERENCES vms(id),
  CONSTRAINT jobs_pkey PRIMARY KEY (id)
);

CREATE INDEX jobs_by_vm ON jobs USING btree (vm_id, id);

CREATE UNIQUE INDEX jobs_one_open_per_subject ON jobs USING btree (kind, subject_key) WHERE ((subject_key IS NOT NULL) AND (status = ANY (ARRAY['queued'::text, 'preparing'::text, 'snapshotting'::text, 'copying'::text, 'committing'::text])));

CREATE INDEX jobs_open ON jobs USING btree (lease_expires_at) WHERE (status = ANY (ARRAY['queued'::text, 'preparing'::text, 'snapshotting'::text, 'copying'::text, 'committing'::text]));

CREATE INDEX jobs_queue ON jobs USING btree (priority DESC, run_at, id) WHERE (status = 'queued'::text);

CREATE TABLE repositories (
  id text NOT NULL,
  name text NOT NULL,
  kind text NOT NULL,
  root text NOT NULL,
  settings text NOT NULL,
  identity text NOT NULL,
  state text NOT NULL,
  problem text,
  capacity_bytes bigint,
  free_bytes bigint,
  checked_at bigint,
  created_at bigint NOT NULL,
  CONSTRAINT repositories_capacity_bytes_check CHECK ((capacity_bytes >= 0)),
  CONSTRAINT repositories_free_bytes_check CHECK ((free_bytes >= 0)),
  CONSTRAINT repositories_state_check CHECK ((state = ANY (ARRAY['online'::text, 'frozen'::text]))),
  CONSTRAINT repositories_pkey PRIMARY KEY (id),
  CONSTRAINT repositories_identity_key UNIQUE (identity),
  CONSTRAINT repositories_name_key UNIQUE (name)
);

CREATE TABLE restore_points (
  id text NOT NULL,
  vm_id text NOT NULL,
  repository_id text NOT NULL,
  job_id text NOT NULL,
  status text NOT NULL,
  requested_type text NOT NULL,
  consistency text,
  folder text,
  disk_count integer NOT NULL,
  virtual_bytes bigint NOT NULL,
  transferred_bytes bigint NOT NULL,
  stored_bytes bigint NOT NULL,
  snapshot_at bigint,
  started_at bigint NOT NULL,
  completed_at bigint,
  error_code text,
  error_message text,
  CONSTRAINT restore_points_completed_is_whole CHECK (((status <> 'completed'::text) OR ((folder IS NOT NULL) AND (consistency IS NOT NULL) AND (disk_count > 0)))),
  CONSTRAINT restore_points_consistency_check CHECK ((consistency = ANY (ARRAY['application'::text, 'crash'::text]))),
  CONSTRAINT restore_points_disk_count_check CHECK ((disk_count >= 0)),
  CONSTRAINT restore_points_failed_says_why CHECK (((status <> 'failed'::text) OR (error_code IS NOT NULL))),
  CONSTRAINT restore_points_final_is_finished CHECK (((status = ANY (ARRAY['queued'::text, 'preparing'::text, 'snapshotting'::text, 'copying'::text, 'committing'::text])) = (completed_at IS NULL))),
  CONSTRAINT restore_points_requested_type_check CHECK ((requested_type = ANY (ARRAY['auto'::text, 'full'::text, 'incremental'::text]))),
  CONSTRAINT restore_points_status_check CHECK ((status = ANY (ARRAY['queued'::text, 'preparing'::text, 'snapshotting'::text, 'copying'::text, 'committing'::text, 'completed'::text, 'failed'::text, 'cancelled'::text]))),
  CONSTRAINT restore_points_stored_bytes_check CHECK ((stored_bytes >= 0)),
  CONSTRAINT restore_points_transferred_bytes_check CHECK ((transferred_bytes >= 0)),
  CONSTRAINT restore_points_virtual_bytes_check CHECK ((virtual_bytes >= 0)),
  CONSTRAINT restore_points_job_id_fkey FOREIGN KEY (job_id) REFERENCES jobs(id),
  CONSTRAINT restore_points_repository_id_fkey FOREIGN KEY (repository_id) REFERENCES repositories(id),
  CONSTRAINT restore_points_vm_id_fkey FOREIGN KEY (vm_id) REFERENCES vms(id),
  CONSTRAINT restore_points_pkey PRIMARY KEY (id)
);

CREATE INDEX restore_points_by_job ON restore_points USING btree (job_id);

CREATE INDEX restore_points_by_repository ON restore_points USING btree (repository_id, id);

CREATE INDEX restore_points_by_vm ON restore_points USING btree (vm_id, repository_id, id);

CREATE UNIQUE INDEX restore_points_folder ON restore_points USING btree (repository_id, folder) WHERE (status = 'completed'::text);

CREATE UNIQUE INDEX restore_points_one_open_per_job ON restore_points USING btree (job_id) WHERE (status = ANY (ARRAY['queued'::text, 'preparing'::text, 'snapshotting'::text, 'copying'::text, 'committing'::text]));

CREATE TABLE schema_steps (
  version integer NOT NULL,
  name text NOT NULL,
  applied_at bigint NOT NULL,
  CONSTRAINT schema_steps_pkey PRIMARY KEY (version)
);

CREATE TABLE settings (
  key text NOT NULL,
  value text NOT NULL,
  CONSTRAINT settings_pkey PRIMARY KEY (key)
);

CREATE TABLE snapshots (
  id text NOT NULL,
  job_id text NOT NULL,
  source_id text NOT NULL,
  vm_moref text NOT NULL,
  name text NOT NULL,
  moref text,
  state text NOT NULL,
  created_at bigint NOT NULL,
  removed_at bigint,
  CONSTRAINT snapshots_removed_when CHECK (((state = 'removed'::text) = (removed_at IS NOT NULL))),
  CONSTRAINT snapshots_state_check CHECK ((state = ANY (ARRAY['intended'::text, 'live'::text, 'removed'::text]))),
  CONSTRAINT snapshots_job_id_fkey FOREIGN KEY (job_id) REFERENCES jobs(id),
  CONSTRAINT snapshots_source_id_fkey FOREIGN KEY (source_id) REFERENCES sources(id),
  CONSTRAINT snapshots_pkey PRIMARY KEY (id)
);

CREATE INDEX snapshots_by_job ON snapshots USING btree (job_id);

CREATE INDEX snapshots_not_removed ON snapshots USING btree (source_id, id) WHERE (state <> 'removed'::text);

CREATE TABLE sources (
  id text NOT NULL,
  name text NOT NULL,
  kind text NOT NULL,
  address text NOT NULL,
  username text NOT NULL,
  sealed_password bytea NOT NULL,
  thumbprint text NOT NULL,
  instance_uuid text,
  created_at bigint NOT NULL,
  checked_at bigint,
  CONSTRAINT sources_kind_check CHECK ((kind = ANY (ARRAY['vcenter'::text, 'esxi'::text]))),
  CONSTRAINT sources_pkey PRIMARY KEY (id),
  CONSTRAINT sources_name_key UNIQUE (name)
);

CREATE TABLE vm_disks (
  id text NOT NULL,
  vm_id text NOT NULL,
  disk_uuid text NOT NULL,
  key integer NOT NULL,
  label text NOT NULL,
  capacity_bytes bigint NOT NULL,
  present integer NOT NULL,
  disk_change_id text,
  CONSTRAINT vm_disks_capacity_bytes_check CHECK ((capacity_bytes >= 0)),
  CONSTRAINT vm_disks_present_check CHECK ((present = ANY (ARRAY[0, 1]))),
  CONSTRAINT vm_disks_vm_id_fkey FOREIGN KEY (vm_id) REFERENCES vms(id),
  CONSTRAINT vm_disks_pkey PRIMARY KEY (id),
  CONSTRAINT vm_disks_vm_id_disk_uuid_key UNIQUE (vm_id, disk_uuid)
);

CREATE TABLE vms (
  id text NOT NULL,
  source_id text NOT NULL,
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
  CONSTRAINT vms_source_id_fkey FOREIGN KEY (source_id) REFERENCES sources(id),
  CONSTRAINT vms_pkey PRIMARY KEY (id),
  CONSTRAINT vms_source_id_instance_uuid_key UNIQUE (source_id, instance_uuid)
);

CREATE INDEX vms_by_name ON vms USING btree (name, id);
