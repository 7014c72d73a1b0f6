// Numbers as people read them. Pure; every function's exact counterpart stays at hand for the tooltip.

// The same rules as the command line's tables (crates/cli/src/show/units.rs): what the terminal shows, the page shows.

const BYTE_UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'] as const;

/** A number and its unit apart, so that a column can align both. */
export interface Quantity {
  value: string;
  unit: string;
}

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** `1234567` as `1,234,567`. */
export function formatCount(count: number | bigint): string {
  return grouped.format(count);
}

/** Three significant digits of a number below 1000: `1.23`, `12.3`, `123`. */
function significant(value: number): string {
  if (value < 9.995) return value.toFixed(2);
  if (value < 99.95) return value.toFixed(1);
  return value.toFixed(0);
}

/** Bytes in powers of 1000: whole below 1 kB, three significant digits above. */
export function formatBytes(bytes: number | bigint): Quantity {
  let value = Number(bytes);
  let unit = 0;
  if (value < 1000) return { value: String(value), unit: 'B' };
  // 999.5 would be written as 1000: that is 1.00 of the next unit.
  while (value >= 999.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return { value: significant(value), unit: BYTE_UNITS[unit] ?? 'B' };
}

/** `1,234,567 bytes`. */
export function exactBytes(bytes: number | bigint): string {
  return `${formatCount(bytes)} ${Number(bytes) === 1 ? 'byte' : 'bytes'}`;
}

/** A round-trip time given in microseconds: `82 µs`, `1.20 ms`, `2.50 s`. */
export function formatMicros(us: number): Quantity {
  if (us < 1000) return { value: String(us), unit: 'µs' };
  if (us < 999_500) return { value: significant(us / 1000), unit: 'ms' };
  return { value: significant(us / 1_000_000), unit: 's' };
}

/** A duration in its two largest units, rounded down: `800 ms`, `12.3 s`, `2 min 10 s`, `1 h 5 min`, `2 d 3 h`. */
export function formatDuration(ms: number): string {
  const whole = Math.max(0, Math.floor(ms));
  if (whole < 1000) return `${whole} ms`;
  if (whole < 60_000) return `${Math.floor(whole / 100) / 10} s`;
  const seconds = Math.floor(whole / 1000);
  const parts: [number, string][] = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [seconds % 60, 's'],
  ];
  const first = parts.findIndex(([amount]) => amount > 0);
  return parts
    .slice(first, first + 2)
    .filter(([amount]) => amount > 0)
    .map(([amount, unit]) => `${amount} ${unit}`)
    .join(' ');
}

/** An age in whole seconds, as a clock that ticks shows it: `0 s`, `3 s`, `1 min 5 s`. */
export function formatAge(ms: number): string {
  return ms < 1000 ? '0 s' : formatDuration(Math.floor(ms / 1000) * 1000);
}

/** `1 node`, `3 nodes`, with the number grouped. */
export function plural(count: number | bigint, one: string, many = `${one}s`): string {
  return `${formatCount(count)} ${Number(count) === 1 ? one : many}`;
}

/** Words in a row: `a`, `a and b`, `a, b and c`. */
export function listed(words: string[]): string {
  if (words.length < 2) return words.join('');
  return `${words.slice(0, -1).join(', ')} and ${words[words.length - 1] ?? ''}`;
}

const two = (part: number): string => String(part).padStart(2, '0');

const dayOf = (date: Date): string => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;

/**
 * The local time of an RFC 3339 instant, `14:07:10`, with its date in front if that is not the reference's; the text itself
 * if it is no instant.
 */
export function timeOfDay(instant: string, reference: string = instant): string {
  const date = new Date(instant);
  if (Number.isNaN(date.getTime())) return instant;
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const beside = new Date(reference);
  return Number.isNaN(beside.getTime()) || dayOf(beside) === dayOf(date) ? time : `${dayOf(date)} ${time}`;
}
