// How far an answer can be trusted, in plain words: which nodes reported, which time is covered, what was lost where and
// why, what the server left out. Pure; the words are made here and nowhere else.
import type { Completeness, LossTotal, NodeCoverage } from './api.ts';
import { formatCount, formatDuration, listed, plural, timeOfDay } from './units.ts';

export interface Trust {
  complete: boolean;
  /** One or two words: `Complete`, `Incomplete`, `No reports`. */
  verdict: string;
  /** Why, one sentence each, the weightiest first. */
  reasons: string[];
}

/** The span's length; 0 if its ends are not instants. */
export function spanMs(completeness: Pick<Completeness, 'from' | 'to'>): number {
  const ms = Date.parse(completeness.to) - Date.parse(completeness.from);
  return Number.isFinite(ms) && ms > 0 ? ms : 0;
}

/** The part of the span that lies before a node's first report. What is since the last poll of a node that reports comes with the next. */
export function beforeFirstReportMs(node: NodeCoverage, completeness: Pick<Completeness, 'from' | 'to'>): number {
  const since = node.state === 'reporting' && node.last_seen !== null ? Date.parse(completeness.to) - Date.parse(node.last_seen) : 0;
  const underWay = Number.isFinite(since) ? Math.max(0, since) : 0;
  return Math.max(0, spanMs(completeness) - underWay - node.covered_ms - node.missing_ms);
}

/** Less than this is the agents' poll and the server's window, not a node that came later. */
const MEANT_MS = 1000;

function names(nodes: NodeCoverage[]): string {
  const shown = nodes.slice(0, 3).map((node) => node.node);
  return nodes.length > 3 ? `${shown.join(', ')} and ${nodes.length - 3} more` : listed(shown);
}

/** A reason's fixed word, readable: `map_full` as `map full`. */
export function reasonWords(reason: string): string {
  return reason.replaceAll('_', ' ');
}

function lossWords(losses: LossTotal[]): string {
  const places = new Map<string, number>();
  for (const loss of losses) {
    const place = `in the ${loss.place} (${reasonWords(loss.reason)})`;
    places.set(place, (places.get(place) ?? 0) + loss.count);
  }
  const byWeight = [...places].sort((a, b) => b[1] - a[1]);
  const shown = byWeight.slice(0, 2).map(([place, count]) => `${formatCount(count)} ${place}`);
  const more = byWeight.length - shown.length;
  return more > 0 ? `${shown.join(', ')} and for ${plural(more, 'other reason')}` : listed(shown);
}

function isSound(node: NodeCoverage): boolean {
  return node.state === 'reporting' && node.missing_ms === 0 && (node.source_state === 'ok' || node.source_state === '');
}

/** The words for an answer's completeness. */
export function trustIn(completeness: Completeness): Trust {
  const { nodes, losses, omitted } = completeness;
  const reasons: string[] = [];

  if (nodes.length === 0) {
    return { complete: false, verdict: 'No reports', reasons: ['No node has reported in this span.'] };
  }

  const silent = nodes.filter((node) => node.state === 'silent');
  const late = nodes.filter((node) => node.state === 'late');
  const gaps = nodes.filter((node) => node.missing_ms > 0);
  const unwell = nodes.filter((node) => node.state === 'reporting' && node.source_state !== 'ok' && node.source_state !== '');
  const newer = nodes.filter((node) => beforeFirstReportMs(node, completeness) > MEANT_MS);
  const lost = losses.filter((loss) => !loss.intended && loss.count > 0);
  const chosen = losses.filter((loss) => loss.intended && loss.count > 0);

  if (silent.length > 0) {
    const seen = silent.length === 1 ? silent[0]?.last_seen : null;
    const since = typeof seen === 'string' ? ` since ${timeOfDay(seen, completeness.to)}` : '';
    reasons.push(`${names(silent)} ${silent.length === 1 ? 'has' : 'have'} been silent${since}.`);
  }
  if (late.length > 0) reasons.push(`${names(late)} ${late.length === 1 ? 'is' : 'are'} late.`);
  if (gaps.length > 0) {
    const missing = gaps.reduce((sum, node) => sum + node.missing_ms, 0);
    reasons.push(
      gaps.length === 1
        ? `${formatDuration(missing)} ${missing === 1000 ? 'is' : 'are'} missing from ${names(gaps)}.`
        : `${formatDuration(missing)} are missing in all, from ${names(gaps)}.`,
    );
  }
  if (lost.length > 0) reasons.push(`Lost: ${lossWords(lost)}.`);
  if (omitted > 0) {
    reasons.push(`${plural(omitted, 'more edge')} beyond the server's limit ${omitted === 1 ? 'is' : 'are'} summed in the row “other”.`);
  }
  for (const node of unwell.slice(0, 2)) {
    const detail = node.source_detail === '' ? '' : ` (${node.source_detail})`;
    reasons.push(`The source on ${node.node} is ${node.source_state}${detail}.`);
  }
  if (newer.length > 0) {
    const one = newer.length === 1 ? newer[0] : undefined;
    reasons.push(
      one === undefined
        ? `${names(newer)} first reported within this span.`
        : `${one.node} first reported ${formatDuration(one.covered_ms + one.missing_ms)} before the end; what came earlier was not measured.`,
    );
  }
  const { resolution } = completeness;
  if (resolution !== null) {
    const sums = formatDuration(resolution.seconds * 1000);
    const [from, to] = [resolution.from, resolution.to].map((time) => timeOfDay(time, completeness.to));
    reasons.push(`Old history is kept as sums of ${sums}: the numbers are of ${from} to ${to}.`);
  }
  if (completeness.complete) {
    const who = nodes.length === 1 ? `${nodes[0]?.node ?? 'The node'} covered` : `All ${nodes.length} nodes covered`;
    const first =
      lost.length === 0 && nodes.every(isSound)
        ? [`${who} all of it, nothing was lost.`]
        : [];
    if (chosen.length > 0) reasons.push(`Left out on purpose: ${lossWords(chosen)}.`);
    return { complete: true, verdict: 'Complete', reasons: [...first, ...reasons] };
  }
  if (chosen.length > 0) reasons.push(`Left out on purpose: ${lossWords(chosen)}.`);
  if (reasons.length === 0) reasons.push('The server says that something is missing, and names no reason.');
  return { complete: false, verdict: 'Incomplete', reasons };
}

/** `3 of 4 nodes reporting`. */
export function nodesReporting(nodes: readonly NodeCoverage[]): string {
  const reporting = nodes.filter((node) => node.state === 'reporting').length;
  return reporting === nodes.length
    ? `${plural(nodes.length, 'node')} reporting`
    : `${reporting} of ${plural(nodes.length, 'node')} reporting`;
}
