// From edges to what a picture has: nodes, links between two of them, and the groups that nodes lie in. Pure; no place and
// no colour is known here. Everything is keyed by identity, so that two answers about the same ends meet in the same keys.
import { isOther, type Change, type Edge, type EdgeEnd } from '../api.ts';
import { keyOf } from '../edges.ts';

/** What a link tells at first sight; of several edges the first in this order. */
export const MARKS = ['sick', 'new', 'gone', 'shifted', 'better', 'healthy', 'unknown', 'plain'] as const;
export type Mark = (typeof MARKS)[number];

export interface MapEnd {
  key: string;
  /** As the answer names it. */
  end: EdgeEnd;
  /** The group's key. */
  group: string;
  /** The opened workload that it is a pod of: its key within the group; null: it is of the group itself. */
  workload: string | null;
  label: string;
  /** What Enter does: opens it to what is in it; null where there is nothing nearer. */
  opens: string | null;
  /** Bytes over all its links, for the order in which nodes are named. */
  bytes: number;
  /** The worst mark of the links to it. */
  mark: Mark;
}

export interface MapLink {
  key: string;
  client: string;
  server: string;
  edges: Edge[];
  /** In a comparison: what changed, of the edges that did. */
  changes: Change[];
  bytes: number;
  mark: Mark;
}

export interface MapGroup {
  key: string;
  label: string;
  kind: 'namespace' | 'node' | 'outside' | 'unknown';
  /** The `expand` that shows its inside; null: it has no inside to be closed over. */
  opens: string | null;
  /** Whether its inside is shown. */
  isOpen: boolean;
  nodes: string[];
}

export interface Graph {
  nodes: Map<string, MapEnd>;
  links: Map<string, MapLink>;
  groups: Map<string, MapGroup>;
  /** The row that sums up what lies beyond the server's limit. */
  other: Edge | null;
}

const OUTSIDE = 'outside:';
const UNKNOWN = 'unknown:';

/** The key of an end, the same in every answer under every grouping that names it so. */
export function endKey(end: EdgeEnd): string {
  const where = end.namespace ?? (end.kind === 'process' || end.kind === 'container' ? `@${end.node ?? ''}` : '');
  return `${end.kind}:${where}/${end.name}`;
}

function groupOf(end: EdgeEnd): Pick<MapGroup, 'key' | 'label' | 'kind' | 'opens'> {
  const namespace = end.kind === 'namespace' ? end.name : end.namespace;
  if (namespace !== null) return { key: `namespace:${namespace}`, label: namespace, kind: 'namespace', opens: namespace };
  if (end.kind === 'unknown') return { key: UNKNOWN, label: 'not known', kind: 'unknown', opens: null };
  const node = end.kind === 'node' ? end.name : ['process', 'container'].includes(end.kind) ? end.node : null;
  if (node !== null) return { key: `node:${node}`, label: node, kind: 'node', opens: `node:${node}` };
  if (['external', 'address', 'service'].includes(end.kind)) return { key: OUTSIDE, label: 'outside', kind: 'outside', opens: null };
  return { key: UNKNOWN, label: 'elsewhere', kind: 'unknown', opens: null };
}

/** Kinds that are no workload: nothing is in them, or what is in them is no pod. */
const CLOSED = new Set(['pod', 'container', 'process', 'external', 'unknown', 'address', 'service', 'zone', 'attribute', 'other', '']);

function opensOf(end: EdgeEnd): string | null {
  if (end.kind === 'namespace') return end.name;
  if (end.kind === 'node') return `node:${end.name}`;
  if (end.namespace !== null && !CLOSED.has(end.kind)) return `${end.namespace}/${end.name}`;
  return null;
}

export function labelOf(end: EdgeEnd): string {
  if (end.name !== '') return end.name;
  return end.address ?? end.kind;
}

/** The worse of two marks, or the one that says more. */
export function worse(a: Mark, b: Mark): Mark {
  return MARKS.indexOf(a) <= MARKS.indexOf(b) ? a : b;
}

function healthMark(edge: Edge): Mark {
  switch (edge.health?.verdict) {
    case 'unhealthy':
      return 'sick';
    case 'healthy':
      return 'healthy';
    case 'unknown':
      return 'unknown';
    default:
      return 'plain';
  }
}

/** How a change is drawn; a word of a newer server is drawn as a shift. */
export function changeMark(change: string): Mark {
  if (change === 'sicker') return 'sick';
  return change === 'new' || change === 'gone' || change === 'better' ? change : 'shifted';
}

function empty(): Graph {
  return { nodes: new Map(), links: new Map(), groups: new Map(), other: null };
}

function addNode(graph: Graph, end: EdgeEnd): MapEnd {
  const key = endKey(end);
  const found = graph.nodes.get(key);
  if (found !== undefined) return found;
  const group = groupOf(end);
  const holder = graph.groups.get(group.key) ?? { ...group, isOpen: false, nodes: [] };
  graph.groups.set(group.key, holder);
  holder.nodes.push(key);
  // A group whose only member is itself is closed.
  if (end.kind !== 'namespace' && end.kind !== 'node') holder.isOpen = true;
  const isOfWorkload = (end.kind === 'pod' || end.kind === 'container') && end.workload !== null && end.namespace !== null;
  const node: MapEnd = {
    key,
    end,
    group: group.key,
    workload: isOfWorkload ? `${end.namespace}/${end.workload}` : null,
    label: labelOf(end),
    opens: opensOf(end),
    bytes: 0,
    mark: 'plain',
  };
  graph.nodes.set(key, node);
  return node;
}

function addEdge(graph: Graph, edge: Edge, mark: Mark, change: Change | null): void {
  if (isOther(edge)) {
    graph.other = edge;
    return;
  }
  const [client, server] = [addNode(graph, edge.client), addNode(graph, edge.server)];
  const key = linkKey(client.key, server.key);
  const link = graph.links.get(key) ?? { key, client: client.key, server: server.key, edges: [], changes: [], bytes: 0, mark: 'plain' };
  graph.links.set(key, link);
  link.edges.push(edge);
  if (change !== null) link.changes.push(change);
  const bytes = edge.sent_bytes + edge.recv_bytes;
  link.bytes += bytes;
  link.mark = worse(link.mark, mark);
  client.bytes += bytes;
  server.bytes += bytes;
  server.mark = worse(server.mark, mark);
}

export function linkKey(client: string, server: string): string {
  return `${client}>${server}`;
}

/** The picture of an answer. In what order its edges come changes nothing but the order within a link. */
export function graphOf(edges: readonly Edge[]): Graph {
  const graph = empty();
  for (const edge of edges) addEdge(graph, edge, healthMark(edge), null);
  return graph;
}

/** The picture of a comparison: every edge of the later span, and what changed; what did not is plain. */
export function graphOfChanges(edges: readonly Edge[], changes: readonly Change[]): Graph {
  const graph = empty();
  const changed = new Map<string, Change>();
  for (const change of changes) {
    const edge = change.after ?? change.before;
    if (edge !== null) changed.set(keyOf(edge), change);
  }
  for (const edge of edges) {
    const change = changed.get(keyOf(edge)) ?? null;
    changed.delete(keyOf(edge));
    addEdge(graph, edge, change === null ? 'plain' : changeMark(change.change), change);
  }
  // What is gone, and what the list of edges was cut before.
  for (const change of changed.values()) {
    const edge = change.after ?? change.before;
    if (edge !== null) addEdge(graph, edge, changeMark(change.change), change);
  }
  return graph;
}

/** How many links to and from each node: `[out, in]`. */
export function degrees(graph: Graph): Map<string, [number, number]> {
  const found = new Map<string, [number, number]>();
  const at = (key: string): [number, number] => {
    const one = found.get(key) ?? [0, 0];
    found.set(key, one);
    return one;
  };
  for (const link of graph.links.values()) {
    at(link.client)[0] += 1;
    at(link.server)[1] += 1;
  }
  return found;
}

/** The nodes whose name, namespace, address or node holds every word. `null`: nothing is looked for. */
export function found(graph: Graph, query: string): Set<string> | null {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== '');
  if (words.length === 0) return null;
  const hits = new Set<string>();
  const text = (end: EdgeEnd) => [end.name, end.namespace, end.address, end.node, end.zone, end.kind, end.workload].join('\n').toLowerCase();
  for (const node of graph.nodes.values()) {
    if (words.every((word) => text(node.end).includes(word))) hits.add(node.key);
  }
  for (const link of graph.links.values()) {
    const about = link.edges.map((edge) => `:${edge.port} ${edge.port}/${edge.protocol} ${edge.service ?? ''}`).join('\n').toLowerCase();
    if (words.every((word) => about.includes(word))) {
      hits.add(link.client);
      hits.add(link.server);
    }
  }
  return hits;
}
