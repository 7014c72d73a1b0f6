import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { FormatError, parseEdges, parseProblem } from '../src/api.ts';
import { completeness, edge } from './builders.ts';

const body = (items: unknown, rest: unknown = completeness()) => JSON.stringify({ items, completeness: rest });

test('an_answer_is_read_whole', () => {
  const items = [edge({ rtt_us: 12, service: 'db' }), edge()];
  assert.deepEqual(parseEdges(body(items)), { items, completeness: completeness() });
});

test('a_newer_servers_extra_fields_are_ignored', () => {
  assert.deepEqual(parseEdges(body([{ ...edge(), colour: 'blue' }])).items, [edge()]);
});

test('an_absent_optional_field_is_unknown_and_not_zero', () => {
  const { rtt_us: _, ...without } = edge();
  assert.equal(parseEdges(body([without])).items[0]?.rtt_us, null);
});

test('a_field_of_the_wrong_type_is_refused_with_its_place', () => {
  const refused = (text: string, words: RegExp) => assert.throws(() => parseEdges(text), (error) => error instanceof FormatError && words.test(error.message));
  refused(body([edge(), { ...edge(), sent_bytes: '12' }]), /answer\.items\[1\]\.sent_bytes: expected a number, got a string/);
  refused(body([{ ...edge(), client: null }]), /answer\.items\[0\]\.client: expected an object, got null/);
  refused(body({}), /answer\.items: expected a list/);
  refused(body([], { ...completeness(), complete: 1 }), /answer\.completeness\.complete: expected true or false/);
  refused(body([{ ...edge(), connections: -1 }]), /connections: -1 is negative/);
  refused(body([{ ...edge(), connections: 1.5 }]), /connections: 1\.5 is not an integer/);
  refused('<html>', /not JSON/);
  refused('', /empty/);
  refused('null', /answer: expected an object, got null/);
});

test('a_number_that_javascript_would_round_is_refused', () => {
  const text = body([edge()]).replace('"sent_bytes":0', '"sent_bytes":18446744073709551615');
  assert.throws(() => parseEdges(text), /sent_bytes: .* is not an integer that this page can show exactly/);
});

test('a_problem_is_the_servers_words_or_nothing', () => {
  assert.deepEqual(parseProblem('{"error":"no such span"}'), { error: 'no such span', position: null });
  const position = { parameter: 'filter', column: 6, expected: ['a number'] };
  assert.deepEqual(parseProblem(JSON.stringify({ error: 'no', position })), { error: 'no', position });
  assert.equal(parseProblem('{"error":"no","position":{"column":1}}'), null);
  assert.equal(parseProblem('<h1>Bad Gateway</h1>'), null);
  assert.equal(parseProblem('{"error":5}'), null);
});

// The fields are written by hand in two languages: this holds one against the other.
test('the_fields_are_those_of_the_rust_types', () => {
  const rust = readFileSync('../crates/wire/src/api.rs', 'utf8');
  const script = readFileSync('src/api.ts', 'utf8');
  for (const name of ['Completeness', 'Resolution', 'Steps', 'NodeCoverage', 'LossTotal', 'EdgeEnd', 'Edge', 'Health', 'Symptom', 'Change', 'Point', 'Problem', 'Position']) {
    const fields = [...(new RegExp(`pub struct ${name} \\{([^}]*)\\}`).exec(rust)?.[1] ?? '').matchAll(/pub (\w+):/g)].map((m) => m[1]);
    const ours = [...(new RegExp(`interface ${name} \\{([^}]*)\\}`).exec(script)?.[1] ?? '').matchAll(/^ {2}(\w+)\??:/gm)].map((m) => m[1]);
    assert.ok(fields.length > 0, `crates/wire/src/api.rs has no ${name}`);
    assert.deepEqual(ours, fields, name);
  }
});
