// Keeps an answer new: subscribes to it where the server has subscriptions (server-sent events), else asks again and again.
// At most one request is in flight, none while the page is hidden or paused; slower while the server is away. It knows
// nothing of the page: time, timers and `fetch` are handed in, every change is told to one listener as a whole new state.
//
// The first request of a path offers to take events. A server without them answers as ever, and is asked again in a
// while; a subscription that breaks is followed by plain questions, and offered again after some of them went well.
import { FormatError, parseProblem, type Position, type Problem } from './api.ts';
import { EventReader } from './events.ts';

/** Between an answer and the next question. A server that needs longer to answer is asked accordingly less often. */
export const POLL_INTERVAL_MS = 2000;
/** The first wait after a failure; it doubles up to the longest. */
const RETRY_FIRST_MS = 2000;
const RETRY_LONGEST_MS = 30_000;
/** A day's history of a large cluster is read in a few seconds; beyond this the server is taken to be stuck. */
const TIMEOUT_MS = 20_000;

/** A subscription without a word for so long is broken: the server says something every 10 s. */
const SILENCE_MS = 25_000;
/** Plain answers after a subscription broke before one is offered again. */
const PLAIN_ANSWERS = 15;

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
  /** New answers come by themselves. */
  subscribed: boolean;
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
  /** Plain answers still to be had before a subscription is offered. */
  #plain = 0;

  constructor(
    path: string,
    private readonly parse: (body: string) => T,
    private readonly around: Surroundings,
    private readonly listener: (state: PollState<T>) => void,
    /** Whether subscriptions are wanted, and how long it is between an answer and the next question at least. */
    private readonly manner: { subscribe: boolean; intervalMs: number } = { subscribe: true, intervalMs: POLL_INTERVAL_MS },
  ) {
    this.#state = { answer: null, failure: null, path, asking: false, subscribed: false, nextAt: null };
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
    this.#tell({ asking: false, subscribed: false, nextAt: null });
  }

  /** Asks something else, at once; what is in flight is dropped. The old answer stays until the new one is here. */
  ask(path: string): void {
    if (path === this.#state.path) return;
    this.#lastBody = null;
    this.#drop();
    this.#tell({ path, failure: null, asking: false, subscribed: false, nextAt: null });
    if (!this.#resting) this.askNow();
  }

  /** Asks now instead of at the next time due. Does nothing if a request is in flight or an answer comes by itself. */
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
      const response = await this.#response(path, request.signal);
      if (isEvents(response)) {
        this.around.clearTimer(timeout);
        await this.#follow(response, path, request);
        // Ended in order: the server stops, or its answer is no more.
        this.#plain = PLAIN_ANSWERS;
        [change, delay] = [{}, 0];
      } else {
        const answer = this.#read(await response.text(), path, request.signal);
        this.#plain = Math.max(0, this.#plain - 1);
        const at = this.around.now();
        change = { answer: { value: answer, path, at }, failure: null };
        delay = Math.max(this.manner.intervalMs, pollDelayMs(at - began));
      }
    } catch (error) {
      if (this.#state.subscribed) this.#plain = PLAIN_ANSWERS;
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
    this.#tell({ ...change, asking: false, subscribed: false, nextAt: this.around.now() + delay });
  }

  async #response(path: string, signal: AbortSignal): Promise<Response> {
    const accept = this.manner.subscribe && this.#plain === 0 ? 'text/event-stream, application/json' : 'application/json';
    const response = await this.around.fetch(path, { signal, headers: { accept } });
    if (!response.ok) {
      throw new StatusError(response.status, parseProblem(await response.text()));
    }
    return response;
  }

  #read(body: string, path: string, signal: AbortSignal): T {
    // Most answers on a quiet machine repeat the last: the same body is the same value, and the table need not change.
    const last = this.#state.answer;
    if (last !== null && last.path === path && body === this.#lastBody) return last.value;
    const value = this.parse(body);
    if (!signal.aborted) this.#lastBody = body;
    return value;
  }

  /** Tells every answer of a subscription, until it ends. */
  async #follow(response: Response, path: string, request: AbortController): Promise<void> {
    const reader = response.body?.getReader();
    if (reader === undefined) return;
    const events = new EventReader();
    let silence: unknown = null;
    try {
      for (;;) {
        silence = this.around.setTimer(() => request.abort(), SILENCE_MS);
        const { done, value } = await reader.read();
        this.around.clearTimer(silence);
        if (done || this.#request !== request) return;
        const told = events.read(value);
        const answer = told.filter(({ name }) => name === 'answer').pop();
        const at = this.around.now();
        if (answer !== undefined) {
          const value = this.#read(answer.data, path, request.signal);
          this.#tell({ answer: { value, path, at }, failure: null, asking: false, subscribed: true, nextAt: null });
        } else if (events.isAlive && this.#state.answer !== null) {
          // Nothing changed: what is shown is as new as this word.
          this.#tell({ answer: { ...this.#state.answer, at } });
        }
      }
    } finally {
      this.around.clearTimer(silence);
      void reader.cancel().catch(() => undefined);
    }
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

function isEvents(response: Response): boolean {
  return response.headers.get('content-type')?.startsWith('text/event-stream') ?? false;
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
