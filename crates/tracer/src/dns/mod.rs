//! DNS: what clients of this node ask over UDP, what becomes of it, and how long it takes.
//!
//! ```text
//! ring of messages ─▶ message: decoded ─▶ table: query and answer matched, summed ─fetch─▶ queue ─▶ feed
//! ```
//! Nothing is written to disk. What is held here when the tracer is killed is lost, and told: the kernel's map knows how
//! many queries that were. DNS over TCP, TLS, HTTPS and QUIC is not seen.

pub mod message;
pub mod queue;
pub mod table;

use crate::clients::Fetch;
use crate::losses::Loss;
use crate::places::Place;
use crate::probes::layout::Origin;
use crate::probes::udp::dns::Head;
use queue::{Queue, Told};
use std::collections::BTreeMap;
use std::sync::Arc;
use table::{Counts, Key, Outcome, ROWS_MAX, Table};
use weir_wire::feed::{self, DnsAnswer};

/// Everything between the ring and the feed.
#[derive(Debug)]
pub struct Dns {
    table: Table,
    queue: Queue,
    /// Datagrams from or to port 53 that are no queries and no answers.
    others: u64,
}

impl Dns {
    /// Cursors after `first`.
    pub fn new(first: u64) -> Self {
        Self { table: Table::default(), queue: Queue::new(first), others: 0 }
    }

    /// Takes a message from the ring.
    pub fn take(&mut self, head: &Head, bytes: &[u8], place: impl FnOnce(&Origin) -> Option<Arc<Place>>) {
        match message::decode(bytes) {
            Some(message) => self.table.take(head, message, self.queue.rows(), place),
            None => self.others += 1,
        }
    }

    /// Counts what has waited too long by `now_ns`; answers what was lost since the last call.
    pub fn expire(&mut self, now_ns: u64) -> BTreeMap<Loss, u64> {
        self.table.expire(now_ns, self.queue.rows());
        self.queue.expire(now_ns);
        if !self.queue.has_readers() && self.table.rows().len() >= ROWS_MAX / 2 {
            // Nobody waits for them.
            self.table.take_rows();
        }
        self.table.take_losses()
    }

    /// Queries that nobody has acknowledged.
    pub fn held(&self) -> u64 {
        self.table.waiting() as u64 + self.table.counted() + self.queue.queries()
    }

    /// What a fetch is told.
    pub fn fetch(&mut self, fetch: Option<&Fetch>, now_ns: u64) -> Told {
        if let Some(fetch) = fetch {
            let fresh = self.table.take_rows().iter().map(|(key, counts)| row(key, counts)).collect();
            return self.queue.fetch(fetch, fresh, now_ns);
        }
        let mut parts = self.queue.all();
        parts.push(Arc::new(self.table.rows().iter().map(|(key, counts)| row(key, counts)).collect()));
        Told { parts, cursor: None }
    }

    /// Numbers that are no losses.
    pub fn gauges(&self) -> [(&'static str, u64); 6] {
        [
            ("dns_queries_waiting", self.table.waiting() as u64),
            ("dns_rows", (self.table.rows().len() + self.queue.rows()) as u64),
            ("dns_rows_max", ROWS_MAX as u64),
            ("dns_answers_unmatched", self.table.unmatched),
            ("dns_answers_capped", self.table.capped),
            ("dns_port_other_datagrams", self.others),
        ]
    }
}

/// A row of the feed.
fn row(key: &Key, counts: &Counts) -> feed::Dns {
    let known = |value: u64| (value > 0).then_some(value);
    let question = key.question.as_deref();
    feed::Dns {
        pid: counts.origin.pid,
        net_ns: counts.origin.netns,
        process_name: counts.origin.name(),
        process_start: known(counts.origin.process_start),
        cgroup_id: known(counts.origin.cgroup_id),
        cgroup_path: counts.place.as_ref().map(|place| place.path.clone()),
        container_id: counts.place.as_ref().and_then(|place| place.container_id.clone()),
        server: key.server.to_string(),
        name: question.map(|question| question.name.clone()).unwrap_or_default(),
        query_type: question.map(|question| message::kind_name(question.kind)).unwrap_or_default(),
        rcode: match key.outcome {
            Outcome::Answered(rcode) => message::rcode_name(rcode),
            Outcome::Timeout => "timeout".to_owned(),
        },
        count: counts.count,
        latency_sum_us: counts.latency_sum_us,
        latency_max_us: counts.latency_max_us,
        retransmits: counts.retransmits,
        truncated: counts.truncated,
        first_epoch: counts.first_ns,
        last_epoch: counts.last_ns,
        answers: counts
            .answers
            .iter()
            .map(|(address, ttl)| DnsAnswer { address: address.to_string(), ttl: *ttl })
            .collect(),
        aliases: counts.aliases.clone(),
        other_names: question.is_none().then_some(true),
    }
}
