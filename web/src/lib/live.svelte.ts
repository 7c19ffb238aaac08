/**
 * The change stream of one tenant (server-sent events). The browser resumes by itself with Last-Event-ID; when the
 * server has forgotten that far back it says `reset`, and every view reads its data again. Changes are handed out in
 * batches a tenth of a second apart, so that ten thousand hosts reconnecting do not make the page stutter.
 */
import { url } from '../api/client.ts';
import type { Change, ChangeKind } from '../api/types.ts';

type Listener = (changes: Change[]) => void;

const BATCH_MS = 100;

class Live {
  state = $state<'idle' | 'connecting' | 'live' | 'lost'>('idle');
  #tenant = '';
  #source: EventSource | null = null;
  #listeners = new Set<{ kinds: Set<ChangeKind>; changed: Listener; reset: () => void }>();
  #queue: Change[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  #missed = false;

  start(tenant: string): void {
    if (this.#tenant === tenant && this.#source) return;
    this.stop();
    this.#tenant = tenant;
    this.#open();
  }

  stop(): void {
    this.#source?.close();
    this.#source = null;
    this.#tenant = '';
    this.#queue = [];
    this.#missed = false;
    this.#failures = 0;
    clearTimeout(this.#retry);
    this.state = 'idle';
  }

  /** Listens until the returned function is called; `reset` means: what you have may be old, read it again. */
  on(kinds: ChangeKind[], changed: Listener, reset: () => void): () => void {
    const entry = { kinds: new Set(kinds), changed, reset };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  #open(): void {
    this.state = 'connecting';
    const source = new EventSource(url(`/tenants/${encodeURIComponent(this.#tenant)}/stream`));
    this.#source = source;
    source.addEventListener('open', () => {
      this.state = 'live';
      this.#failures = 0;
      if (this.#missed) this.#reset();
      this.#missed = false;
    });
    source.addEventListener('change', (event) => this.#receive(event as MessageEvent<string>));
    source.addEventListener('reset', () => this.#reset());
    source.addEventListener('error', () => {
      this.state = 'lost';
      if (source.readyState !== EventSource.CLOSED) return;
      // Refused outright (a restart behind a proxy, an expired session): the browser gives up, we do not.
      source.close();
      this.#missed = true;
      const ceiling = Math.min(60_000, 1000 * 2 ** this.#failures);
      this.#failures = Math.min(this.#failures + 1, 10);
      this.#retry = setTimeout(() => this.#open(), Math.random() * ceiling);
    });
  }

  #receive(event: MessageEvent<string>): void {
    try {
      this.#queue.push(JSON.parse(event.data) as Change);
    } catch {
      return;
    }
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const batch = this.#queue;
      this.#queue = [];
      for (const { kinds, changed } of [...this.#listeners]) {
        const mine = batch.filter((change) => kinds.has(change.kind));
        if (mine.length) changed(mine);
      }
    }, BATCH_MS);
  }

  #reset(): void {
    this.#queue = [];
    for (const { reset } of [...this.#listeners]) reset();
  }
}

export const live = new Live();
