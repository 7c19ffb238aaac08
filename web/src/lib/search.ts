/** Search answers: hits in one list or grouped by kind, and where each of them lives on the page. */
import type { SearchHit } from '../api/types.ts';
import { href } from './session.svelte.ts';

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;

export function hitsOf(answer: unknown): SearchHit[] {
  if (!isRecord(answer)) return [];
  const list = Array.isArray(answer.items) ? answer.items : Array.isArray(answer.hits) ? answer.hits : [];
  return list.filter((hit): hit is SearchHit => isRecord(hit) && typeof hit.kind === 'string' && typeof hit.name === 'string');
}

export function hitHref(hit: SearchHit): string {
  switch (hit.kind.toLowerCase()) {
    case 'site':
      return href('sites', hit.name);
    case 'host':
      return href('hosts', hit.name);
    case 'vm': {
      const [namespace, name] = hit.name.includes('/') ? (hit.name.split('/') as [string, string]) : [hit.namespace ?? 'default', hit.name];
      return hit.host ? href('hosts', hit.host, 'vms', namespace, name) : href('hosts');
    }
    case 'repository':
      return href('repositories', hit.name);
    case 'commit':
      return `${href('sites')}?q=${encodeURIComponent(`commit:${hit.name}`)}`;
    case 'rollout':
      return href('rollouts', hit.id ?? hit.name);
    case 'policy':
      return href('policies');
    case 'alert':
      return href('alerts');
    case 'user':
      return href('people');
    default:
      return `${href('sites')}?q=${encodeURIComponent(hit.name)}`;
  }
}
