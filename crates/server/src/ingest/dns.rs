//! A batch's DNS rows turned into what is stored. Pure.
//!
//! As with records: a row that cannot be what it says is left out and counted, the rest of its batch stands.

use super::convert::clip;
use std::net::IpAddr;
use weir_model::{NodeName, UnixNanos};
use weir_store::{DnsClient, DnsCount, StreamId};
use weir_wire::agent::{Batch, Dns, LocalEnd};

/// An agent gives at most so many.
const ANSWERS_MAX: usize = 16;

/// The counts, and how many rows were refused.
pub(super) fn convert(stream: StreamId, batch: &Batch, node: &NodeName) -> (Vec<DnsCount>, u64) {
    let mut refused = 0;
    let mut counts = Vec::with_capacity(batch.dns.len());
    for (number, row) in batch.dns.iter().enumerate() {
        let end = batch.local_ends.get(row.local_end as usize);
        match (end, address(&row.server)) {
            (Some(end), Some(server)) if row.count > 0 => {
                counts.push(to_count((stream, batch.sequence, number as u32), row, end, server, node));
            }
            _ => refused += 1,
        }
    }
    (counts, refused)
}

fn to_count(
    (stream, sequence, number): (StreamId, u64, u32),
    row: &Dns,
    end: &LocalEnd,
    server: IpAddr,
    node: &NodeName,
) -> DnsCount {
    let answers = row.answers.iter().take(ANSWERS_MAX);
    DnsCount {
        stream,
        sequence,
        number,
        node: node.clone(),
        client: DnsClient {
            pid: end.pid,
            process_start_ns: end.process_start_ns,
            process: clip(&end.process_name),
            cgroup_path: clip(&end.cgroup_path),
            container_id: clip(&end.container_id),
            netns: end.netns,
        },
        server,
        name: if row.other_names { String::new() } else { clip(&row.name) },
        query_type: clip(&row.query_type),
        rcode: clip(&row.rcode),
        count: row.count,
        latency_sum_us: row.latency_sum_us,
        latency_max_us: row.latency_max_us,
        retransmits: row.retransmits,
        truncated: row.truncated,
        first: UnixNanos(row.first_unix_ns),
        last: UnixNanos(row.last_unix_ns.max(row.first_unix_ns)),
        answers: answers.filter_map(|answer| Some((address(&answer.ip)?, answer.ttl_seconds))).collect(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let address = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from)?,
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)?,
        _ => return None,
    };
    Some(address.to_canonical())
}
