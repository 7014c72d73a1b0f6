// Edges and answers for the tests, with only what a test is about written out.
import type { Completeness, Edge, EdgeEnd, NodeCoverage } from '../src/api.ts';

export function end(name: string, change: Partial<EdgeEnd> = {}): EdgeEnd {
  return { kind: 'workload', namespace: null, name, node: null, zone: null, address: null, workload: null, certainty: 'known', ...change };
}

export function edge(change: Partial<Edge> = {}): Edge {
  return {
    client: end('frontend'),
    server: end('postgres'),
    service: null,
    service_certainty: null,
    service_candidates: [],
    port: 5432,
    protocol: 'tcp',
    sent_bytes: 0,
    recv_bytes: 0,
    connections: 0,
    retransmits: 0,
    rtt_us: null,
    failures: 0,
    certainty: 'known',
    health: null,
    ...change,
  };
}

/** A node that covered all of a five minutes' span. */
export function node(name: string, change: Partial<NodeCoverage> = {}): NodeCoverage {
  return {
    node: name,
    state: 'reporting',
    last_seen: '2025-11-23T14:07:10Z',
    covered_ms: 300_000,
    missing_ms: 0,
    clock_offset_ms: 0,
    source_state: 'ok',
    source_detail: '',
    ...change,
  };
}

/** The completeness of a five minutes' span in which nothing is amiss. */
export function completeness(change: Partial<Completeness> = {}): Completeness {
  return {
    complete: true,
    from: '2025-11-23T14:02:10Z',
    to: '2025-11-23T14:07:10Z',
    nodes: [node('node-a'), node('node-b')],
    losses: [],
    omitted: 0,
    resolution: null,
    steps: null,
    before: null,
    ...change,
  };
}
