// Canned answers of `GET /api/v1/edges`, one per state that the page must show. Sums are not written here: the test takes
// them from the answer, as the page must.

import { clusterOf, largeFlows, shopFlows } from './cluster.mjs';

/** A duration as the API's `since` writes it, in milliseconds. */
function spanMs(since) {
  const [, count, unit] = /^(\d+)([smhd])$/.exec(since);
  return Number(count) * { s: 1e3, m: 60e3, h: 3600e3, d: 86_400e3 }[unit];
}

function end(kind, name, { namespace = null, node = null, zone = null, address = null } = {}) {
  return { kind, namespace, name, node, zone, address };
}

function edge(client, server, port, protocol, [sent_bytes, recv_bytes], [connections, retransmits, failures], rtt_us, certainty = 'known', service = null) {
  return { client, server, service, port, protocol, sent_bytes, recv_bytes, connections, retransmits, rtt_us, failures, certainty };
}

const shop = (name, node) => end('workload', name, { namespace: 'shop', node });

/** What a small shop does in a cluster of three nodes. */
export function shopEdges() {
  const dns = end('workload', 'coredns', { namespace: 'kube-system' });
  const postgres = end('workload', 'postgres', { namespace: 'data', node: 'node-b', zone: 'eu-1b', address: '10.244.1.17' });
  const redis = end('workload', 'redis', { namespace: 'data', node: 'node-c', zone: 'eu-1c', address: '10.244.2.9' });
  return [
    edge(shop('frontend'), shop('catalogue'), 8080, 'tcp', [48_213_771, 1_932_804_112], [412, 3, 0], 412, 'known', 'catalogue'),
    edge(shop('catalogue'), postgres, 5432, 'tcp', [211_904_338, 903_118_204], [64, 0, 0], 298, 'known', 'postgres'),
    edge(shop('checkout', 'node-a'), shop('payments'), 8443, 'tcp', [9_318_404, 4_118_290], [96, 12, 4], 18_204, 'known', 'payments'),
    edge(shop('checkout', 'node-a'), postgres, 5432, 'tcp', [30_118_772, 61_204_118], [16, 0, 0], 311, 'known', 'postgres'),
    edge(shop('cart'), redis, 6379, 'tcp', [402_118_330, 388_004_120], [24, 1, 0], 184, 'known', 'redis'),
    edge(shop('payments'), end('external', 'api.bank.example', { address: '203.0.113.20' }), 443, 'tcp', [1_204_118, 903_440], [48, 31, 2], 42_118, 'inferred'),
    edge(end('node', 'node-a', { node: 'node-a', address: '192.0.2.11' }), end('workload', 'kube-apiserver', { namespace: 'kube-system', node: 'node-a' }), 6443, 'tcp', [18_204_553, 92_118_204], [7, 0, 0], 96),
    edge(shop('frontend'), dns, 53, 'udp', [804_118, 2_011_408], [4_118, 0, 0], null, 'known', 'kube-dns'),
    edge(shop('cart'), dns, 53, 'udp', [201_118, 611_408], [1_018, 0, 0], null, 'known', 'kube-dns'),
    edge(end('external', '198.51.100.7', { address: '198.51.100.7' }), shop('frontend'), 443, 'tcp', [12_118_204, 611_204_553], [318, 88, 0], 61_204, 'inferred', 'frontend'),
    edge(end('process', 'prometheus', { node: 'node-c', address: '10.244.2.30' }), end('workload', 'node-exporter', { namespace: 'monitoring' }), 9100, 'tcp', [388_204, 41_204_118], [3, 0, 0], 204),
    edge(end('process', 'curl', { node: 'node-b' }), end('address', '2001:db8:0:7::1f', { address: '2001:db8:0:7::1f' }), 8080, 'tcp', [0, 0], [5, 20, 5], null, 'unknown'),
    edge(end('unknown', '', { address: '10.244.1.99' }), end('workload', 'legacy-report-generator-with-a-long-name', { namespace: 'back-office-batch', node: 'node-b' }), 2049, 'tcp', [7_204_118_330, 12_118], [1, 0, 0], 503, 'unknown'),
    edge(end('process', '<img src=x onerror=alert(1)>', { node: 'node-b' }), end('process', 'good\u202efdp.exe', { node: 'node-b' }), 31337, 'tcp', [1, 1023], [1, 0, 0], 77, 'inferred'),
  ];
}

/** Many edges with sums that no double could hold if they were taken in floating point with care for nothing. */
export function manyEdges(count) {
  return Array.from({ length: count }, (_, i) =>
    edge(
      end('workload', `client-${String(i % 97).padStart(2, '0')}`, { namespace: `team-${i % 7}` }),
      end('workload', `server-${i}`, { namespace: `team-${i % 11}`, node: `node-${i % 5}`, address: `10.${i % 4}.${(i >> 8) % 256}.${i % 256}` }),
      1024 + i,
      i % 5 === 0 ? 'udp' : 'tcp',
      [9_000_000_000_000_000 - i, (i * 7919) % 100_003],
      [i % 13, i % 17, i % 101 === 0 ? 1 : 0],
      i % 3 === 0 ? null : 100 + i,
      ['known', 'inferred', 'unknown'][i % 3],
    ),
  );
}

function node(name, change = {}) {
  return {
    node: name,
    state: 'reporting',
    last_seen: null,
    covered_ms: 0,
    missing_ms: 0,
    clock_offset_ms: 2,
    source_state: 'ok',
    source_detail: '',
    ...change,
  };
}

function completeness(since, change = {}) {
  const to = new Date('2025-11-23T14:07:10Z');
  const span = spanMs(since);
  const at = (ms) => new Date(to.getTime() - ms).toISOString();
  return {
    complete: true,
    from: at(span),
    to: to.toISOString(),
    nodes: ['node-a', 'node-b', 'node-c'].map((name) => node(name, { covered_ms: span, last_seen: at(0) })),
    losses: [],
    omitted: 0,
    ...change,
  };
}

/** The states in which a whole cluster answers, every path of the API. */
export const CLUSTERS = {
  shop: clusterOf({ flows: shopFlows(), completeness }),
  fault: clusterOf({ flows: shopFlows(), faults: ['refused', 'loss'], completeness }),
  holes: clusterOf({ flows: shopFlows(), completeness: (since) => STATES.incomplete(since)[1].completeness, holes: true }),
  large: clusterOf({ flows: largeFlows(), completeness, changes: null }),
};

/** The answer of each state, as (status, body). */
export const STATES = {
  full: (since) => [200, { items: shopEdges(), completeness: completeness(since) }],
  empty: (since) => [200, { items: [], completeness: completeness(since) }],
  nobody: (since) => [200, { items: [], completeness: completeness(since, { complete: false, nodes: [] }) }],
  incomplete: (since) => {
    const span = spanMs(since);
    const full = completeness(since);
    return [
      200,
      {
        items: [...shopEdges().slice(0, 9), edge(end('other', 'other'), end('other', 'other'), 0, '', [7_040_118, 91_204_774], [4_181, 12, 3], 1_804)],
        completeness: completeness(since, {
          complete: false,
          nodes: [
            { ...full.nodes[0], clock_offset_ms: -340 },
            node('node-b', {
              covered_ms: span - 41_000,
              missing_ms: 11_000,
              last_seen: full.to,
              clock_offset_ms: null,
              source_state: 'degraded',
              source_detail: 'the probe udp_recv did not load: kernel older than 5.12; UDP is not counted',
            }),
            node('node-c', { state: 'silent', covered_ms: span - 30_000, missing_ms: 30_000, last_seen: '2025-11-23T14:04:10Z' }),
          ],
          losses: [
            { node: 'node-b', place: 'kernel', reason: 'map_full', count: 1204, bytes: 0, connections: 1204, intended: false },
            { node: 'node-c', place: 'agent', reason: 'spool_full', count: 3, bytes: 48_118_204, connections: 212, intended: false },
            { node: 'node-a', place: 'tracer', reason: 'udp_peer_cap', count: 18, bytes: 92_118, connections: 0, intended: true },
          ],
          omitted: 1311,
        }),
      },
    ];
  },
  lossOnPurpose: (since) => [
    200,
    {
      items: shopEdges(),
      completeness: completeness(since, {
        losses: [{ node: 'node-a', place: 'tracer', reason: 'udp_peer_cap', count: 18, bytes: 92_118, connections: 0, intended: true }],
      }),
    },
  ],
  many: (since) => [200, { items: manyEdges(1000), completeness: completeness(since) }],
  error: () => [503, { error: 'the store is not open yet: replaying the log, 41% done; ask again in a few seconds' }],
  mistaken: () => [
    400,
    { error: 'filter, column 6: `http` is not what `port` is compared with', position: { parameter: 'filter', column: 6, expected: ['a number from 0 to 65535'] } },
  ],
  refused: () => [400, { error: 'since: "5m" lies before the oldest kept history' }],
  token: () => [401, { error: 'this server wants a token: send it as Authorization: Bearer' }],
  rubbish: (since) => [200, { items: [{ ...shopEdges()[0], sent_bytes: '12' }], completeness: completeness(since) }],
};
