/** History routing: the address is the state, so that a view can be bookmarked, shared and gone back to. */

class Router {
  path = $state(location.pathname);
  search = $state(location.search);
  #query = $derived(new URLSearchParams(this.search));

  constructor() {
    addEventListener('popstate', () => this.#read());
    // Plain links become navigation without a load; anything special (new tab, other origin, download) stays a link's.
    document.addEventListener('click', (event) => {
      if (event.defaultPrevented || event.button !== 0) return;
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      const link = (event.target as Element | null)?.closest?.('a');
      const address = link?.getAttribute('href');
      if (!link || !address || link.getAttribute('target') || link.hasAttribute('download')) return;
      const to = new URL(address, location.href);
      if (to.origin !== location.origin || to.pathname.startsWith('/api/')) return;
      if (to.hash && to.pathname === location.pathname) return;
      event.preventDefault();
      this.go(to.pathname + to.search);
    });
  }

  #read(): void {
    this.path = location.pathname;
    this.search = location.search;
  }

  go(to: string, replace = false): void {
    if (to === location.pathname + location.search) return;
    const samePage = to.split('?')[0] === location.pathname;
    history[replace ? 'replaceState' : 'pushState'](null, '', to);
    this.#read();
    if (!samePage) {
      scrollTo(0, 0);
      // A reader of the screen is told of the new page by its heading.
      queueMicrotask(() => document.getElementById('main')?.focus({ preventScroll: true }));
    }
  }

  param(name: string): string {
    return this.#query.get(name) ?? '';
  }

  /** Filters live in the address; typing in them must not fill the history. */
  setParams(values: Record<string, string | null | undefined>): void {
    const query = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(values)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    const text = query.toString();
    this.go(location.pathname + (text ? `?${text}` : ''), true);
  }

  /** The path's segments, unescaped. */
  get segments(): string[] {
    return this.path
      .split('/')
      .filter(Boolean)
      .map((part) => {
        try {
          return decodeURIComponent(part);
        } catch {
          return part;
        }
      });
  }
}

export const router = new Router();
