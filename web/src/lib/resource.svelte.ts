/** Data that a view reads: one object (`Resource`) or a list in pages (`PagedList`), both kept right by the stream. */
import { untrack } from 'svelte';
import { ApiError, api, type Query } from '../api/client.ts';
import type { Change, ChangeKind } from '../api/types.ts';
import { live } from './live.svelte.ts';

const SETTLE_MS = 600;

export function asApiError(error: unknown): ApiError {
  return error instanceof ApiError ? error : new ApiError({ title: String(error), status: 0 });
}

/** Waits until calls stop coming for a moment; a steady stream is still served every `SETTLE_MS`. */
function settled(run: () => void): { poke: () => void; cancel: () => void } {
  let timer: ReturnType<typeof setTimeout> | undefined;
  return {
    poke: () => {
      timer ??= setTimeout(() => {
        timer = undefined;
        run();
      }, SETTLE_MS);
    },
    cancel: () => clearTimeout(timer),
  };
}

interface Liveness {
  kinds: ChangeKind[];
  /** Which changes concern this resource; without it, all of those kinds. */
  concerns?: (change: Change) => boolean;
}

/**
 * Reads again whenever something that `load` read synchronously changes (a name in the address), and whenever the
 * stream tells of a change that concerns it. Must be made while a component initialises.
 */
export class Resource<T> {
  data = $state.raw<T | undefined>();
  error = $state.raw<ApiError | undefined>();
  loading = $state(true);
  #load: (signal: AbortSignal) => Promise<T> | undefined;
  #abort: AbortController | undefined;

  constructor(load: (signal: AbortSignal) => Promise<T> | undefined, liveness?: Liveness) {
    this.#load = load;
    $effect(() => {
      this.data = undefined;
      this.#run();
      return () => this.#abort?.abort();
    });
    if (!liveness) return;
    $effect(() => {
      const again = settled(() => this.refresh());
      const off = live.on(
        liveness.kinds,
        (changes) => {
          if (!liveness.concerns || changes.some(liveness.concerns)) again.poke();
        },
        () => again.poke(),
      );
      return () => {
        off();
        again.cancel();
      };
    });
  }

  refresh(): Promise<void> {
    return this.#run();
  }

  #run(): Promise<void> {
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    this.loading = true;
    const promise = this.#load(abort.signal);
    if (!promise) {
      this.loading = false;
      return Promise.resolve();
    }
    return promise.then(
      (data) => {
        if (abort.signal.aborted) return;
        this.data = data;
        this.error = undefined;
        this.loading = false;
      },
      (error: unknown) => {
        if (abort.signal.aborted) return;
        this.error = asApiError(error);
        this.loading = false;
      },
    );
  }
}

interface ListOptions<T> {
  /** Changes of this kind replace the items they name. */
  kind?: ChangeKind;
  /** Changes of this kind mean that the list must be read again. */
  on?: ChangeKind;
  /** What names an item that has no id of its own. */
  by?: (item: T) => string;
  limit?: number;
  /** False: an unknown object that changed does not belong here. */
  belongs?: (change: Change) => boolean;
}

/** A list that is read page by page, as far as somebody looks. */
export class PagedList<T extends { id: string }> {
  items = $state.raw<T[]>([]);
  total = $state<number | null>(null);
  error = $state.raw<ApiError | undefined>();
  loading = $state(true);
  #source: () => { path: string; query: Query };
  #options: ListOptions<T>;
  #next: string | null = null;
  #wanted = 0;
  #run = 0;
  #busy = false;
  #at = new Map<string, number>();

  constructor(source: () => { path: string; query: Query }, options: ListOptions<T> = {}) {
    this.#source = source;
    this.#options = options;
    $effect(() => {
      source();
      untrack(() => {
        this.items = [];
        this.total = null;
        this.#at.clear();
        this.#wanted = 0;
        void this.#read(true);
      });
    });
    const watched = options.kind ?? options.on;
    if (!watched) return;
    $effect(() => {
      const again = settled(() => void this.#read(true));
      const off = live.on(
        [watched],
        (changes) => {
          if (options.on || this.#apply(changes)) again.poke();
        },
        again.poke,
      );
      return () => {
        off();
        again.cancel();
      };
    });
  }

  /** Everything is here. */
  get complete(): boolean {
    return !this.loading && this.#next === null;
  }

  /** Somebody looks at this row: read on until it is here. */
  want(index: number): void {
    this.#wanted = Math.max(this.#wanted, index);
    if (!this.#busy && this.#next !== null && this.items.length <= this.#wanted) void this.#read(false);
  }

  refresh(): Promise<void> {
    return this.#read(true);
  }

  /** Reads from the start (as much as there was) or goes on. */
  async #read(fromStart: boolean): Promise<void> {
    const { path, query } = this.#source();
    const run = ++this.#run;
    const goal = fromStart ? Math.max(this.#wanted, Math.min(this.items.length, 2000) - 1) : 0;
    let items = fromStart ? [] : this.items;
    let cursor = fromStart ? null : this.#next;
    this.#busy = true;
    this.loading = this.items.length === 0;
    try {
      do {
        const page = await api.list<T>(path, { ...query, limit: this.#options.limit ?? 500, cursor });
        if (run !== this.#run) return;
        const { by } = this.#options;
        items = items.concat(by ? page.items.map((item) => ({ ...item, id: by(item) })) : page.items);
        cursor = page.next;
        if (typeof page.total === 'number') this.total = page.total;
        else if (!cursor) this.total = items.length;
        if (!fromStart || cursor === null || items.length > goal) this.#take(items, cursor);
      } while (cursor !== null && items.length <= Math.max(goal, this.#wanted));
      this.error = undefined;
    } catch (error) {
      if (run === this.#run) this.error = asApiError(error);
    } finally {
      if (run === this.#run) {
        this.#busy = false;
        this.loading = false;
      }
    }
  }

  /** Shows what was read so far. */
  #take(items: T[], next: string | null): void {
    this.items = items;
    this.#next = next;
    this.#at = new Map(items.map((item, index) => [item.id, index]));
  }

  /** Puts known objects in place; true when the list must be read again (something came or went). */
  #apply(changes: Change[]): boolean {
    let again = false;
    const items = [...this.items];
    for (const change of changes) {
      const index = this.#at.get(change.object.id);
      if (index !== undefined && change.op === 'upsert') items[index] = { ...items[index], ...change.object } as T;
      else if (index !== undefined || (change.op === 'upsert' && (this.#options.belongs?.(change) ?? true))) again = true;
    }
    this.items = items;
    return again;
  }
}
