import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../src/api.ts';
import { POLL_INTERVAL_MS, Poller, pollDelayMs, retryDelayMs, type PollState } from '../src/poll.ts';

/** A poller in a world whose clock stands still until it is moved, and whose server answers when it is told to. */
function world(path = 'a') {
  let clock = 0;
  let ids = 0;
  const timers = new Map<number, { at: number; run: () => void }>();
  const requests: { path: string; aborted: boolean; accept: string; stream: () => Promise<(piece: string | null) => Promise<void>>; answer: (status: number, body: string) => Promise<void>; fail: () => Promise<void> }[] = [];
  const states: PollState<string>[] = [];
  const settle = async () => {
    for (let i = 0; i < 20; i += 1) await Promise.resolve();
    // Streams hand on in turns of their own.
    for (let i = 0; i < 4; i += 1) await new Promise((turn) => setImmediate(turn));
  };
  const poller = new Poller<string>(
    path,
    (body) => {
      if (body === 'rubbish') throw new FormatError('rubbish');
      return `read ${body}`;
    },
    {
      fetch: (asked, { signal, headers }) =>
        new Promise((resolve, reject) => {
          const request = {
            path: asked,
            aborted: false,
            accept: headers['accept'] ?? '',
            /** Answers with events; what it returns sends a piece, null ends it. */
            stream: async () => {
              let control: ReadableStreamDefaultController<Uint8Array> | undefined;
              const body = new ReadableStream<Uint8Array>({ start: (own) => void (control = own) });
              signal.addEventListener('abort', () => control?.error(new DOMException('aborted', 'AbortError')));
              resolve(new Response(body, { headers: { 'content-type': 'text/event-stream' } }));
              await settle();
              return async (piece: string | null) => {
                if (piece === null) control?.close();
                else control?.enqueue(new TextEncoder().encode(piece));
                await settle();
              };
            },
            answer: async (status: number, body: string) => {
              resolve({ ok: status === 200, status, headers: new Headers(), text: () => Promise.resolve(body) } as Response);
              await settle();
            },
            fail: async () => {
              reject(new TypeError('network'));
              await settle();
            },
          };
          signal.addEventListener('abort', () => {
            request.aborted = true;
            reject(new DOMException('aborted', 'AbortError'));
          });
          requests.push(request);
        }),
      now: () => clock,
      setTimer: (run, ms) => {
        ids += 1;
        timers.set(ids, { at: clock + ms, run });
        return ids;
      },
      clearTimer: (id) => void timers.delete(id as number),
    },
    (state) => states.push(state),
  );
  return {
    poller,
    requests,
    states,
    last: () => requests[requests.length - 1]!,
    pass: async (ms: number) => {
      const until = clock + ms;
      for (;;) {
        const due = [...timers].filter(([, timer]) => timer.at <= until).sort((a, b) => a[1].at - b[1].at)[0];
        if (due === undefined) break;
        timers.delete(due[0]);
        clock = due[1].at;
        due[1].run();
        await settle();
      }
      clock = until;
    },
    settle,
  };
}

test('it_asks_at_once_and_then_every_two_seconds', async () => {
  const { poller, requests, last, pass } = world();
  poller.wake();
  assert.equal(requests.length, 1);
  await last().answer(200, '1');
  assert.equal(poller.state.answer?.value, 'read 1');
  await pass(POLL_INTERVAL_MS - 1);
  assert.equal(requests.length, 1);
  await pass(1);
  assert.equal(requests.length, 2);
});

test('never_more_than_one_request_is_in_flight', async () => {
  const { poller, requests, pass } = world();
  poller.wake();
  poller.wake();
  poller.askNow();
  await pass(15_000);
  poller.askNow();
  assert.equal(requests.length, 1);
});

test('a_slow_server_is_asked_less_often', async () => {
  assert.equal(pollDelayMs(10), 2000);
  assert.equal(pollDelayMs(3000), 6000);
  const { poller, requests, last, pass } = world();
  poller.wake();
  await pass(3000);
  await last().answer(200, '1');
  await pass(5999);
  assert.equal(requests.length, 1);
  await pass(1);
  assert.equal(requests.length, 2);
});

test('a_server_that_is_away_is_asked_ever_more_seldom_and_the_answer_is_kept', async () => {
  assert.deepEqual([1, 2, 3, 4, 5, 6, 60].map(retryDelayMs), [2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  const { poller, requests, last, pass } = world();
  poller.wake();
  await last().answer(200, '1');
  await pass(2000);
  await last().fail();
  assert.equal(poller.state.failure?.kind, 'unreachable');
  assert.equal(poller.state.failure?.since, 2000);
  assert.equal(poller.state.answer?.value, 'read 1');
  assert.equal(poller.state.answer?.at, 0);
  await pass(2000);
  await last().fail();
  assert.equal(poller.state.failure?.attempts, 2);
  assert.equal(poller.state.failure?.since, 2000);
  assert.equal(poller.state.nextAt, 8000);
  await pass(3999);
  assert.equal(requests.length, 3);
  await pass(1);
  assert.equal(requests.length, 4);
  await last().answer(200, '2');
  assert.equal(poller.state.failure, null);
  assert.equal(poller.state.answer?.value, 'read 2');
});

test('trying_now_does_not_wait_for_the_next_time_due', async () => {
  const { poller, requests, last, pass } = world();
  poller.wake();
  await last().fail();
  poller.askNow();
  assert.equal(requests.length, 2);
  await last().answer(200, '1');
  await pass(1999);
  assert.equal(requests.length, 2, 'the old timer is gone');
});

test('a_server_that_never_answers_is_given_up', async () => {
  const { poller, last, pass } = world();
  poller.wake();
  await pass(20_000);
  assert.equal(last().aborted, true);
  assert.equal(poller.state.failure?.kind, 'timeout');
  assert.equal(poller.state.asking, false);
});

test('an_error_is_told_in_the_servers_words', async () => {
  const { poller, last, pass } = world();
  poller.wake();
  await last().answer(400, '{"error":"no such span"}');
  assert.deepEqual(poller.state.failure, { kind: 'status', status: 400, message: 'no such span', position: null, since: 0, attempts: 1 });
  await pass(2000);
  await last().answer(502, '<html>');
  assert.equal(poller.state.failure?.message, 'the server answered with status 502');
});

test('an_answer_that_cannot_be_read_is_a_failure_and_not_a_table', async () => {
  const { poller, last } = world();
  poller.wake();
  await last().answer(200, 'rubbish');
  assert.equal(poller.state.failure?.kind, 'format');
  assert.equal(poller.state.answer, null);
});

test('another_question_drops_the_one_in_flight', async () => {
  const { poller, requests, last, settle } = world();
  poller.wake();
  const first = last();
  poller.ask('b');
  await settle();
  assert.equal(first.aborted, true);
  assert.equal(requests.length, 2);
  assert.equal(last().path, 'b');
  assert.equal(poller.state.failure, null, 'a dropped request is no failure');
  await last().answer(200, '2');
  assert.deepEqual(poller.state.answer, { value: 'read 2', path: 'b', at: 0 });
});

test('an_answer_to_an_old_question_never_appears_under_a_new_one', async () => {
  const { poller, last } = world();
  poller.wake();
  const first = last();
  poller.ask('b');
  await first.answer(200, 'late');
  assert.equal(poller.state.answer, null);
});

test('the_same_question_again_changes_nothing', () => {
  const { poller, requests } = world();
  poller.wake();
  poller.ask('a');
  assert.equal(requests.length, 1);
});

test('nothing_is_asked_while_resting_and_at_once_after_it', async () => {
  const { poller, requests, last, pass, settle } = world();
  poller.wake();
  await last().answer(200, '1');
  poller.rest();
  assert.equal(poller.state.nextAt, null);
  await pass(100_000);
  poller.ask('b');
  poller.askNow();
  assert.equal(requests.length, 1);
  poller.wake();
  assert.equal(requests.length, 2);
  assert.equal(last().path, 'b');
  const second = last();
  poller.rest();
  await settle();
  assert.equal(second.aborted, true);
  assert.equal(poller.state.failure, null);
  assert.equal(poller.state.asking, false);
});

test('the_same_body_is_the_same_value', async () => {
  const { poller, last, pass } = world();
  poller.wake();
  await last().answer(200, '1');
  const before = poller.state.answer;
  await pass(2000);
  await last().answer(200, '1');
  assert.equal(poller.state.answer?.value, before?.value);
  assert.equal(poller.state.answer?.at, 2000);
});

test('where_the_server_sends_events_nothing_is_asked_again', async () => {
  const { poller, requests, last, pass } = world();
  const seen = (): PollState<string> => poller.state;
  poller.wake();
  assert.match(last().accept, /text\/event-stream/);
  const send = await last().stream();
  await send('event: answer\ndata: on');
  
  assert.equal(seen().answer, null, 'half of an event is none');
  await send('e\n\n');
  assert.deepEqual([seen().answer?.value, seen().subscribed, seen().asking], ['read one', true, false]);
  await pass(9_000);
  await send(': nothing changed\n\n');
  assert.deepEqual([seen().answer?.value, seen().answer?.at], ['read one', 9_000], 'it is as new as the word that nothing changed');
  await send('event: answer\ndata: two\n\nevent: answer\ndata: three\n\n');
  assert.equal(seen().answer?.value, 'read three');
  assert.equal(requests.length, 1);
  poller.rest();
  assert.equal(last().aborted, true);
  assert.equal(seen().subscribed, false);
});

test('when_events_end_or_fall_silent_it_asks_instead_and_offers_again_later', async () => {
  const { poller, requests, last, pass } = world();
  const seen = (): PollState<string> => poller.state;
  poller.wake();
  const send = await last().stream();
  await send('event: answer\ndata: one\n\n');
  await send(null);
  await pass(0);
  assert.equal(requests.length, 2);
  for (let i = 0; i < 15; i += 1) {
    assert.equal(last().accept, 'application/json');
    await last().answer(200, `plain ${i}`);
    await pass(POLL_INTERVAL_MS);
  }
  assert.match(last().accept, /text\/event-stream/, 'after some that went well');
  const again = await last().stream();
  await again('event: answer\ndata: four\n\n');
  assert.equal(seen().failure, null);
  await pass(25_000);
  assert.equal(last().aborted, true, 'a stream without a word is broken');
  assert.deepEqual([seen().failure?.kind, seen().answer?.value], ['unreachable', 'read four']);
  await pass(2_000);
  assert.equal(last().accept, 'application/json');
});

test('an_event_in_another_form_is_a_failure_and_is_not_shown', async () => {
  const { poller, last } = world();
  const seen = (): PollState<string> => poller.state;
  poller.wake();
  const send = await last().stream();
  await send('event: answer\ndata: rubbish\n\n');
  assert.deepEqual([seen().failure?.kind, seen().answer], ['format', null]);
});
