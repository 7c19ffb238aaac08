/**
 * One vocabulary for every state the page shows: a word, a tone (colour) and a shape. Two states never share both tone
 * and shape, so that a state is recognised without colour, and its word is always there for whoever reads or listens.
 */
export type Tone = 'ok' | 'busy' | 'warn' | 'bad' | 'off' | 'idle' | 'info';
export type Shape = 'disc' | 'half' | 'triangle' | 'square' | 'dashed' | 'slash' | 'diamond' | 'ring' | 'pause';

export interface Look {
  word: string;
  tone: Tone;
  shape: Shape;
}

const look = (word: string, tone: Tone, shape: Shape): Look => ({ word, tone, shape });

const healthy = look('Healthy', 'ok', 'disc');
const LOOKS: Record<string, Look> = {
  // Sites and hosts.
  healthy,
  progressing: look('Progressing', 'busy', 'half'),
  degraded: look('Degraded', 'warn', 'triangle'),
  failing: look('Failing', 'bad', 'square'),
  stale: look('Stale', 'warn', 'dashed'),
  offline: look('Offline', 'off', 'slash'),
  pending: look('Pending', 'idle', 'diamond'),
  // Connections.
  online: look('Online', 'ok', 'disc'),
  never: look('Never seen', 'idle', 'diamond'),
  // Phases of a host.
  expected: look('Expected', 'idle', 'diamond'),
  enrolled: look('Enrolled', 'ok', 'disc'),
  revoked: look('Revoked', 'bad', 'slash'),
  // Rollouts and their waves and sites.
  awaitingApproval: look('Awaiting approval', 'warn', 'pause'),
  running: look('Running', 'busy', 'half'),
  halted: look('Halted', 'bad', 'pause'),
  reverting: look('Reverting', 'warn', 'half'),
  succeeded: look('Succeeded', 'ok', 'disc'),
  reverted: look('Reverted', 'off', 'ring'),
  superseded: look('Superseded', 'off', 'ring'),
  waiting: look('Waiting', 'idle', 'diamond'),
  told: look('Told', 'busy', 'half'),
  failed: look('Failed', 'bad', 'square'),
  done: look('Done', 'ok', 'disc'),
  // Alerts.
  critical: look('Critical', 'bad', 'square'),
  warning: look('Warning', 'warn', 'triangle'),
  info: look('Info', 'info', 'ring'),
  resolved: look('Resolved', 'off', 'ring'),
  // Compliance, links, power, reachability.
  compliant: look('Compliant', 'ok', 'disc'),
  nonCompliant: look('Not compliant', 'bad', 'square'),
  unknown: look('Unknown', 'idle', 'diamond'),
  up: look('Link up', 'ok', 'disc'),
  down: look('Link down', 'bad', 'slash'),
  on: look('On', 'ok', 'disc'),
  off: look('Off', 'off', 'ring'),
  ok: look('Reachable', 'ok', 'disc'),
  unreachable: look('Unreachable', 'bad', 'square'),
  // What a change costs.
  none: look('No impact', 'ok', 'ring'),
  maintenance: look('Maintenance', 'warn', 'triangle'),
  reboot: look('Reboot', 'bad', 'square'),
};

/** The states of a site in the order in which they need a person. */
export const SITE_STATES = ['failing', 'degraded', 'stale', 'offline', 'progressing', 'pending', 'healthy'] as const;

export function lookOf(state: string | null | undefined): Look {
  const key = state ?? 'unknown';
  const known = LOOKS[key] ?? LOOKS[key.charAt(0).toLowerCase() + key.slice(1)];
  return known ?? look(key, 'idle', 'diamond');
}

/** Links are told as a boolean or as a word. */
export function linkLook(link: boolean | string | null | undefined): Look {
  if (link === undefined || link === null) return lookOf('unknown');
  return lookOf(link === true || link === 'up' ? 'up' : 'down');
}

export function powerLook(power: string | null | undefined): Look {
  const word = (power ?? '').toLowerCase();
  if (/^(on|poweredon|running)$/.test(word)) return lookOf('on');
  if (/^(off|poweredoff|stopped)$/.test(word)) return lookOf('off');
  return lookOf(power ?? 'unknown');
}

/** SVG path data on a 12 × 12 grid; `stroke` shapes are drawn as lines. */
export const SHAPES: Record<Shape, { fill?: string; line?: string; dash?: string }> = {
  disc: { fill: 'M6 1.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 0 0 0-9z' },
  half: { fill: 'M6 1.5a4.5 4.5 0 0 0 0 9z', line: 'M6 2a4 4 0 1 1 0 8a4 4 0 0 1 0-8z' },
  triangle: { fill: 'M6 1L11.3 10.6H0.7z' },
  square: { fill: 'M1.5 1.5h9v9h-9z' },
  dashed: { line: 'M6 2a4 4 0 1 1 0 8a4 4 0 0 1 0-8z', dash: '2.1 2.1' },
  slash: { line: 'M6 2a4 4 0 1 1 0 8a4 4 0 0 1 0-8zM3.2 8.8l5.6-5.6' },
  diamond: { line: 'M6 1.4L10.6 6L6 10.6L1.4 6z' },
  ring: { line: 'M6 2a4 4 0 1 1 0 8a4 4 0 0 1 0-8z' },
  pause: { fill: 'M2.5 1.5h2.6v9H2.5zM6.9 1.5h2.6v9H6.9z' },
};
