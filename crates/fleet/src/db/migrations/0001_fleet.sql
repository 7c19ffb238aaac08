-- Times are milliseconds since 1970, booleans 0 and 1, JSON is text. Every table but the first few has the
-- tenant first in its key, and every query names it.

CREATE TABLE meta (name STRING NOT NULL PRIMARY KEY, value STRING NOT NULL);

-- Numbers that only rise: change (change log), assignment (generations).
CREATE TABLE counter (name STRING NOT NULL PRIMARY KEY, value BIGINT NOT NULL);

CREATE TABLE node (
  id STRING NOT NULL PRIMARY KEY,
  url STRING NOT NULL,
  beat BIGINT NOT NULL,
  started_at BIGINT NOT NULL,
  renewed_at BIGINT NOT NULL
);

CREATE TABLE lease (
  name STRING NOT NULL PRIMARY KEY,
  holder STRING NOT NULL,
  term BIGINT NOT NULL,
  beat BIGINT NOT NULL
);

CREATE TABLE tenant (
  id STRING NOT NULL PRIMARY KEY,
  name STRING NOT NULL UNIQUE,
  display_name STRING NOT NULL,
  created_at BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  -- The authority: its certificates as PEM, its key sealed.
  ca_pem STRING NOT NULL,
  ca_key BYTES NOT NULL
);

-- The end of each tenant's audit chain.
CREATE TABLE audit_head (tenant STRING NOT NULL PRIMARY KEY, seq BIGINT NOT NULL, hash STRING NOT NULL);

CREATE TABLE audit (
  tenant STRING NOT NULL,
  seq BIGINT NOT NULL,
  time BIGINT NOT NULL,
  actor STRING NOT NULL,
  actor_kind STRING NOT NULL,
  source STRING NOT NULL,
  action STRING NOT NULL,
  object_kind STRING NOT NULL,
  object_id STRING NOT NULL,
  object_name STRING NOT NULL,
  before STRING,
  after STRING,
  hash STRING NOT NULL,
  PRIMARY KEY (tenant, seq)
) CLUSTERED;
CREATE INDEX audit_object ON audit (tenant, object_kind, object_id, seq);

CREATE TABLE person (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  username STRING NOT NULL,
  display_name STRING NOT NULL,
  email STRING NOT NULL,
  kind STRING NOT NULL,
  -- issuer and subject of an OpenID Connect account
  subject STRING,
  password STRING,
  -- sealed; totp is 0 off, 1 begun, 2 on; totp_step is the last time step that a code was accepted for
  totp_secret BYTES,
  totp BIGINT NOT NULL,
  totp_step BIGINT NOT NULL,
  disabled BIGINT NOT NULL,
  platform_admin BIGINT NOT NULL,
  last_login_at BIGINT,
  created_at BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX person_username ON person (tenant, username);
CREATE INDEX person_login ON person (username);
CREATE UNIQUE INDEX person_subject ON person (tenant, subject);

CREATE TABLE binding (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  person STRING NOT NULL,
  role STRING NOT NULL,
  scope STRING NOT NULL,
  generation BIGINT NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX binding_person ON binding (tenant, person);

CREATE TABLE token (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  name STRING NOT NULL,
  role STRING NOT NULL,
  scope STRING NOT NULL,
  hash BYTES NOT NULL,
  expires_at BIGINT,
  last_used_at BIGINT,
  created_by STRING NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX token_hash ON token (hash);
CREATE UNIQUE INDEX token_name ON token (tenant, name);

CREATE TABLE session (
  hash BYTES NOT NULL PRIMARY KEY,
  tenant STRING NOT NULL,
  person STRING NOT NULL,
  csrf STRING NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  used_at BIGINT NOT NULL,
  source STRING NOT NULL
);
CREATE INDEX session_person ON session (tenant, person);
CREATE INDEX session_end ON session (expires_at);

-- Failed sign-ins, by what was tried.
CREATE TABLE throttle (
  name STRING NOT NULL PRIMARY KEY,
  failures BIGINT NOT NULL,
  since BIGINT NOT NULL,
  until BIGINT NOT NULL
);

-- Answers to requests that carried an idempotency key.
CREATE TABLE idempotency (
  tenant STRING NOT NULL,
  name STRING NOT NULL,
  request BYTES NOT NULL,
  status BIGINT NOT NULL,
  answer BYTES NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (tenant, name)
);
CREATE INDEX idempotency_age ON idempotency (created_at);

CREATE TABLE repository (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  name STRING NOT NULL,
  url STRING NOT NULL,
  branch STRING NOT NULL,
  hosted BIGINT NOT NULL,
  auth STRING NOT NULL,
  -- sealed
  credentials BYTES,
  ca_pem STRING NOT NULL,
  known_hosts STRING NOT NULL,
  reach STRING NOT NULL,
  reach_message STRING NOT NULL,
  reach_at BIGINT,
  -- sealed: what webhooks must know
  webhook BYTES NOT NULL,
  generation BIGINT NOT NULL,
  -- rises when what hosts are told of it changes
  told BIGINT NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX repository_name ON repository (tenant, name);

-- The newest commit of each branch that somebody follows.
CREATE TABLE head (
  tenant STRING NOT NULL,
  repository STRING NOT NULL,
  branch STRING NOT NULL,
  id STRING NOT NULL,
  subject STRING NOT NULL,
  author STRING NOT NULL,
  time BIGINT,
  PRIMARY KEY (tenant, repository, branch)
) CLUSTERED;

CREATE TABLE site (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  name STRING NOT NULL,
  display_name STRING NOT NULL,
  labels STRING NOT NULL,
  lat DOUBLE PRECISION,
  lon DOUBLE PRECISION,
  address STRING NOT NULL,
  timezone STRING NOT NULL,
  variables STRING NOT NULL,
  secret_names STRING NOT NULL,
  -- sealed JSON
  secret_values BYTES,
  repository STRING,
  path STRING NOT NULL,
  branch STRING,
  policy STRING,
  rollout STRING,
  -- what it shall be at: none follows the branch
  target STRING,
  -- the generation at which the target was set
  targeted BIGINT NOT NULL,
  -- rises when what its hosts are told changes
  told BIGINT NOT NULL,
  hosts_total BIGINT NOT NULL,
  hosts_online BIGINT NOT NULL,
  state STRING NOT NULL,
  -- for sorting: worst first
  rank BIGINT NOT NULL,
  reason STRING NOT NULL,
  applied STRING,
  since BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  -- lower-case text that free-text search looks at
  words STRING NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX site_name ON site (tenant, name);
CREATE INDEX site_state ON site (tenant, state, name);
CREATE INDEX site_rank ON site (tenant, rank, id);
CREATE INDEX site_updated ON site (tenant, updated_at, id);
CREATE INDEX site_repository ON site (tenant, repository, applied);
CREATE INDEX site_rollout ON site (tenant, rollout);

CREATE TABLE site_label (
  tenant STRING NOT NULL,
  site STRING NOT NULL,
  label STRING NOT NULL,
  value STRING NOT NULL,
  PRIMARY KEY (tenant, site, label)
) CLUSTERED;
CREATE INDEX site_label_value ON site_label (tenant, label, value, site);

CREATE TABLE host (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  name STRING NOT NULL,
  site STRING,
  serial STRING NOT NULL,
  uuid STRING NOT NULL,
  macs STRING NOT NULL,
  labels STRING NOT NULL,
  phase STRING NOT NULL,
  connection STRING NOT NULL,
  last_seen_at BIGINT,
  connected_at BIGINT,
  state STRING NOT NULL,
  rank BIGINT NOT NULL,
  reason STRING NOT NULL,
  applied STRING,
  attempted STRING,
  quarantined STRING NOT NULL,
  drift BIGINT NOT NULL,
  compliance STRING NOT NULL,
  versions STRING NOT NULL,
  certificate STRING,
  not_after BIGINT,
  address STRING NOT NULL,
  -- the process that has its link
  node STRING,
  boot STRING NOT NULL,
  status_generation BIGINT NOT NULL,
  -- what it reported: health state and sentence, before connection counts
  health STRING NOT NULL,
  health_reason STRING NOT NULL,
  -- the assignment: when what it is told changed, what it said it has, why it could not
  told BIGINT NOT NULL,
  acknowledged BIGINT NOT NULL,
  refused STRING NOT NULL,
  -- it came with an acknowledgement newer than all we know of: what it was then
  ahead BIGINT NOT NULL,
  -- the target that it says it has
  target_mode STRING NOT NULL,
  target STRING,
  since BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  words STRING NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX host_name ON host (tenant, name);
CREATE INDEX host_site ON host (tenant, site);
CREATE INDEX host_state ON host (tenant, state, name);
CREATE INDEX host_connection ON host (tenant, connection, phase);
CREATE INDEX host_phase ON host (tenant, phase, name);
CREATE INDEX host_rank ON host (tenant, rank, id);
CREATE INDEX host_serial ON host (serial);
CREATE INDEX host_uuid ON host (uuid);
CREATE INDEX host_node ON host (node, connection);

CREATE TABLE host_mac (
  tenant STRING NOT NULL,
  mac STRING NOT NULL,
  host STRING NOT NULL,
  PRIMARY KEY (mac, tenant, host)
) CLUSTERED;
CREATE INDEX host_mac_host ON host_mac (tenant, host);

CREATE TABLE host_label (
  tenant STRING NOT NULL,
  host STRING NOT NULL,
  label STRING NOT NULL,
  value STRING NOT NULL,
  PRIMARY KEY (tenant, host, label)
) CLUSTERED;
CREATE INDEX host_label_value ON host_label (tenant, label, value, host);

CREATE TABLE section (
  tenant STRING NOT NULL,
  host STRING NOT NULL,
  name STRING NOT NULL,
  value STRING NOT NULL,
  PRIMARY KEY (tenant, host, name)
) CLUSTERED;

CREATE TABLE host_event (
  tenant STRING NOT NULL,
  host STRING NOT NULL,
  seq BIGINT NOT NULL,
  time BIGINT NOT NULL,
  kind STRING NOT NULL,
  reason STRING NOT NULL,
  message STRING NOT NULL,
  object STRING NOT NULL,
  PRIMARY KEY (tenant, host, seq)
) CLUSTERED;

CREATE TABLE usage (
  tenant STRING NOT NULL,
  host STRING NOT NULL,
  -- seconds that a point stands for
  span BIGINT NOT NULL,
  time BIGINT NOT NULL,
  cpu DOUBLE PRECISION NOT NULL,
  memory DOUBLE PRECISION NOT NULL,
  disk DOUBLE PRECISION NOT NULL,
  rx BIGINT NOT NULL,
  tx BIGINT NOT NULL,
  PRIMARY KEY (tenant, host, span, time)
) CLUSTERED;
CREATE INDEX usage_age ON usage (span, time);

CREATE TABLE certificate (
  tenant STRING NOT NULL,
  serial STRING NOT NULL,
  host STRING NOT NULL,
  -- SHA-256 of the public key
  key_hash STRING NOT NULL,
  issued_at BIGINT NOT NULL,
  not_after BIGINT NOT NULL,
  revoked_at BIGINT,
  PRIMARY KEY (tenant, serial)
);
CREATE INDEX certificate_host ON certificate (tenant, host, issued_at);

CREATE TABLE activation_key (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  name STRING NOT NULL,
  site STRING,
  hash BYTES NOT NULL,
  uses BIGINT NOT NULL,
  max_uses BIGINT NOT NULL,
  expires_at BIGINT,
  created_by STRING NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX activation_key_hash ON activation_key (hash);

-- Requests to enrol that wait, or whose answer waits to be fetched.
CREATE TABLE enrolment (
  id STRING NOT NULL PRIMARY KEY,
  tenant STRING NOT NULL,
  host STRING NOT NULL,
  csr STRING NOT NULL,
  key_hash STRING NOT NULL,
  source STRING NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX enrolment_key ON enrolment (tenant, key_hash);
CREATE INDEX enrolment_host ON enrolment (tenant, host);
CREATE INDEX enrolment_any ON enrolment (key_hash);

CREATE TABLE change (
  seq BIGINT NOT NULL PRIMARY KEY,
  tenant STRING NOT NULL,
  kind STRING NOT NULL,
  op STRING NOT NULL,
  id STRING NOT NULL,
  name STRING NOT NULL,
  -- the site it belongs to, for callers who see only some
  site STRING,
  time BIGINT NOT NULL
);

INSERT INTO counter (name, value) VALUES ('change', 0);
