//! What the edges say: each byte once, from the client that sent it to the backend that got it, whatever address the
//! client called.

use super::ends::{End, Watch, counterparts};
use super::fault::{Fault, Kind, View};
use super::rows::{Sum, Verdict};
use crate::traffic::{Protocol, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use weir_wire::api::{Edge, EdgeEnd};

type Key = (Protocol, Option<IpAddr>, Option<IpAddr>, u16);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moved {
    connections: u64,
    sent: u64,
    recv: u64,
}

impl Moved {
    fn sum(self) -> Sum {
        Sum { connections: self.connections, bytes: self.sent + self.recv }
    }
}

/// What the edges have to say, by scenario.
pub fn expected(ends: &[End]) -> BTreeMap<usize, Sum> {
    let mut sums: BTreeMap<usize, Sum> = BTreeMap::new();
    for (scenario, moved) in truth(ends).values() {
        let sum = sums.entry(*scenario).or_default();
        sum.connections += moved.connections;
        sum.bytes += moved.sent + moved.recv;
    }
    sums
}

fn truth(ends: &[End]) -> BTreeMap<Key, (usize, Moved)> {
    let counterparts = counterparts(ends);
    let mut expected: BTreeMap<Key, (usize, Moved)> = BTreeMap::new();
    for (index, end) in ends.iter().enumerate().filter(|(_, end)| end.truth.role == Role::Client) {
        let backend = counterparts.get(&index).map_or(end.truth.remote, |&server| ends[server].truth.local);
        let key = (end.truth.protocol, Some(end.truth.local.ip()), Some(backend.ip()), backend.port());
        let (_, moved) = expected.entry(key).or_insert((end.scenario, Moved::default()));
        moved.connections += 1;
        moved.sent += end.since().sent;
        moved.recv += end.since().recv;
    }
    expected
}

fn address(end: &EdgeEnd) -> Option<IpAddr> {
    end.address.as_deref().or(Some(&end.name)).and_then(|text| text.parse().ok())
}

/// Compares the edges, grouped by address, with the truth.
pub fn check(ends: &[End], edges: &[Edge], watch: &Watch) -> Verdict {
    let mut verdict = Verdict::default();
    let expected = truth(ends);
    let mut found: BTreeMap<Key, Moved> = BTreeMap::new();
    for edge in edges {
        let protocol = if edge.protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
        let key = (protocol, address(&edge.client), address(&edge.server), edge.port);
        // A Service's own port is watched too: in an edge it means that the backend was not found.
        if expected.contains_key(&key) || watch.covers_edge(key.0, key.1, key.2, key.3) {
            let moved = found.entry(key).or_default();
            moved.connections += edge.connections;
            moved.sent += edge.sent_bytes;
            moved.recv += edge.recv_bytes;
        }
    }
    let keys: BTreeSet<Key> = expected.keys().chain(found.keys()).copied().collect();
    for key in keys {
        let (truth, weir) = (expected.get(&key), found.get(&key));
        let scenario = truth.map(|(scenario, _)| *scenario).or_else(|| watch.scenario_of(key.0, key.3));
        if let (Some(scenario), Some(moved)) = (scenario, weir) {
            let sum = verdict.found.entry(scenario).or_default();
            sum.connections += moved.sum().connections;
            sum.bytes += moved.sum().bytes;
        }
        let kind = match (truth, weir) {
            (Some((_, truth)), Some(weir)) if truth == weir => continue,
            (Some((_, truth)), Some(weir)) if truth.connections == weir.connections => Kind::Bytes,
            (Some(_), Some(_)) => Kind::Connections,
            (Some(_), None) => Kind::Missing,
            _ => Kind::Extra,
        };
        let (protocol, client, server, port) = key;
        let name = |address: Option<IpAddr>| address.map_or("unknown".to_owned(), |address| address.to_string());
        let detail = format!(
            "{protocol} {} to {} port {port}: truth {:?}, weir {weir:?}",
            name(client),
            name(server),
            truth.map(|(_, moved)| moved)
        );
        verdict.faults.push(Fault { view: View::Edges, kind, scenario, detail });
    }
    verdict
}
