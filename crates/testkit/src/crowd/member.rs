//! What one member of a crowd tells: the batches of a node whose pods talk to those of the next node. Pure.
//!
//! Half of a member's connections are its own pods' as clients, the other half are the views that its pods, as servers,
//! have of the member's before it. Every connection moves in every poll and ends after [`POLLS_OF_A_CONNECTION`]; another
//! one takes its place. So both ends of everything are told of, as in a cluster that has an agent on every node.

use weir_wire::agent::record::InstanceKind;
use weir_wire::agent::{Address, BATCH_FORMAT, Batch, LocalEnd, MetadataFact, Record, Source};

/// So many polls tell of a connection; in every poll a tenth of them ends.
pub const POLLS_OF_A_CONNECTION: u64 = 10;
/// Pods of a node.
const PODS: u64 = 10;
/// Members whose addresses differ: `10.A.B.P`.
pub const MEMBERS_MAX: usize = 250 * 250;
/// What its pods serve, one port each.
const PORTS: [u16; PODS as usize] = [80, 443, 5432, 6379, 8080, 8443, 9000, 9090, 9200, 27017];
/// Ports that clients get.
const CLIENT_PORT_FIRST: u64 = 20_000;
const CLIENT_PORTS: u64 = 40_000;

/// A crowd: how many members, and what each of them tells.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Members, each a node with an agent; at most [`MEMBERS_MAX`].
    pub members: usize,
    /// Connections of a member that move in every poll, both roles together; even.
    pub connections: usize,
    /// Polls of each.
    pub polls: u64,
    /// Between two polls, nanoseconds.
    pub every_ns: i64,
    /// When the first poll begins, nanoseconds since 1970.
    pub begins: i64,
}

/// What was told, each byte once: as the clients see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Records, both views.
    pub records: u64,
    /// Bytes that clients sent.
    pub sent_bytes: u64,
    /// Bytes that they received.
    pub recv_bytes: u64,
    /// Connections.
    pub connections: u64,
}

impl std::ops::AddAssign for Truth {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.sent_bytes += other.sent_bytes;
        self.recv_bytes += other.recv_bytes;
        self.connections += other.connections;
    }
}

/// The bytes of one connection in one poll: sent and received by the client.
fn moved(client: u64, slot: u64, poll: u64) -> (u64, u64) {
    let mixed = (client * 31 + slot * 7 + poll).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (200 + mixed % 1_800, 1_000 + mixed % 60_000)
}

/// Which connection of its place this is, and the first poll that tells of it.
fn life(slot: u64, poll: u64) -> (u64, u64) {
    let before = slot % POLLS_OF_A_CONNECTION;
    let number = (poll + before) / POLLS_OF_A_CONNECTION;
    (number, (number * POLLS_OF_A_CONNECTION).saturating_sub(before))
}

impl Crowd {
    /// Connections in which a member's pods are the clients.
    fn slots(&self) -> u64 {
        self.connections as u64 / 2
    }

    fn ends(&self, poll: u64) -> i64 {
        self.begins + self.every_ns * (poll as i64 + 1)
    }

    /// The node's name.
    pub fn node(member: u64) -> String {
        format!("node-{member:05}")
    }

    fn pod_address(member: u64, pod: u64) -> [u8; 4] {
        [10, (member / 250) as u8, (member % 250) as u8, 1 + pod as u8]
    }

    fn stream(member: u64) -> Vec<u8> {
        [member.to_be_bytes(), *b"crowd   "].concat()
    }

    /// The stream's id, the agent run's as well.
    pub fn stream_id(member: u64) -> prost::bytes::Bytes {
        Self::stream(member).into()
    }

    /// A member's batch of a poll, counted from 0.
    pub fn batch(&self, member: u64, poll: u64) -> Batch {
        let members = self.members as u64;
        let before = (member + members - 1) % members;
        let mut records = Vec::with_capacity(self.connections);
        for slot in 0..self.slots() {
            records.push(self.record((member, (member + 1) % members), slot, poll, Role::Client));
            records.push(self.record((before, member), slot, poll, Role::Server));
        }
        Batch {
            format: BATCH_FORMAT,
            stream_id: Self::stream_id(member),
            sequence: poll + 1,
            node: Self::node(member),
            boot_id: vec![7; 16].into(),
            agent_run: Self::stream_id(member),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            covers_from_unix_ns: self.ends(poll) - self.every_ns,
            covers_to_unix_ns: self.ends(poll),
            covered: true,
            source: Some(Source {
                kind: "weir".into(),
                state: "ok".into(),
                rows: records.len() as u64,
                ..Source::default()
            }),
            local_ends: (0..PODS).map(|pod| local_end(member, pod)).collect(),
            records,
            metadata: if poll == 0 { self.facts(member) } else { Vec::new() },
            ..Batch::default()
        }
    }

    fn record(&self, (client, server): (u64, u64), slot: u64, poll: u64, role: Role) -> Record {
        let (number, first) = life(slot, poll);
        let last = first + POLLS_OF_A_CONNECTION - 1 - if number == 0 { slot % POLLS_OF_A_CONNECTION } else { 0 };
        let (client_pod, server_pod) = (slot % PODS, slot / PODS % PODS);
        let port = CLIENT_PORT_FIRST + (slot + number * self.slots()) % CLIENT_PORTS;
        let address = |ip: [u8; 4], port: u64| Address { ip: ip.to_vec().into(), port: port as u32 };
        let from = address(Self::pod_address(client, client_pod), port);
        let to = address(Self::pod_address(server, server_pod), u64::from(PORTS[server_pod as usize]));
        let (sent_delta, recv_delta) = moved(client, slot, poll);
        let (mut sent_total, mut recv_total) = (0, 0);
        for told in first..=poll {
            let (sent, recv) = moved(client, slot, told);
            sent_total += sent;
            recv_total += recv;
        }
        let is_client = role == Role::Client;
        let swap = |pair: (u64, u64)| if is_client { pair } else { (pair.1, pair.0) };
        let ((sent_total, recv_total), (sent_delta, recv_delta)) =
            (swap((sent_total, recv_total)), swap((sent_delta, recv_delta)));
        let (local, remote) = if is_client { (from, to) } else { (to, from) };
        let is_last = poll == last;
        Record {
            instance_kind: InstanceKind::Socket.into(),
            cookie: 1 + ((number * self.slots() + slot) << 1 | u64::from(is_client)),
            local: Some(local),
            remote: Some(remote),
            direction: if is_client { 2 } else { 1 },
            direction_certainty: 2,
            local_end: (if is_client { client_pod } else { server_pod }) as u32,
            sent_total,
            recv_total,
            sent_delta,
            recv_delta,
            from_unix_ns: self.ends(poll) - self.every_ns,
            to_unix_ns: self.ends(poll),
            start_unix_ns: self.ends(first) - self.every_ns / 2 - slot as i64,
            closed_unix_ns: if is_last { self.ends(poll) - 1 - slot as i64 } else { 0 },
            opened: poll == first,
            state: if is_last { "closed" } else { "established" }.into(),
            close_reason: if is_last { "closed" } else { "" }.into(),
            rtt_us: 100 + (sent_delta % 400) as u32,
            ..Record::default()
        }
    }

    fn facts(&self, member: u64) -> Vec<MetadataFact> {
        let node = MetadataFact {
            kind: "node".into(),
            source: "kubelet".into(),
            id: Self::node(member),
            name: Self::node(member),
            addresses: vec![format!("192.168.{}.{}", member / 250, member % 250)],
            from_unix_ns: self.begins - self.every_ns,
            ..MetadataFact::default()
        };
        let pods = (0..PODS).flat_map(|pod| {
            let [a, b, c, d] = Self::pod_address(member, pod);
            let from_unix_ns = self.begins - self.every_ns;
            let the_pod = MetadataFact {
                kind: "pod".into(),
                source: "kubelet".into(),
                id: format!("pod-{member}-{pod}"),
                name: format!("app-{pod}-{member:05}"),
                namespace: "crowd".into(),
                parent: Self::node(member),
                addresses: vec![format!("{a}.{b}.{c}.{d}")],
                from_unix_ns,
                attributes: [
                    ("owner_kind", "StatefulSet".to_owned()),
                    ("owner_name", format!("app-{pod}-of-{member:05}")),
                ]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
                ..MetadataFact::default()
            };
            let container = MetadataFact {
                kind: "container".into(),
                source: "kubelet".into(),
                id: container_id(member, pod),
                name: "app".into(),
                parent: format!("pod-{member}-{pod}"),
                from_unix_ns,
                ..MetadataFact::default()
            };
            [the_pod, container]
        });
        std::iter::once(node).chain(pods).collect()
    }

    /// What all of it comes to.
    pub fn truth(&self) -> Truth {
        let mut truth = Truth::default();
        for member in 0..self.members as u64 {
            for slot in 0..self.slots() {
                truth.connections += life(slot, self.polls.saturating_sub(1)).0 + 1;
                for poll in 0..self.polls {
                    let (sent, recv) = moved(member, slot, poll);
                    truth += Truth { records: 2, sent_bytes: sent, recv_bytes: recv, connections: 0 };
                }
            }
        }
        truth
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

fn container_id(member: u64, pod: u64) -> String {
    format!("{:064x}", u128::from(member) << 64 | u128::from(pod + 1))
}

fn local_end(member: u64, pod: u64) -> LocalEnd {
    LocalEnd {
        netns: 4_026_532_000 + pod as u32,
        pid: 1_000 + pod as u32,
        process_start_ns: 5_000_000_000 + pod,
        process_name: "app".into(),
        cgroup_id: 100 + pod,
        cgroup_path: format!("/kubepods/burstable/pod-{member}-{pod}/{}", container_id(member, pod)),
        container_id: container_id(member, pod),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CROWD: Crowd = Crowd { members: 3, connections: 40, polls: 25, every_ns: 10_000_000_000, begins: 0 };

    /// Totals rise by the deltas, an end is told once and last, and the next connection of the place begins with zero.
    #[test]
    fn records_of_one_counter_are_those_of_an_agent() {
        let mut told: std::collections::BTreeMap<(u64, u64), (u64, bool)> = std::collections::BTreeMap::new();
        let mut truth = Truth::default();
        for member in 0..3 {
            for poll in 0..CROWD.polls {
                for record in CROWD.batch(member, poll).records {
                    truth.records += 1;
                    let (total, ended) = told.entry((member, record.cookie)).or_default();
                    assert!(!*ended, "an ended connection moved");
                    assert_eq!(record.opened, *total == 0);
                    *total += record.sent_delta;
                    assert_eq!(*total, record.sent_total);
                    *ended = record.closed_unix_ns != 0;
                    if record.direction == 2 {
                        truth.sent_bytes += record.sent_delta;
                        truth.recv_bytes += record.recv_delta;
                        truth.connections += u64::from(record.opened);
                    }
                }
            }
        }
        assert_eq!(truth, CROWD.truth());
    }

    #[test]
    fn both_ends_tell_the_same_of_a_connection() {
        let client = CROWD.batch(0, 7).records.into_iter().filter(|record| record.direction == 2);
        let server = CROWD.batch(1, 7).records.into_iter().filter(|record| record.direction == 1);
        for (client, server) in client.zip(server) {
            assert_eq!((&client.local, &client.remote), (&server.remote, &server.local));
            assert_eq!((client.sent_delta, client.recv_delta), (server.recv_delta, server.sent_delta));
            assert_ne!(client.cookie, server.cookie);
        }
    }
}
