//! The HTTP API's JSON: every answer is `{"items": [...], "completeness": {...}}`.
//!
//! Names in snake_case, times as RFC 3339 with nanoseconds where they have them, bytes as integers. An absent value is
//! `null`: it is not known. Zero is measured.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An answer: what was asked for, and how complete it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Answer<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Which nodes reported, what was lost where, and which time the rows cover.
    pub completeness: Completeness,
}

/// How complete an answer is (invariant 5).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Completeness {
    /// Whether every known node covered all of the span and nothing was lost in it.
    pub complete: bool,
    /// Start of the span that the answer is about, RFC 3339.
    pub from: String,
    /// End of the span.
    pub to: String,
    /// Every node that is known to have reported.
    pub nodes: Vec<NodeCoverage>,
    /// What was lost in the span, summed by node, place and reason.
    pub losses: Vec<LossTotal>,
    /// Rows that matched beyond `limit`. Where rows are sums (edges, series, dns), the last item, whose ends are of the kind
    /// `other`, sums them up; elsewhere they are in no item.
    pub omitted: u64,
    /// How coarse the span's history is; `null`: all of it is rows of 10 s.
    #[serde(default)]
    pub resolution: Option<Resolution>,
    /// The steps of a series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Steps>,
    /// Of a comparison: how complete the earlier of its two spans is. All else here is about the later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    pub before: Option<Box<Completeness>>,
}

/// The steps of a series: of one length, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Steps {
    /// How long each is, seconds: as asked, or longer where old history is coarser; else what fits the span.
    pub seconds: u64,
    /// The start of the first, RFC 3339. Of it and of the last, only what is within the span counts.
    pub from: String,
    /// The end of the last.
    pub to: String,
    /// The starts of those in which something is missing: a node was not watched, or something was lost.
    pub incomplete: Vec<String>,
}

/// Old history is kept as sums of a minute or an hour, which a span has whole or not at all: those that start in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Resolution {
    /// The longest sums in the span, seconds: 60 or 3600.
    pub seconds: u64,
    /// Where the rows' numbers begin: later than asked, if the span's start cuts a sum. RFC 3339.
    pub from: String,
    /// Where they end: later than asked, if the span's end cuts a sum.
    pub to: String,
}

/// One node's part in an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeCoverage {
    /// The node's name.
    pub node: String,
    /// `reporting`, `late` (nothing for three intervals), or `silent` (nothing for two minutes).
    pub state: String,
    /// The end of the newest span that the node covered.
    pub last_seen: Option<String>,
    /// Milliseconds of the asked span that the node's polls covered.
    pub covered_ms: u64,
    /// Milliseconds of the asked span, from the node's first report on, that no successful poll covered.
    pub missing_ms: u64,
    /// How far the agent's wall clock lies before (negative) or after the server's, milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// The state of the node's source, as the agent told it last (`ok`, `degraded`, `missing`, `timeout`, ...).
    pub source_state: String,
    /// The source's own words about that state.
    pub source_detail: String,
}

/// What was lost, where and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LossTotal {
    /// The node, empty for the server's own losses.
    pub node: String,
    /// `tracer` (its kernel programs included), `agent`, `server` or `store`.
    pub place: String,
    /// The reason, a fixed word per place; `docs/losses.md` explains each.
    pub reason: String,
    /// How many events, rows or datagrams.
    pub count: u64,
    /// Bytes known to be in them; 0 where that cannot be known.
    pub bytes: u64,
    /// Connections known to be in them.
    pub connections: u64,
    /// Whether a switch or a documented cap decided so.
    pub intended: bool,
    /// It happened not before this: the start of the oldest poll's span that told it. `null`: not known.
    #[serde(default)]
    pub from: Option<String>,
    /// It happened not after this: the end of the newest poll's span that told it.
    #[serde(default)]
    pub to: Option<String>,
}

/// One end of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct EdgeEnd {
    /// `process`, `container`, `pod`, `deployment`, `stateful_set`, `daemon_set`, `cron_job`, `job`, `replica_set` (or
    /// another controller's kind), `service`, `namespace`, `node`, `zone`, `attribute`, `address`, `external`, `unknown`, or
    /// `other`: of the row that sums up every row beyond the limit.
    pub kind: String,
    /// The Kubernetes namespace.
    pub namespace: Option<String>,
    /// The name under the asked grouping.
    pub name: String,
    /// The node that the end runs on, where it is known.
    pub node: Option<String>,
    /// That node's zone.
    pub zone: Option<String>,
    /// The end's address, where all of the edge's connections share it.
    pub address: Option<String>,
    /// Of a pod, a container or a process in one: the name of its workload, where it is known and all of the edge's
    /// connections share it.
    #[serde(default)]
    pub workload: Option<String>,
    /// How sure the name is, over all of the edge's connections: `known`, `inferred` or `unknown`.
    #[serde(default)]
    pub certainty: String,
}

impl EdgeEnd {
    /// Whether it is an end of the row that sums up every row beyond the limit.
    pub fn is_other(&self) -> bool {
        self.kind == OTHER
    }
}

/// The kind, and the name, of the ends of the row that sums up every row beyond the limit.
pub const OTHER: &str = "other";

/// Who talks to whom: what every connection between two ends, to one port, has in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Edge {
    /// The end that opened the connections.
    pub client: EdgeEnd,
    /// The end that accepted them.
    pub server: EdgeEnd,
    /// The Service that they went through, `namespace/name`. Edges through different Services are different edges.
    pub service: Option<String>,
    /// `known`: the client asked for the Service, and a translation (or the Service's own address) says so. `inferred`:
    /// it follows from the EndpointSlices that hold the server's address and port. `unknown`: they are of several
    /// Services. `null`: of none.
    #[serde(default)]
    pub service_certainty: Option<String>,
    /// Every Service that it could be, where that is inferred or unknown.
    #[serde(default)]
    pub service_candidates: Vec<String>,
    /// The server's port; 0 in the row `other`.
    pub port: u16,
    /// `tcp` or `udp`; empty in the row `other`.
    pub protocol: String,
    /// Payload bytes that the client sent within the span, each counted once.
    pub sent_bytes: u64,
    /// Payload bytes that the client received within the span.
    pub recv_bytes: u64,
    /// Connections open at the span's start plus those opened within it.
    pub connections: u64,
    /// Segments that either end sent again.
    pub retransmits: u64,
    /// The mean of the connections' smoothed round-trip times, microseconds.
    pub rtt_us: Option<u64>,
    /// Connections that failed to open or broke within the span.
    pub failures: u64,
    /// The least sure of the names and roles in this edge: `known`, `inferred` or `unknown`.
    pub certainty: String,
    /// How it does against its own past, where that was asked for (`health`, `unhealthy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// How an edge does, against its own past.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `healthy`, `unhealthy`, or `unknown`: too little happened to say.
    pub verdict: String,
    /// Why it is unhealthy, the worst first; empty otherwise.
    pub symptoms: Vec<Symptom>,
    /// The start of the first window of the span in which a symptom shows, RFC 3339.
    pub since: Option<String>,
    /// The start of the past that it was held against, which ends where the span begins; `null`: it has none.
    pub past_from: Option<String>,
}

/// One way in which an edge is sick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Symptom {
    /// `refused`, `reset`, `timed_out`, `unreachable`, `aborted` (connections that failed to open or broke), `retransmits`,
    /// `rtt`, `dns_failures` or `dns_latency`.
    pub signal: String,
    /// What is so and what was usual, in words.
    pub text: String,
    /// How much: of connections, segments or queries the share (0 to 1), of times microseconds.
    pub now: f64,
    /// The same of the past; `null`: there is none.
    pub usual: Option<f64>,
}

/// What is different about an edge between two spans.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// `new`, `gone`, `shifted` (more or less traffic than chance explains), `sicker` or `better`.
    pub change: String,
    /// What is so, in words.
    pub text: String,
    /// The edge in the earlier span; `null`: it was not there.
    pub before: Option<Edge>,
    /// The edge in the later span; `null`: it is not there.
    pub after: Option<Edge>,
    /// Of a `sicker` or `better` edge, in which way.
    pub symptoms: Vec<Symptom>,
}

/// An edge over a span, and what of it is of which step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Series {
    /// The edge, as `/api/v1/edges` answers it for the same span.
    #[serde(flatten)]
    pub edge: Edge,
    /// In order of time, the steps in which something is counted: their bytes, retransmits and failures add up to the edge's.
    /// A step that is not here has nothing; whether it was watched, `completeness.steps` says.
    pub points: Vec<Point>,
}

/// What is of one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Point {
    /// The step's start, RFC 3339.
    pub at: String,
    /// Payload bytes that the client sent.
    pub sent_bytes: u64,
    /// Payload bytes that the client received.
    pub recv_bytes: u64,
    /// Connections whose first record is of the step.
    pub opened: u64,
    /// Segments that either end sent again.
    pub retransmits: u64,
    /// Connections that failed to open or broke.
    pub failures: u64,
    /// The mean of the smoothed round-trip times told in the step, microseconds.
    pub rtt_us: Option<u64>,
}

/// A stored counter under the project's first key: one view of one connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transaction {
    /// `ip_source-ip_dest-port_src-port_dest`.
    pub key: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The node that saw it.
    pub node: String,
    /// The node's boot id, 32 hexadecimal digits.
    pub boot_id: String,
    /// The instance: `socket:COOKIE`, `peer:COOKIE` or `tuple:NETNS:PID`.
    pub instance: String,
    /// How often the instance's counter began anew.
    pub generation: u32,
    /// The local address.
    pub source: String,
    /// The remote address.
    pub dest: String,
    /// The local port.
    pub source_port: u16,
    /// The remote port.
    pub dest_port: u16,
    /// `incoming`, `outgoing` or `unknown`.
    pub direction: String,
    /// How sure the direction is.
    pub direction_certainty: String,
    /// Payload bytes sent since the counter began.
    pub monotonic_sent_bytes: u64,
    /// Payload bytes received since the counter began.
    pub monotonic_recv_bytes: u64,
    /// Segments retransmitted since the counter began.
    pub monotonic_retransmits: u64,
    /// The part of sent plus received that lies before weir's first sight and belongs to no edge (R2).
    pub bytes_before: u64,
    /// Of that, sent.
    pub sent_bytes_before: u64,
    /// Of that, received.
    pub recv_bytes_before: u64,
    /// The TCP state, `active` for UDP, or `closed`.
    pub state: String,
    /// Why it closed: `closed`, `refused`, `reset`, `timed_out`, `unreachable`, `aborted`, `disconnected`.
    pub close_reason: Option<String>,
    /// The errno behind that.
    pub errno: Option<u32>,
    /// The owner's process id in the initial pid namespace, 0 unknown.
    pub pid: u32,
    /// The owner's name.
    pub process: Option<String>,
    /// The container it runs in.
    pub container_id: Option<String>,
    /// Its cgroup path.
    pub cgroup_path: Option<String>,
    /// The network namespace's inode.
    pub net_ns: u32,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: Option<u32>,
    /// From SYN to established, microseconds.
    pub connect_latency_us: Option<u32>,
    /// The connection's start where it is known, else the first poll that saw it, RFC 3339.
    pub first_seen: String,
    /// Its close, else the last poll that saw it change.
    pub last_seen: String,
    /// Whether the other end's view is known too.
    pub paired: bool,
    /// The row stands for every peer of a UDP socket beyond the cap (R9).
    pub other_peer: bool,
    /// Where nodes translate the connection on its way (a Service, masquerading): the source that the other end sees.
    pub translated_source: Option<String>,
    /// And the other end's own address: the backend.
    pub translated_dest: Option<String>,
    /// The source port that the other end sees.
    pub translated_source_port: Option<u16>,
    /// The backend's port.
    pub translated_dest_port: Option<u16>,
}

/// A connection as it is now: a transaction and what moved in the asked span.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionRow {
    /// The stored counter.
    #[serde(flatten)]
    pub transaction: Transaction,
    /// Payload bytes sent within the span.
    pub sent_bytes: u64,
    /// Payload bytes received within the span.
    pub recv_bytes: u64,
    /// Segments retransmitted within the span.
    pub retransmits: u64,
}

/// What one source said about one thing: who is who.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetadataRow {
    /// The thing's address; empty where it has none.
    pub key: String,
    /// `node`, `namespace`, `pod`, `container`, `process`, `replica_set`, `job`, `service`, `endpoint`, or `name`: a DNS
    /// name and the addresses that one client was told.
    pub kind: String,
    /// `proc`, `tracer`, `kubelet`, `cri`, `docker`, `api` or `dns`.
    pub source: String,
    /// The node that said it.
    pub node: String,
    /// Unique within node, source and kind.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: Option<String>,
    /// The id of the thing it belongs to.
    pub parent: Option<String>,
    /// The network namespace's inode.
    pub net_ns: Option<u32>,
    /// Every address that it holds.
    pub addresses: Vec<String>,
    /// From when it was so, RFC 3339.
    pub valid_from: String,
    /// Until when; absent while it is.
    pub valid_to: Option<String>,
    /// Everything else that was collected. A container's `pids` are those of every process that is told to be in it, too.
    pub attributes: BTreeMap<String, String>,
}

/// What one client asked one DNS server for one name: over UDP, as seen at the client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DnsRow {
    /// Who asked.
    pub client: EdgeEnd,
    /// Who was asked.
    pub server: EdgeEnd,
    /// The name, in lower case without the final dot; empty for every name beyond the tracer's cap.
    pub name: String,
    /// `A`, `AAAA`, `PTR`, ...; empty for every name beyond the tracer's cap.
    pub query_type: String,
    /// Queries that were over within the span: answered, or without an answer for 15 s.
    pub queries: u64,
    /// Those whose outcome was not `noerror`.
    pub failures: u64,
    /// Queries by their outcome: `noerror`, `nxdomain`, `servfail`, ..., `timeout`.
    pub rcodes: BTreeMap<String, u64>,
    /// The mean time from a query to its answer, microseconds; absent without an answer.
    pub latency_us: Option<u64>,
    /// The longest.
    pub latency_max_us: Option<u64>,
    /// Datagrams that asked again.
    pub retransmits: u64,
    /// Answers that were cut (TC): the client then asks over TCP, which is not seen.
    pub truncated: u64,
    /// The addresses of the newest answer that had some.
    pub addresses: Vec<String>,
    /// When the last of these queries was over, RFC 3339.
    pub last_seen: String,
}

/// A part's state: a node's agent and source, or the server's store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusRow {
    /// `server`, `store`, `inventory`, `watch` (of a kind of Kubernetes' objects), `node` or `metadata` (a node's source of it).
    pub kind: String,
    /// The node's name, what is watched, `NODE/SOURCE`, or the server's.
    pub name: String,
    /// `healthy`, `degraded` or `unhealthy`.
    pub health: String,
    /// What is wrong and how to mend it; empty when healthy.
    pub detail: String,
    /// The part's version.
    pub version: String,
    /// When it was heard last, RFC 3339.
    pub last_seen: Option<String>,
    /// Its counters by name: records, batches, duplicates, rows refused, losses by reason, and so on.
    pub counters: BTreeMap<String, u64>,
}

/// Why a request failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What is wrong, where, and how to mend it.
    pub error: String,
    /// Where in a parameter it went wrong; absent where that is not a place in a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

/// A place in a parameter's text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Position {
    /// The parameter: `filter`.
    pub parameter: String,
    /// The character, counted from 1; one more than there are where the text ends too early.
    pub column: u64,
    /// What could stand there.
    pub expected: Vec<String>,
}
