//! DNS: the feed's rows of what was asked become a batch's.
//!
//! A row counts its queries once, so it goes into exactly one batch: the one that moves the cursor of DNS rows (R3).
//! Nothing is summed here; the server does that.

use crate::attribute::stage::RawEnd;
use crate::window::{Part, Window};
use prost::bytes::Bytes;
use std::collections::HashMap;
use std::net::IpAddr;
use weir_model::MonotonicNanos;
use weir_wire::agent::{Dns, DnsAnswer};
use weir_wire::feed;

/// As many as a row of weir's tracer may have; another tracer's further ones are left out.
const ANSWERS_MAX: usize = 16;
/// As above.
const ALIASES_MAX: usize = 8;

impl Window<'_> {
    /// Adds the rows; answers how many were refused because they name no server.
    pub fn add_dns(&self, part: &mut Part, rows: &[feed::Dns]) -> u64 {
        let mut refused = 0;
        let mut ends: HashMap<RawEnd, u32> = HashMap::new();
        for row in rows {
            let Some(server) = address(&row.server) else {
                refused += 1;
                continue;
            };
            let raw = raw_end(row);
            let local_end = *ends.entry(raw).or_insert_with_key(|raw| {
                part.local_ends.push(self.resolve(raw, MonotonicNanos(row.last_epoch)));
                part.local_ends.len() as u32 - 1
            });
            let answers = row.answers.iter().take(ANSWERS_MAX);
            part.dns.push(Dns {
                local_end,
                server,
                name: row.name.clone(),
                query_type: row.query_type.clone(),
                rcode: row.rcode.clone(),
                count: row.count,
                latency_sum_us: row.latency_sum_us,
                latency_max_us: row.latency_max_us,
                retransmits: row.retransmits,
                truncated: row.truncated,
                first_unix_ns: self.wall(row.first_epoch),
                last_unix_ns: self.wall(row.last_epoch),
                answers: answers
                    .filter_map(|answer| Some(DnsAnswer { ip: address(&answer.address)?, ttl_seconds: answer.ttl }))
                    .collect(),
                aliases: row.aliases.iter().take(ALIASES_MAX).cloned().collect(),
                other_names: row.other_names.unwrap_or(false),
            });
        }
        refused
    }
}

fn raw_end(row: &feed::Dns) -> RawEnd {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    RawEnd {
        netns: row.net_ns,
        pid: row.pid,
        process_start: row.process_start.unwrap_or(0),
        cgroup_id: row.cgroup_id.unwrap_or(0),
        process_name: text(&row.process_name),
        cgroup_path: text(&row.cgroup_path),
        container_id: text(&row.container_id),
    }
}

fn address(text: &str) -> Option<Bytes> {
    Some(match text.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    })
}
