import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseChanges, parseConnections, parseSeries, type Series, type Steps } from '../src/api.ts';
import { EventReader } from '../src/events.ts';
import { pinLink } from '../src/pin.ts';
import { largest, stepsOf } from '../src/steps.ts';
import { completeness, edge, end } from './builders.ts';

test('a_link_is_pinned_in_words_that_the_server_reads', () => {
  const pinned = (client: object, server: object) => pinLink([edge({ client: end('x', client), server: end('y', server) })]);
  assert.equal(
    pinned({ kind: 'deployment', namespace: 'shop', name: 'cart' }, { kind: 'namespace', namespace: 'data', name: 'data' }),
    'client.workload="shop/cart" and server.namespace="data"',
  );
  assert.equal(pinned({ kind: 'pod', namespace: 'shop', name: 'a"b\\' }, { kind: 'process', name: 'sshd', node: 'n1' }), 'client.pod="shop/a\\"b\\\\" and server.process="sshd" and server.node="n1"');
  assert.equal(pinned({ kind: 'node', name: 'n1' }, { kind: 'external', name: 'api.example', address: '192.0.2.1' }), 'client.node="n1" and client.namespace="" and server.address="192.0.2.1"');
  assert.equal(pinned({ kind: 'unknown', name: '', address: null }, { kind: 'unknown', name: '', address: null }), null);
  // One name with two addresses is pinned by its name.
  const [a, b] = ['192.0.2.1', '192.0.2.2'].map((address) => edge({ client: end('cart', { kind: 'deployment' }), server: end('api.example', { kind: 'external', address }) }));
  assert.equal(pinLink([a!, b!]), 'client.workload="cart" and server.name="api.example"');
});

const STEPS: Steps = { seconds: 60, from: '2026-01-01T00:00:00Z', to: '2026-01-01T00:04:00Z', incomplete: ['2026-01-01T00:02:00Z', '2026-01-01T00:03:00Z'] };
const point = (minute: number, change = {}) => ({ at: `2026-01-01T00:0${minute}:00Z`, sent_bytes: 1, recv_bytes: 2, opened: 0, retransmits: 0, failures: 0, rtt_us: null, ...change });
const row = (...points: ReturnType<typeof point>[]): Series => ({ ...edge(), points });

test('a_step_without_a_point_is_nothing_if_it_was_watched_and_not_known_if_not', () => {
  const steps = stepsOf([row(point(0), point(3, { sent_bytes: 5 })), row(point(0))], STEPS, 'bytes');
  assert.deepEqual(steps.map(({ value, incomplete }) => [value, incomplete]), [[6, false], [0, false], [null, true], [7, true]]);
  assert.equal(largest(steps), 7);
  const rtt = stepsOf([row(point(0, { rtt_us: 100 })), row(point(0, { rtt_us: 300 }), point(1))], STEPS, 'rtt_us');
  assert.deepEqual(rtt.map(({ value }) => value), [200, null, null, null], 'a mean, and no zero where nobody measured');
});

test('steps_that_make_no_sense_are_none', () => {
  assert.deepEqual(stepsOf([row(point(0))], { ...STEPS, seconds: 0 }, 'bytes'), []);
  assert.deepEqual(stepsOf([row(point(0))], { ...STEPS, to: STEPS.from }, 'bytes'), []);
  assert.equal(stepsOf([], { ...STEPS, to: '2030-01-01T00:00:00Z' }, 'bytes').length, 2000);
});

test('the_other_answers_are_read_whole_too', () => {
  const body = (items: unknown) => JSON.stringify({ items, completeness: completeness() });
  assert.deepEqual(parseSeries(body([row(point(0))])).items, [row(point(0))]);
  const change = { change: 'gone', text: 'gone', before: edge(), after: null, symptoms: [] };
  assert.deepEqual(parseChanges(body([change])).items, [change]);
  assert.throws(() => parseChanges(body([{ ...change, text: 1 }])), /answer\.items\[0\]\.text: expected a string/);
  assert.throws(() => parseConnections(body([{ key: 'x' }])), /answer\.items\[0\]\.protocol: expected a string, got nothing/);
});

test('events_are_read_from_pieces_that_end_anywhere', () => {
  const bytes = new TextEncoder().encode(': hello\n\nevent: answer\ndata: {"a":"ü"}\n\nevent: answer\r\ndata: 1\r\ndata: 2\r\n\r\n');
  for (const size of [1, 2, 3, 7, 1000]) {
    const reader = new EventReader();
    const told = [];
    for (let at = 0; at < bytes.length; at += size) told.push(...reader.read(bytes.subarray(at, at + size)));
    assert.deepEqual(told, [{ name: 'answer', data: '{"a":"ü"}' }, { name: 'answer', data: '1\n2' }], `${size} bytes a piece`);
  }
});
