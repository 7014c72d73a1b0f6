import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LossTotal } from '../src/api.ts';
import { beforeFirstReportMs, nodesReporting, spanMs, trustIn } from '../src/trust.ts';
import { completeness, node } from './builders.ts';

const loss = (change: Partial<LossTotal> = {}): LossTotal => ({
  node: 'node-a',
  place: 'kernel',
  reason: 'map_full',
  count: 1204,
  bytes: 0,
  connections: 0,
  intended: false,
  from: null,
  to: null,
  ...change,
});

test('a_whole_answer_is_called_complete', () => {
  const trust = trustIn(completeness());
  assert.equal(trust.complete, true);
  assert.equal(trust.verdict, 'Complete');
  assert.deepEqual(trust.reasons, ['All 2 nodes covered all of it, nothing was lost.']);
});

test('one_node_is_named', () => {
  assert.deepEqual(trustIn(completeness({ nodes: [node('venus')] })).reasons, ['venus covered all of it, nothing was lost.']);
});

test('an_answer_without_nodes_is_not_complete_whatever_it_says', () => {
  const trust = trustIn(completeness({ nodes: [] }));
  assert.equal(trust.complete, false);
  assert.equal(trust.verdict, 'No reports');
});

test('silence_lateness_gaps_and_losses_are_each_told', () => {
  const trust = trustIn(
    completeness({
      complete: false,
      nodes: [
        node('a', { state: 'silent', covered_ms: 270_000, missing_ms: 30_000 }),
        node('b', { state: 'late', covered_ms: 289_000, missing_ms: 11_000 }),
        node('c', { source_state: 'degraded', source_detail: 'no UDP' }),
        node('d', { covered_ms: 60_000 }),
      ],
      losses: [loss(), loss({ place: 'agent', reason: 'spool_full', count: 3 })],
      omitted: 7,
    }),
  );
  const words = trust.reasons.join(' ');
  assert.equal(trust.complete, false);
  assert.match(words, /a has been silent since \d\d:07:10\./);
  assert.match(words, /b is late\./);
  assert.match(words, /41 s are missing in all, from a and b\./);
  assert.match(words, /Lost: 1,204 in the kernel \(map full\) and 3 in the agent \(spool full\)\./);
  assert.match(words, /The source on c is degraded \(no UDP\)\./);
  assert.match(words, /d first reported 1 min before the end/);
  assert.match(words, /7 more edges beyond the server's limit are summed in the row “other”\./);
});

test('a_loss_on_purpose_is_told_and_leaves_the_answer_complete', () => {
  const trust = trustIn(completeness({ losses: [loss({ intended: true, reason: 'udp_peer_cap', place: 'tracer', count: 18 })] }));
  assert.equal(trust.complete, true);
  assert.match(trust.reasons.join(' '), /Left out on purpose: 18 in the tracer \(udp peer cap\)\./);
});

test('rows_beyond_the_limit_are_told_and_in_the_sums', () => {
  const trust = trustIn(completeness({ omitted: 1 }));
  assert.equal(trust.complete, true);
  assert.match(trust.reasons.join(' '), /1 more edge beyond the server's limit is summed in the row “other”\./);
});

test('an_answer_that_is_incomplete_without_a_reason_says_so', () => {
  assert.deepEqual(trustIn(completeness({ complete: false })).reasons, [
    'The server says that something is missing, and names no reason.',
  ]);
});

test('many_nodes_and_reasons_are_counted_not_listed', () => {
  const trust = trustIn(
    completeness({
      complete: false,
      nodes: Array.from({ length: 200 }, (_, i) => node(`n${i}`, { state: 'silent', last_seen: null })),
      losses: Array.from({ length: 50 }, (_, i) => loss({ reason: `reason_${i}`, count: i + 1 })),
    }),
  );
  assert.match(trust.reasons.join(' '), /n0, n1, n2 and 197 more have been silent\./);
  assert.match(trust.reasons.join(' '), /Lost: 50 in the kernel \(reason 49\), 49 in the kernel \(reason 48\) and for 48 other reasons\./);
});

test('the_same_loss_on_two_nodes_is_summed', () => {
  const trust = trustIn(completeness({ complete: false, losses: [loss({ count: 2 }), loss({ node: 'node-b', count: 3 })] }));
  assert.match(trust.reasons.join(' '), /Lost: 5 in the kernel \(map full\)\./);
});

test('time_before_a_nodes_first_report_is_neither_covered_nor_missing', () => {
  assert.equal(spanMs(completeness()), 300_000);
  assert.equal(spanMs(completeness({ from: 'nonsense' })), 0);
  const { from, to } = completeness();
  const before = (changes: object) => beforeFirstReportMs(node('a', { last_seen: to, ...changes }), { from, to });
  assert.equal(before({ covered_ms: 60_000, missing_ms: 10_000 }), 230_000);
  assert.equal(before({ covered_ms: 310_000 }), 0);
  const polled = new Date(Date.parse(to) - 9_000).toISOString();
  assert.equal(before({ covered_ms: 291_000, last_seen: polled }), 0, 'the poll under way is no later start');
  assert.equal(before({ covered_ms: 60_000, last_seen: polled }), 231_000);
});

test('the_head_count_says_how_many_of_how_many', () => {
  assert.equal(nodesReporting([node('a')]), '1 node reporting');
  assert.equal(nodesReporting([node('a'), node('b', { state: 'late' })]), '1 of 2 nodes reporting');
});

test('sums_of_old_history_say_which_time_they_are_of', () => {
  const resolution = { seconds: 60, from: '2025-11-23T14:02:00Z', to: '2025-11-23T14:08:00Z' };
  const trust = trustIn(completeness({ resolution }));
  assert.equal(trust.complete, true);
  assert.match(trust.reasons.join(' '), /sums of (1 min|60 s|1 minute)/);
});
