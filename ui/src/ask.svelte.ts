// Asks once, and again when told to: for what a panel shows beside the live answer. The newest question wins.
import { FormatError, parseProblem } from './api.ts';

export type Fetch = (path: string, init: { signal: AbortSignal; headers: Record<string, string> }) => Promise<Response>;

/** An answer that is asked for once in a while; its fields are reactive. */
export class Question<T> {
  value = $state.raw<T | null>(null);
  /** Why there is no new one, in words. */
  failure = $state<string | null>(null);
  #about = '';
  #request: AbortController | null = null;

  constructor(
    private readonly fetch: Fetch,
    private readonly parse: (body: string) => T,
  ) {}

  /**
   * Asks. `about`: what the question is about, whatever instant its path names; the answer about something else is dropped at
   * once, one about the same stays until the new one is there.
   */
  async ask(path: string, about = path): Promise<void> {
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    if (about !== this.#about) {
      this.value = null;
      this.failure = null;
    }
    this.#about = about;
    try {
      const response = await this.fetch(path, { signal: request.signal, headers: { accept: 'application/json' } });
      const body = await response.text();
      if (request.signal.aborted) return;
      if (!response.ok) {
        this.failure = parseProblem(body)?.error ?? `the server answered with status ${response.status}`;
        return;
      }
      this.value = this.parse(body);
      this.failure = null;
    } catch (error) {
      if (request.signal.aborted) return;
      this.failure = error instanceof FormatError ? `the answer is not understood: ${error.message}` : 'the server does not answer';
    }
  }

  drop(): void {
    this.#request?.abort();
    this.#request = null;
  }
}
