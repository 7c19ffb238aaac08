/** Numbers, times and names as people read them. */

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? '–' : value.toLocaleString('en');
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let left = value;
  let unit = 0;
  while (Math.abs(left) >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${left >= 100 || unit === 0 ? left.toFixed(0) : left.toFixed(1)} ${units[unit]}`;
}

export function percent(value: number | null | undefined): string {
  return value === null || value === undefined || !Number.isFinite(value) ? '–' : `${Math.round(value * 100)} %`;
}

export function shortCommit(commit: string | null | undefined): string {
  if (!commit) return '–';
  return /^[0-9a-f]{12,}$/i.test(commit) ? commit.slice(0, 8) : commit;
}

const STEPS: [number, Intl.RelativeTimeFormatUnit][] = [
  [60, 'second'],
  [60, 'minute'],
  [24, 'hour'],
  [30, 'day'],
  [12, 'month'],
  [Number.POSITIVE_INFINITY, 'year'],
];
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto', style: 'short' });

export function ago(time: string | null | undefined, now: number): string {
  const at = time ? Date.parse(time) : Number.NaN;
  if (Number.isNaN(at)) return '–';
  let left = (at - now) / 1000;
  if (Math.abs(left) < 10) return 'just now';
  for (const [size, unit] of STEPS) {
    if (Math.abs(left) < size) return relative.format(Math.round(left), unit);
    left /= size;
  }
  return '–';
}

export function exact(time: string | null | undefined): string {
  const at = time ? new Date(time) : undefined;
  if (!at || Number.isNaN(at.getTime())) return '–';
  return at.toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });
}

export function clock(time: string | null | undefined, zone: string | null | undefined): string {
  if (!zone) return '–';
  try {
    const at = time ? new Date(time) : new Date();
    return `${at.toLocaleTimeString('en-GB', { timeZone: zone, hour: '2-digit', minute: '2-digit' })} (${zone})`;
  } catch {
    return zone;
  }
}

/** A value of an object's field, as short text. */
export function valueText(value: unknown): string {
  if (value === undefined || value === null) return '—';
  if (typeof value === 'string') return value;
  return JSON.stringify(value);
}

/** "a=b" pairs in a stable order. */
export function pairs(labels: Record<string, string> | null | undefined): [string, string][] {
  return Object.entries(labels ?? {}).sort(([a], [b]) => a.localeCompare(b));
}

/** Reads `name=value` lines back into a map; the first line that is neither is named. */
export function parsePairs(text: string): { pairs: Record<string, string>; error?: string } {
  const found: Record<string, string> = {};
  for (const line of text.split('\n')) {
    const trimmed = line.trim();
    if (!trimmed) continue;
    const at = trimmed.indexOf('=');
    if (at < 1) return { pairs: found, error: `"${trimmed}" is not name=value` };
    found[trimmed.slice(0, at).trim()] = trimmed.slice(at + 1).trim();
  }
  return { pairs: found };
}

export function scopeText(scope: { all?: boolean } | { site?: string } | { selector?: string } | null | undefined): string {
  if (!scope) return '–';
  if ('site' in scope && scope.site) return `site ${scope.site}`;
  if ('selector' in scope && scope.selector) return `sites with ${scope.selector}`;
  return 'every site';
}

/** Who did something, if it was a person or a token: what the system does by itself needs no name. */
export function by(actor: string | null | undefined): string {
  return actor && !actor.startsWith('system:') ? ` by ${actor}` : '';
}
