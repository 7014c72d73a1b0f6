import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COLUMNS, keyOf, search, serviceOf, sortEdges, totalsOf } from '../src/edges.ts';
import { edge, end } from './builders.ts';

test('totals_are_the_sum_of_every_row', () => {
  const totals = totalsOf([
    edge({ sent_bytes: 1, recv_bytes: 10, connections: 2, retransmits: 3, failures: 1 }),
    edge({ sent_bytes: 2, recv_bytes: 20, connections: 5 }),
  ]);
  assert.deepEqual(totals, { edges: 2, sent_bytes: 3n, recv_bytes: 30n, connections: 7n, retransmits: 3n, failures: 1n });
});

test('totals_are_exact_beyond_what_a_double_holds', () => {
  const most = Number.MAX_SAFE_INTEGER;
  const edges = Array.from({ length: 1001 }, (_, i) => edge({ sent_bytes: i === 1000 ? 1 : most }));
  assert.equal(totalsOf(edges).sent_bytes, BigInt(most) * 1000n + 1n);
});

test('the_row_of_all_others_is_summed_comes_last_and_is_not_searched', () => {
  const other = edge({ client: end('other', { kind: 'other' }), server: end('other', { kind: 'other' }), port: 0, protocol: '', sent_bytes: 900 });
  const rows = [edge({ sent_bytes: 5 }), other, edge({ server: end('another'), sent_bytes: 7 })];
  assert.deepEqual([totalsOf(rows, 40).edges, totalsOf(rows, 40).sent_bytes], [42, 912n]);
  for (const direction of ['ascending', 'descending'] as const) {
    for (const column of COLUMNS) assert.equal(sortEdges(rows, column, direction).at(-1), other, column);
  }
  assert.deepEqual(search(rows, 'other').map((found) => found.server.name), ['another']);
});

test('totals_of_nothing_are_zero', () => {
  assert.deepEqual(totalsOf([]), { edges: 0, sent_bytes: 0n, recv_bytes: 0n, connections: 0n, retransmits: 0n, failures: 0n });
});

const redis = edge({ server: end('Redis', { namespace: 'data', address: '10.244.2.9', node: 'node-c' }), port: 6379 });
const dns = edge({ server: end('coredns'), service: 'kube-dns', port: 53, protocol: 'udp' });
const web = edge({ client: end('curl', { kind: 'process' }), server: end('web'), port: 8053 });
const all = [redis, dns, web];

test('a_search_finds_names_addresses_services_and_protocols_in_any_case', () => {
  assert.deepEqual(search(all, 'redis'), [redis]);
  assert.deepEqual(search(all, 'REDIS'), [redis]);
  assert.deepEqual(search(all, '10.244.2'), [redis]);
  assert.deepEqual(search(all, 'kube-dns'), [dns]);
  assert.deepEqual(search(all, 'udp'), [dns]);
  assert.deepEqual(search(all, 'node-c'), [redis]);
  assert.deepEqual(search(all, 'process'), [web]);
});

test('every_word_of_a_search_must_fit', () => {
  assert.deepEqual(search(all, 'frontend data'), [redis]);
  assert.deepEqual(search(all, 'frontend nowhere'), []);
});

test('ports_are_found_from_their_beginning_or_exactly', () => {
  assert.deepEqual(search(all, '63'), [redis]);
  assert.deepEqual(search(all, '53'), [dns]);
  assert.deepEqual(search(all, '805'), [web]);
  assert.deepEqual(search(all, ':53'), [dns]);
  assert.deepEqual(search(all, ':80'), []);
  assert.deepEqual(search(all, '53/udp'), [dns]);
  assert.deepEqual(search(all, ':53/UDP'), [dns]);
  assert.deepEqual(search(all, '53/tcp'), []);
});

test('an_empty_search_is_every_edge', () => {
  assert.equal(search(all, '  '), all);
});

test('a_search_is_text_and_no_pattern', () => {
  assert.deepEqual(search(all, '.*'), []);
  assert.deepEqual(search(all, '['), []);
});

test('numbers_sort_as_numbers_and_names_as_people_read_them', () => {
  const edges = [edge({ sent_bytes: 9 }), edge({ sent_bytes: 10 }), edge({ sent_bytes: 1 })];
  assert.deepEqual(sortEdges(edges, 'sent', 'descending').map((e) => e.sent_bytes), [10, 9, 1]);
  const named = ['pod-10', 'Pod-2', 'pod-1'].map((name) => edge({ client: end(name) }));
  assert.deepEqual(sortEdges(named, 'client', 'ascending').map((e) => e.client.name), ['pod-1', 'Pod-2', 'pod-10']);
});

test('what_is_not_known_comes_last_in_either_direction', () => {
  const edges = [edge({ rtt_us: null }), edge({ rtt_us: 5 }), edge({ rtt_us: 0 })];
  assert.deepEqual(sortEdges(edges, 'rtt', 'ascending').map((e) => e.rtt_us), [0, 5, null]);
  assert.deepEqual(sortEdges(edges, 'rtt', 'descending').map((e) => e.rtt_us), [5, 0, null]);
});

test('the_order_does_not_depend_on_the_order_of_the_answer', () => {
  const edges = Array.from({ length: 40 }, (_, i) => edge({ port: i, sent_bytes: i % 3, rtt_us: i % 2 === 0 ? null : i % 5 }));
  const backwards = [...edges].reverse();
  for (const column of COLUMNS) {
    for (const direction of ['ascending', 'descending'] as const) {
      assert.deepEqual(sortEdges(edges, column, direction), sortEdges(backwards, column, direction), `${column} ${direction}`);
    }
  }
});

test('sorting_keeps_every_edge_and_leaves_the_answer_alone', () => {
  const edges = Object.freeze([web, dns, redis]);
  const sorted = sortEdges(edges, 'server', 'ascending');
  assert.deepEqual(new Set(sorted), new Set(edges));
  assert.deepEqual(edges, [web, dns, redis]);
});

test('an_edge_is_the_same_edge_when_its_numbers_change', () => {
  assert.equal(keyOf(edge({ sent_bytes: 1 })), keyOf(edge({ sent_bytes: 2, failures: 3, rtt_us: 4, certainty: 'unknown' })));
  assert.notEqual(keyOf(edge({ port: 1 })), keyOf(edge({ port: 2 })));
  assert.notEqual(keyOf(edge({ client: end('a', { namespace: 'x' }) })), keyOf(edge({ client: end('a', { namespace: 'y' }) })));
});

test('a_service_that_is_not_known_says_so', () => {
  assert.equal(serviceOf(edge()), null);
  assert.equal(serviceOf(edge({ service: 'shop/db', service_certainty: 'known' })), 'shop/db');
  assert.equal(serviceOf(edge({ service: 'shop/db', service_certainty: 'inferred', service_candidates: ['shop/db'] })), 'shop/db?');
  const several = edge({ service_certainty: 'unknown', service_candidates: ['shop/db', 'shop/db-old'] });
  assert.equal(serviceOf(several), 'shop/db or shop/db-old?');
  assert.deepEqual(search([edge(), several], 'db-old'), [several]);
});
