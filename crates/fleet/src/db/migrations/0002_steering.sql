-- Rollouts, plans, alerts, and what search looks at.

CREATE TABLE policy (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  name STRING NOT NULL,
  rules STRING NOT NULL,
  generation BIGINT NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX policy_name ON policy (tenant, name);

-- Rollouts of a branch under a policy follow each other; the newest two may be alive.
CREATE TABLE rollout (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  number BIGINT NOT NULL,
  repository STRING NOT NULL,
  branch STRING NOT NULL,
  policy STRING NOT NULL,
  policy_name STRING NOT NULL,
  commit_id STRING NOT NULL,
  subject STRING NOT NULL,
  previous STRING,
  phase STRING NOT NULL,
  reason STRING NOT NULL,
  -- it came through once: late sites catch up with it
  finished BIGINT NOT NULL,
  -- the state machine but its sites, JSON
  machine STRING NOT NULL,
  -- progress of each wave as the API shows it, JSON
  waves STRING NOT NULL,
  -- milliseconds that somebody has watched it
  steady BIGINT NOT NULL,
  -- when to look again at the latest: watched milliseconds, and the time of day
  due_steady BIGINT,
  due_wall BIGINT,
  created_at BIGINT NOT NULL,
  created_by STRING NOT NULL,
  generation BIGINT NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX rollout_number ON rollout (tenant, number);
CREATE INDEX rollout_line ON rollout (tenant, repository, branch, policy, number);
CREATE INDEX rollout_phase ON rollout (tenant, phase, number);

CREATE TABLE rollout_site (
  tenant STRING NOT NULL,
  rollout STRING NOT NULL,
  site STRING NOT NULL,
  wave BIGINT NOT NULL,
  turn STRING NOT NULL,
  away BIGINT NOT NULL,
  -- timers and the like, JSON
  progress STRING NOT NULL,
  reason STRING NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (tenant, rollout, site)
) CLUSTERED;

CREATE TABLE plan (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  repository STRING NOT NULL,
  from_commit STRING NOT NULL,
  to_commit STRING NOT NULL,
  state STRING NOT NULL,
  message STRING NOT NULL,
  totals STRING NOT NULL,
  sites STRING NOT NULL,
  created_at BIGINT NOT NULL,
  created_by STRING NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX plan_age ON plan (tenant, created_at);

CREATE TABLE alert (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  -- what makes two of them one; no two that are open have the same
  name STRING NOT NULL,
  open_name STRING,
  rule STRING NOT NULL,
  severity STRING NOT NULL,
  site STRING,
  host STRING,
  site_name STRING,
  host_name STRING,
  title STRING NOT NULL,
  message STRING NOT NULL,
  count BIGINT NOT NULL,
  first_at BIGINT NOT NULL,
  last_at BIGINT NOT NULL,
  -- since when its reason is gone; it is resolved when that has lasted
  quiet_at BIGINT,
  resolved_at BIGINT,
  acknowledged_by STRING,
  generation BIGINT NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX alert_open ON alert (tenant, open_name);
CREATE INDEX alert_age ON alert (tenant, last_at);

CREATE TABLE channel (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  name STRING NOT NULL,
  kind STRING NOT NULL,
  -- address of a webhook, or of people, JSON
  settings STRING NOT NULL,
  -- sealed
  secret BYTES,
  severity STRING NOT NULL,
  disabled BIGINT NOT NULL,
  failure STRING NOT NULL,
  failed_at BIGINT,
  told_at BIGINT,
  generation BIGINT NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX channel_name ON channel (tenant, name);

-- Messages on their way to a channel.
CREATE TABLE delivery (
  tenant STRING NOT NULL,
  id STRING NOT NULL,
  channel STRING NOT NULL,
  body STRING NOT NULL,
  tries BIGINT NOT NULL,
  next_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (tenant, id)
);
CREATE INDEX delivery_next ON delivery (next_at);
CREATE INDEX delivery_channel ON delivery (tenant, channel, created_at);

-- Virtual machines as hosts report them, for search.
CREATE TABLE vm (
  tenant STRING NOT NULL,
  host STRING NOT NULL,
  namespace STRING NOT NULL,
  name STRING NOT NULL,
  power STRING NOT NULL,
  ready BIGINT NOT NULL,
  reason STRING NOT NULL,
  ip STRING NOT NULL,
  class STRING NOT NULL,
  image STRING NOT NULL,
  words STRING NOT NULL,
  PRIMARY KEY (tenant, host, namespace, name)
) CLUSTERED;
CREATE INDEX vm_name ON vm (tenant, name, host);

-- Milliseconds that a host's clock was ahead of ours when it last reported.
ALTER TABLE host ADD COLUMN skew BIGINT NOT NULL DEFAULT 0;
