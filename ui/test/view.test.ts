import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COLUMNS } from '../src/edges.ts';
import { DEFAULT_VIEW, GROUPINGS, SPANS, attributeOf, byAttribute, edgesPath, formatView, parseView, sortedBy, splitAt, type View } from '../src/view.ts';

test('every_view_survives_its_url', () => {
  for (const query of ['', 'redis :6379', 'a&b=c#d?e%20+ü', '<script>']) {
    for (const by of [...GROUPINGS, 'attribute:service.a&b=ü'] as const) {
      for (const { since } of SPANS) {
        for (const sort of COLUMNS) {
          for (const direction of ['ascending', 'descending'] as const) {
            const view: View = { query, filter: `${query} "x"`.trim(), by, since, sort, direction, exact: direction === 'ascending' };
            assert.deepEqual(parseView(formatView(view)), view);
          }
        }
      }
    }
  }
});

test('the_default_view_has_no_query', () => {
  assert.equal(formatView(DEFAULT_VIEW), '');
  assert.deepEqual(parseView(''), DEFAULT_VIEW);
});

test('what_a_url_says_wrongly_is_the_default', () => {
  assert.deepEqual(parseView('?by=galaxy&since=9y&sort=toString&order=sideways&bytes=1&other=x'), DEFAULT_VIEW);
});

test('an_attribute_has_a_name_and_is_asked_for_as_it_is_written', () => {
  assert.deepEqual(['', '  ', ' team '].map(byAttribute), [null, null, 'attribute:team']);
  assert.deepEqual([attributeOf('attribute:team'), attributeOf('zone')], ['team', null]);
  assert.equal(parseView('?by=attribute:').by, DEFAULT_VIEW.by);
  assert.equal(edgesPath({ filter: '', by: 'attribute:a&b', since: '5m' }), 'api/v1/edges?by=attribute%3Aa%26b&since=5m&limit=5000');
});

test('a_hostile_url_cannot_hold_a_megabyte_of_query', () => {
  assert.equal(parseView(`?by=attribute:${'x'.repeat(1_000_000)}`).by.length, 210);
  assert.equal(parseView(`?q=${'x'.repeat(1_000_000)}`).query.length, 400);
  assert.equal(parseView(`?filter=${'x'.repeat(1_000_000)}`).filter.length, 4000);
});

test('a_request_holds_only_what_the_server_decides', () => {
  const view: View = { ...DEFAULT_VIEW, query: 'secret', sort: 'rtt', by: 'node', since: '24h' };
  assert.equal(edgesPath(view), 'api/v1/edges?by=node&since=24h&limit=5000');
  const filtered = edgesPath({ ...view, filter: 'port=443 and name~"a*"' });
  assert.equal(filtered, 'api/v1/edges?by=node&since=24h&limit=5000&filter=port%3D443%20and%20name~%22a*%22');
});

test('a_filter_is_split_at_the_character_that_the_server_names', () => {
  assert.deepEqual(splitAt('name=ü)', 7), ['name=ü', ')', '']);
  assert.deepEqual(splitAt('name=', 6), ['name=', '', '']);
  assert.deepEqual(splitAt('\u{1f600}=x', 2), ['\u{1f600}', '=', 'x'], 'a character is not two');
});

test('a_heading_sorts_from_its_natural_end_and_then_turns', () => {
  const byClient = sortedBy(DEFAULT_VIEW, 'client');
  assert.equal(byClient.direction, 'ascending');
  assert.equal(sortedBy(byClient, 'client').direction, 'descending');
  assert.equal(sortedBy(byClient, 'rtt').direction, 'descending');
  assert.equal(sortedBy(DEFAULT_VIEW, 'sent').direction, 'ascending');
});
