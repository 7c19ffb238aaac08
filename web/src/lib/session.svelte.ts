/** Who is signed in, which tenant the page shows, and what the person's role lets them do. */
import { ApiError, api, setCsrf, whenUnauthenticated } from '../api/client.ts';
import type { Role, Session, Tenant } from '../api/types.ts';
import { live } from './live.svelte.ts';
import { router } from './router.svelte.ts';

const RANK: Record<Role, number> = { viewer: 1, operator: 2, owner: 3 };

class CurrentSession {
  value = $state.raw<Session | null>(null);
  /** True until the first answer to "who am I". */
  starting = $state(true);
  trouble = $state.raw<ApiError | null>(null);

  constructor() {
    whenUnauthenticated(() => {
      if (this.value) this.ended();
    });
  }

  async start(): Promise<void> {
    this.starting = true;
    this.trouble = null;
    try {
      this.set(await api.get<Session>('/me'));
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) this.value = null;
      else this.trouble = error instanceof ApiError ? error : new ApiError({ title: String(error), status: 0 });
    } finally {
      this.starting = false;
    }
  }

  set(session: Session): void {
    setCsrf(session.csrf);
    this.value = session;
  }

  /** The session is over (signed out, expired, revoked): back to the door, and back here after it. */
  ended(): void {
    this.value = null;
    setCsrf('');
    live.stop();
    const back = location.pathname + location.search;
    router.go(back === '/' || back.startsWith('/login') ? '/login' : `/login?back=${encodeURIComponent(back)}`, true);
  }

  async leave(): Promise<void> {
    await api.delete('/session').catch(() => {});
    this.ended();
  }

  tenants: Tenant[] = $derived(this.value?.tenants ?? []);
  /** The tenant that the address names. */
  tenantName: string = $derived(
    router.segments[0] === 't' ? (router.segments[1] ?? '') : (this.tenants[0]?.name ?? ''),
  );
  tenant: Tenant | undefined = $derived(this.tenants.find((tenant) => tenant.name === this.tenantName));

  /** The most that any binding allows; the server decides per object, this only hides what can never work. */
  get role(): Role {
    const user = this.value?.user;
    if (user?.platformAdmin) return 'owner';
    let best: Role = 'viewer';
    for (const binding of user?.bindings ?? []) if (RANK[binding.role] > RANK[best]) best = binding.role;
    return best;
  }

  may(role: Role): boolean {
    return RANK[this.role] >= RANK[role];
  }
}

export const session = new CurrentSession();

/** The API path below the shown tenant. */
export function tenantPath(rest = ''): string {
  return `/tenants/${encodeURIComponent(session.tenantName)}${rest}`;
}

/** The page's address below the shown tenant. */
export function href(...parts: string[]): string {
  const name = session.tenantName;
  return ['/t', name, ...parts].map((part, i) => (i === 0 ? part : encodeURIComponent(part))).join('/');
}
