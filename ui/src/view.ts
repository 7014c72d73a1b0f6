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

/** The pictures of one answer: a map, or its table. */
export const SHOWS = ['map', 'table'] as const;
export type Show = (typeof SHOWS)[number];

/** What a span can be compared with: how long before it. */
export const AGES = [
  { age: '10m', words: '10 minutes before', ms: 600_000 },
  { age: '1h', words: '1 hour before', ms: 3_600_000 },
  { age: '1d', words: '1 day before', ms: 86_400_000 },
  { age: '7d', words: '7 days before', ms: 604_800_000 },
] as const;

export interface View {
  show: Show;
  /** What of a grouping by namespace is opened, as the API's `expand`: `shop`, `shop/cart`, `node:a`. */
  expand: string[];
  /** The instant that is looked at, RFC 3339; null: now. */
  at: string | null;
  /** What it is compared with: one of {@link AGES}, or an instant; null: nothing. */
  against: string | null;
  /** The link or the node whose panel is open, by its key; null: none. */
  chosen: string | null;
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
  show: 'map',
  expand: [],
  at: null,
  against: null,
  chosen: null,
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

/** Opened parts at most, and how long one is: keeps a hostile link from holding megabytes. */
const EXPAND_MAX = 500;
const EXPAND_LENGTH_MAX = 600;
const CHOSEN_LENGTH_MAX = 2000;

/** An instant in the one form that is put into addresses; null: the text is none. */
export function instantOf(text: string | null): string | null {
  if (text === null || !/^\d{4}-\d\d-\d\dT/.test(text)) return null;
  const at = Date.parse(text);
  return Number.isNaN(at) ? null : new Date(at).toISOString();
}

/** Reads a view from a URL's query (`?q=redis&by=process`). */
export function parseView(search: string): View {
  const params = new URLSearchParams(search);
  const sort = oneOf(COLUMNS, params.get('sort'), DEFAULT_VIEW.sort);
  const order = params.get('order');
  return {
    show: oneOf(SHOWS, params.get('show'), DEFAULT_VIEW.show),
    expand: [...new Set(params.getAll('expand'))].filter((one) => one !== '' && one.length <= EXPAND_LENGTH_MAX).slice(0, EXPAND_MAX),
    at: instantOf(params.get('at')),
    against: AGES.find(({ age }) => age === params.get('against'))?.age ?? instantOf(params.get('against')),
    chosen: params.get('chosen')?.slice(0, CHOSEN_LENGTH_MAX) ?? null,
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
  if (view.show !== DEFAULT_VIEW.show) params.set('show', view.show);
  if (view.query !== '') params.set('q', view.query);
  if (view.filter !== '') params.set('filter', view.filter);
  if (view.by !== DEFAULT_VIEW.by) params.set('by', view.by);
  if (view.by === 'namespace') for (const one of view.expand) params.append('expand', one);
  if (view.at !== null) params.set('at', view.at);
  if (view.against !== null) params.set('against', view.against);
  if (view.chosen !== null) params.set('chosen', view.chosen);
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

/** What of a view is asked of the server. */
export type Asked = Pick<View, 'filter' | 'by' | 'since' | 'expand' | 'at'>;

/** What every question about a view's edges asks, without the span. `more`: a filter that is joined with the view's. */
function parameters(view: Asked, more = ''): string {
  const filter = [view.filter.trim(), more].filter((part) => part !== '');
  const joined = filter.length < 2 ? (filter[0] ?? '') : filter.map((part) => `(${part})`).join(' and ');
  const expand = view.by === 'namespace' ? view.expand.map((one) => `&expand=${encodeURIComponent(one)}`).join('') : '';
  return `by=${encodeURIComponent(view.by)}${expand}${joined === '' ? '' : `&filter=${encodeURIComponent(joined)}`}`;
}

const atOf = (view: Asked): string => (view.at === null ? '' : `&at=${encodeURIComponent(view.at)}`);

/** The spans whose edges are judged: the server looks at them in steps of 10 s, and at the hour before. */
const JUDGED: readonly Since[] = ['1m', '5m', '15m', '1h'];

/** The request that answers a view, relative to the page. Search and order are the page's own work. */
export function edgesPath(view: Asked): string {
  const health = JUDGED.includes(view.since) ? '&health=true' : '';
  return `api/v1/edges?${parameters(view)}&since=${view.since}${atOf(view)}&limit=${ROWS_MAX}${health}`;
}

/** The steps of the edges that a filter lets through. */
export function seriesPath(view: Asked, only: string, since: string): string {
  return `api/v1/series?${parameters(view, only)}&since=${since}${atOf(view)}&limit=100`;
}

/** The connections that a filter lets through. */
export function connectionsPath(view: Asked, only: string): string {
  const filter = [view.filter.trim(), only].filter((part) => part !== '').map((part) => `(${part})`).join(' and ');
  return `api/v1/connections?since=${view.since}${atOf(view)}&limit=50${filter === '' ? '' : `&filter=${encodeURIComponent(filter)}`}`;
}

/** The totals of a strip of time, as steps: one row and the one of all others. It always ends now. */
export function stripPath(view: Asked): string {
  return `api/v1/series?${parameters({ ...view, by: 'node', expand: [] })}&since=${stripOf(view.since)}&limit=1`;
}

/** How far a span's strip of time looks back. */
export function stripOf(since: Since): string {
  const strips: Record<Since, string> = { '1m': '30m', '5m': '2h', '15m': '6h', '1h': '1d', '6h': '7d', '24h': '30d' };
  return strips[since];
}

/** What a view's span can be compared with without the two overlapping, and what it is compared with. */
export function agesFor({ since, against }: Pick<View, 'since' | 'against'>): (typeof AGES)[number][] {
  const span = SPANS.find((one) => one.since === since)?.ms ?? 0;
  return AGES.filter(({ age, ms }) => ms >= span || age === against);
}

/** The comparison of a view's span with one as long before it; where the two would overlap, the later begins where the earlier ends. Where that ends now, it is the server's clock that says when. */
export function diffPath(view: Asked & Pick<View, 'against'>): string {
  const age = AGES.find(({ age }) => age === view.against);
  const earlier = view.at === null || age === undefined ? (view.against ?? '') : new Date(Date.parse(view.at) - age.ms).toISOString();
  const after = view.at === null ? '' : `&after=${encodeURIComponent(view.at)}`;
  return `api/v1/diff?${parameters(view)}&before=${encodeURIComponent(earlier)}${after}&window=${view.since}&limit=${ROWS_MAX}`;
}

/** Whether what is compared with is an instant, and not so long before. */
export function timeless(against: string): boolean {
  return !AGES.some(({ age }) => age === against);
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
