import assert from 'node:assert/strict';
import { test } from 'node:test';
import { printable } from '../src/text.ts';
import { exactBytes, formatAge, formatBytes, formatCount, formatDuration, formatMicros, listed, plural, timeOfDay } from '../src/units.ts';

const bytes = (count: number | bigint) => {
  const { value, unit } = formatBytes(count);
  return `${value} ${unit}`;
};

test('bytes_below_a_kilobyte_are_whole', () => {
  assert.equal(bytes(0), '0 B');
  assert.equal(bytes(1), '1 B');
  assert.equal(bytes(999), '999 B');
});

test('bytes_above_have_three_significant_digits_as_on_the_command_line', () => {
  const numbers = [1000, 1234, 9_999, 99_949, 999_499, 999_500, 104_857_600, 2n ** 64n - 1n];
  assert.deepEqual(numbers.map(bytes), ['1.00 kB', '1.23 kB', '10.0 kB', '99.9 kB', '999 kB', '1.00 MB', '105 MB', '18.4 EB']);
});

test('rounding_never_yields_1000_of_a_unit_or_a_fourth_digit', () => {
  for (let exponent = 0; exponent < 59; exponent += 0.01) {
    const { value } = formatBytes(Math.floor(2 ** exponent));
    assert.ok(Number(value) < 1000, `2^${exponent}`);
    assert.ok(value.replace('.', '').length <= 3, `2^${exponent}: ${value}`);
  }
});

test('bytes_of_any_size_have_a_unit', () => {
  assert.equal(bytes(10n ** 18n), '1.00 EB');
  assert.equal(bytes(10n ** 23n), '100000 EB');
});

test('exact_numbers_lose_no_digit', () => {
  assert.equal(exactBytes(1), '1 byte');
  assert.equal(exactBytes(1_234_567), '1,234,567 bytes');
  assert.equal(exactBytes(9_000_000_000_000_000_001n), '9,000,000,000,000,000,001 bytes');
  assert.equal(formatCount(18_446_744_073_709_551_615n), '18,446,744,073,709,551,615');
});

test('round_trip_times_choose_their_unit', () => {
  assert.deepEqual(formatMicros(82), { value: '82', unit: 'µs' });
  assert.deepEqual(formatMicros(999), { value: '999', unit: 'µs' });
  assert.deepEqual(formatMicros(1200), { value: '1.20', unit: 'ms' });
  assert.deepEqual(formatMicros(999_499), { value: '999', unit: 'ms' });
  assert.deepEqual(formatMicros(999_500), { value: '1.00', unit: 's' });
  assert.deepEqual(formatMicros(2_500_000), { value: '2.50', unit: 's' });
});

test('durations_have_at_most_two_units_and_are_not_rounded_up', () => {
  assert.equal(formatDuration(0), '0 ms');
  assert.equal(formatDuration(-5), '0 ms');
  assert.equal(formatDuration(800), '800 ms');
  assert.equal(formatDuration(5000), '5 s');
  assert.equal(formatDuration(12_345), '12.3 s');
  assert.equal(formatDuration(59_999), '59.9 s');
  assert.equal(formatDuration(60_000), '1 min');
  assert.equal(formatDuration(130_000), '2 min 10 s');
  assert.equal(formatDuration(3_600_000), '1 h');
  assert.equal(formatDuration(3_605_000), '1 h');
  assert.equal(formatDuration(3_900_000), '1 h 5 min');
  assert.equal(formatDuration(86_400_000 * 2 + 3_600_000 * 3), '2 d 3 h');
  assert.equal(formatAge(400), '0 s');
  assert.equal(formatAge(3400), '3 s');
  assert.equal(formatAge(65_400), '1 min 5 s');
});

test('words_are_joined_as_people_write_them', () => {
  assert.equal(listed([]), '');
  assert.equal(listed(['a']), 'a');
  assert.equal(listed(['a', 'b', 'c']), 'a, b and c');
  assert.equal(plural(1, 'edge'), '1 edge');
  assert.equal(plural(1200, 'edge'), '1,200 edges');
});

test('an_instant_that_is_none_is_shown_as_it_came', () => {
  assert.equal(timeOfDay('yesterday'), 'yesterday');
  assert.match(timeOfDay('2025-11-23T14:07:10.123456789Z'), /^\d\d:07:10$/);
});

test('an_instant_of_another_day_has_its_date', () => {
  const noon = new Date(2025, 10, 23, 12, 0, 5).toISOString();
  const dayBefore = new Date(2025, 10, 22, 23, 59, 59).toISOString();
  assert.equal(timeOfDay(noon, noon), '12:00:05');
  assert.equal(timeOfDay(dayBefore, noon), '2025-11-22 23:59:59');
  assert.equal(timeOfDay(noon, 'nonsense'), '12:00:05');
});

test('a_name_cannot_hide_or_reorder_characters', () => {
  assert.equal(printable('nginx: worker process'), 'nginx: worker process');
  assert.equal(printable('naïve-サーバー-🦀'), 'naïve-サーバー-🦀');
  assert.equal(printable('good\u202efdp.exe'), 'good\\u{202e}fdp.exe');
  assert.equal(printable('a\u200bb\u00a0c\n\u0000\u001b[31m'), 'a\\u{200b}b\\u{a0}c\\u{a}\\u{0}\\u{1b}[31m');
  assert.equal(printable('\ud800'), '\\u{d800}');
  assert.equal(printable('<img src=x>'), '<img src=x>');
});

test('a_name_of_any_length_fits', () => {
  const cut = printable('🦀'.repeat(5000));
  assert.equal(Array.from(cut).length, 301);
  assert.ok(cut.endsWith('🦀…'));
});
