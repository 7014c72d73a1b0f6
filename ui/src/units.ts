// Numbers as people read them. Pure; every function's exact counterpart stays at hand for the tooltip.

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const;

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

/** Three significant digits: `1.23`, `12.3`, `123`, `1023`. */
function significant(value: number): string {
  if (value < 9.995) return value.toFixed(2);
  if (value < 99.95) return value.toFixed(1);
  return value.toFixed(0);
}

/** Bytes in powers of 1024: whole below 1 KiB, three significant digits above. */
export function formatBytes(bytes: number | bigint): Quantity {
  let value = Number(bytes);
  let unit = 0;
  if (value < 1024) return { value: String(value), unit: 'B' };
  // 1023.5 would be written as 1024: that is 1.00 of the next unit.
  while (value >= 1023.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
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

/** A duration in its two largest units, rounded down: `800 ms`, `45 s`, `2 min 10 s`, `1 h 5 min`, `2 d 3 h`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = Math.floor(ms / 1000);
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

/** How long ago, in whole seconds: `just now`, `3 s ago`. */
export function formatAge(ms: number): string {
  return ms < 1000 ? 'just now' : `${formatDuration(ms)} ago`;
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

/** The local time of day of an RFC 3339 instant, `14:07:10`; the text itself if it is none. */
export function timeOfDay(instant: string): string {
  const date = new Date(instant);
  if (Number.isNaN(date.getTime())) return instant;
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, '0')).join(':');
}
