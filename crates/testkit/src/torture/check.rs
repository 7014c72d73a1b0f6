//! What must be so of weir's answers, as pure functions of the truth and the answers. Each says what is wrong, a line
//! a fault; no line is no fault.

use super::world::{End, Flow, name};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use weir_wire::api::{Edge, EdgeEnd, Transaction};

/// A counter as an answer names it: node, instance, generation, key.
pub type Counter = (String, String, u32, String);

/// Sent and received.
pub type Totals = (u64, u64);

/// Faults that are written out; the others are counted.
const WRITTEN: usize = 12;

/// Faults, bounded.
#[derive(Debug, Default)]
pub struct Faults {
    text: String,
    count: usize,
}

impl Faults {
    fn add(&mut self, line: &str) {
        if self.count < WRITTEN {
            let _ = writeln!(self.text, "{line}");
        }
        self.count += 1;
    }

    /// The lines; empty when there is no fault.
    pub fn told(self) -> String {
        let more = self.count.saturating_sub(WRITTEN);
        if more > 0 { format!("{}and {more} more\n", self.text) } else { self.text }
    }
}

/// The name of a counter.
pub fn counter(row: &Transaction) -> Counter {
    (row.node.clone(), row.instance.clone(), row.generation, row.key.clone())
}

/// The totals of every counter.
pub fn totals(rows: &[Transaction]) -> BTreeMap<Counter, Totals> {
    rows.iter().map(|row| (counter(row), (row.monotonic_sent_bytes, row.monotonic_recv_bytes))).collect()
}

/// Every view of every flow has one counter with its totals, and there is no other counter.
pub fn transactions(flows: &[Flow], rows: &[Transaction]) -> String {
    type View = (String, u64, SocketAddr, SocketAddr);
    let mut faults = Faults::default();
    let mut expected: BTreeMap<View, Vec<(Totals, bool)>> = BTreeMap::new();
    for flow in flows {
        for end in [End::Client, End::Server] {
            let Some(node) = flow.node(end) else { continue };
            let (local, remote) = flow.tuple(end);
            let view = (name(node), flow.cookie(end), local, remote);
            expected.entry(view).or_default().push((flow.moved(end), flow.is_old));
        }
    }
    for row in rows {
        let ends = (end(&row.source, row.source_port), end(&row.dest, row.dest_port));
        let cookie = row.instance.strip_prefix("socket:").and_then(|cookie| cookie.parse().ok());
        let (Some(local), Some(remote), Some(cookie)) = (ends.0, ends.1, cookie) else {
            faults.add(&format!("a counter that nobody has: {row:?}"));
            continue;
        };
        let told = (row.monotonic_sent_bytes, row.monotonic_recv_bytes);
        let views = expected.entry((row.node.clone(), cookie, local, remote)).or_default();
        let Some(index) = views.iter().position(|(moved, _)| *moved == told) else {
            let truth: Vec<Totals> = views.iter().map(|(moved, _)| *moved).collect();
            faults.add(&format!(
                "{} {} generation {} {}: told {told:?}, {} before; the truth is {truth:?}",
                row.node, row.instance, row.generation, row.key, row.bytes_before
            ));
            views.pop();
            continue;
        };
        let (_, is_old) = views.swap_remove(index);
        if row.bytes_before != 0 && !is_old {
            faults
                .add(&format!("{} {}: {} bytes before weir, which saw it begin", row.node, row.key, row.bytes_before));
        }
    }
    for ((node, cookie, local, remote), views) in expected {
        for (moved, _) in views {
            faults.add(&format!("no counter for {node} socket:{cookie} {local} to {remote}: {moved:?}"));
        }
    }
    faults.told()
}

/// An edge: client, server, the server's port.
pub type EdgeKey = (String, String, u16);

/// What each edge has to say: sent, received, connections. Each flow is in one edge, once, with the bytes of its client's
/// view less what lies before weir, which only the answers (`rows`) can tell.
pub fn expected_edges(flows: &[Flow], rows: &[Transaction]) -> BTreeMap<EdgeKey, (u64, u64, u64)> {
    let mut before: BTreeMap<(&str, &str, &str), Totals> = BTreeMap::new();
    for row in rows {
        before.insert((&row.node, &row.instance, &row.key), (row.sent_bytes_before, row.recv_bytes_before));
    }
    let mut expected: BTreeMap<EdgeKey, (u64, u64, u64)> = BTreeMap::new();
    for flow in flows {
        let before = if flow.is_old {
            let instance = format!("socket:{}", flow.cookie(End::Client));
            let (local, remote) = flow.tuple(End::Client);
            let key = format!("{}-{}-{}-{}", local.ip(), remote.ip(), local.port(), remote.port());
            before.get(&(name(flow.client).as_str(), instance.as_str(), key.as_str())).copied().unwrap_or_default()
        } else {
            (0, 0)
        };
        let key = (flow.client_end.ip().to_string(), flow.server_end.ip().to_string(), flow.server_end.port());
        let sum = expected.entry(key).or_default();
        sum.0 += flow.sent.saturating_sub(before.0);
        sum.1 += flow.recv.saturating_sub(before.1);
        sum.2 += 1;
    }
    expected
}

/// The edges are [`expected_edges`] and no others.
pub fn edges(flows: &[Flow], rows: &[Transaction], edges: &[Edge]) -> String {
    let mut faults = Faults::default();
    let expected = expected_edges(flows, rows);
    let mut told: BTreeMap<EdgeKey, (u64, u64, u64)> = BTreeMap::new();
    for edge in edges {
        let sum = told.entry((ip(&edge.client), ip(&edge.server), edge.port)).or_default();
        sum.0 += edge.sent_bytes;
        sum.1 += edge.recv_bytes;
        sum.2 += edge.connections;
    }
    for key in expected.keys().chain(told.keys()).collect::<BTreeSet<_>>() {
        let (truth, weir) = (expected.get(key), told.get(key));
        if truth != weir {
            faults.add(&format!("edge {key:?}: the truth is {truth:?} (sent, received, connections), told {weir:?}"));
        }
    }
    faults.told()
}

/// What was acknowledged is there: every counter with at least the totals that an acknowledged batch had.
pub fn acknowledged(acknowledged: &BTreeMap<Counter, Totals>, rows: &[Transaction]) -> String {
    let mut faults = Faults::default();
    let told = totals(rows);
    for (counter, totals) in acknowledged {
        match told.get(counter) {
            Some(told) if told.0 >= totals.0 && told.1 >= totals.1 => {}
            told => faults.add(&format!("acknowledged and not there: {counter:?} with {totals:?}, told {told:?}")),
        }
    }
    faults.told()
}

/// What was read once is never less, and never gone.
pub fn never_back(before: &BTreeMap<Counter, Totals>, now: &BTreeMap<Counter, Totals>) -> String {
    let mut faults = Faults::default();
    for (counter, read) in before {
        match now.get(counter) {
            Some(told) if told.0 >= read.0 && told.1 >= read.1 => {}
            told => faults.add(&format!("read went back: {counter:?} was {read:?}, is {told:?}")),
        }
    }
    faults.told()
}

fn end(ip: &str, port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::new(ip.parse().ok()?, port))
}

fn ip(end: &EdgeEnd) -> String {
    end.address.clone().unwrap_or_else(|| end.name.clone())
}
