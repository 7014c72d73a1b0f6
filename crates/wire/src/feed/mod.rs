//! The feed: what a tracer serves on its unix socket, as JSON over HTTP.
//!
//! `GET /connections?client_id=ID[&ack=CURSOR][&run=RUN][&dns_ack=CURSOR][&last=no]` answers [`Reply`]; `run` says which
//! run the cursor is of, `last=no` that `last_*` is not wanted. The first seventeen fields of a [`Connection`] are
//! those of the 2019 network tracer; the optional ones after them are weir's. A consumer ignores what it does not know
//! and lives without what is missing. [`decode`] reads a reply of any size row by row. `GET /processes` answers [`Processes`], `GET /status` answers [`Status`].

pub mod decode;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The reply to `GET /connections`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// The run of the tracer's kernel maps, 16 hexadecimal digits. Counters kept in those maps (UDP) began with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The node's boot id with dashes, as in `/proc/sys/kernel/random/boot_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// `CLOCK_MONOTONIC` in nanoseconds when the reply's snapshot began: every change before it is in the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monotonic_ns: Option<u64>,
    /// One row per connection.
    #[serde(default)]
    pub connections: Vec<Connection>,
    /// What to pass as `ack` once this reply's closed rows are safe (R3). Absent without `client_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    /// Whether every live TCP connection is among the rows; false when a walk was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// True on a page: the oldest of more closed rows than were asked for at once (`page=ROWS`), and nothing else. The
    /// rest follows for whoever acknowledges it; what lives comes with the last closed rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<bool>,
    /// Every loss so far in this run, by reason; only ever rises within a run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, u64>,
    /// Connections whose both ends this node translated, be they its own or only passing through. Each is told more
    /// than once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub translations: Vec<Translation>,
    /// Present when the rows do not come from eBPF: what that leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<Degraded>,
    /// What clients of this node asked of DNS servers over UDP: with `client_id` what is new to that client (R3),
    /// without it what the tracer holds. A tracer that does not watch DNS has no such list; another tracer's `dns` that
    /// is no list is ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "list_or_nothing")]
    pub dns: Vec<Dns>,
    /// What to pass as `dns_ack` once this reply's `dns` is safe: a client that passes it is told the rows again until
    /// then, one that does not is told each row once. Absent without `client_id`, and where DNS is not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_cursor: Option<u64>,
}

/// Another source of rows than eBPF.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// Which: `fallback`.
    #[serde(default)]
    pub mode: String,
    /// Why it is not eBPF, in words.
    #[serde(default)]
    pub reason: String,
    /// What it cannot see. In a reply to `GET /connections` without the reasons, which `GET /status` tells.
    #[serde(default)]
    pub cannot_see: Vec<Blind>,
}

/// Something that a source of rows cannot see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blind {
    /// A word for it.
    #[serde(default)]
    pub what: String,
    /// Why, and what it means for the rows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

fn list_or_nothing<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Vec<Dns>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        List(Vec<Dns>),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Value::deserialize(value)? {
        Value::List(rows) => rows,
        Value::Other(_) => Vec::new(),
    })
}

/// What one process asked one server for one name, with one outcome: so many queries, each counted in one row of one
/// reply. DNS over TCP, TLS or HTTPS is not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// The asking process in the initial pid namespace, 0 unknown.
    #[serde(default)]
    pub pid: u32,
    /// The network namespace's inode, 0 unknown.
    #[serde(default)]
    pub net_ns: u32,
    /// As in [`Connection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_name: Option<String>,
    /// As in [`Connection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_start: Option<u64>,
    /// As in [`Connection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// As in [`Connection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_path: Option<String>,
    /// As in [`Connection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The server's address as the client sees it; its port is 53.
    pub server: String,
    /// The name that was asked for, in lower case without the final dot; a byte that is not printable stands as `\DDD`
    /// (RFC 1035 5.1). `.` for the root, empty with `other_names`.
    pub name: String,
    /// `A`, `AAAA`, `PTR`, ..., else `TYPE` and the number (RFC 3597); empty with `other_names`.
    pub query_type: String,
    /// `noerror`, `nxdomain`, `servfail`, `refused`, `formerr`, `notimp`, else `rcode` and the number; `timeout` for
    /// queries that got no answer within 15 s.
    pub rcode: String,
    /// Queries.
    #[serde(default)]
    pub count: u64,
    /// From a query's first datagram to its answer's arrival at the socket, microseconds, summed over `count`; 0 for
    /// `timeout`.
    #[serde(default)]
    pub latency_sum_us: u64,
    /// The largest of those.
    #[serde(default)]
    pub latency_max_us: u64,
    /// Datagrams that asked again what was not answered yet: same socket, id, name, type and server.
    #[serde(default)]
    pub retransmits: u64,
    /// Answers that said that they were cut (TC), so that the client asks again over TCP, which is not seen.
    #[serde(default)]
    pub truncated: u64,
    /// When the first of these queries was over, `CLOCK_MONOTONIC` nanoseconds.
    #[serde(default)]
    pub first_epoch: u64,
    /// When the last one was.
    #[serde(default)]
    pub last_epoch: u64,
    /// The addresses of the last answer, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<DnsAnswer>,
    /// The names that the last answer led over (CNAME), in order, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The row stands for every name beyond the cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_names: Option<bool>,
}

/// An address that a name has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// The address.
    pub address: String,
    /// For how many seconds it may be kept: the smallest along the way from the name to the address.
    #[serde(default)]
    pub ttl: u32,
}

/// One connection as its local end sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The owner's process id in the initial pid namespace, 0 unknown.
    #[serde(default)]
    pub pid: u32,
    /// 0 TCP, 1 UDP.
    #[serde(rename = "type")]
    pub kind: u8,
    /// 0 IPv4, 1 IPv6.
    #[serde(default)]
    pub family: u8,
    /// The network namespace's inode.
    #[serde(default)]
    pub net_ns: u32,
    /// The local address.
    pub source: String,
    /// The remote address.
    pub dest: String,
    /// The local port.
    pub sport: u16,
    /// The remote port.
    pub dport: u16,
    /// 1 incoming, 2 outgoing, 3 local; 0 unknown. weir's tracer never emits 3.
    #[serde(default)]
    pub direction: u8,
    /// Payload bytes sent since the counter began. Absent from feeds that give only deltas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monotonic_sent_bytes: Option<u64>,
    /// Payload bytes sent since this client's last fetch.
    #[serde(default)]
    pub last_sent_bytes: u64,
    /// Payload bytes received since the counter began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monotonic_recv_bytes: Option<u64>,
    /// Payload bytes received since this client's last fetch.
    #[serde(default)]
    pub last_recv_bytes: u64,
    /// Segments retransmitted since the counter began.
    #[serde(default)]
    pub monotonic_retransmits: u64,
    /// Segments retransmitted since this client's last fetch.
    #[serde(default)]
    pub last_retransmits: u64,
    /// When the row last changed, `CLOCK_MONOTONIC` nanoseconds.
    #[serde(default)]
    pub last_update_epoch: u64,

    /// The kernel's socket cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// How often the cookie's socket was disconnected and used again (`AF_UNSPEC`), as far as the tracer saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// When the connection began (TCP: the first SYN sent, or the connection established on the passive side; UDP: the
    /// counter's first datagram), `CLOCK_MONOTONIC` nanoseconds. Absent when it is older than the tracer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_epoch: Option<u64>,
    /// The TCP state in lower case (`include/net/tcp_states.h`: `established`, `syn_sent`, `close_wait`, ...), `active`
    /// for UDP, or `closed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// When it closed, `CLOCK_MONOTONIC` nanoseconds; present exactly on closed rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_epoch: Option<u64>,
    /// Why it closed: `closed` (orderly), `refused`, `reset`, `timed_out`, `unreachable`, `aborted` (any other error),
    /// `disconnected` (AF_UNSPEC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_reason: Option<String>,
    /// The errno behind `close_reason`, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<u32>,
    /// The inode of the cgroup v2 directory that the socket was created in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// That directory's path below the cgroup v2 root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_path: Option<String>,
    /// The container id in the cgroup path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// How the node translates it, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<Conntrack>,
    /// Smoothed round-trip time, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u32>,
    /// The mean deviation of the round-trip time, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_var_us: Option<u32>,
    /// Segments given up for lost so far, a segment that is lost again counted again; absent when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u32>,
    /// From SYN to established on the active side, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_latency_us: Option<u32>,
    /// `known` when the opening was seen, `inferred` when it follows from the counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction_certainty: Option<String>,
    /// The owner's name (`comm`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_name: Option<String>,
    /// When the owner started, `CLOCK_MONOTONIC`-like nanoseconds since boot (`task_struct::start_boottime`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_start: Option<u64>,
    /// The row stands for every peer of this socket beyond the cap (R9); its remote end is `0.0.0.0:0` or `:::0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_peer: Option<bool>,
    /// Absent when the totals are exact. `last_seen`: the end was told without them, they are those that were seen last
    /// and at most too low. `recv_one_short`: one byte more may have been received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals_certainty: Option<String>,
}

/// How a connection is translated: as its opener's packets were before it, and as the answer's are behind it.
///
/// On the opener's row the original is the row's own tuple, and the reply's source is the other end. On the accepting
/// end's row the reply's source and destination are the row's own tuple, and the original is what the opener knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conntrack {
    /// The reply's source address: the real backend where the destination is translated.
    pub repl_src_ip: String,
    /// The reply's destination address: the translated source.
    pub repl_dst_ip: String,
    /// The reply's source port.
    pub repl_src_port: u16,
    /// The reply's destination port.
    pub repl_dst_port: u16,
    /// The opener's address. Absent from the 2019 tracer's feed, like the three after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orig_src_ip: Option<String>,
    /// The address that the opener asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orig_dst_ip: Option<String>,
    /// The opener's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orig_src_port: Option<u16>,
    /// The port that the opener asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orig_dst_port: Option<u16>,
}

/// A connection that the node translates at both ends, without its bytes: whose they are, its ends' nodes tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// 0 TCP, 1 UDP.
    #[serde(rename = "type")]
    pub kind: u8,
    /// 0 IPv4, 1 IPv6.
    #[serde(default)]
    pub family: u8,
    /// Its tuples; every field is there.
    pub conntrack: Conntrack,
    /// When it was seen first, `CLOCK_MONOTONIC` nanoseconds.
    pub seen_epoch: u64,
    /// It was seen as it began; otherwise it was there already.
    #[serde(default)]
    pub began: bool,
}

/// The reply to `GET /processes`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Processes {
    /// The node's boot id.
    #[serde(default)]
    pub boot_id: String,
    /// Every process (thread group) that could be read.
    #[serde(default)]
    pub processes: Vec<Process>,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// In the initial pid namespace.
    pub pid: u32,
    /// Nanoseconds since boot (field 22 of `/proc/PID/stat`).
    #[serde(default)]
    pub start_ns: u64,
    /// The inode of `/proc/PID/ns/net`, 0 unknown.
    #[serde(default)]
    pub net_ns: u32,
    /// The cgroup path: version 2's where it names something, else the memory or pids controller's.
    #[serde(default)]
    pub cgroup_path: String,
    /// `comm`.
    #[serde(default)]
    pub name: String,
    /// The container id in the cgroup path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
}

/// The reply to `GET /status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// The tracer's version.
    #[serde(default)]
    pub version: String,
    /// As in [`Reply`].
    #[serde(default)]
    pub run_id: String,
    /// As in [`Reply`].
    #[serde(default)]
    pub boot_id: String,
    /// `running`, or `degraded` when a probe is missing.
    #[serde(default)]
    pub state: String,
    /// Where the rows come from: `ebpf` or `fallback`.
    #[serde(default)]
    pub mode: String,
    /// Capabilities that the tracer does not have, with what its mode loses for it; empty where that is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<Blind>,
    /// Present when the rows do not come from eBPF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<Degraded>,
    /// Each probe and how it does.
    #[serde(default)]
    pub probes: Vec<Probe>,
    /// Every loss so far in this run, by reason.
    #[serde(default)]
    pub losses: BTreeMap<String, u64>,
    /// Numbers of the tracer's tables and buffers, by name.
    #[serde(default)]
    pub gauges: BTreeMap<String, u64>,
    /// When this tracer process took over, `CLOCK_MONOTONIC` nanoseconds.
    #[serde(default)]
    pub since_monotonic_ns: u64,
    /// How often a tracer process took over these kernel maps from one that died.
    #[serde(default)]
    pub takeovers: u64,
    /// The cgroup v2 directory below which the tracer traces; absent when it traces everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Why the kernel does not count what programs cost, though the tracer was told to have it counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_costs_refused: Option<String>,
}

/// A probe's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The probe's folder name.
    pub name: String,
    /// `running`, `disabled`, `unsupported` or `failed`.
    pub state: String,
    /// Why it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often its programs ran, where the kernel counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u64>,
    /// Nanoseconds spent in its programs, where the kernel counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nanoseconds: Option<u64>,
    /// The same, program by program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<Program>,
}

/// What one kernel program cost since it was loaded, as far as the kernel counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// Nanoseconds in all.
    pub nanoseconds: u64,
}
