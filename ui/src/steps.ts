// Points of series made into what a chart draws: one value a step, a step without traffic is zero if it was watched and a
// hole if it was not. Pure.
import type { Point, Series, Steps } from './api.ts';

export type Measure = 'bytes' | 'opened' | 'failures' | 'retransmits' | 'rtt_us';

export interface Step {
  /** Milliseconds since 1970. */
  at: number;
  /** null: not known. */
  value: number | null;
  /** Something is missing in it. */
  incomplete: boolean;
}

/** Steps at most: the server makes 1,500 at most. */
const STEPS_MAX = 2000;

/** The sum over all rows, step by step; of round-trip times the mean over the rows that have one. */
export function stepsOf(rows: readonly Series[], steps: Steps, measure: Measure): Step[] {
  const length = steps.seconds * 1000;
  const [from, to] = [Date.parse(steps.from), Date.parse(steps.to)];
  if (!(length > 0) || !(to > from)) return [];
  const count = Math.min(STEPS_MAX, Math.ceil((to - from) / length));
  const incomplete = new Set(steps.incomplete.map((at) => Date.parse(at)));
  const [sums, rows_] = [new Array<number>(count).fill(0), new Array<number>(count).fill(0)];
  for (const row of rows) {
    for (const point of row.points) {
      const place = Math.round((Date.parse(point.at) - from) / length);
      const value = valueOf(point, measure);
      if (value === null || place < 0 || place >= count) continue;
      sums[place] = (sums[place] ?? 0) + value;
      rows_[place] = (rows_[place] ?? 0) + 1;
    }
  }
  return sums.map((sum, place) => {
    const at = from + place * length;
    const isIncomplete = incomplete.has(at);
    const seen = rows_[place] ?? 0;
    if (measure === 'rtt_us') return { at, value: seen === 0 ? null : sum / seen, incomplete: isIncomplete };
    return { at, value: seen === 0 && isIncomplete ? null : sum, incomplete: isIncomplete };
  });
}

function valueOf(point: Point, measure: Measure): number | null {
  return measure === 'bytes' ? point.sent_bytes + point.recv_bytes : point[measure];
}

/** The largest value; 0 without any. */
export function largest(steps: readonly Step[]): number {
  return steps.reduce((most, { value }) => Math.max(most, value ?? 0), 0);
}
