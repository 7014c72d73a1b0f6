import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Change, Edge, Health } from '../src/api.ts';
import { canOpen, close, open, openIn } from '../src/map/expand.ts';
import { degrees, found, graphOf, graphOfChanges, endKey } from '../src/map/graph.ts';
import { linkWords, endWords, reasons } from '../src/map/words.ts';
import { DEFAULT_VIEW } from '../src/view.ts';
import { edge, end } from './builders.ts';

const shop = (name: string, change = {}) => end(name, { kind: 'deployment', namespace: 'shop', ...change });
const redis = end('redis', { kind: 'stateful_set', namespace: 'data' });
const sick: Health = { verdict: 'unhealthy', symptoms: [{ signal: 'refused', text: '30 % refused', now: 0.3, usual: 0 }], since: null, past_from: null };
const healthy: Health = { ...sick, verdict: 'healthy', symptoms: [] };
const link = (edges: Edge[]) => [...graphOf(edges).links.values()][0]!;

test('edges_between_the_same_two_ends_are_one_link_with_the_worst_of_their_marks', () => {
  const edges = [
    edge({ client: shop('cart'), server: redis, port: 6379, sent_bytes: 5, health: healthy }),
    edge({ client: shop('cart'), server: redis, port: 16379, recv_bytes: 7, health: sick }),
  ];
  for (const order of [edges, [...edges].reverse()]) {
    const graph = graphOf(order);
    assert.equal(graph.links.size, 1);
    assert.deepEqual([link(order).bytes, link(order).mark, link(order).edges.length], [12, 'sick', 2]);
    assert.equal(graph.nodes.get(endKey(redis))?.mark, 'sick', 'whom the trouble is with');
    assert.equal(graph.nodes.get(endKey(shop('cart')))?.mark, 'plain');
    assert.deepEqual(degrees(graph).get(endKey(redis)), [0, 1]);
  }
  assert.deepEqual(reasons(link(edges)), ['30 % refused']);
  assert.equal(linkWords(graphOf(edges), link(edges), false), 'cart → redis: 2 edges, 12 B, unhealthy: 30 % refused');
});

test('groups_are_namespaces_nodes_and_what_is_outside', () => {
  const graph = graphOf([
    edge({ client: end('api.example', { kind: 'external' }), server: shop('web') }),
    edge({ client: end('sshd', { kind: 'process', node: 'a' }), server: end('b', { kind: 'node', node: 'b' }) }),
    edge({ client: end('sshd', { kind: 'process', node: 'b' }), server: end('', { kind: 'unknown', address: '10.0.0.9' }) }),
    edge({ client: end('data', { kind: 'namespace', namespace: 'data' }), server: shop('web') }),
  ]);
  const groups = [...graph.groups.values()].map(({ key, kind, opens, isOpen, nodes }) => [key, kind, opens, isOpen, nodes.length]);
  assert.deepEqual(groups.sort(), [
    ['namespace:data', 'namespace', 'data', false, 1],
    ['namespace:shop', 'namespace', 'shop', true, 1],
    ['node:a', 'node', 'node:a', true, 1],
    ['node:b', 'node', 'node:b', true, 2],
    ['outside:', 'outside', null, true, 1],
    ['unknown:', 'unknown', null, true, 1],
  ]);
  assert.equal([...graph.nodes.values()].filter((node) => node.label === 'sshd').length, 2, 'one on each node');
  assert.equal([...graph.nodes.values()].find((node) => node.end.kind === 'unknown')?.label, '10.0.0.9');
});

test('the_row_of_all_others_is_no_node', () => {
  const other = end('other', { kind: 'other' });
  const graph = graphOf([edge({ client: other, server: other, port: 0, protocol: '', sent_bytes: 9 })]);
  assert.deepEqual([graph.nodes.size, graph.links.size, graph.other?.sent_bytes], [0, 0, 9]);
});

test('what_is_opened_and_closed_is_the_servers_expand', () => {
  const graph = graphOf([edge({ client: shop('web'), server: redis }), edge({ client: end('ssh', { kind: 'process', node: 'a' }), server: redis })]);
  assert.deepEqual(openIn(graph, DEFAULT_VIEW), ['data', 'node:a', 'shop']);
  const closed = close(graph, DEFAULT_VIEW, 'shop');
  assert.deepEqual(closed, { by: 'namespace', expand: ['data', 'node:a'] });
  const near = open(graph, DEFAULT_VIEW, 'shop/web');
  assert.deepEqual(near, { by: 'namespace', expand: ['data', 'node:a', 'shop', 'shop/web'] });
  assert.deepEqual(close(graph, near, 'shop'), closed, 'with all that is in it');
  assert.deepEqual(open(graph, closed, 'shop').expand, ['data', 'node:a', 'shop']);
  assert.deepEqual(['workload', 'namespace', 'pod', 'zone'].map((by) => canOpen(by as 'pod')), [true, true, false, false]);
  const opens = (name: string) => [...graph.nodes.values()].find((node) => node.label === name)?.opens;
  assert.deepEqual([opens('web'), opens('redis'), opens('ssh')], ['shop/web', 'data/redis', null]);
});

test('a_comparison_draws_what_is_gone_and_marks_what_changed', () => {
  const [stays, fresh, gone, worse] = ['a', 'b', 'c', 'd'].map((name) => edge({ client: shop(name), server: redis }));
  const change = (kind: string, before: Edge | null, after: Edge | null): Change => ({ change: kind, text: `it is ${kind}`, before, after, symptoms: [] });
  const graph = graphOfChanges([stays!, fresh!, worse!], [change('new', null, fresh!), change('gone', gone!, null), change('sicker', worse!, worse!), change('odd', stays!, stays!)]);
  const marks = [...graph.links.values()].map((one) => [graph.nodes.get(one.client)?.label, one.mark]).sort();
  assert.deepEqual(marks, [['a', 'shifted'], ['b', 'new'], ['c', 'gone'], ['d', 'sick']]);
  assert.equal(graph.nodes.get(endKey(redis))?.mark, 'sick');
  assert.match(endWords(graph, graph.nodes.get(endKey(redis))!, true), /stateful set redis in data, sicker: calls 0, called by 4/);
});

test('the_search_finds_names_and_what_a_link_is_about', () => {
  const graph = graphOf([edge({ client: shop('web'), server: redis, port: 6379 }), edge({ client: shop('mail'), server: end('smtp', { kind: 'external' }), port: 587 })]);
  const labels = (query: string) => [...(found(graph, query) ?? [])].map((key) => graph.nodes.get(key)?.label).sort();
  assert.equal(found(graph, '  '), null);
  assert.deepEqual(labels('shop'), ['mail', 'web']);
  assert.deepEqual(labels(':6379'), ['redis', 'web']);
  assert.deepEqual(labels('nowhere'), []);
});
