/**
 * Invented fleets for the page's own tests, after the API's contract: `acme` (some dozens of sites with every state),
 * `fleet` (50,000 sites) and `new` (nothing at all). Seeded: two runs show the same.
 */
export const NOW = Date.now();
const CITIES = [
  ['hamburg', 53.55, 10.0, 'eu', 'Europe/Berlin'], ['berlin', 52.52, 13.4, 'eu', 'Europe/Berlin'], ['munich', 48.14, 11.58, 'eu', 'Europe/Berlin'],
  ['paris', 48.86, 2.35, 'eu', 'Europe/Paris'], ['lyon', 45.76, 4.84, 'eu', 'Europe/Paris'], ['madrid', 40.42, -3.7, 'eu', 'Europe/Madrid'],
  ['porto', 41.15, -8.61, 'eu', 'Europe/Lisbon'], ['milan', 45.46, 9.19, 'eu', 'Europe/Rome'], ['warsaw', 52.23, 21.01, 'eu', 'Europe/Warsaw'],
  ['oslo', 59.91, 10.75, 'eu', 'Europe/Oslo'], ['london', 51.5, -0.13, 'eu', 'Europe/London'], ['dublin', 53.35, -6.26, 'eu', 'Europe/Dublin'],
  ['chicago', 41.88, -87.63, 'us', 'America/Chicago'], ['denver', 39.74, -104.99, 'us', 'America/Denver'], ['atlanta', 33.75, -84.39, 'us', 'America/New_York'],
  ['boston', 42.36, -71.06, 'us', 'America/New_York'], ['seattle', 47.6, -122.33, 'us', 'America/Los_Angeles'], ['austin', 30.27, -97.74, 'us', 'America/Chicago'],
  ['toronto', 43.65, -79.38, 'us', 'America/Toronto'], ['mexico', 19.43, -99.13, 'la', 'America/Mexico_City'], ['bogota', 4.71, -74.07, 'la', 'America/Bogota'],
  ['santiago', -33.45, -70.67, 'la', 'America/Santiago'], ['recife', -8.05, -34.9, 'la', 'America/Recife'], ['lagos', 6.52, 3.38, 'af', 'Africa/Lagos'],
  ['nairobi', -1.29, 36.82, 'af', 'Africa/Nairobi'], ['cape-town', -33.92, 18.42, 'af', 'Africa/Johannesburg'], ['dubai', 25.2, 55.27, 'as', 'Asia/Dubai'],
  ['mumbai', 19.08, 72.88, 'as', 'Asia/Kolkata'], ['delhi', 28.61, 77.21, 'as', 'Asia/Kolkata'], ['bangkok', 13.76, 100.5, 'as', 'Asia/Bangkok'],
  ['hanoi', 21.03, 105.85, 'as', 'Asia/Bangkok'], ['osaka', 34.69, 135.5, 'as', 'Asia/Tokyo'], ['seoul', 37.57, 126.98, 'as', 'Asia/Seoul'],
  ['perth', -31.95, 115.86, 'as', 'Australia/Perth'], ['sydney', -33.87, 151.21, 'as', 'Australia/Sydney'], ['auckland', -36.85, 174.76, 'as', 'Pacific/Auckland'],
];
const REASONS = {
  healthy: '',
  progressing: 'Applying 5e1c9b02: 3 of 14 objects are not ready yet.',
  degraded: 'VM pos-2 restarts: its guest exits with status 1.',
  failing: 'Commit 5e1c9b02 was quarantined: the vSwitch lost its uplink, the checkpoint put back 9c4d11aa.',
  stale: 'No heartbeat for 75 s.',
  offline: 'No heartbeat since 03:12 UTC; the host goes on at its last approved commit.',
  pending: 'No host of this site was ever seen.',
};
export const C1 = '5e1c9b02a7d34f3b9f10c2ad85e6071b44d2f9e8';
export const C0 = '9c4d11aa03be5b2f77c15bb0a4f6a98d0c3e2f15';
export const CX = '17b0e6d9c8a24e51b3f9026cd17ae405f3c88b20';

export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
const iso = (minutesAgo) => new Date(NOW - minutesAgo * 60_000).toISOString();
const id = (kind, n) => `0198${kind}-0000-7000-8000-${String(n).padStart(12, '0')}`;

function site(n, next, many) {
  const [city, lat, lon, region, timezone] = CITIES[Math.floor(next() * CITIES.length)];
  const dice = next();
  const state = n < 7 && !many
    ? ['failing', 'degraded', 'progressing', 'stale', 'offline', 'pending', 'healthy'][n]
    : dice < 0.9 ? 'healthy' : dice < 0.93 ? 'progressing' : dice < 0.95 ? 'degraded' : dice < 0.965 ? 'offline' : dice < 0.98 ? 'stale' : dice < 0.99 ? 'failing' : 'pending';
  const name = `${city}-${String(n + 1).padStart(many ? 5 : 2, '0')}`;
  const spread = many ? 7 : 1.2;
  const tier = next() < 0.05 ? 'canary' : next() < 0.3 ? 'large' : 'small';
  return {
    id: id('0001', n), name, displayName: many ? '' : `${city[0].toUpperCase()}${city.slice(1)} ${n + 1}`,
    labels: { region, tier, ...(next() < 0.1 ? { lab: 'true' } : {}) },
    location: { lat: lat + (next() - 0.5) * spread * 0.7, lon: lon + (next() - 0.5) * spread, address: `${Math.ceil(next() * 90)} Market Street, ${city}`, timezone },
    variables: { SITE_NUMBER: String(n + 1), DNS: '10.0.0.53' }, secretVariables: ['WIFI_KEY'],
    repository: 'stores', path: `sites/${name}`, branch: null, policy: 'careful',
    hosts: { total: 1, online: ['offline', 'pending'].includes(state) ? 0 : 1 },
    state, reason: REASONS[state], desired: C1, applied: ['failing', 'offline', 'progressing'].includes(state) ? C0 : state === 'pending' ? null : C1,
    rollout: n === 2 && !many ? id('0004', 1) : null, updatedAt: iso(next() * 4000), generation: 3,
  };
}

function host(one, n, next) {
  const connection = one.state === 'offline' ? 'offline' : one.state === 'stale' ? 'stale' : one.state === 'pending' ? 'never' : 'online';
  const serial = `SN${String(480000 + n)}`;
  return {
    id: id('0002', n), name: `${one.name}-a`, site: one.name, serial, uuid: id('0009', n), macs: ['52:54:00:12:34:56', '52:54:00:12:34:57'],
    labels: { rack: 'a' }, phase: one.state === 'pending' ? 'expected' : 'enrolled', connection,
    lastSeenAt: connection === 'never' ? null : connection === 'online' ? iso(next() * 0.5) : iso(95), connectedAt: iso(4000),
    state: one.state, reason: one.reason, desired: one.desired, applied: one.applied, attempted: one.state === 'failing' ? C1 : one.applied,
    quarantined: one.state === 'failing' ? [{ commit: C1, reason: 'The uplinks eno1 and eno2 lost their link within the checkpoint.', at: iso(40) }] : [],
    drift: one.state === 'degraded', compliance: one.state === 'degraded' ? 'nonCompliant' : 'compliant',
    versions: { selvedge: '0.3.0', kernel: '6.12.9', qemu: '9.2.0', ovs: '3.5.0', os: 'Selvedge OS 0.3' },
    certificate: { serial: '4f2a', notAfter: new Date(NOW + 21 * 86_400_000).toISOString() }, address: '203.0.113.17', statusGeneration: 41, generation: 5,
  };
}

function statusOf(one) {
  const bad = one.state === 'failing';
  return {
    source: { url: 'https://git.example.com/stores.git', branch: 'main', path: `sites/${one.site}`, fetched: one.desired, applied: one.applied, target: { mode: 'pinned', commit: one.desired } },
    health: { state: one.state, reason: one.reason, ready: one.state === 'degraded' ? 13 : 14, total: 14, failing: one.state === 'degraded' ? [{ kind: 'VirtualMachine', namespace: 'store', name: 'pos-2', reason: 'GuestExits', message: 'The guest exited with status 1 four times in ten minutes.' }] : [] },
    compliance: { state: one.compliance, drift: one.drift, message: '' },
    versions: one.versions,
    inventory: {
      serial: one.serial, uuid: one.uuid, vendor: 'Supermicro', product: 'SYS-E300-12D-8CN6P', firmware: 'UEFI 1.4 (2026-03-02)', secureBoot: true, tpm: 'TPM 2.0 (Infineon SLB 9670)',
      cpu: { model: 'Intel Xeon D-1736 CPU @ 2.30GHz', cores: 8, threads: 16 }, memoryBytes: 68_719_476_736,
      disks: [{ name: 'nvme0n1', model: 'Samsung PM9A3', sizeBytes: 1_920_383_410_176, rotational: false }, { name: 'sda', model: 'ATA boot disk', sizeBytes: 64_023_257_088, rotational: false }], bootTime: iso(30_000),
    },
    'nic/eno1': { mac: '52:54:00:12:34:56', driver: 'i40e', link: true, speedMbps: 10_000, mtu: 9000, lldp: { chassis: '00:1c:73:aa:bb:cc', port: 'Ethernet12', system: 'sw-access-1' } },
    'nic/eno2': { mac: '52:54:00:12:34:57', driver: 'i40e', link: !bad, speedMbps: bad ? null : 10_000, mtu: 9000, lldp: bad ? null : { chassis: '00:1c:73:aa:bb:cd', port: 'Ethernet12', system: 'sw-access-2' } },
    'nic/eno3': { mac: '52:54:00:12:34:58', driver: 'igb', link: true, speedMbps: 1000, mtu: 1500, lldp: null },
    'vswitch/vSwitch0': {
      mtu: 9000, uplinks: [{ name: 'eno1', link: true, active: true }, { name: 'eno2', link: !bad, active: false }],
      portGroups: [
        { name: 'Management', vlan: null, ports: [{ kind: 'vmknic', name: 'vmk0' }] },
        { name: 'Point of sale', vlan: 110, ports: [{ kind: 'vm', name: 'store/pos-1' }, { kind: 'vm', name: 'store/pos-2' }] },
        { name: 'Back office', vlan: 120, ports: [{ kind: 'vm', name: 'store/inventory' }] },
        { name: 'Guest Wi-Fi', vlan: 130, ports: [] },
      ],
    },
    'vswitch/vSwitch1': { mtu: 1500, uplinks: [{ name: 'eno3', link: true, active: true }], portGroups: [{ name: 'Cameras', vlan: 200, ports: [{ kind: 'vm', name: 'security/recorder-with-a-rather-long-name' }] }] },
    'vm/store/pos-1': { power: 'on', ready: true, ip: '10.110.0.21', class: 'small', image: 'pos-2026.11', cpus: 2, memoryBytes: 4_294_967_296, host: one.name },
    'vm/store/pos-2': { power: 'on', ready: one.state !== 'degraded', reason: one.state === 'degraded' ? 'GuestExits' : '', message: one.state === 'degraded' ? 'The guest exited with status 1 four times in ten minutes.' : '', ip: '10.110.0.22', class: 'small', image: 'pos-2026.11', cpus: 2, memoryBytes: 4_294_967_296, host: one.name },
    'vm/store/inventory': { power: 'off', ready: false, reason: 'PoweredOff', message: 'Wanted off.', ip: null, class: 'medium', image: 'inventory-7', cpus: 4, memoryBytes: 8_589_934_592, host: one.name },
    'vm/security/recorder-with-a-rather-long-name': { power: 'on', ready: true, ip: '10.200.0.9', class: 'large', image: 'recorder-3.2', cpus: 8, memoryBytes: 17_179_869_184, host: one.name },
    usage: { time: iso(3), cpu: 0.34, memory: 0.62, disk: 0.93, rxBytes: 8e9, txBytes: 2e9 },
    objects: { digest: 'x', kinds: { VirtualMachine: 4 } },
  };
}

function waves(total, at) {
  const canary = Math.max(1, Math.round(total * 0.05));
  const large = Math.round(total * 0.3);
  const rest = total - canary - large;
  const done = Math.round(large * at);
  const off = Math.min(2, large - done);
  return [
    { name: 'canary', state: 'succeeded', total: canary, told: canary, succeeded: canary, failed: 0, pending: 0 },
    { name: 'large', state: at < 1 ? 'running' : 'succeeded', total: large, told: Math.min(large, done + 5), succeeded: done, failed: at < 1 ? 1 : 0, pending: off },
    { name: 'rest', state: 'waiting', total: rest, told: 0, succeeded: 0, failed: 0, pending: 0 },
  ];
}

export function fleet(name, size) {
  const next = random(size + name.length);
  const many = size > 1000;
  const sites = Array.from({ length: size }, (_, n) => site(n, next, many));
  const hosts = sites.map((one, n) => host(one, n, next));
  const some = sites.length > 0;
  const pendingHost = (n) => ({ ...host(sites[0] ?? {}, 900_000 + n, next), name: `localhost-${n}`, site: null, phase: 'pending', connection: 'never', state: 'pending', reason: '', fingerprint: 'SHA256:Q1q9vXb0mQ6m8m1oR5hYVJxX3cJ4bF7n', requestedAt: iso(6 + n), certificate: null });
  const repositories = some ? [
    { id: id('0003', 1), name: 'stores', url: 'https://git.example.com/edge/stores.git', branch: 'main', hosted: false, auth: 'basic', hasCredentials: true, caPem: null, knownHosts: null, reach: { state: 'ok', message: '', checkedAt: iso(1) }, head: { commit: C1, subject: 'Give point of sale its own VLAN', author: 'Grace Hopper', time: iso(55) }, webhookUrl: 'https://orchestrator.example.com/hooks/acme/stores/w7rV9yYkq2', generation: 2 },
    { id: id('0003', 2), name: 'labs', url: 'https://orchestrator.example.com/git/acme/labs.git', branch: 'main', hosted: true, auth: 'none', hasCredentials: false, reach: { state: 'ok', message: '', checkedAt: iso(1) }, head: { commit: CX, subject: 'Try the new kernel', author: 'ada', time: iso(400) }, webhookUrl: null, generation: 1 },
    { id: id('0003', 3), name: 'branch-offices', url: 'ssh://git@git.example.com/edge/offices.git', branch: 'production', hosted: false, auth: 'ssh', hasCredentials: true, reach: { state: 'failed', message: 'The server refused the key: Permission denied (publickey).', checkedAt: iso(2) }, head: null, webhookUrl: null, generation: 4 },
  ] : [];
  const rollouts = some ? [
    { id: id('0004', 1), number: 12, repository: 'stores', commit: C1, subject: 'Give point of sale its own VLAN', previous: C0, policy: 'careful', state: 'running', reason: 'Wave large waits for its next batch at 22:10 (Europe/Berlin).', waves: waves(size, 0.6), createdAt: iso(52), createdBy: 'push', generation: 9 },
    { id: id('0004', 2), number: 3, repository: 'labs', commit: CX, subject: 'Try the new kernel', previous: C0, policy: 'by-hand', state: 'awaitingApproval', reason: 'Wave canary waits for somebody to approve it.', waves: [{ name: 'canary', state: 'awaitingApproval', total: 3, told: 0, succeeded: 0, failed: 0, pending: 0 }], createdAt: iso(390), createdBy: 'ada', generation: 1 },
    { id: id('0004', 3), number: 11, repository: 'stores', commit: C0, subject: 'Raise the MTU to 9000', previous: CX, policy: 'careful', state: 'succeeded', reason: '', waves: waves(size, 1).map((wave) => ({ ...wave, state: 'succeeded', told: wave.total, succeeded: wave.total, failed: 0, pending: 0 })), createdAt: iso(9000), createdBy: 'push', generation: 20 },
  ] : [];
  const alerts = some ? [
    { id: id('0005', 1), key: 'quarantine/hamburg', severity: 'critical', site: sites[0].name, host: hosts[0].name, title: 'Commit quarantined', message: REASONS.failing, count: 1, firstAt: iso(40), lastAt: iso(40), resolvedAt: null, acknowledgedBy: null },
    { id: id('0005', 2), key: 'offline', severity: 'warning', site: sites[4].name, host: hosts[4].name, title: 'Host offline', message: REASONS.offline, count: 3, firstAt: iso(900), lastAt: iso(95), resolvedAt: null, acknowledgedBy: 'grace' },
    { id: id('0005', 3), key: 'disk', severity: 'warning', site: sites[1].name, host: hosts[1].name, title: 'Disk 93 % full', message: 'At this rate it is full in six days.', count: 12, firstAt: iso(3000), lastAt: iso(12), resolvedAt: null, acknowledgedBy: null },
    { id: id('0005', 4), key: 'cert', severity: 'info', site: null, host: null, title: 'The serving certificate ends in 20 days', message: 'Replace server.cert_file, then reload.', count: 1, firstAt: iso(100), lastAt: iso(100), resolvedAt: null, acknowledgedBy: null },
    { id: id('0005', 5), key: 'old', severity: 'critical', site: sites[6].name, host: hosts[6].name, title: 'Host offline', message: 'Back after 12 minutes.', count: 1, firstAt: iso(5000), lastAt: iso(4980), resolvedAt: iso(4968), acknowledgedBy: null },
  ] : [];
  const everySite = { all: true };
  const users = [
    { id: id('0006', 1), username: 'ada', displayName: 'Ada Lovelace', email: 'ada@example.com', kind: 'local', totp: true, disabled: false, lastLoginAt: iso(1), bindings: [{ id: id('0007', 1), user: 'ada', role: 'owner', scope: everySite }], generation: 1 },
    ...(some ? [
      { id: id('0006', 2), username: 'grace', displayName: 'Grace Hopper', email: 'grace@example.com', kind: 'oidc', totp: false, disabled: false, lastLoginAt: iso(300), bindings: [{ id: id('0007', 2), user: 'grace', role: 'operator', scope: { selector: 'region=eu,tier!=lab' } }, { id: id('0007', 3), user: 'grace', role: 'viewer', scope: everySite }], generation: 1 },
      { id: id('0006', 3), username: 'edsger', displayName: '', email: null, kind: 'local', totp: false, disabled: true, lastLoginAt: null, bindings: [], generation: 1 },
    ] : []),
  ];
  const objects = (impact) => [
    { action: 'update', kind: 'HostConfiguration', namespace: null, name: 'network', impact, fields: [{ path: 'spec.profile.esx.network.vswitches[0].portgroups[1].vlan_id', before: 100, after: 110 }, { path: 'spec.profile.esx.network.vswitches[0].portgroups[2]', before: null, after: { name: 'Back office', vlan_id: 120 } }] },
    { action: 'create', kind: 'VirtualMachine', namespace: 'store', name: 'pos-2', impact: 'none', fields: [{ path: 'spec.className', before: null, after: 'small' }] },
    { action: 'delete', kind: 'VirtualMachine', namespace: 'store', name: 'pos-old', impact: 'none', fields: [] },
  ];
  const plans = some ? [{
    id: id('0008', 1), repository: 'stores', from: C0, to: C1, state: 'done', message: '',
    totals: { sites: size, changed: Math.min(size, 30), impact: { none: 12, maintenance: 15, reboot: 3 }, objects: { create: 30, update: 30, delete: 30 } },
    sites: sites.slice(0, 30).map((one, n) => ({ site: one.name, impact: n < 3 ? 'reboot' : n < 18 ? 'maintenance' : 'none', objects: objects(n < 3 ? 'reboot' : n < 18 ? 'maintenance' : 'none'), errors: n === 4 ? ['sites/x/vm.yaml: line 12: unknown field spec.memroy (did you mean spec.memory?)'] : [] })),
  }] : [];
  const audit = some ? Array.from({ length: 600 }, (_, n) => {
    const seq = 600 - n;
    const [action, kind, target] = [['site.update', 'site', sites[n % 30].name], ['host.approve', 'host', hosts[n % 30].name], ['rollout.approve', 'rollout', 'stores #12'], ['session.create', 'session', 'ada'], ['tunnel.open', 'host', hosts[n % 30].name]][n % 5];
    return { seq, time: iso(n * 13), actor: ['ada', 'grace', 'ci', hosts[0].name][n % 4], actorKind: ['user', 'user', 'token', 'host'][n % 4], from: '192.0.2.44', action, object: { kind, id: id('0001', n % 30), name: target }, before: action === 'site.update' ? { labels: { tier: 'small' } } : null, after: action === 'site.update' ? { labels: { tier: 'large' } } : null };
  }) : [];
  return {
    name, sites, hosts, repositories, rollouts, alerts, users, plans, audit, objects,
    tokens: some ? [{ id: id('000a', 1), name: 'ci', role: 'operator', scope: { selector: 'lab=true' }, expiresAt: new Date(NOW + 40 * 86_400_000).toISOString(), lastUsedAt: iso(14), createdBy: 'ada' }] : [],
    keys: some ? [{ id: id('000b', 1), name: 'warehouse-batch', site: sites[5].name, uses: 3, maxUses: 40, expiresAt: new Date(NOW + 6 * 86_400_000).toISOString(), createdBy: 'ada' }] : [],
    policies: some ? [{ id: id('000c', 1), name: 'careful', waves: [{ name: 'canary', selector: 'tier=canary', batch: 'all', pace: '', approval: false }, { name: 'large', selector: 'tier=large', batch: '10%', pace: '10m', approval: true }], window: { days: ['mon', 'tue', 'wed', 'thu'], from: '22:00', to: '04:00' }, gate: { healthyFor: '10m', failingFor: '2m', timeout: '1h', awayAfter: '10m' }, failureBudget: '2%', generation: 2 }] : [],
    channels: some ? [{ id: id('000d', 1), name: 'operations', kind: 'webhook', url: 'https://chat.example.com/hooks/ops', to: [], severity: 'warning', disabled: false, failure: '', toldAt: iso(40), generation: 1 }, { id: id('000d', 2), name: 'on-call', kind: 'email', url: '', to: ['oncall@example.com'], severity: 'critical', disabled: false, failure: 'mail.example.com did not answer within 10 s', failedAt: iso(39), toldAt: null, generation: 1 }] : [],
    pending: some ? [pendingHost(1), pendingHost(2)] : [],
    status: statusOf, iso,
  };
}
