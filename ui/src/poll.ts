// Asks the server again and again: at most one request in flight, none while the page is hidden or paused, slower while
// the server is away. It knows nothing of the page: time, timers and `fetch` are handed in, every change is told to one
// listener as a whole new state.
import { FormatError, parseProblem, type Position, type Problem } from './api.ts';

/** Between an answer and the next question. A server that needs longer to answer is asked accordingly less often. */
export const POLL_INTERVAL_MS = 2000;
/** The first wait after a failure; it doubles up to the longest. */
const RETRY_FIRST_MS = 2000;
const RETRY_LONGEST_MS = 30_000;
/** A day's history of a large cluster is read in a few seconds; beyond this the server is taken to be stuck. */
const TIMEOUT_MS = 20_000;

/** Why there is no new answer. */
export interface Failure {
  kind: 'unreachable' | 'timeout' | 'status' | 'format';
  /** The HTTP status, for `status`. */
  status: number | null;
  /** What went wrong in words: the server's own where it sent some. */
  message: string;
  /** For `status`: where in a parameter it went wrong. */
  position: Position | null;
  /** When the first of the failures in a row happened, in the clock's milliseconds. */
  since: number;
  /** How many failed in a row. */
  attempts: number;
}

export interface PollState<T> {
  /** The newest answer, which request it answers and when it came. */
  answer: { value: T; path: string; at: number } | null;
  /** Set while the newest request failed. */
  failure: Failure | null;
  /** The path that is asked now. */
  path: string;
  asking: boolean;
  /** When the next request is due, null while asking, paused or hidden. */
  nextAt: number | null;
}

export interface Surroundings {
  fetch: (path: string, init: { signal: AbortSignal; headers: Record<string, string> }) => Promise<Response>;
  /** Monotonic milliseconds. */
  now: () => number;
  setTimer: (run: () => void, ms: number) => unknown;
  clearTimer: (timer: unknown) => void;
}

/** The wait after the given number of failures in a row. */
export function retryDelayMs(attempts: number): number {
  return Math.min(RETRY_LONGEST_MS, RETRY_FIRST_MS * 2 ** Math.max(0, attempts - 1));
}

/** The wait after an answer that took the given time: at most a third of the server's time goes to one open page. */
export function pollDelayMs(tookMs: number): number {
  return Math.max(POLL_INTERVAL_MS, 2 * tookMs);
}

export class Poller<T> {
  #state: PollState<T>;
  #timer: unknown = null;
  #request: AbortController | null = null;
  #resting = true;
  #lastBody: string | null = null;

  constructor(
    path: string,
    private readonly parse: (body: string) => T,
    private readonly around: Surroundings,
    private readonly listener: (state: PollState<T>) => void,
  ) {
    this.#state = { answer: null, failure: null, path, asking: false, nextAt: null };
  }

  get state(): PollState<T> {
    return this.#state;
  }

  /** Begins, or goes on after {@link rest}: asks at once. */
  wake(): void {
    if (!this.#resting) return;
    this.#resting = false;
    this.askNow();
  }

  /** Stops asking until {@link wake}; the answer stays. */
  rest(): void {
    if (this.#resting) return;
    this.#resting = true;
    this.#drop();
    this.#tell({ asking: false, nextAt: null });
  }

  /** Asks something else, at once; what is in flight is dropped. The old answer stays until the new one is here. */
  ask(path: string): void {
    if (path === this.#state.path) return;
    this.#lastBody = null;
    this.#drop();
    this.#tell({ path, failure: null, asking: false, nextAt: null });
    if (!this.#resting) this.askNow();
  }

  /** Asks now instead of at the next time due. Does nothing if a request is in flight. */
  askNow(): void {
    if (this.#resting || this.#request !== null) return;
    this.#clearTimer();
    this.#tell({ asking: true, nextAt: null });
    void this.#once(this.#state.path);
  }

  #drop(): void {
    this.#clearTimer();
    this.#request?.abort();
    this.#request = null;
  }

  #clearTimer(): void {
    if (this.#timer !== null) this.around.clearTimer(this.#timer);
    this.#timer = null;
  }

  #tell(change: Partial<PollState<T>>): void {
    this.#state = { ...this.#state, ...change };
    this.listener(this.#state);
  }

  /** One request. It ends in exactly one state, or in none if it was dropped meanwhile. */
  async #once(path: string): Promise<void> {
    const request = new AbortController();
    this.#request = request;
    const began = this.around.now();
    let timedOut = false;
    const timeout = this.around.setTimer(() => {
      timedOut = true;
      request.abort();
    }, TIMEOUT_MS);

    let change: Partial<PollState<T>>;
    let delay: number;
    try {
      const answer = await this.#fetched(path, request.signal);
      const at = this.around.now();
      change = { answer: { value: answer, path, at }, failure: null };
      delay = pollDelayMs(at - began);
    } catch (error) {
      const failure = this.#failed(error, timedOut);
      change = { failure };
      delay = retryDelayMs(failure.attempts);
    } finally {
      this.around.clearTimer(timeout);
    }
    if (this.#request !== request) return;
    this.#request = null;
    this.#timer = this.around.setTimer(() => {
      this.#timer = null;
      this.askNow();
    }, delay);
    this.#tell({ ...change, asking: false, nextAt: this.around.now() + delay });
  }

  async #fetched(path: string, signal: AbortSignal): Promise<T> {
    const response = await this.around.fetch(path, { signal, headers: { accept: 'application/json' } });
    const body = await response.text();
    if (!response.ok) {
      throw new StatusError(response.status, parseProblem(body));
    }
    // Most answers on a quiet machine repeat the last: the same body is the same value, and the table need not change.
    const last = this.#state.answer;
    if (last !== null && last.path === path && body === this.#lastBody) return last.value;
    const value = this.parse(body);
    if (!signal.aborted) this.#lastBody = body;
    return value;
  }

  #failed(error: unknown, timedOut: boolean): Failure {
    const before = this.#state.failure;
    const row = { position: null, since: before?.since ?? this.around.now(), attempts: (before?.attempts ?? 0) + 1 };
    if (timedOut) {
      return { kind: 'timeout', status: null, message: `no answer within ${TIMEOUT_MS / 1000} s`, ...row };
    }
    if (error instanceof StatusError) {
      return { ...row, kind: 'status', status: error.status, message: error.message, position: error.position };
    }
    if (error instanceof FormatError) {
      return { kind: 'format', status: null, message: error.message, ...row };
    }
    return { kind: 'unreachable', status: null, message: 'no connection', ...row };
  }
}

class StatusError extends Error {
  override name = 'StatusError';
  readonly position: Position | null;
  constructor(
    readonly status: number,
    problem: Problem | null,
  ) {
    super(problem?.error ?? `the server answered with status ${status}`);
    this.position = problem?.position ?? null;
  }
}
