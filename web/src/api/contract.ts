/**
 * Holds the page's words (types.ts) against the server's own (schema.d.ts, made from its OpenAPI document by
 * `npm run types`): what the server may send must fit what the page takes. No code; the type checker is the test.
 */
import type { components } from './schema.d.ts';
import type * as page from './types.ts';

type Server = components['schemas'];
type Fits<Sent extends Taken, Taken> = Sent;

export type Contract = [
  Fits<Server['Tenant'], page.Tenant>,
  Fits<Server['Binding'], page.Binding>,
  Fits<Server['User'], page.User>,
  Fits<Server['Token'], page.Token>,
  Fits<Server['AuditEntry'], page.AuditEntry>,
  Fits<Server['Repository'], page.Repository>,
  Fits<Server['Site'], page.Site>,
  // The sections of a status are free for hosts to add to.
  Fits<Omit<Server['Host'], 'status'>, Omit<page.Host, 'status'>>,
  Fits<Omit<Server['PendingHost'], 'status'>, Omit<page.Host, 'status'>>,
  Fits<Server['HostEvent'], page.SiteEvent>,
  Fits<Server['Diff'], page.SiteDiff>,
  Fits<Server['Policy'], page.Policy>,
  Fits<Server['Rollout'], page.Rollout>,
  Fits<Server['RolloutSite'], page.RolloutSite>,
  Fits<Server['Alert'], page.Alert>,
  Fits<Server['Channel'], page.Channel>,
  Fits<Server['Plan'], page.Plan>,
  Fits<Server['ActivationKey'], page.ActivationKey>,
  Fits<Server['GitCredential'], page.GitCredential>,
  Fits<Server['Overview'], page.Overview>,
  // Pairs cannot be said in OpenAPI 3.0 words.
  Fits<Omit<Server['Usage'], 'points'>, Omit<page.Usage, 'points'>>,
  Fits<Server['Hit'], page.SearchHit>,
  Fits<Server['Problem'], page.Problem>,
];
