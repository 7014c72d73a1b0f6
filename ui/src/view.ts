// What the person looking has chosen: search, filter, span, grouping, order. It lives in the page's URL, so that a link shows
// another person the same. Values at their default are left out of it; an unknown value is read as the default.
import { COLUMNS, firstDirection, type Column, type Direction } from './edges.ts';

/** The spans that can be asked for, as the API's `since` writes them, with their words and lengths. */
export const SPANS = [
  { since: '1m', words: '1 minute', ms: 60_000 },
  { since: '5m', words: '5 minutes', ms: 300_000 },
  { since: '15m', words: '15 minutes', ms: 900_000 },
  { since: '1h', words: '1 hour', ms: 3_600_000 },
  { since: '6h', words: '6 hours', ms: 21_600_000 },
  { since: '24h', words: '24 hours', ms: 86_400_000 },
] as const;
export type Since = (typeof SPANS)[number]['since'];

/** The groupings that can be asked for, as the API's `by` writes them, but for those by an attribute. */
export const GROUPINGS = ['workload', 'service', 'pod', 'container', 'process', 'address', 'namespace', 'node', 'zone'] as const;
/** `attribute:NAME` is by an attribute that is collected. */
export type Grouping = (typeof GROUPINGS)[number] | `${typeof ATTRIBUTE}${string}`;

const ATTRIBUTE = 'attribute:';
/** Longer than any attribute's name; keeps a hostile link from holding megabytes. */
const ATTRIBUTE_LENGTH_MAX = 200;

/** The grouping by an attribute; `null` without a name. */
export function byAttribute(name: string): Grouping | null {
  const trimmed = name.trim().slice(0, ATTRIBUTE_LENGTH_MAX);
  return trimmed === '' ? null : `${ATTRIBUTE}${trimmed}`;
}

/** The attribute's name that is grouped by; `null` under every other grouping. */
export function attributeOf(by: Grouping): string | null {
  return by.startsWith(ATTRIBUTE) ? by.slice(ATTRIBUTE.length) : null;
}

function groupingOf(text: string | null): Grouping {
  const attribute = text?.startsWith(ATTRIBUTE) ? byAttribute(text.slice(ATTRIBUTE.length)) : null;
  return attribute ?? oneOf<Grouping>(GROUPINGS, text, DEFAULT_VIEW.by);
}

export interface View {
  query: string;
  /** In the server's filter language; empty: everything. */
  filter: string;
  by: Grouping;
  since: Since;
  sort: Column;
  direction: Direction;
  /** Bytes as integers instead of kB and MB. */
  exact: boolean;
}

export const DEFAULT_VIEW: View = {
  query: '',
  filter: '',
  by: 'workload',
  since: '5m',
  sort: 'sent',
  direction: 'descending',
  exact: false,
};

/** The longest filter that the server reads. */
const FILTER_LENGTH_MAX = 4000;

/** Longer than any name; keeps a hostile link from holding megabytes. */
const QUERY_LENGTH_MAX = 400;

function oneOf<T extends string>(allowed: readonly T[], value: string | null, otherwise: T): T {
  return allowed.find((candidate) => candidate === value) ?? otherwise;
}

/** Reads a view from a URL's query (`?q=redis&by=process`). */
export function parseView(search: string): View {
  const params = new URLSearchParams(search);
  const sort = oneOf(COLUMNS, params.get('sort'), DEFAULT_VIEW.sort);
  const order = params.get('order');
  return {
    query: (params.get('q') ?? '').slice(0, QUERY_LENGTH_MAX),
    filter: (params.get('filter') ?? '').slice(0, FILTER_LENGTH_MAX),
    by: groupingOf(params.get('by')),
    since: oneOf(
      SPANS.map((span) => span.since),
      params.get('since'),
      DEFAULT_VIEW.since,
    ),
    sort,
    direction: order === 'asc' ? 'ascending' : order === 'desc' ? 'descending' : firstDirection(sort),
    exact: params.get('bytes') === 'exact',
  };
}

/** Writes a view as a URL's query, empty for the default view. */
export function formatView(view: View): string {
  const params = new URLSearchParams();
  if (view.query !== '') params.set('q', view.query);
  if (view.filter !== '') params.set('filter', view.filter);
  if (view.by !== DEFAULT_VIEW.by) params.set('by', view.by);
  if (view.since !== DEFAULT_VIEW.since) params.set('since', view.since);
  if (view.sort !== DEFAULT_VIEW.sort) params.set('sort', view.sort);
  if (view.direction !== firstDirection(view.sort)) params.set('order', view.direction === 'ascending' ? 'asc' : 'desc');
  if (view.exact) params.set('bytes', 'exact');
  const text = params.toString();
  return text === '' ? '' : `?${text}`;
}

/**
 * The most rows that are asked for: some 2 MB of JSON, read and summed in under 0.1 s. The server's own limit is 1,000; what
 * lies beyond is in no total here, so more is asked for than is drawn.
 */
const ROWS_MAX = 5000;

/** The request that answers a view, relative to the page. Search and order are the page's own work. */
export function edgesPath(view: Pick<View, 'filter' | 'by' | 'since'>): string {
  const filter = view.filter.trim() === '' ? '' : `&filter=${encodeURIComponent(view.filter)}`;
  return `api/v1/edges?by=${encodeURIComponent(view.by)}&since=${view.since}&limit=${ROWS_MAX}${filter}`;
}

/** A filter's text around the character at which it went wrong, counted from 1: before it, itself, after it. */
export function splitAt(filter: string, column: number): [before: string, at: string, after: string] {
  const characters = [...filter];
  return [characters.slice(0, column - 1).join(''), characters[column - 1] ?? '', characters.slice(column).join('')];
}

/** The words for a span: `5 minutes`. */
export function spanWords(since: Since): string {
  return SPANS.find((span) => span.since === since)?.words ?? since;
}

/** The order after a click on a column's heading: the other direction if it is the order already. */
export function sortedBy(view: View, column: Column): View {
  const direction: Direction =
    view.sort !== column ? firstDirection(column) : view.direction === 'ascending' ? 'descending' : 'ascending';
  return { ...view, sort: column, direction };
}
