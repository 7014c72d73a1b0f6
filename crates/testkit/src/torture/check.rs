//! What must be so of weir's answers, as pure functions of the truth and the answers. Each says what is wrong, a line
//! a fault; no line is no fault.

use super::world::{End, Flow, Protocol, name};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use weir_wire::api::{Edge, EdgeEnd, LossTotal, Transaction};
use weir_wire::losses::{Reason, Touches};

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

/// What a node's losses are told to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Bytes.
    pub bytes: u64,
    /// Connections; one that lost several records may be told as often.
    pub connections: u64,
}

/// What the losses of these reasons are told to be, by node.
pub fn told(losses: &[LossTotal], of: &[&Reason]) -> BTreeMap<String, Told> {
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    for loss in losses.iter().filter(|loss| is_of(loss, of)) {
        let sum = told.entry(loss.node.clone()).or_default();
        sum.bytes += loss.bytes;
        sum.connections += loss.connections;
    }
    told
}

/// No bytes are told as lost for another reason than these.
pub fn unexplained(losses: &[LossTotal], allowed: &[&Reason]) -> String {
    let mut faults = Faults::default();
    let touches = |loss: &LossTotal| Reason::find(&loss.place, &loss.reason).map(|reason| reason.touches);
    for loss in losses.iter().filter(|loss| !is_of(loss, allowed)) {
        if matches!(touches(loss), None | Some(Touches::Bytes)) {
            faults.add(&format!("told as lost, and nothing was: {loss:?}"));
        }
    }
    faults.told()
}

fn is_of(loss: &LossTotal, reasons: &[&Reason]) -> bool {
    reasons.iter().any(|reason| (reason.place, reason.word) == (loss.place.as_str(), loss.reason.as_str()))
}

/// Every view of every flow has one counter with its totals, and there is no other counter. Of the nodes in `dropped`
/// records were dropped: a counter of theirs may be less than the truth, or missing.
pub fn transactions(flows: &[Flow], rows: &[Transaction], dropped: &BTreeMap<String, Told>) -> String {
    type View = (String, &'static str, String, SocketAddr, SocketAddr);
    let mut faults = Faults::default();
    let mut expected: BTreeMap<View, Vec<(Totals, bool)>> = BTreeMap::new();
    for flow in flows {
        for end in [End::Client, End::Server] {
            let Some(node) = flow.node(end) else { continue };
            let (local, remote) = flow.tuple(end);
            let view = (name(node), flow.protocol.as_str(), flow.instance(end), local, remote);
            expected.entry(view).or_default().push((flow.moved(end), flow.is_old));
        }
    }
    for row in rows {
        let ends = (end(&row.source, row.source_port), end(&row.dest, row.dest_port));
        let protocol = [Protocol::Tcp, Protocol::Udp].map(Protocol::as_str).into_iter().find(|it| *it == row.protocol);
        let (Some(local), Some(remote), Some(protocol)) = (ends.0, ends.1, protocol) else {
            faults.add(&format!("a counter that nobody has: {row:?}"));
            continue;
        };
        let told = (row.monotonic_sent_bytes, row.monotonic_recv_bytes);
        let is_dropped = dropped.contains_key(&row.node);
        let views = expected.entry((row.node.clone(), protocol, row.instance.clone(), local, remote)).or_default();
        let exact = views.iter().position(|(moved, _)| *moved == told);
        let less = || views.iter().position(|(moved, _)| is_dropped && told.0 <= moved.0 && told.1 <= moved.1);
        let Some(index) = exact.or_else(less) else {
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
    let mut missing: BTreeMap<&str, u64> = BTreeMap::new();
    for ((node, protocol, instance, local, remote), views) in &expected {
        for (moved, _) in views {
            if dropped.contains_key(node) {
                *missing.entry(node).or_default() += 1;
            } else {
                faults.add(&format!("no counter for {node} {instance} {protocol} {local} to {remote}: {moved:?}"));
            }
        }
    }
    for (node, missing) in missing {
        let told = dropped.get(node).map_or(0, |told| told.connections);
        if missing > told {
            faults.add(&format!("{node}: {missing} connections are missing, {told} are told as lost"));
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
            let instance = flow.instance(End::Client);
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

/// What each edge says.
pub fn told_edges(edges: &[Edge]) -> BTreeMap<EdgeKey, (u64, u64, u64)> {
    let mut told: BTreeMap<EdgeKey, (u64, u64, u64)> = BTreeMap::new();
    for edge in edges {
        let sum = told.entry((ip(&edge.client), ip(&edge.server), edge.port)).or_default();
        sum.0 += edge.sent_bytes;
        sum.1 += edge.recv_bytes;
        sum.2 += edge.connections;
    }
    told
}

/// The edges are [`expected_edges`] and no others. Where a node tells losses, its edges are less by them: to the byte in
/// their sum, and by no more connections. Of `under_way`, which the node dropped before it could learn that they had
/// arrived, it may tell more than is missing.
pub fn edges(
    flows: &[Flow],
    rows: &[Transaction],
    edges: &[Edge],
    lost: &BTreeMap<String, Told>,
    under_way: &BTreeMap<String, u64>,
) -> String {
    let mut faults = Faults::default();
    let (expected, told) = (expected_edges(flows, rows), told_edges(edges));
    let lossy: BTreeMap<String, &str> = (flows.iter())
        .filter_map(|flow| Some((flow.client_end.ip().to_string(), lost.get_key_value(&name(flow.client))?.0.as_str())))
        .collect();
    let mut missing: BTreeMap<&str, Told> = lost.keys().map(|node| (node.as_str(), Told::default())).collect();
    for key in expected.keys().chain(told.keys()).collect::<BTreeSet<_>>() {
        let (truth, weir) = (expected.get(key), told.get(key));
        if truth == weir {
            continue;
        }
        let ((sent, recv, connections), less) = (truth.copied().unwrap_or_default(), weir.copied().unwrap_or_default());
        match lossy.get(&key.0).and_then(|node| missing.get_mut(node)) {
            Some(missing) if less.0 <= sent && less.1 <= recv && less.2 <= connections => {
                missing.bytes += sent - less.0 + (recv - less.1);
                missing.connections += connections - less.2;
            }
            _ => faults
                .add(&format!("edge {key:?}: the truth is {truth:?} (sent, received, connections), told {weir:?}")),
        }
    }
    for (node, missing) in missing {
        let told = lost.get(node).copied().unwrap_or_default();
        let under_way = under_way.get(node).copied().unwrap_or_default();
        let is_told = (missing.bytes..=missing.bytes + under_way).contains(&told.bytes);
        if !is_told || missing.connections > told.connections {
            faults.add(&format!(
                "{node}: what is missing is {missing:?}, what is told as lost is {told:?}, {under_way} bytes were under way"
            ));
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
