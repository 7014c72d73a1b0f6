// A link in the words of the filter language: what lets through just what it sums up. The command line's `weir top` pins an
// edge in the same words (crates/cli/src/top/level.rs). Pure.
import type { Edge, EdgeEnd } from './api.ts';

/** A value that means just this text. */
function quoted(text: string): string {
  return `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
}

function pinEnd(place: 'client' | 'server', end: EdgeEnd): string[] {
  const full = end.namespace === null ? end.name : `${end.namespace}/${end.name}`;
  const is = (field: string, value: string) => `${place}.${field}=${quoted(value)}`;
  switch (end.kind) {
    case 'pod':
      return [is('pod', full)];
    case 'namespace':
      return [is('namespace', end.name)];
    case 'node':
      // What runs there beside pods: pods have a namespace.
      return [is('node', end.name), `${place}.namespace=""`];
    case 'zone':
      return [is('zone', end.name)];
    case 'process':
      return [is('process', end.name), ...(end.node === null ? [] : [is('node', end.node)])];
    case 'service':
      return [`service=${quoted(full)}`];
    case 'container':
      return end.name === '' ? [] : [is('container', end.name)];
    case 'external':
    case 'unknown':
    case 'address':
    case 'attribute':
    case '':
      if (end.address !== null) return [is('address', end.address)];
      return end.name === '' ? [] : [is('name', end.name)];
    default:
      return [is('workload', full)];
  }
}

/** The filter for everything between two ends; `null`: nothing can be said of them. */
export function pinLink(edges: readonly Edge[]): string | null {
  const [first] = edges;
  if (first === undefined) return null;
  const parts = [...pinEnd('client', shared(edges, 'client') ?? first.client), ...pinEnd('server', shared(edges, 'server') ?? first.server)];
  return parts.length === 0 ? null : parts.join(' and ');
}

/** The end with what all edges share; an address that they do not is no part of it. */
function shared(edges: readonly Edge[], side: 'client' | 'server'): EdgeEnd | null {
  const [first] = edges;
  if (first === undefined) return null;
  const end = { ...first[side] };
  if (edges.some((edge) => edge[side].address !== end.address)) end.address = null;
  return end;
}
