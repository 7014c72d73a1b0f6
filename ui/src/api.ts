// The server's answers, as crates/wire/src/api.rs defines them, and the one place where JSON becomes a type.
//
// Names and fields are those of the Rust types. An absent value is null: it is not known. Zero is measured. A field that
// this page does not know is ignored, so that a newer server's answer is still read; a field of the wrong type is refused
// with its place, so that a wrong number is never shown.
//
// Counters are u64 on the wire. A JavaScript number holds every integer up to 2^53 (9 PB in one edge); a larger one is
// refused instead of rounded. Sums are taken in BigInt (edges.ts), so they have no such limit.

/** How complete an answer is. */
export interface Completeness {
  /** Whether every known node covered all of the span and nothing was lost in it. */
  complete: boolean;
  /** Start of the span, RFC 3339. */
  from: string;
  /** End of the span, RFC 3339. */
  to: string;
  nodes: NodeCoverage[];
  losses: LossTotal[];
  /** Rows that matched beyond the server's limit: the row `other` sums them up. */
  omitted: number;
  /** How coarse the span's history is; null: all of it is rows of 10 s. */
  resolution: Resolution | null;
  /** The steps of a series; null in every other answer. */
  steps: Steps | null;
  /** Of a comparison: how complete the earlier span is; null in every other answer. */
  before: Completeness | null;
}

/** The steps of a series. */
export interface Steps {
  /** How long each is. */
  seconds: number;
  /** The start of the first, RFC 3339. */
  from: string;
  /** The end of the last. */
  to: string;
  /** The starts of those in which something is missing. */
  incomplete: string[];
}

/** Old history is kept as sums, which a span has whole or not at all: those that start in it. */
export interface Resolution {
  /** The longest sums in the span, seconds: 60 or 3600. */
  seconds: number;
  /** Where the rows' numbers begin, RFC 3339. */
  from: string;
  /** Where they end. */
  to: string;
}

/** One node's part in an answer. */
export interface NodeCoverage {
  node: string;
  /** `reporting`, `late` or `silent`. */
  state: string;
  /** The end of the newest span that the node covered, RFC 3339. */
  last_seen: string | null;
  covered_ms: number;
  /** From the node's first report on. */
  missing_ms: number;
  /** The agent's wall clock less the server's. */
  clock_offset_ms: number | null;
  source_state: string;
  source_detail: string;
}

/** What was lost, where and why. */
export interface LossTotal {
  /** Empty for the server's own losses. */
  node: string;
  /** `kernel`, `tracer`, `agent`, `server` or `store`. */
  place: string;
  reason: string;
  count: number;
  bytes: number;
  connections: number;
  /** Whether a switch or a documented cap decided so. */
  intended: boolean;
  /** Not before this: the start of the oldest span that told it, RFC 3339. */
  from: string | null;
  /** Not after this: the end of the newest span that told it. */
  to: string | null;
}

/** One end of an edge. */
export interface EdgeEnd {
  kind: string;
  namespace: string | null;
  name: string;
  node: string | null;
  zone: string | null;
  address: string | null;
  /** Of a pod, a container or a process in one: its workload's name, where all of the edge's connections share it. */
  workload: string | null;
  /** How sure the name is: `known`, `inferred` or `unknown`; empty where the server does not say. */
  certainty: string;
}

/** Who talks to whom. */
export interface Edge {
  client: EdgeEnd;
  server: EdgeEnd;
  /** The Service that the connections went through. */
  service: string | null;
  /** `known`, `inferred`, `unknown` (one of several), or null: none. */
  service_certainty: string | null;
  /** Every Service that it could be, where that is not known. */
  service_candidates: string[];
  port: number;
  protocol: string;
  sent_bytes: number;
  recv_bytes: number;
  connections: number;
  retransmits: number;
  rtt_us: number | null;
  failures: number;
  /** `known`, `inferred` or `unknown`. */
  certainty: string;
  /** How it does against its own past; null where that was not asked. */
  health: Health | null;
}

/** How an edge does, against its own past. */
export interface Health {
  /** `healthy`, `unhealthy`, or `unknown`: too little happened to say. */
  verdict: string;
  /** Why it is unhealthy, the worst first. */
  symptoms: Symptom[];
  /** The start of the first window in which a symptom shows, RFC 3339. */
  since: string | null;
  /** The start of the past that it was held against; null: it has none. */
  past_from: string | null;
}

/** One way in which an edge is sick. */
export interface Symptom {
  /** `refused`, `reset`, `timed_out`, `retransmits`, `rtt`, `dns_failures`, ... */
  signal: string;
  /** What is so and what was usual, in words. */
  text: string;
  /** A share (0 to 1), of times microseconds. */
  now: number;
  /** The same of the past; null: there is none. */
  usual: number | null;
}

/** What is different about an edge between two spans. */
export interface Change {
  /** `new`, `gone`, `shifted`, `sicker` or `better`. */
  change: string;
  /** What is so, in words. */
  text: string;
  /** The edge in the earlier span; null: it was not there. */
  before: Edge | null;
  /** The edge in the later span; null: it is not there. */
  after: Edge | null;
  /** Of a `sicker` or `better` edge, in which way. */
  symptoms: Symptom[];
}

/** An edge over a span, and what of it is of which step. */
export interface Series extends Edge {
  points: Point[];
}

/** What is of one step. A step without one has nothing; whether it was watched, `completeness.steps` says. */
export interface Point {
  /** The step's start, RFC 3339. */
  at: string;
  sent_bytes: number;
  recv_bytes: number;
  /** Connections whose first record is of the step. */
  opened: number;
  retransmits: number;
  failures: number;
  rtt_us: number | null;
}

/** A connection, of what is known of it what is shown here. */
export interface ConnectionRow {
  key: string;
  protocol: string;
  node: string;
  source: string;
  dest: string;
  source_port: number;
  dest_port: number;
  /** `incoming`, `outgoing` or `unknown`. */
  direction: string;
  state: string | null;
  close_reason: string | null;
  process: string | null;
  sent_bytes: number;
  recv_bytes: number;
  retransmits: number;
  rtt_us: number | null;
}

/** Whether it is the row that sums up every row beyond the server's limit. */
export function isOther(edge: Edge): boolean {
  return edge.client.kind === 'other';
}

/** An answer: what was asked for, and how complete it is. */
export interface Answer<T> {
  items: T[];
  completeness: Completeness;
}

/** Why a request failed. */
export interface Problem {
  error: string;
  /** Where in a parameter it went wrong; null where that is not a place in a text. */
  position: Position | null;
}

/** A place in a parameter's text. */
export interface Position {
  /** The parameter: `filter`. */
  parameter: string;
  /** The character, counted from 1; one more than there are where the text ends too early. */
  column: number;
  /** What could stand there. */
  expected: string[];
}

/** The answer is JSON, but not in the form that this page reads. */
export class FormatError extends Error {
  override name = 'FormatError';
}

type Json = Record<string, unknown>;

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (value === undefined) return 'nothing';
  return Array.isArray(value) ? 'a list' : `a ${typeof value}`;
}

function refuse(where: string, expected: string, value: unknown): never {
  throw new FormatError(`${where}: expected ${expected}, got ${kindOf(value)}`);
}

function object(value: unknown, where: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) refuse(where, 'an object', value);
  return value as Json;
}

function list<T>(from: Json, key: string, where: string, each: (value: unknown, where: string) => T): T[] {
  const value = from[key];
  if (!Array.isArray(value)) refuse(`${where}.${key}`, 'a list', value);
  return value.map((item, index) => each(item, `${where}.${key}[${index}]`));
}

function text(from: Json, key: string, where: string): string {
  const value = from[key];
  return typeof value === 'string' ? value : refuse(`${where}.${key}`, 'a string', value);
}

function textOrNull(from: Json, key: string, where: string): string | null {
  return from[key] === null || from[key] === undefined ? null : text(from, key, where);
}

function flag(from: Json, key: string, where: string): boolean {
  const value = from[key];
  return typeof value === 'boolean' ? value : refuse(`${where}.${key}`, 'true or false', value);
}

function integer(from: Json, key: string, where: string): number {
  const value = from[key];
  if (typeof value !== 'number') refuse(`${where}.${key}`, 'a number', value);
  if (!Number.isSafeInteger(value)) {
    throw new FormatError(`${where}.${key}: ${value} is not an integer that this page can show exactly`);
  }
  return value;
}

function count(from: Json, key: string, where: string): number {
  const value = integer(from, key, where);
  if (value < 0) throw new FormatError(`${where}.${key}: ${value} is negative`);
  return value;
}

function edgeEnd(value: unknown, where: string): EdgeEnd {
  const from = object(value, where);
  return {
    kind: text(from, 'kind', where),
    namespace: textOrNull(from, 'namespace', where),
    name: text(from, 'name', where),
    node: textOrNull(from, 'node', where),
    zone: textOrNull(from, 'zone', where),
    address: textOrNull(from, 'address', where),
    workload: textOrNull(from, 'workload', where),
    certainty: textOrNull(from, 'certainty', where) ?? '',
  };
}

function edge(value: unknown, where: string): Edge {
  const from = object(value, where);
  return {
    client: edgeEnd(from['client'], `${where}.client`),
    server: edgeEnd(from['server'], `${where}.server`),
    service: textOrNull(from, 'service', where),
    service_certainty: textOrNull(from, 'service_certainty', where),
    service_candidates:
      from['service_candidates'] === undefined
        ? []
        : list(from, 'service_candidates', where, (value, at) => (typeof value === 'string' ? value : refuse(at, 'a string', value))),
    port: count(from, 'port', where),
    protocol: text(from, 'protocol', where),
    sent_bytes: count(from, 'sent_bytes', where),
    recv_bytes: count(from, 'recv_bytes', where),
    connections: count(from, 'connections', where),
    retransmits: count(from, 'retransmits', where),
    rtt_us: from['rtt_us'] === null || from['rtt_us'] === undefined ? null : count(from, 'rtt_us', where),
    failures: count(from, 'failures', where),
    certainty: text(from, 'certainty', where),
    health: health(from['health'] ?? null, `${where}.health`),
  };
}

function number(from: Json, key: string, where: string): number {
  const value = from[key];
  return typeof value === 'number' ? value : refuse(`${where}.${key}`, 'a number', value);
}

function symptom(value: unknown, where: string): Symptom {
  const from = object(value, where);
  return {
    signal: text(from, 'signal', where),
    text: text(from, 'text', where),
    now: number(from, 'now', where),
    usual: from['usual'] === null || from['usual'] === undefined ? null : number(from, 'usual', where),
  };
}

function health(value: unknown, where: string): Health | null {
  if (value === null) return null;
  const from = object(value, where);
  return {
    verdict: text(from, 'verdict', where),
    symptoms: list(from, 'symptoms', where, symptom),
    since: textOrNull(from, 'since', where),
    past_from: textOrNull(from, 'past_from', where),
  };
}

function nodeCoverage(value: unknown, where: string): NodeCoverage {
  const from = object(value, where);
  const offset = from['clock_offset_ms'];
  return {
    node: text(from, 'node', where),
    state: text(from, 'state', where),
    last_seen: textOrNull(from, 'last_seen', where),
    covered_ms: count(from, 'covered_ms', where),
    missing_ms: count(from, 'missing_ms', where),
    clock_offset_ms: offset === null || offset === undefined ? null : integer(from, 'clock_offset_ms', where),
    source_state: text(from, 'source_state', where),
    source_detail: text(from, 'source_detail', where),
  };
}

function lossTotal(value: unknown, where: string): LossTotal {
  const from = object(value, where);
  return {
    node: text(from, 'node', where),
    place: text(from, 'place', where),
    reason: text(from, 'reason', where),
    count: count(from, 'count', where),
    bytes: count(from, 'bytes', where),
    connections: count(from, 'connections', where),
    intended: flag(from, 'intended', where),
    from: textOrNull(from, 'from', where),
    to: textOrNull(from, 'to', where),
  };
}

function completeness(value: unknown, where: string): Completeness {
  const from = object(value, where);
  return {
    complete: flag(from, 'complete', where),
    from: text(from, 'from', where),
    to: text(from, 'to', where),
    nodes: list(from, 'nodes', where, nodeCoverage),
    losses: list(from, 'losses', where, lossTotal),
    omitted: count(from, 'omitted', where),
    resolution: resolution(from['resolution'] ?? null, `${where}.resolution`),
    steps: steps(from['steps'] ?? null, `${where}.steps`),
    before: from['before'] === null || from['before'] === undefined ? null : completeness(from['before'], `${where}.before`),
  };
}

function steps(value: unknown, where: string): Steps | null {
  if (value === null) return null;
  const from = object(value, where);
  return {
    seconds: count(from, 'seconds', where),
    from: text(from, 'from', where),
    to: text(from, 'to', where),
    incomplete: list(from, 'incomplete', where, (one, at) => (typeof one === 'string' ? one : refuse(at, 'a string', one))),
  };
}

function resolution(value: unknown, where: string): Resolution | null {
  if (value === null) return null;
  const from = object(value, where);
  return { seconds: count(from, 'seconds', where), from: text(from, 'from', where), to: text(from, 'to', where) };
}

/** Reads the body of `GET /api/v1/edges`; throws a {@link FormatError} that names the first field that does not fit. */
export function parseEdges(body: string): Answer<Edge> {
  return answerOf(body, edge);
}

/** Reads an answer whose rows `row` reads. */
function answerOf<T>(body: string, row: (value: unknown, where: string) => T): Answer<T> {
  const from = object(parseJson(body), 'answer');
  return { items: list(from, 'items', 'answer', row), completeness: completeness(from['completeness'], 'answer.completeness') };
}

function change(value: unknown, where: string): Change {
  const from = object(value, where);
  const side = (key: string) => (from[key] === null || from[key] === undefined ? null : edge(from[key], `${where}.${key}`));
  return {
    change: text(from, 'change', where),
    text: text(from, 'text', where),
    before: side('before'),
    after: side('after'),
    symptoms: list(from, 'symptoms', where, symptom),
  };
}

function countOrNull(from: Json, key: string, where: string): number | null {
  return from[key] === null || from[key] === undefined ? null : count(from, key, where);
}

function point(value: unknown, where: string): Point {
  const from = object(value, where);
  return {
    at: text(from, 'at', where),
    sent_bytes: count(from, 'sent_bytes', where),
    recv_bytes: count(from, 'recv_bytes', where),
    opened: count(from, 'opened', where),
    retransmits: count(from, 'retransmits', where),
    failures: count(from, 'failures', where),
    rtt_us: countOrNull(from, 'rtt_us', where),
  };
}

function connectionRow(value: unknown, where: string): ConnectionRow {
  const from = object(value, where);
  return {
    key: text(from, 'key', where),
    protocol: text(from, 'protocol', where),
    node: text(from, 'node', where),
    source: text(from, 'source', where),
    dest: text(from, 'dest', where),
    source_port: count(from, 'source_port', where),
    dest_port: count(from, 'dest_port', where),
    direction: text(from, 'direction', where),
    state: textOrNull(from, 'state', where),
    close_reason: textOrNull(from, 'close_reason', where),
    process: textOrNull(from, 'process', where),
    sent_bytes: count(from, 'sent_bytes', where),
    recv_bytes: count(from, 'recv_bytes', where),
    retransmits: count(from, 'retransmits', where),
    rtt_us: countOrNull(from, 'rtt_us', where),
  };
}

/** Reads the body of `GET /api/v1/diff`; throws as {@link parseEdges} does. */
export const parseChanges = (body: string): Answer<Change> => answerOf(body, change);

/** Reads the body of `GET /api/v1/series`. */
export const parseSeries = (body: string): Answer<Series> =>
  answerOf(body, (value, where) => ({ ...edge(value, where), points: list(object(value, where), 'points', where, point) }));

/** Reads the body of `GET /api/v1/connections`. */
export const parseConnections = (body: string): Answer<ConnectionRow> => answerOf(body, connectionRow);

function position(value: unknown, where: string): Position | null {
  if (value === null) return null;
  const from = object(value, where);
  return {
    parameter: text(from, 'parameter', where),
    column: count(from, 'column', where),
    expected: list(from, 'expected', where, (one, at) => (typeof one === 'string' ? one : refuse(at, 'a string', one))),
  };
}

/** Reads a failed request's body: the server's own words, or null if it holds none. */
export function parseProblem(body: string): Problem | null {
  try {
    const from = object(parseJson(body), 'problem');
    return { error: text(from, 'error', 'problem'), position: position(from['position'] ?? null, 'problem.position') };
  } catch (error) {
    if (error instanceof FormatError) return null;
    throw error;
  }
}

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    throw new FormatError(body.trim() === '' ? 'the answer is empty' : 'the answer is not JSON');
  }
}
