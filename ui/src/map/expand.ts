// What of the map is open, as the API's `by` and `expand` say it: by workload everything is open, by namespace what `expand`
// names. Pure.
import type { View } from '../view.ts';
import type { Graph } from './graph.ts';

type Opened = Pick<View, 'by' | 'expand'>;

/** Whether a grouping is a step between namespaces and pods, so that parts of it can be opened and closed. */
export function canOpen(by: View['by']): boolean {
  return by === 'workload' || by === 'namespace';
}

/** What is open in a picture. */
export function openIn(graph: Graph, view: Opened): string[] {
  if (view.by === 'namespace') return [...view.expand];
  return [...graph.groups.values()].flatMap((group) => (group.opens !== null ? [group.opens] : [])).sort();
}

/** The view in which one more is open. */
export function open(graph: Graph, view: Opened, what: string): Opened {
  const expand = openIn(graph, view);
  return { by: 'namespace', expand: expand.includes(what) ? expand : [...expand, what].sort() };
}

/** The view in which it is closed again, and all that is in it. */
export function close(graph: Graph, view: Opened, what: string): Opened {
  return { by: 'namespace', expand: openIn(graph, view).filter((one) => one !== what && !one.startsWith(`${what}/`)) };
}
