//! What clients asked of DNS servers: counts as the batches told them, and what each client was told of names.
//!
//! Made by the server from each batch in its log. A count's key is its place in its batch, so a batch that comes twice
//! counts once. A [`DnsName`] is what naming needs of the answers: which name a client had last been told for an address
//! before it connected to it.

use crate::report::StreamId;
use std::net::IpAddr;
use weir_model::{NodeName, UnixNanos};

/// One row of one batch. Its key is (stream, sequence, number).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsCount {
    /// The agent's stream.
    pub stream: StreamId,
    /// The batch.
    pub sequence: u64,
    /// The row's place in the batch.
    pub number: u32,
    /// The node.
    pub node: NodeName,
    /// Who asked.
    pub client: DnsClient,
    /// Who was asked.
    pub server: IpAddr,
    /// The name, empty for every name beyond the tracer's cap.
    pub name: String,
    /// `A`, `AAAA`, ...
    pub query_type: String,
    /// `noerror`, `nxdomain`, ..., `timeout`.
    pub rcode: String,
    /// Queries.
    pub count: u64,
    /// Microseconds, over the queries that were answered.
    pub latency_sum_us: u64,
    /// The largest of them.
    pub latency_max_us: u64,
    /// Datagrams that asked again.
    pub retransmits: u64,
    /// Answers that were cut (TC).
    pub truncated: u64,
    /// When the first of these queries was over.
    pub first: UnixNanos,
    /// When the last one was.
    pub last: UnixNanos,
    /// The last answer's addresses, each with its time to live in seconds.
    pub answers: Vec<(IpAddr, u32)>,
}

/// A socket's owner, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsClient {
    /// In the initial pid namespace, 0 unknown.
    pub pid: u32,
    /// Nanoseconds since boot, 0 unknown.
    pub process_start_ns: u64,
    /// Its name, empty unknown.
    pub process: String,
    /// Its cgroup path, empty unknown.
    pub cgroup_path: String,
    /// Its container, empty none.
    pub container_id: String,
    /// The network namespace's inode, 0 unknown.
    pub netns: u32,
}

/// `/proc` tells a process' start in hundredths of a second, the kernel's probes in nanoseconds.
const TICK_NS: u64 = 10_000_000;

/// Whom an answer is for: everybody in a container, else one process. `None` for an owner that is not known.
pub fn client_key(container_id: &str, pid: u32, process_start_ns: u64) -> Option<String> {
    if !container_id.is_empty() {
        return Some(container_id.to_owned());
    }
    (pid != 0 && process_start_ns != 0).then(|| format!("{pid}@{}", process_start_ns / TICK_NS))
}

/// That a client was told an address for a name, again and again and no other name for it in between.
///
/// Its key is (stream, client, address, from, name). A stream's batches are applied in their order, so that the same
/// batches give the same spans.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsName {
    /// The node.
    pub node: NodeName,
    /// [`client_key`].
    pub client: String,
    /// The address.
    pub address: IpAddr,
    /// The name.
    pub name: String,
    /// The first answer.
    pub from: UnixNanos,
    /// The last answer.
    pub last: UnixNanos,
    /// Until when the answers may be kept (their time to live).
    pub until: UnixNanos,
    /// The network namespace's inode, 0 unknown.
    pub netns: u32,
}
