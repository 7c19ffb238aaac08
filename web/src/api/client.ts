/** Requests to the orchestrator: JSON in and out, problem+json as a thrown `ApiError`, CSRF header on unsafe methods. */
import type { Page, Problem } from './types.ts';

export const BASE = '/api/v1';

export class ApiError extends Error {
  readonly problem: Problem;
  constructor(problem: Problem) {
    super(problem.detail || problem.title);
    this.problem = problem;
  }
  get status(): number {
    return this.problem.status;
  }
}

export type Query = Record<string, string | number | boolean | null | undefined>;

let csrf = '';
let onUnauthenticated: () => void = () => {};

export function setCsrf(token: string): void {
  csrf = token;
}
export function whenUnauthenticated(then: () => void): void {
  onUnauthenticated = then;
}

export function url(path: string, query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '') search.set(name, String(value));
  }
  const text = search.toString();
  return BASE + path + (text ? `?${text}` : '');
}

/** A path of segments, each escaped: seg`/tenants/${t}/sites/${s}`. */
export function seg(parts: TemplateStringsArray, ...values: (string | number)[]): string {
  return parts.reduce((path, part, i) => path + (i ? encodeURIComponent(String(values[i - 1])) : '') + part, '');
}

interface Options {
  query?: Query;
  body?: unknown;
  /** Sent as If-Match; the server answers 412 when somebody else was faster. */
  generation?: number;
  /** A retried POST with the same key is done once. */
  once?: boolean;
  signal?: AbortSignal;
  /** A 401 here is an answer, not the end of the session (the login form). */
  anonymous?: boolean;
}

async function send(method: string, path: string, options: Options): Promise<Response> {
  const headers: Record<string, string> = { Accept: 'application/json' };
  if (options.body !== undefined) {
    headers['Content-Type'] = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
  }
  if (method !== 'GET' && csrf) headers['X-CSRF-Token'] = csrf;
  if (options.generation !== undefined) headers['If-Match'] = `"${options.generation}"`;
  if (options.once) headers['Idempotency-Key'] = crypto.randomUUID();
  const request = (): Promise<Response> =>
    fetch(url(path, options.query), {
      method,
      headers,
      body: options.body === undefined ? null : JSON.stringify(options.body),
      signal: options.signal ?? null,
      credentials: 'same-origin',
      cache: 'no-store',
    });
  const aborted = (error: unknown): boolean => error instanceof DOMException && error.name === 'AbortError';
  let response: Response;
  try {
    try {
      response = await request();
    } catch (error) {
      // A network that changed under the request (Wi-Fi, VPN) is worth one more try, where that does nothing twice.
      if (aborted(error) || (method !== 'GET' && !options.once)) throw error;
      await new Promise((done) => setTimeout(done, 400));
      response = await request();
    }
  } catch (error) {
    if (aborted(error)) throw error;
    throw new ApiError({
      title: 'The orchestrator does not answer',
      status: 0,
      detail: 'The request did not reach it, or the answer did not come back.',
      next: 'Check the network between you and the orchestrator, then try again. The sites go on without it.',
    });
  }
  if (!response.ok) {
    if (response.status === 401 && !options.anonymous) onUnauthenticated();
    throw new ApiError(await problemOf(response));
  }
  return response;
}

async function problemOf(response: Response): Promise<Problem> {
  const fallback: Problem = { title: response.statusText || `Status ${response.status}`, status: response.status };
  if (!/json/.test(response.headers.get('content-type') ?? '')) return fallback;
  try {
    return { ...fallback, ...((await response.json()) as Partial<Problem>), status: response.status };
  } catch {
    return fallback;
  }
}

async function json<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const response = await send(method, path, options);
  if (response.status === 204 || response.headers.get('content-length') === '0') return undefined as T;
  const text = await response.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

export const api = {
  get: <T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> =>
    json<T>('GET', path, signal ? { query, signal } : { query }),
  list: <T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<Page<T>> =>
    json<Page<T>>('GET', path, signal ? { query, signal } : { query }),
  post: <T>(path: string, body: unknown = {}, options: Options = {}): Promise<T> =>
    json<T>('POST', path, { ...options, body, once: true }),
  put: <T>(path: string, body: unknown): Promise<T> => json<T>('PUT', path, { body }),
  patch: <T>(path: string, body: unknown, generation?: number): Promise<T> =>
    json<T>('PATCH', path, generation === undefined ? { body } : { body, generation }),
  delete: <T = void>(path: string, generation?: number): Promise<T> =>
    json<T>('DELETE', path, generation === undefined ? {} : { generation }),
  /** Log lines as they come. */
  async lines(path: string, query: Query, signal: AbortSignal, onLines: (lines: string[]) => void): Promise<void> {
    const response = await send('GET', path, { query, signal });
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    if (!reader) return;
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read();
      const parts = (rest + (value ?? '')).split('\n');
      rest = done ? '' : (parts.pop() ?? '');
      const whole = parts.filter((line, i) => line !== '' || i < parts.length - 1);
      if (whole.length) onLines(whole);
      if (done) return;
    }
  },
};
