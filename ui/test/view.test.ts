import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COLUMNS } from '../src/edges.ts';
import { AGES, DEFAULT_VIEW, GROUPINGS, SPANS, attributeOf, byAttribute, connectionsPath, diffPath, edgesPath, instantOf, formatView, parseView, seriesPath, sortedBy, splitAt, stripPath, type View } from '../src/view.ts';

test('every_view_survives_its_url', () => {
  for (const query of ['', 'redis :6379', 'a&b=c#d?e%20+ü', '<script>']) {
    for (const by of [...GROUPINGS, 'attribute:service.a&b=ü'] as const) {
      for (const { since } of SPANS) {
        for (const sort of COLUMNS) {
          for (const direction of ['ascending', 'descending'] as const) {
            const view: View = { ...DEFAULT_VIEW, query, filter: `${query} "x"`.trim(), by, since, sort, direction, exact: direction === 'ascending' };
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
  assert.equal(edgesPath({ ...DEFAULT_VIEW, by: 'attribute:a&b' }), 'api/v1/edges?by=attribute%3Aa%26b&since=5m&limit=5000&health=true');
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
  assert.equal(filtered, 'api/v1/edges?by=node&filter=port%3D443%20and%20name~%22a*%22&since=24h&limit=5000');
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

test('a_view_of_the_map_survives_its_url', () => {
  const view: View = { ...DEFAULT_VIEW, by: 'namespace', expand: ['shop', 'shop/cart & more', 'node:a'], at: '2026-01-31T03:00:00.000Z', against: '1h', chosen: 'pod:shop/a>external:/b', show: 'table' };
  assert.deepEqual(parseView(formatView(view)), view);
  for (const { age } of AGES) assert.equal(parseView(`?against=${age}`).against, age);
  assert.equal(parseView('?against=2026-01-31T03:00:00Z').against, '2026-01-31T03:00:00.000Z');
  assert.deepEqual(['yesterday', '5', '2026-13-45T00:00:00Z', null].map(instantOf), [null, null, null, null]);
  const hostile = parseView(`?chosen=${'x'.repeat(100_000)}${'&expand=y'.repeat(9)}${Array.from({ length: 2000 }, (_, i) => `&expand=${i}`).join('')}&expand=${'z'.repeat(10_000)}`);
  assert.deepEqual([hostile.chosen?.length, hostile.expand.length], [2000, 500]);
});

test('the_paths_beside_the_edges_ask_about_the_same', () => {
  const view: View = { ...DEFAULT_VIEW, by: 'namespace', expand: ['a', 'b/c'], filter: 'port=1 or port=2', at: '2026-01-31T03:00:00.000Z' };
  const same = 'by=namespace&expand=a&expand=b%2Fc';
  assert.equal(edgesPath(view), `api/v1/edges?${same}&filter=port%3D1%20or%20port%3D2&since=5m&at=2026-01-31T03%3A00%3A00.000Z&limit=5000&health=true`);
  assert.equal(seriesPath(view, 'x=1', '2h'), `api/v1/series?${same}&filter=(port%3D1%20or%20port%3D2)%20and%20(x%3D1)&since=2h&at=2026-01-31T03%3A00%3A00.000Z&limit=100`);
  assert.match(connectionsPath(view, 'x=1'), /filter=\(port%3D1%20or%20port%3D2\)%20and%20\(x%3D1\)$/);
  assert.equal(stripPath(view), 'api/v1/series?by=node&filter=port%3D1%20or%20port%3D2&since=2h&limit=1', 'the strip ends now, whatever is looked at');
  const compared = new URLSearchParams(diffPath({ ...view, against: '1h' }).split('?')[1]);
  assert.deepEqual([compared.get('before'), compared.get('after'), compared.get('window')], ['2026-01-31T02:00:00.000Z', '2026-01-31T03:00:00.000Z', '5m']);
  const now = new URLSearchParams(diffPath({ ...DEFAULT_VIEW, against: '2026-01-01T00:00:00.000Z' }).split('?')[1]);
  assert.deepEqual([now.get('before'), now.get('after')], ['2026-01-01T00:00:00.000Z', null]);
  assert.match(diffPath({ ...DEFAULT_VIEW, against: '1h' }), /&before=1h&window=/, 'an age is from the clock of the server');
  assert.equal(edgesPath({ ...view, by: 'pod', filter: ' ', at: null }), 'api/v1/edges?by=pod&since=5m&limit=5000&health=true', 'nothing is opened under another grouping');
});
