// Nodes and links in words: for the tooltip, for screen readers, for the panel's heading. Pure.
import { formatBytes, formatCount, plural } from '../units.ts';
import { degrees, type Graph, type MapLink, type MapEnd } from './graph.ts';
import { markWords } from './looks.ts';

export function bytesWords(bytes: number): string {
  const { value, unit } = formatBytes(bytes);
  return `${value} ${unit}`;
}

/** `deployment cart in shop`. */
export function whoWords(node: MapEnd): string {
  const kind = node.end.kind.replaceAll('_', ' ');
  const where =
    node.end.kind === 'namespace' || node.end.namespace === null
      ? node.end.node !== null && node.end.kind !== 'node'
        ? ` on ${node.end.node}`
        : ''
      : ` in ${node.end.namespace}`;
  const sure = node.end.certainty === 'inferred' ? ', inferred' : node.end.certainty === 'unknown' ? ', not sure' : '';
  return `${kind} ${node.label}${where}${sure}`;
}

const counts = new WeakMap<Graph, Map<string, [number, number]>>();

/** A node as a screen reader reads it. */
export function endWords(graph: Graph, node: MapEnd, isComparison: boolean): string {
  const counted = counts.get(graph) ?? degrees(graph);
  counts.set(graph, counted);
  const [out, into] = counted.get(node.key) ?? [0, 0];
  const mark = node.mark === 'plain' || node.mark === 'healthy' || node.mark === 'unknown' ? '' : `, ${markWords(node.mark, isComparison)}`;
  const opens = node.opens === null ? '' : ', can be opened';
  return `${whoWords(node)}${mark}: calls ${formatCount(out)}, called by ${formatCount(into)}, ${bytesWords(node.bytes)}${opens}`;
}

/** `cart → redis: 2 edges, 12 MB, unhealthy: 5 % refused`. */
export function linkWords(graph: Graph, link: MapLink, isComparison: boolean): string {
  const name = (key: string) => graph.nodes.get(key)?.label ?? key;
  const mark = link.mark === 'plain' && !isComparison ? '' : `, ${markWords(link.mark, isComparison)}`;
  const why = reasons(link)[0];
  return `${name(link.client)} → ${name(link.server)}: ${plural(link.edges.length, 'edge')}, ${bytesWords(link.bytes)}${mark}${why === undefined ? '' : `: ${why}`}`;
}

/** The same in the fewest words: `cart → redis, unhealthy: 5 % refused`. */
export function markedWords(graph: Graph, link: MapLink, isComparison: boolean): string {
  const name = (key: string) => graph.nodes.get(key)?.label ?? key;
  const why = reasons(link)[0];
  return `${name(link.client)} → ${name(link.server)}, ${markWords(link.mark, isComparison)}${why === undefined ? '' : `: ${why}`}`;
}

/** Why a link is marked, the worst first. */
export function reasons(link: MapLink): string[] {
  const changes = link.changes.map((change) => change.text);
  const symptoms = link.edges.flatMap((edge) => (edge.health?.verdict === 'unhealthy' ? edge.health.symptoms.map((symptom) => symptom.text) : []));
  return [...new Set([...changes, ...symptoms])].filter((text) => text !== '');
}
