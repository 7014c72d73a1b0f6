// A made-up cluster for the map's tests and pictures: a shop in three namespaces with what is around it, with faults that can be
// switched on, and a thousand workloads. It answers as the server does: grouped, opened, with series, connections and changes.

/** A pseudo-random number from 0 to 1, the same for the same text. */
function chance(text) {
  let hash = 2166136261;
  for (const character of text) hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  hash ^= hash >>> 13;
  return ((Math.imul(hash, 0x5bd1e995) >>> 0) % 100_000) / 100_000;
}

/** Who can talk: `namespace/workload` with its kind and its pods, or a name outside. */
const workload = (namespace, name, kind = 'deployment', pods = 2) => ({ namespace, name, kind, pods });
const outside = (name, address) => ({ external: name, address });
const host = (node, process) => ({ node, process });

const SHOP = {
  web: workload('shop', 'frontend', 'deployment', 3),
  cart: workload('shop', 'cart'),
  catalogue: workload('shop', 'catalogue', 'deployment', 3),
  checkout: workload('shop', 'checkout'),
  payments: workload('shop', 'payments'),
  reviews: workload('shop', 'reviews', 'deployment', 1),
  mail: workload('shop', 'mailer', 'cron_job', 1),
  postgres: workload('data', 'postgres', 'stateful_set', 2),
  redis: workload('data', 'redis', 'stateful_set', 3),
  kafka: workload('data', 'kafka', 'stateful_set', 3),
  report: workload('back-office', 'legacy-report-generator', 'job', 1),
  dns: workload('kube-system', 'coredns'),
  api: workload('kube-system', 'kube-apiserver', 'pod', 1),
  prometheus: workload('monitoring', 'prometheus', 'stateful_set', 1),
  exporter: workload('monitoring', 'node-exporter', 'daemon_set', 3),
  bank: outside('api.bank.example', '203.0.113.20'),
  mailer: outside('smtp.mail.example', '203.0.113.77'),
  visitors: outside('198.51.100.7', '198.51.100.7'),
  kubelet: host('node-a', 'kubelet'),
};

/** Client, server, port, protocol, bytes there and back, connections, round-trip time. */
const FLOWS = [
  ['visitors', 'web', 443, 'tcp', 12_118_204, 611_204_553, 318, 61_204],
  ['web', 'catalogue', 8080, 'tcp', 48_213_771, 1_932_804_112, 412, 412],
  ['web', 'cart', 8080, 'tcp', 8_213_771, 92_804_112, 212, 390],
  ['web', 'checkout', 8080, 'tcp', 3_213_771, 12_804_112, 96, 401],
  ['web', 'reviews', 8080, 'tcp', 1_013_771, 22_804_112, 61, 377],
  ['cart', 'redis', 6379, 'tcp', 402_118_330, 388_004_120, 24, 184],
  ['catalogue', 'postgres', 5432, 'tcp', 211_904_338, 14_903_118_204, 64, 298],
  ['checkout', 'payments', 8443, 'tcp', 9_318_404, 4_118_290, 96, 1_204],
  ['checkout', 'postgres', 5432, 'tcp', 30_118_772, 61_204_118, 16, 311],
  ['checkout', 'kafka', 9092, 'tcp', 8_118_772, 204_118, 4, 322],
  ['mail', 'kafka', 9092, 'tcp', 104_118, 8_204_118, 2, 330],
  ['mail', 'mailer', 587, 'tcp', 904_118, 44_118, 31, 48_200],
  ['payments', 'bank', 443, 'tcp', 1_204_118, 903_440, 48, 42_118],
  ['report', 'postgres', 5432, 'tcp', 12_118, 7_204_118_330, 1, 503],
  ['web', 'dns', 53, 'udp', 804_118, 2_011_408, 4_118, null],
  ['cart', 'dns', 53, 'udp', 201_118, 611_408, 1_018, null],
  ['payments', 'dns', 53, 'udp', 21_118, 61_408, 118, null],
  ['prometheus', 'exporter', 9100, 'tcp', 388_204, 41_204_118, 3, 204],
  ['prometheus', 'api', 6443, 'tcp', 88_204, 9_204_118, 1, 211],
  ['kubelet', 'api', 6443, 'tcp', 18_204_553, 92_118_204, 7, 96],
];

const NODES = ['node-a', 'node-b', 'node-c'];

/** The end under a grouping, with a pod's number. */
function endOf(who, by, expand, pod) {
  const plain = { namespace: null, node: null, zone: null, address: null, workload: null, certainty: 'known' };
  if (who.external !== undefined) {
    return { ...plain, kind: 'external', name: who.external, address: who.address, certainty: who.external === who.address ? 'known' : 'inferred' };
  }
  if (who.process !== undefined) {
    const open = by === 'workload' || expand.includes(`node:${who.node}`);
    return open ? { ...plain, kind: 'process', name: who.process, node: who.node } : { ...plain, kind: 'node', name: who.node, node: who.node };
  }
  const isOpen = by === 'workload' || expand.includes(who.namespace);
  if (expand.includes(`${who.namespace}/${who.name}`)) {
    const suffix = who.kind === 'stateful_set' ? String(pod) : `7d9f4-${(chance(who.name + pod) * 1e5).toFixed(0)}`;
    return { ...plain, kind: 'pod', namespace: who.namespace, name: `${who.name}-${suffix}`, workload: who.name, node: NODES[pod % 3], address: `10.244.${pod}.${Math.floor(chance(who.name) * 250)}` };
  }
  if (isOpen) return { ...plain, kind: who.kind, namespace: who.namespace, name: who.name };
  return { ...plain, kind: 'namespace', namespace: who.namespace, name: who.namespace };
}

function flowsOf(who, flows) {
  return flows.map(([client, server, port, protocol, sent_bytes, recv_bytes, connections, rtt_us]) => ({
    client: who[client], server: who[server], port, protocol, sent_bytes, recv_bytes, connections, rtt_us, retransmits: Math.floor(connections / 90), failures: 0, key: `${client}>${server}`,
  }));
}

const symptom = (signal, text, now, usual) => ({ signal, text, now, usual });
const SINCE = '2025-11-23T14:05:20Z';

/** What goes wrong, by the name of the fault. */
const FAULTS = {
  refused: { key: 'checkout>payments', change: { failures: 41, connections: 137 }, symptoms: [symptom('refused', '30 % of connections refused (41 of 137), usually none', 0.3, 0)] },
  loss: { key: 'payments>bank', change: { retransmits: 412, rtt_us: 218_000 }, symptoms: [symptom('retransmits', '5.1 % of segments sent again, usually 0.02 %', 0.051, 0.0002), symptom('rtt', 'round-trip time 218 ms, usually 42 ms', 218_000, 42_000)] },
};

function healthy(flow) {
  if (flow.protocol === 'udp' && flow.connections < 200) return { verdict: 'unknown', symptoms: [], since: null, past_from: null };
  return { verdict: 'healthy', symptoms: [], since: null, past_from: '2025-11-22T14:02:10Z' };
}

/** Edges of flows under a grouping, the largest first. `faults`: names of {@link FAULTS}. */
function edgesOf(flows, { by, expand, faults = [], noHealth = false }) {
  const sums = new Map();
  for (const flow of flows) {
    const fault = faults.map((name) => FAULTS[name]).find(({ key }) => key === flow.key);
    const moved = { ...flow, ...fault?.change };
    const pods = Math.max(
      expand.includes(`${flow.client.namespace}/${flow.client.name}`) ? flow.client.pods : 1,
      expand.includes(`${flow.server.namespace}/${flow.server.name}`) ? flow.server.pods : 1,
    );
    for (let pod = 0; pod < pods; pod += 1) {
      const part = (value) => Math.floor(value / pods) + (pod === 0 ? value % pods : 0);
      const [client, server] = [endOf(flow.client, by, expand, pod % (flow.client.pods ?? 1)), endOf(flow.server, by, expand, pod % (flow.server.pods ?? 1))];
      const key = JSON.stringify([client, server, flow.port, flow.protocol]);
      const own = fault === undefined ? healthy(flow) : { verdict: 'unhealthy', symptoms: fault.symptoms, since: SINCE, past_from: '2025-11-22T14:02:10Z' };
      const held = sums.get(key) ?? {
        client, server, service: flow.server.namespace === undefined ? null : `${flow.server.namespace}/${flow.server.name}`, service_certainty: flow.server.namespace === undefined ? null : 'known', service_candidates: [],
        port: flow.port, protocol: flow.protocol, sent_bytes: 0, recv_bytes: 0, connections: 0, retransmits: 0, rtt_us: moved.rtt_us, failures: 0, certainty: [client, server].some((end) => end.certainty === 'inferred') ? 'inferred' : 'known', health: noHealth ? null : own,
      };
      for (const field of ['sent_bytes', 'recv_bytes', 'connections', 'retransmits', 'failures']) held[field] += part(moved[field]);
      if (fault !== undefined && !noHealth) held.health = own;
      sums.set(key, held);
    }
  }
  return [...sums.values()].sort((a, b) => b.sent_bytes + b.recv_bytes - a.sent_bytes - a.recv_bytes);
}

export const shopFlows = () => flowsOf(SHOP, FLOWS);

/** A thousand workloads in forty namespaces with three thousand edges. */
export function largeFlows(workloads = 1000, edges = 3000) {
  const who = Array.from({ length: workloads }, (_, i) => workload(`team-${String(i % 40).padStart(2, '0')}`, `service-${String(i).padStart(4, '0')}`, ['deployment', 'deployment', 'stateful_set', 'daemon_set'][i % 4]));
  const flows = [];
  const seen = new Set();
  for (let i = 0; flows.length < edges; i += 1) {
    const client = Math.floor(chance(`c${i}`) * workloads);
    // Most talk within their own namespace.
    const server = chance(`n${i}`) < 0.75 ? (client + 40 * (1 + Math.floor(chance(`s${i}`) * 24))) % workloads : Math.floor(chance(`o${i}`) ** 3 * workloads);
    const key = `${client}>${server}`;
    if (client === server || seen.has(key)) continue;
    seen.add(key);
    flows.push({ client: who[client], server: who[server], port: 8080, protocol: 'tcp', sent_bytes: Math.floor(10 ** (3 + 7 * chance(`b${i}`))), recv_bytes: 0, connections: 10, rtt_us: 300, retransmits: 0, failures: 0, key });
  }
  return flows;
}

/** The answers of a cluster, by path: `[status, body]`. */
export function clusterOf({ flows, faults = [], completeness, noHealth = false, changes = shopChanges, holes = false }) {
  return (path, params) => {
    const view = { by: params.get('by') ?? 'workload', expand: params.getAll('expand'), faults, noHealth };
    const since = params.get('since') ?? '5m';
    const pinned = (edge) => {
      const filter = params.get('filter') ?? '';
      const has = (place, end) => {
        const pins = [...filter.matchAll(new RegExp(`${place}\\.(workload|namespace|pod|process)="([^"]*)"`, 'g'))];
        return pins.every(([, field, value]) => value === '' || (field === 'namespace' ? end.namespace === value : [end.name, `${end.namespace}/${end.name}`].includes(value)));
      };
      return has('client', edge.client) && has('server', edge.server);
    };
    const edges = edgesOf(flows, view);
    if (path === 'edges') return [200, { items: edges, completeness: completeness(since) }];
    if (path === 'diff') return changes === null ? [404, { error: 'no such path' }] : [200, { items: changes(edges), completeness: { ...completeness(since), before: completeness(since) } }];
    if (path === 'series') return [200, seriesOf(params.get('limit') === '1' ? edges.slice(0, 4) : edges.filter(pinned), completeness(since), holes)];
    return [200, { items: connectionsOf(edges.filter(pinned)), completeness: completeness(since) }];
  };
}

function seriesOf(edges, completeness, holes) {
  const count = 60;
  const to = Date.parse(completeness.to);
  const seconds = 60;
  const at = (step) => new Date(to - (count - step) * seconds * 1000).toISOString().replace('.000', '');
  const items = edges.map((edge, row) => ({
    ...edge,
    points: Array.from({ length: count }, (_, step) => {
      const wave = 0.55 + 0.35 * Math.sin((step + row * 7) / 9) + 0.25 * chance(`${row}-${step}`);
      const share = (value) => Math.floor((value / count) * wave);
      const isSick = edge.failures > 0 && step >= count - 6;
      return { at: at(step), sent_bytes: share(edge.sent_bytes), recv_bytes: share(edge.recv_bytes), opened: share(edge.connections * 2), retransmits: share(edge.retransmits), failures: isSick ? 7 : 0, rtt_us: edge.rtt_us === null ? null : Math.floor(edge.rtt_us * wave) };
    }).filter((_, step) => !holes || step < 30 || step > 33),
  }));
  return { items, completeness: { ...completeness, steps: { seconds, from: at(0), to: completeness.to, incomplete: holes ? [30, 31, 32, 33].map(at) : [] } } };
}

function connectionsOf(edges) {
  return edges.flatMap((edge, row) =>
    Array.from({ length: Math.min(6, edge.connections) }, (_, i) => ({
      key: `10.244.1.${row}-10.244.2.${i}-${40000 + i}-${edge.port}`, protocol: edge.protocol, node: NODES[i % 3], source: `10.244.1.${row + 4}`, dest: `10.244.2.${i + 9}`, source_port: 40_000 + i, dest_port: edge.port, direction: 'outgoing',
      state: 'established', close_reason: edge.failures > 0 && i < 2 ? 'refused' : null, process: edge.client.name.slice(0, 15), sent_bytes: Math.floor(edge.sent_bytes / 6), recv_bytes: Math.floor(edge.recv_bytes / 6), retransmits: 0, rtt_us: edge.rtt_us,
    })),
  );
}

/** What changed in the shop: one of each kind. */
function shopChanges(edges) {
  const at = (client, server) => edges.find((edge) => edge.client.name === client && edge.server.name === server);
  const change = (kind, text, before, after, symptoms = []) => ({ change: kind, text, before, after, symptoms });
  const found = [
    [at('frontend', 'reviews'), (edge) => change('new', 'not there before: 61 connections, 23.8 MB', null, edge)],
    [at('cart', 'redis'), (edge) => change('shifted', '3.2 times the bytes: 790 MB, before 246 MB', { ...edge, sent_bytes: 120_118_330, recv_bytes: 126_004_120 }, edge)],
    [at('checkout', 'payments'), (edge) => change('sicker', '30 % of connections refused, before none', { ...edge, failures: 0 }, { ...edge, failures: 41 }, FAULTS.refused.symptoms)],
    [at('mailer', 'kafka'), (edge) => change('better', 'no more retransmits, before 2.1 %', { ...edge, retransmits: 80 }, edge)],
  ].flatMap(([edge, make]) => (edge === undefined ? [] : [make(edge)]));
  const cart = edges.find((edge) => edge.client.name === 'cart');
  if (cart !== undefined) {
    const gone = { ...cart, server: { ...cart.server, kind: 'stateful_set', namespace: 'data', name: 'memcached', workload: null }, port: 11211, service: 'data/memcached', sent_bytes: 41_118_330, recv_bytes: 88_004_120 };
    found.push(change('gone', 'no longer there: before 12 connections, 129 MB', gone, null));
  }
  return found;
}
