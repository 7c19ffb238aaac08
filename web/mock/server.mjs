/**
 * The built page over an invented API, for the page's own tests and pictures: `node mock/server.mjs [PORT]`. It sends the strict
 * content security policy that the orchestrator sends, so that what would break it breaks here. It is no model of the
 * orchestrator: what it accepts it mostly forgets. User ada, password "correct horse battery", one-time code 123456.
 */
import { createReadStream, existsSync, statSync } from 'node:fs';
import http from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';
import { C0, C1, CX, fleet, NOW } from './data.mjs';
import { serveRfb } from './rfb.mjs';

const PORT = Number(process.argv[2] ?? 8480);
const DIST = fileURLToPath(new URL('../dist/', import.meta.url));
export const CSP = "default-src 'self'; img-src 'self' data:; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.json': 'application/json', '.md': 'text/plain; charset=utf-8' };

const tenants = [
  { id: 't1', name: 'acme', displayName: 'Acme Retail', createdAt: new Date(NOW).toISOString(), generation: 1 },
  { id: 't2', name: 'fleet', displayName: 'Fifty Thousand Sites', createdAt: new Date(NOW).toISOString(), generation: 1 },
  { id: 't3', name: 'new', displayName: 'Nothing Yet', createdAt: new Date(NOW).toISOString(), generation: 1 },
];
const made = new Map();
function data(name) {
  const size = { acme: 36, fleet: Number(process.env.SITES ?? 50_000), new: 0 }[name];
  if (size === undefined) return undefined;
  if (!made.has(name)) made.set(name, fleet(name, size));
  return made.get(name);
}

const streams = new Map();
let seq = 100;
function tell(tenant, kind, object, op = 'upsert') {
  seq += 1;
  for (const response of streams.get(tenant) ?? []) response.write(`event: change\nid: ${seq}\ndata: ${JSON.stringify({ seq, kind, op, object })}\n\n`);
}

function send(response, status, body, headers = {}) {
  const text = body === undefined ? '' : JSON.stringify(body);
  response.writeHead(status, { 'Content-Type': status >= 400 ? 'application/problem+json' : 'application/json', 'Cache-Control': 'no-store', ...headers });
  response.end(text);
}
const problem = (response, status, title, more = {}) => send(response, status, { type: 'about:blank', title, status, ...more });
const missing = (response) => problem(response, 404, 'Not found', { detail: 'There is no such object, or it is not yours to see.', next: 'Check the name, or ask an owner for a role.' });

function page(items, query) {
  const q = (query.get('q') ?? '').toLowerCase();
  const state = query.get('state');
  const selector = query.get('selector');
  let found = items;
  const field = /^(commit|connection|state):(.+)$/.exec(q);
  if (field) found = found.filter((one) => String(one[{ commit: 'applied', connection: 'connection', state: 'state' }[field[1]]] ?? '').startsWith(field[2]));
  else if (q) found = found.filter((one) => JSON.stringify([one.name, one.displayName, one.reason, one.site, one.actor, one.action, one.title, one.labels]).toLowerCase().includes(q));
  if (query.get('site')) found = found.filter((one) => one.site === query.get('site'));
  if (state === 'open') found = found.filter((one) => !one.resolvedAt);
  else if (state === 'resolved') found = found.filter((one) => one.resolvedAt);
  else if (state) found = found.filter((one) => one.state === state);
  for (const term of (selector ?? '').split(',').filter(Boolean)) {
    const not = term.includes('!=');
    const [name, value] = term.split(not ? '!=' : '=');
    found = found.filter((one) => (one.labels?.[name] === value) !== not);
  }
  const sort = query.get('sort');
  if (sort) {
    const key = sort.replace('-', '');
    found = found.toSorted((a, b) => String(a[key]).localeCompare(String(b[key])) * (sort.startsWith('-') ? -1 : 1));
  }
  const limit = Math.min(1000, Number(query.get('limit') ?? 100));
  const from = Number(query.get('cursor') ?? 0);
  return { items: found.slice(from, from + limit), next: from + limit < found.length ? String(from + limit) : null, total: found.length };
}

function overview(all) {
  const tally = (items, key) => items.reduce((sums, one) => ({ ...sums, [one[key]]: (sums[one[key]] ?? 0) + 1 }), Object.create(null));
  const byState = {};
  for (const one of all.sites) byState[one.state] = (byState[one.state] ?? 0) + 1;
  const byConnection = {};
  for (const one of all.hosts) byConnection[one.connection] = (byConnection[one.connection] ?? 0) + 1;
  void tally;
  const attention = all.sites.filter((one) => ['failing', 'degraded', 'offline'].includes(one.state)).slice(0, 47).map((one) => ({ kind: 'site', name: one.name, reason: one.reason, since: one.updatedAt }));
  if (all.pending.length) attention.unshift({ kind: 'enrollment', name: 'localhost-1', reason: 'A host waits to be approved.', since: all.pending[0].requestedAt });
  if (all.rollouts.length) attention.unshift({ kind: 'rollout', name: all.rollouts[1].id, reason: 'labs #3 waits for approval of wave canary.', since: all.rollouts[1].createdAt });
  return {
    sites: { total: all.sites.length, byState }, hosts: { total: all.hosts.length, byConnection },
    rollouts: all.rollouts.filter((one) => one.state !== 'succeeded'), alerts: all.alerts.filter((one) => !one.resolvedAt), attention,
    commits: all.sites.length ? [{ repository: 'stores', commit: C1, sites: all.sites.filter((one) => one.applied === C1).length }, { repository: 'stores', commit: C0, sites: all.sites.filter((one) => one.applied === C0).length }] : [],
  };
}

const byName = (items, name) => items.find((one) => one.name === name || one.id === name || one.username === name);
const sessionOf = (tenantList = tenants) => ({ user: { ...data('acme').users[0], platformAdmin: false }, tenants: tenantList, csrf: 'mock-csrf', expiresAt: new Date(NOW + 8 * 3_600_000).toISOString() });

function read(all, parts, query, response) {
  const [room, name, sub] = parts;
  switch (room) {
    case 'overview': return send(response, 200, overview(all));
    case 'search': {
      const q = (query.get('q') ?? '').toLowerCase();
      const items = [
        ...all.sites.filter((one) => one.name.includes(q)).slice(0, 8).map((one) => ({ kind: 'site', id: one.id, name: one.name, site: one.name, parent: '', state: one.state, reason: one.reason })),
        ...all.hosts.filter((one) => one.name.includes(q)).slice(0, 5).map((one) => ({ kind: 'host', id: one.id, name: one.name, site: one.site, parent: '', state: one.state, reason: one.reason })),
        ...(all.hosts.length && 'store/pos-1'.includes(q) ? [{ kind: 'vm', id: 'store/pos-1', name: 'pos-1', site: all.hosts[0].site, parent: all.hosts[0].name, state: 'on', reason: '' }] : []),
      ];
      return send(response, 200, { items, more: false });
    }
    case 'sites': {
      if (!name) return send(response, 200, page(all.sites, query));
      if (name === 'geo') {
        const whole = new URLSearchParams(query);
        whole.set('limit', '1000');
        const found = [];
        let cursor = null;
        do {
          if (cursor) whole.set('cursor', cursor);
          const one = page(all.sites, whole);
          found.push(...one.items);
          cursor = one.next;
        } while (cursor);
        return send(response, 200, found.map((one) => [one.id, one.name, one.location.lat, one.location.lon, one.state]));
      }
      const one = byName(all.sites, name);
      if (!one) return missing(response);
      if (sub === 'diff') return send(response, 200, { wanted: one.desired, applied: one.applied, hosts: one.state === 'healthy' ? [] : [{ host: `${one.name}-a`, objects: all.objects('maintenance') }] });
      if (sub === 'events') return send(response, 200, page(events(all, one.name), query));
      return send(response, 200, one, { ETag: `"${one.generation}"` });
    }
    case 'hosts': {
      if (!name) return send(response, 200, page(all.hosts, query));
      const one = byName(all.hosts, name);
      if (!one) return missing(response);
      if (sub === 'events') return send(response, 200, page(events(all, one.site), query));
      if (sub === 'usage') return send(response, 200, usage(query));
      if (sub === 'logs') {
        response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8' });
        response.write(Array.from({ length: 120 }, (_, n) => `2026-11-20T16:${String(n % 60).padStart(2, '0')}:07Z ${query.get('unit')}[412]: ${n % 17 === 3 ? 'ERROR link lost, trying again in 4 s' : `reconciled host in ${n % 7 + 3} ms`}\n`).join(''));
        if (query.get('follow') !== 'true') response.end();
        return undefined;
      }
      return send(response, 200, one.phase === 'enrolled' ? { ...one, status: all.status(one) } : one, { ETag: `"${one.generation}"` });
    }
    case 'repositories': {
      if (!name) return send(response, 200, page(all.repositories, query));
      const one = byName(all.repositories, name);
      if (!one) return missing(response);
      if (sub === 'commits') {
        return send(response, 200, page(one.head ? [{ ...one.head, sites: 30 }, { commit: C0, subject: 'Raise the MTU to 9000', author: 'Grace Hopper', time: all.iso(9000), sites: 3 }, { commit: '2ab97c60d1f34be8a05590c3d8e1f7264c0b9a13', subject: 'Add the recorder at every site that has cameras, and the port group that it needs to reach them', author: 'Ada Lovelace', time: all.iso(12_000), sites: 0 }] : [], new URLSearchParams()));
      }
      if (sub === 'credentials') return send(response, 200, { items: [{ id: 'g1', username: 'ada', url: one.url, write: true, expiresAt: null, lastUsedAt: all.iso(60) }], next: null, total: 1 });
      return send(response, 200, one);
    }
    case 'rollouts': {
      if (!name) return send(response, 200, page(all.rollouts, query));
      const one = byName(all.rollouts, name);
      if (!one) return missing(response);
      if (sub === 'sites') {
        const cut = Math.round(all.sites.length * 0.2);
        return send(response, 200, page(all.sites.map((site, n) => ({ name: site.name, site: site.name, wave: n < cut / 4 ? 'canary' : n < cut * 2 ? 'large' : 'rest', state: site.state === 'failing' ? 'failed' : site.state === 'offline' ? 'pending' : n < cut ? 'succeeded' : n < cut * 1.5 ? 'told' : 'waiting', reason: site.reason, at: site.updatedAt })).map((row) => row), query));
      }
      return send(response, 200, one);
    }
    case 'plans': {
      if (!name) return send(response, 200, page(all.plans.map(({ sites, ...rest }) => (void sites, rest)), query));
      const one = byName(all.plans, name);
      return one ? send(response, 200, one) : missing(response);
    }
    case 'alerts': case 'policies': case 'users': case 'tokens': case 'channels': case 'audit':
      if (room === 'audit' && name === 'export') {
        response.writeHead(200, { 'Content-Type': 'application/x-ndjson' });
        return response.end(all.audit.map((one) => JSON.stringify(one)).join('\n'));
      }
      return send(response, 200, page(all[room], query));
    case 'enrollment':
      return send(response, 200, page({ pending: all.pending, expected: all.hosts.filter((one) => one.phase === 'expected'), keys: all.keys }[name] ?? [], query));
    default: return missing(response);
  }
}

function events(all, site) {
  return Array.from({ length: 24 }, (_, n) => ({
    time: all.iso(n * 7 + 1), type: n % 6 === 2 ? 'Warning' : 'Normal', host: `${site}-a`,
    reason: n % 6 === 2 ? 'CheckpointRestored' : ['Reconciled', 'ImagePulled', 'PoweredOn'][n % 3],
    message: n % 6 === 2 ? 'The uplinks lost their link; the network was put back as it was.' : 'Applied revision main@sha1:5e1c9b02.',
    object: n % 3 ? 'VirtualMachine/store/pos-1' : 'HostConfiguration/network',
  }));
}
function usage(query) {
  const metric = query.get('metric');
  const from = Math.floor(Date.parse(query.get('from') ?? '') / 1000 / 300) * 300;
  const until = Math.floor(NOW / 1000);
  const step = Math.max(300, Math.ceil((until - from) / 600 / 300) * 300);
  const points = [];
  for (let at = from; at <= until; at += step) {
    const wave = 0.5 + 0.3 * Math.sin(at / 9000 + metric.length) + 0.1 * Math.sin(at / 700);
    const gap = at > until - 9000 && at < until - 7200;
    points.push([at, gap ? null : ['rx', 'tx'].includes(metric) ? wave * 9e6 : metric === 'disk' ? 0.9 + wave / 30 : wave]);
  }
  return { metric, step, points };
}

function write(all, tenant, method, parts, body, response) {
  const [room, name, sub] = parts;
  if (room === 'alerts' && sub === 'acknowledge') {
    const one = byName(all.alerts, name);
    one.acknowledgedBy = 'ada';
    tell(tenant, 'alert', one);
    return send(response, 200, one);
  }
  if (room === 'rollouts' && sub) {
    const one = byName(all.rollouts, name);
    one.state = { approve: 'running', halt: 'halted', resume: 'running', revert: 'reverting' }[sub];
    one.reason = sub === 'halt' ? 'Halted by ada.' : '';
    tell(tenant, 'rollout', one);
    return send(response, 200, one);
  }
  if (room === 'enrollment' && name === 'keys' && method === 'POST') return send(response, 201, { id: 'k-new', uses: 0, createdBy: 'ada', ...body, key: 'slvk-5Jt0eY3mBqYh1nUo8sXgZr4d' });
  if (room === 'tokens' && method === 'POST') return send(response, 201, { id: 'tok-new', ...body, secret: 'slv_pD0a3Zr1s9VbqkQWJ2u8fYh6xTnE5cLmGi4oRd7wKjA' });
  if (room === 'repositories' && sub === 'credentials' && method === 'POST') return send(response, 201, { id: 'g2', username: body.name, password: 'slg_3kQ0', url: 'https://orchestrator.example.com/git/acme/labs.git', write: body.write, expiresAt: null });
  if (room === 'plans' && method === 'POST') return send(response, 202, all.plans[0]);
  if (room === 'hosts' && parts[5] === 'power') return problem(response, 409, 'Git owns this VM', { detail: 'pos-1 is owned by stores, sites/hamburg-01/vm.yaml.', next: 'Change its spec.powerState in the repository.' });
  if (room === 'sites' && method === 'POST' && !name) {
    if (byName(all.sites, body.name)) return problem(response, 409, 'This name is taken', { detail: `A site ${body.name} exists already.`, field: 'name', next: 'Choose another name.' });
    const one = { ...all.sites[0], ...body, id: `s-${Date.now()}`, state: 'pending', reason: 'No host of this site was ever seen.', hosts: { total: 0, online: 0 }, applied: null, rollout: null, secretVariables: [], generation: 1 };
    all.sites.unshift(one);
    tell(tenant, 'site', one);
    return send(response, 201, one);
  }
  if (room === 'sites' && method === 'DELETE') {
    const at = all.sites.findIndex((one) => one.name === name);
    const [one] = all.sites.splice(at, 1);
    tell(tenant, 'site', { id: one.id, name }, 'delete');
    return send(response, 204);
  }
  // For tests: changes a site as its host would, so that the stream tells of it.
  if (room === 'mock' && name === 'site') {
    const one = byName(all.sites, body.name);
    Object.assign(one, body);
    tell(tenant, 'site', one);
    return send(response, 200, one);
  }
  if (room === 'mock' && name === 'drop') {
    for (const open of streams.get(tenant) ?? []) open.destroy();
    return send(response, 204);
  }
  return send(response, method === 'DELETE' ? 204 : 200, method === 'DELETE' ? undefined : { id: 'ok', ...body });
}

function apiCall(request, response, path, query, body) {
  const parts = path.split('/').filter(Boolean).map(decodeURIComponent);
  const signedIn = /selvedge_session=mock/.test(request.headers.cookie ?? '');
  if (parts[0] === 'version') return send(response, 200, { version: '0.3.0', oidc: { name: 'Example ID' } });
  if (parts[0] === 'session' && request.method === 'POST') {
    if (body.username !== 'ada' || body.password !== 'correct horse battery') return problem(response, 401, 'Wrong user or password', { detail: 'The user, the password or both are wrong.', next: 'Try again; after five wrong ones you wait a minute.' });
    if (!body.totp) return problem(response, 401, 'A one-time code is needed', { field: 'totp', detail: 'This account has a second factor.', next: 'Type the code that your authenticator shows.' });
    if (body.totp !== '123456') return problem(response, 401, 'Wrong one-time code', { field: 'totp', detail: 'The code does not match.', next: 'Wait for the next one; check that the clock of your authenticator is right.' });
    return send(response, 200, sessionOf(), { 'Set-Cookie': 'selvedge_session=mock; HttpOnly; SameSite=Strict; Path=/' });
  }
  if (!signedIn) return problem(response, 401, 'Not signed in', { next: 'Sign in.' });
  if (request.method !== 'GET' && request.headers['x-csrf-token'] !== 'mock-csrf') return problem(response, 403, 'The request lacks its token', { detail: 'X-CSRF-Token is missing or wrong.' });
  if (parts[0] === 'session') return send(response, 204, undefined, { 'Set-Cookie': 'selvedge_session=; Path=/; Max-Age=0' });
  if (parts[0] === 'me' && !parts[1]) return send(response, 200, sessionOf());
  if (parts[0] === 'me' && parts[1] === 'totp' && request.method === 'POST') return send(response, 200, { secret: 'JBSWY3DPEHPK3PXP', url: 'otpauth://totp/Selvedge:ada?secret=JBSWY3DPEHPK3PXP&issuer=Selvedge' });
  if (parts[0] === 'me') return send(response, 200, sessionOf());
  if (parts[0] !== 'tenants') return missing(response);
  if (!parts[1]) return send(response, 200, { items: tenants, next: null, total: tenants.length });
  const all = data(parts[1]);
  if (!all) return missing(response);
  const rest = parts.slice(2);
  if (rest[0] === 'stream') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
    response.write(': hello\n\n');
    const open = streams.get(parts[1]) ?? new Set();
    streams.set(parts[1], open.add(response));
    response.on('close', () => open.delete(response));
    return undefined;
  }
  return request.method === 'GET' ? read(all, rest, query, response) : write(all, parts[1], request.method, rest, body, response);
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://mock');
  response.setHeader('Content-Security-Policy', CSP);
  if (url.pathname.startsWith('/api/v1/')) {
    let text = '';
    request.on('data', (part) => (text += part));
    request.on('end', () => {
      try {
        apiCall(request, response, url.pathname.slice('/api/v1'.length), url.searchParams, text ? JSON.parse(text) : {});
      } catch (error) {
        console.error(error);
        problem(response, 500, 'The mock is broken', { detail: String(error) });
      }
    });
    return;
  }
  let file = join(DIST, normalize(url.pathname));
  if (!existsSync(file) || statSync(file).isDirectory()) file = join(DIST, 'index.html');
  response.writeHead(200, { 'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream' });
  createReadStream(file).pipe(response);
});

const sockets = new WebSocketServer({ noServer: true });
server.on('upgrade', (request, socket, head) => {
  sockets.handleUpgrade(request, socket, head, (open) => {
    if (request.url.endsWith('/vnc')) return serveRfb(open);
    open.send(Buffer.from('\r\nWelcome to \x1b[1;32mpos-1\x1b[0m\r\n\r\nLinux 6.12.9 on ttyS0\r\n\r\npos-1 login: '));
    open.on('message', (bytes) => open.send(bytes.toString() === '\r' ? Buffer.from('\r\nLogin incorrect\r\npos-1 login: ') : bytes));
    return undefined;
  });
});
server.listen(PORT, '127.0.0.1', () => console.log(`mock: http://127.0.0.1:${PORT}/`));
