// What is done with edges between answer and table: sums, search, order. Pure.
import { isOther, type Edge, type EdgeEnd } from './api.ts';

/** The sums over rows, exact at any size. */
export interface Totals {
  edges: number;
  sent_bytes: bigint;
  recv_bytes: bigint;
  connections: bigint;
  retransmits: bigint;
  failures: bigint;
}

const SUMMED = ['sent_bytes', 'recv_bytes', 'connections', 'retransmits', 'failures'] as const;

/** The sum of every row given. `omitted`: how many edges the row `other` among them sums up. */
export function totalsOf(edges: readonly Edge[], omitted = 0): Totals {
  const totals: Totals = {
    edges: edges.filter((edge) => !isOther(edge)).length + omitted,
    sent_bytes: 0n,
    recv_bytes: 0n,
    connections: 0n,
    retransmits: 0n,
    failures: 0n,
  };
  for (const edge of edges) {
    for (const key of SUMMED) totals[key] += BigInt(edge[key]);
  }
  return totals;
}

function endText(end: EdgeEnd): (string | null)[] {
  return [end.name, end.namespace, end.address, end.node, end.zone, end.kind];
}

/** The Service as it is shown: with a question mark where it is inferred, all that it could be where that is not known. */
export function serviceOf(edge: Edge): string | null {
  if (edge.service !== null) return edge.service_certainty === 'inferred' ? `${edge.service}?` : edge.service;
  return edge.service_candidates.length === 0 ? null : `${edge.service_candidates.join(' or ')}?`;
}

const searchable = new WeakMap<Edge, string>();

function searchText(edge: Edge): string {
  let text = searchable.get(edge);
  if (text === undefined) {
    text = [...endText(edge.client), ...endText(edge.server), edge.service, ...edge.service_candidates, edge.protocol, edge.certainty]
      .filter((part) => part !== null)
      .join('\n')
      .toLowerCase();
    searchable.set(edge, text);
  }
  return text;
}

function matches(edge: Edge, term: string): boolean {
  const port = String(edge.port);
  const [, exactPort, protocol] = /^:?(\d+)\/(\w+)$/.exec(term) ?? [];
  if (exactPort !== undefined) return port === exactPort && edge.protocol.toLowerCase() === protocol;
  if (/^:\d+$/.test(term) && port === term.slice(1)) return true;
  if (/^\d+$/.test(term) && port.startsWith(term)) return true;
  return searchText(edge).includes(term);
}

/**
 * The edges that fit every word of the query. A word is looked for in both ends' names, namespaces, addresses, nodes and
 * kinds, the Service, the protocol and the certainty, in any case. A number also fits ports that start with it, `:443`
 * exactly that port, `53/udp` exactly that port and protocol. The row that sums up others fits no word.
 */
export function search(edges: readonly Edge[], query: string): readonly Edge[] {
  const terms = query.toLowerCase().split(/\s+/).filter((term) => term !== '');
  if (terms.length === 0) return edges;
  return edges.filter((edge) => !isOther(edge) && terms.every((term) => matches(edge, term)));
}

/** The table's columns, in order. The names are also the URL's. */
export const COLUMNS = [
  'client',
  'server',
  'port',
  'sent',
  'received',
  'connections',
  'retransmits',
  'failures',
  'rtt',
  'certainty',
] as const;
export type Column = (typeof COLUMNS)[number];
export type Direction = 'ascending' | 'descending';

const CERTAINTIES = ['known', 'inferred', 'unknown'];

const byText = new Intl.Collator('en', { numeric: true, sensitivity: 'base' });

/** What a column is ordered by. null is "not known" and comes last in either direction. */
function sortValue(edge: Edge, column: Column): number | string | null {
  switch (column) {
    case 'client':
      return `${edge.client.name}\n${edge.client.namespace ?? ''}`;
    case 'server':
      return `${edge.server.name}\n${edge.server.namespace ?? ''}`;
    case 'port':
      return edge.port;
    case 'sent':
      return edge.sent_bytes;
    case 'received':
      return edge.recv_bytes;
    case 'connections':
      return edge.connections;
    case 'retransmits':
      return edge.retransmits;
    case 'failures':
      return edge.failures;
    case 'rtt':
      return edge.rtt_us;
    case 'certainty':
      return CERTAINTIES.indexOf(edge.certainty);
  }
}

/** The direction that a first click on a column gives: names from A, numbers from the largest. */
export function firstDirection(column: Column): Direction {
  return column === 'client' || column === 'server' || column === 'port' ? 'ascending' : 'descending';
}

function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return byText.compare(a, b) || (a < b ? -1 : 1);
}

/** The edges in a column's order. Ties keep one order whatever the answer's was, so that rows do not jump at random. */
export function sortEdges(edges: readonly Edge[], column: Column, direction: Direction): Edge[] {
  const sign = direction === 'ascending' ? 1 : -1;
  const keyed = edges.map((edge) => ({ edge, value: sortValue(edge, column), key: keyOf(edge) }));
  keyed.sort((a, b) => {
    // All others are the last in either direction.
    if (isOther(a.edge) !== isOther(b.edge)) return isOther(a.edge) ? 1 : -1;
    if (a.value !== b.value) {
      if (a.value === null) return 1;
      if (b.value === null) return -1;
      const order =
        typeof a.value === 'string' || typeof b.value === 'string'
          ? compareText(String(a.value), String(b.value))
          : a.value - b.value;
      if (order !== 0) return sign * order;
    }
    return (
      b.edge.sent_bytes + b.edge.recv_bytes - (a.edge.sent_bytes + a.edge.recv_bytes) ||
      (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
    );
  });
  return keyed.map(({ edge }) => edge);
}

const keys = new WeakMap<Edge, string>();

/** What an edge is identified by: both ends, the Service, the port and the protocol. */
export function keyOf(edge: Edge): string {
  let key = keys.get(edge);
  if (key === undefined) {
    const end = ({ kind, namespace, name, node, zone, address }: EdgeEnd) => [kind, namespace, name, node, zone, address];
    key = JSON.stringify([end(edge.client), end(edge.server), edge.service, edge.service_candidates, edge.port, edge.protocol]);
    keys.set(edge, key);
  }
  return key;
}
