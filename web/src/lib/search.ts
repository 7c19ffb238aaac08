/** Where what was found lives on the page, and what is said of it. */
import type { SearchHit } from '../api/types.ts';
import { shortCommit } from './format.ts';
import { href } from './session.svelte.ts';

export function hitHref(hit: SearchHit): string {
  switch (hit.kind) {
    case 'site':
      return href('sites', hit.name);
    case 'host':
      return href('hosts', hit.name);
    case 'vm': {
      const at = hit.id.indexOf('/');
      return href('hosts', hit.parent ?? '', 'vms', at < 0 ? 'default' : hit.id.slice(0, at), hit.name);
    }
    case 'commit':
      return hit.parent ? href('repositories', hit.parent) : href('repositories');
    default:
      return href();
  }
}

export function hitDetail(hit: SearchHit): string {
  switch (hit.kind) {
    case 'vm':
      return `on ${hit.parent ?? ''}`;
    case 'commit':
      return `${shortCommit(hit.id)} in ${hit.parent ?? ''}`;
    case 'host':
      return hit.reason || (hit.site ? `at ${hit.site}` : '');
    default:
      return hit.reason ?? '';
  }
}
