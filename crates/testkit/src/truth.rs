//! Compares what was really exchanged with what weir says, to the byte and to the connection.

use crate::traffic::Truth;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use weir_wire::api::{Edge, Transaction};

/// Bytes and connections under one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Connections.
    pub connections: u64,
    /// Bytes sent by the key's first end.
    pub sent: u64,
    /// Bytes received by it.
    pub recv: u64,
}

impl Sum {
    fn add(&mut self, sent: u64, recv: u64) {
        self.connections += 1;
        self.sent += sent;
        self.recv += recv;
    }
}

/// What the transactions get wrong about `truth`, a line for each key that differs; empty when all is exact. Only the
/// keys of `truth` and further keys on its server ports are looked at.
pub fn transactions_differ(truth: &[Truth], transactions: &[Transaction]) -> String {
    let mut expected: BTreeMap<(String, String), Sum> = BTreeMap::new();
    let mut ports = BTreeSet::new();
    for end in truth {
        let key = format!("{}-{}-{}-{}", end.local.ip(), end.remote.ip(), end.local.port(), end.remote.port());
        expected.entry((end.protocol.clone(), key)).or_default().add(end.sent, end.recv);
        ports.insert(server_port(end));
    }
    let mut found: BTreeMap<(String, String), Sum> = BTreeMap::new();
    for row in transactions {
        let own_port = if row.direction == "incoming" { row.source_port } else { row.dest_port };
        let key = (row.protocol.clone(), row.key.clone());
        if expected.contains_key(&key) || ports.contains(&own_port) {
            found.entry(key).or_default().add(row.monotonic_sent_bytes, row.monotonic_recv_bytes);
        }
    }
    compare(&expected, &found)
}

/// What the edges get wrong about the exchanges of `truth`, by protocol and server port; empty when all is exact.
pub fn edges_differ(truth: &[Truth], edges: &[Edge]) -> String {
    let mut expected: BTreeMap<(String, String), Sum> = BTreeMap::new();
    for end in truth.iter().filter(|end| end.role == "client") {
        expected.entry((end.protocol.clone(), end.remote.port().to_string())).or_default().add(end.sent, end.recv);
    }
    let mut found: BTreeMap<(String, String), Sum> = BTreeMap::new();
    for edge in edges {
        let key = (edge.protocol.clone(), edge.port.to_string());
        if expected.contains_key(&key) {
            let sum = found.entry(key).or_default();
            sum.connections += edge.connections;
            sum.sent += edge.sent_bytes;
            sum.recv += edge.recv_bytes;
        }
    }
    compare(&expected, &found)
}

fn server_port(end: &Truth) -> u16 {
    if end.role == "server" { end.local.port() } else { end.remote.port() }
}

fn compare(expected: &BTreeMap<(String, String), Sum>, found: &BTreeMap<(String, String), Sum>) -> String {
    let mut text = String::new();
    let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let mut differing = 0;
    for key in keys {
        let (truth, weir) = (expected.get(key), found.get(key));
        if truth != weir {
            differing += 1;
            if differing <= 20 {
                let _ = writeln!(text, "{} {}: truth {truth:?}, weir {weir:?}", key.0, key.1);
            }
        }
    }
    if differing > 20 {
        let _ = writeln!(text, "and {} more", differing - 20);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(role: &str, sent: u64) -> Truth {
        let (client, server) = ("127.0.0.1:4000".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
        let (local, remote) = if role == "client" { (client, server) } else { (server, client) };
        Truth {
            role: role.into(),
            protocol: "tcp".into(),
            local,
            remote,
            sent,
            recv: 7,
            outcome: "closed".into(),
            pid: 1,
        }
    }

    fn transaction(sent: u64) -> Transaction {
        Transaction {
            key: "127.0.0.1-127.0.0.1-4000-80".into(),
            protocol: "tcp".into(),
            direction: "outgoing".into(),
            source_port: 4000,
            dest_port: 80,
            monotonic_sent_bytes: sent,
            monotonic_recv_bytes: 7,
            ..Transaction::default()
        }
    }

    #[test]
    fn one_byte_more_or_a_connection_twice_is_found() {
        let truth = [truth("client", 5)];
        assert_eq!(transactions_differ(&truth, &[transaction(5)]), "");
        assert!(transactions_differ(&truth, &[transaction(6)]).contains("truth Some"));
        assert!(!transactions_differ(&truth, &[transaction(5), transaction(0)]).is_empty());
        assert!(!transactions_differ(&truth, &[]).is_empty());
    }

    #[test]
    fn a_byte_counted_from_both_ends_is_found() {
        let edge = |sent| Edge {
            port: 80,
            protocol: "tcp".into(),
            sent_bytes: sent,
            recv_bytes: 7,
            connections: 1,
            ..Edge::default()
        };
        assert_eq!(edges_differ(&[truth("client", 5), truth("server", 7)], &[edge(5)]), "");
        assert!(!edges_differ(&[truth("client", 5)], &[edge(5), edge(5)]).is_empty());
    }
}
