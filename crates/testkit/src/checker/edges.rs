//! What the edges say: each byte once, from the client that sent it to the backend that got it, whatever address the
//! client called.

use super::ends::{End, Watch, counterparts};
use super::fault::{Fault, Kind, View};
use super::rows::{Sum, Verdict, apart};
use crate::traffic::{Protocol, Role, Word};
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
    fn apart(self, other: Self) -> u64 {
        let word = |moved: Self| Word { sent: moved.sent, recv: moved.recv };
        self.connections.abs_diff(other.connections) + apart(word(self), word(other))
    }

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
        let server = counterparts.get(&index).map(|&server| &ends[server]);
        let backend = server.map_or(end.truth.remote, |server| server.truth.local);
        // Where no tracer sees the client, the server's view counts.
        let since = match server {
            Some(server) if !end.is_seen => Word { sent: server.since().recv, recv: server.since().sent },
            _ => end.since(),
        };
        let key = (end.truth.protocol, Some(end.truth.local.ip()), Some(backend.ip()), backend.port());
        let (_, moved) = expected.entry(key).or_insert((end.scenario, Moved::default()));
        moved.connections += 1;
        moved.sent += since.sent;
        moved.recv += since.recv;
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
        let scenario =
            truth.map(|(scenario, _)| *scenario).or_else(|| watch.scenario_of(key.0, key.2.or(key.1), key.3));
        if let (Some(scenario), Some(moved)) = (scenario, weir) {
            let sum = verdict.found.entry(scenario).or_default();
            sum.connections += moved.sum().connections;
            sum.bytes += moved.sum().bytes;
        }
        if let Some(scenario) = scenario {
            let (truth, weir) = (truth.map(|(_, truth)| *truth).unwrap_or_default(), weir.copied().unwrap_or_default());
            *verdict.off.entry(scenario).or_default() += truth.apart(weir);
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
