/**
 * The API's words, as the page uses them. Shapes follow the orchestrator's OpenAPI document; what a server does not
 * send (an older one, or one with less to say) is marked optional, and each view copes with its absence.
 */

export type SiteState = 'healthy' | 'progressing' | 'degraded' | 'failing' | 'stale' | 'offline' | 'pending';
export type Connection = 'online' | 'stale' | 'offline' | 'never';
export type Role = 'owner' | 'operator' | 'viewer';
export type Impact = 'none' | 'maintenance' | 'reboot';
export type Scope = { all: boolean } | { site: string } | { selector: string };
export type Labels = Record<string, string>;

export interface Page<T> {
  items: T[];
  next: string | null;
  total?: number | null;
}

export interface Tenant {
  id: string;
  name: string;
  displayName: string;
  createdAt?: string;
  generation?: number;
}

export interface Binding {
  id: string;
  user: string;
  role: Role;
  scope: Scope;
}

export interface User {
  id: string;
  username: string;
  displayName: string;
  email?: string | null;
  kind: 'local' | 'oidc';
  totp: boolean;
  disabled: boolean;
  platformAdmin?: boolean;
  lastLoginAt?: string | null;
  bindings: Binding[];
  generation?: number;
}

export interface Session {
  user: User;
  tenants: Tenant[];
  csrf: string;
  expiresAt: string;
}

export interface Token {
  id: string;
  name: string;
  role: Role;
  scope: Scope;
  expiresAt?: string | null;
  lastUsedAt?: string | null;
  createdBy?: string | null;
  secret?: string | null;
}

export interface AuditEntry {
  seq: number;
  time: string;
  actor: string;
  actorKind: 'user' | 'token' | 'host' | 'system';
  from?: string | null;
  action: string;
  object: { kind: string; id: string; name: string };
  before?: unknown;
  after?: unknown;
}

export interface Repository {
  id: string;
  name: string;
  url: string;
  branch: string;
  hosted: boolean;
  auth: 'none' | 'basic' | 'bearer' | 'ssh';
  hasCredentials: boolean;
  caPem?: string | null;
  knownHosts?: string | null;
  reach: { state: 'unknown' | 'ok' | 'failed'; message?: string | null; checkedAt?: string | null };
  head?: Commit | null;
  webhookUrl?: string | null;
  generation: number;
}

export interface Commit {
  commit: string;
  subject: string;
  author?: string;
  time?: string | null;
  sites?: number;
}

export interface Site {
  id: string;
  name: string;
  displayName: string;
  labels: Labels;
  location?: { lat?: number | null; lon?: number | null; address?: string | null; timezone?: string | null } | null;
  variables: Record<string, string>;
  secretVariables: string[];
  repository?: string | null;
  path?: string | null;
  branch?: string | null;
  policy?: string | null;
  hosts: { total: number; online: number };
  state: SiteState;
  reason: string;
  desired?: string | null;
  applied?: string | null;
  rollout?: string | null;
  updatedAt: string;
  generation: number;
}

/** One site as a point: id, name, latitude, longitude, state. */
export type GeoPoint = [string, string, number, number, SiteState];

export interface Host {
  id: string;
  name: string;
  site?: string | null;
  serial?: string | null;
  uuid?: string | null;
  macs: string[];
  labels: Labels;
  phase: 'expected' | 'pending' | 'enrolled' | 'revoked';
  connection: Connection;
  lastSeenAt?: string | null;
  connectedAt?: string | null;
  state: SiteState;
  reason: string;
  desired?: string | null;
  applied?: string | null;
  attempted?: string | null;
  quarantined?: { commit: string; reason?: string; at?: string | null }[];
  drift?: boolean;
  compliance?: 'compliant' | 'nonCompliant' | 'unknown';
  versions?: { selvedge?: string; kernel?: string; qemu?: string; ovs?: string; os?: string };
  certificate?: { serial: string; notAfter: string } | null;
  address?: string | null;
  fingerprint?: string | null;
  requestedAt?: string | null;
  statusGeneration?: number;
  generation: number;
  status?: HostStatus;
}

/** What a host reports, by section; NIC, vSwitch and VM sections carry their name in the key ("vm/default/pos"). */
export type HostStatus = Record<string, unknown> & {
  source?: {
    url?: string;
    branch?: string;
    path?: string;
    message?: string;
    target?: { mode: 'follow' | 'pinned'; commit?: string };
  };
  health?: { state: string; reason: string; ready: number; total: number; failing: FailingObject[] };
  compliance?: { state: string; drift: boolean; message?: string };
  inventory?: Inventory;
  usage?: { time: string; cpu?: number; memory?: number; disk?: number; rxBytes?: number; txBytes?: number };
};

export interface FailingObject {
  kind: string;
  namespace?: string;
  name: string;
  reason: string;
  message: string;
}

export interface Inventory {
  serial?: string;
  uuid?: string;
  vendor?: string;
  product?: string;
  firmware?: string;
  secureBoot?: boolean;
  tpm?: string | boolean;
  cpu?: { model?: string; cores?: number; threads?: number };
  memoryBytes?: number;
  disks?: { name: string; model?: string; sizeBytes?: number; rotational?: boolean }[];
  bootTime?: string;
}

export interface Nic {
  mac?: string;
  driver?: string;
  link: boolean | string;
  speedMbps?: number | null;
  mtu?: number;
  lldp?: { chassis?: string; port?: string; system?: string } | null;
}

export interface VSwitch {
  uplinks: { name: string; link?: boolean | string; active?: boolean }[];
  portGroups: { name: string; vlan?: number | null; ports: { kind: 'vm' | 'vmknic'; name: string }[] }[];
  mtu?: number;
}

export interface Vm {
  power: string;
  ready?: boolean;
  reason?: string;
  message?: string;
  ip?: string | null;
  class?: string;
  image?: string;
  cpus?: number;
  memoryBytes?: number;
  host?: string;
  /** Whether a repository has it. */
  owned?: boolean;
}

export interface SiteEvent {
  id?: string;
  time: string;
  /** Normal or Warning. */
  type: string;
  reason: string;
  message: string;
  host?: string;
  /** As KIND/NAMESPACE/NAME or KIND/NAME. */
  object?: string;
}

export interface ObjectChange {
  /** create, update or delete. */
  action: string;
  kind: string;
  namespace?: string | null;
  name: string;
  impact?: string;
  fields?: { path: string; before?: unknown; after?: unknown }[];
  /** Changed fields beyond those that are listed. */
  moreFields?: number;
}

export interface SiteDiff {
  wanted?: string | null;
  applied?: string | null;
  message?: string | null;
  hosts: { host: string; applied?: string | null; impact?: string; objects: ObjectChange[]; errors?: string[] }[];
}

export interface Wave {
  name: string;
  selector?: string;
  batch?: string;
  pace?: string;
  approval?: boolean;
}

export interface Policy {
  id: string;
  name: string;
  waves?: Wave[];
  window?: { days?: string[]; from: string; to: string } | null;
  gate?: { healthyFor?: string; failingFor?: string; timeout?: string; awayAfter?: string } | null;
  failureBudget?: string;
  generation?: number;
}

export type RolloutState =
  | 'pending'
  | 'awaitingApproval'
  | 'running'
  | 'halted'
  | 'reverting'
  | 'succeeded'
  | 'reverted'
  | 'superseded';

export interface RolloutWave {
  name: string;
  state: string;
  total: number;
  told: number;
  succeeded: number;
  failed: number;
  pending: number;
}

export interface Rollout {
  id: string;
  number: number;
  repository: string;
  commit: string;
  subject?: string | null;
  previous?: string | null;
  policy?: string | null;
  state: RolloutState;
  reason?: string | null;
  waves: RolloutWave[];
  createdAt: string;
  createdBy?: string | null;
  generation: number;
}

export interface RolloutSite {
  site: string;
  wave: string;
  state: string;
  reason?: string | null;
  at?: string | null;
}

export interface Alert {
  id: string;
  key: string;
  severity: 'info' | 'warning' | 'critical';
  site?: string | null;
  host?: string | null;
  title: string;
  message: string;
  count: number;
  firstAt: string;
  lastAt: string;
  resolvedAt?: string | null;
  acknowledgedBy?: string | null;
}

export interface Channel {
  id: string;
  name: string;
  kind: 'webhook' | 'email';
  url: string;
  to: string[];
  severity: Alert['severity'];
  disabled: boolean;
  /** Told once: webhooks are signed with it. */
  secret?: string | null;
  /** Why the last message did not arrive; empty if it did. */
  failure: string;
  failedAt?: string | null;
  toldAt?: string | null;
  generation: number;
}

export interface Plan {
  id: string;
  repository: string;
  from?: string | null;
  to?: string | null;
  state: 'running' | 'done' | 'failed';
  message?: string | null;
  totals?: {
    sites: number;
    changed: number;
    blocked?: number;
    impact: Record<Impact, number>;
    objects: { create: number; update: number; delete: number };
  };
  sites?: PlanSite[];
}

export interface PlanSite {
  site: string;
  /** none, maintenance or reboot. */
  impact: string;
  objects: ObjectChange[];
  errors: string[];
  notes?: string[];
  count?: { create: number; update: number; delete: number };
  /** Objects beyond those that are listed. */
  more?: number;
}

export interface GitCredential {
  id: string;
  username: string;
  /** Told once. */
  password?: string | null;
  url: string;
  write: boolean;
  expiresAt?: string | null;
  lastUsedAt?: string | null;
}

export interface ActivationKey {
  id: string;
  name: string;
  site?: string | null;
  uses: number;
  maxUses: number;
  expiresAt?: string | null;
  createdBy?: string | null;
  key?: string | null;
}

export interface Overview {
  sites: { total: number; byState: Partial<Record<SiteState, number>> };
  hosts: { total: number; byConnection: Partial<Record<Connection, number>> };
  rollouts: Rollout[];
  alerts: Alert[];
  attention: { kind: string; name: string; reason: string; since?: string | null }[];
  commits: { repository: string; commit: string; sites: number }[];
}

export interface Usage {
  metric: string;
  step: number;
  points: [number, number | null][];
}

export interface SearchHit {
  /** site, host, vm or commit. */
  kind: string;
  /** NAMESPACE/NAME of a VM, the commit's id. */
  id: string;
  /** A commit's first line. */
  name: string;
  site?: string;
  /** The host of a VM, the repository of a commit. */
  parent?: string;
  state?: string;
  reason?: string;
}

export type ChangeKind = 'site' | 'host' | 'rollout' | 'alert' | 'repository' | 'enrollment';

export interface Change {
  seq: number;
  kind: ChangeKind;
  op: 'upsert' | 'delete';
  object: { id: string } & Record<string, unknown>;
}

export interface Problem {
  type?: string;
  title: string;
  status: number;
  detail?: string;
  field?: string | null;
  next?: string | null;
}
