//! A transaction: the stored state of one counter, and how two readings of it become one (R1).
//!
//! Every field has a join that is idempotent, commutative and associative, so the state is a function of the *set* of
//! records received (invariant 4). Records come from the agents' batches; the merged state goes to a
//! [`StateStore`](crate::StateStore).

use std::net::IpAddr;
use weir_model::{Bytes, Certainty, ConnectionId, ConnectionKey, Direction, Protocol, Side, Totals, Tuple, UnixNanos};

/// The stored state of one counter: one view of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Which counter.
    pub key: ConnectionKey,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its ends as its own socket sees them.
    pub tuple: Tuple,
    /// Its ends as the other socket sees them, where a translation lies between.
    pub translated: Option<Tuple>,
    /// The network namespace's inode, 0 unknown.
    pub netns: u32,
    /// Absolute totals: the largest of each field.
    pub totals: Totals,
    /// The part of `totals` before weir's first sight: the smallest of each field.
    pub before: Before,
    /// When the connection (UDP: its counter) began, where that is known.
    pub started: Option<UnixNanos>,
    /// The earliest instant that any record covers, or `started` where that is earlier.
    pub first: UnixNanos,
    /// The first poll that saw it: the end of the earliest record.
    pub seen: UnixNanos,
    /// The end of the newest record.
    pub last: UnixNanos,
    /// How it stands.
    pub condition: Condition,
    /// Who opened it, as this end claims.
    pub claim: Option<Claim>,
    /// Whose socket it is.
    pub owner: Option<Owner>,
    /// The newest round-trip time.
    pub rtt: Option<Rtt>,
    /// From SYN to established, microseconds, on the active side.
    pub connect_latency_us: Option<u32>,
    /// It stands for every peer of a UDP socket beyond the cap (R9).
    pub other_peer: bool,
}

/// What lies before the first sight and belongs to no window (R2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Of the bytes sent.
    pub sent: Bytes,
    /// Of the bytes received.
    pub recv: Bytes,
}

/// How a connection stands. Ordered: closed after open (it is absorbing), then the newer reading.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// When it closed.
    pub closed: Option<UnixNanos>,
    /// The end of the record that says so.
    pub at: UnixNanos,
    /// The feed's state (`established`, `active`, `closed`, ...).
    pub state: String,
    /// The feed's reason, only when closed.
    pub close_reason: Option<String>,
    /// The errno behind it, 0 none.
    pub errno: u32,
}

/// An end's claim of who opened the connection. Ordered: the surer, then the newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// How sure.
    pub certainty: Certainty,
    /// The end of the record that says so.
    pub at: UnixNanos,
    /// The claim.
    pub direction: Direction,
}

/// Whose socket it is (R6). Ordered: the newer first, then by content, so that a tie has one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The end of the record that says so.
    pub at: UnixNanos,
    /// In the initial pid namespace, 0 unknown.
    pub pid: u32,
    /// Nanoseconds since boot, 0 unknown.
    pub process_start_ns: u64,
    /// The process's name, empty unknown.
    pub process: String,
    /// The cgroup's inode, 0 unknown.
    pub cgroup_id: u64,
    /// Its path, empty unknown.
    pub cgroup_path: String,
    /// The container id in it, empty unknown.
    pub container_id: String,
}

/// A smoothed round-trip time. Ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rtt {
    /// The end of the record that says so.
    pub at: UnixNanos,
    /// Microseconds.
    pub us: u32,
}

impl Transaction {
    /// The key's id.
    pub fn id(&self) -> ConnectionId {
        self.key.id()
    }

    /// When it closed, where it has.
    pub fn closed(&self) -> Option<UnixNanos> {
        self.condition.closed
    }

    /// The role that this end claims.
    pub fn side(&self) -> Option<Side> {
        self.claim.map(|claim| claim.direction.into())
    }

    /// The tuple by which the other end's view is found (R5).
    pub fn flow_tuple(&self) -> Tuple {
        self.translated.unwrap_or(self.tuple)
    }

    /// The bucket that both views of a flow fall into, however they are oriented.
    ///
    /// TCP: the hash of both ends. UDP: of both ports only, since an unconnected socket may not tell its own address.
    /// A bucket only narrows the search; pairing looks at the tuples. The value is stored and indexed: it may change
    /// only with a migration.
    pub fn link(&self) -> i64 {
        link(self.protocol, self.flow_tuple())
    }

    /// Two readings of the same counter, in any order.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the form of every merge, which laws and callers share")]
    pub fn merge(mut self, other: Self) -> Self {
        self.absorb(&other);
        self
    }

    /// Merges another reading of the same counter into this one; true when that changed it.
    pub fn absorb(&mut self, other: &Self) -> bool {
        let totals = self.totals.merge(other.totals);
        let mut changed = totals != self.totals;
        self.totals = totals;
        changed |= raise(&mut self.tuple, &other.tuple);
        changed |= raise(&mut self.translated, &other.translated);
        changed |= raise(&mut self.netns, &other.netns);
        changed |= lower(&mut self.before.sent, &other.before.sent);
        changed |= lower(&mut self.before.recv, &other.before.recv);
        changed |= match (&mut self.started, &other.started) {
            (Some(held), Some(started)) => lower(held, started),
            (held, started) => raise(held, started),
        };
        changed |= lower(&mut self.first, &other.first);
        changed |= lower(&mut self.seen, &other.seen);
        changed |= raise(&mut self.last, &other.last);
        changed |= raise(&mut self.condition, &other.condition);
        changed |= raise(&mut self.claim, &other.claim);
        changed |= raise(&mut self.owner, &other.owner);
        changed |= raise(&mut self.rtt, &other.rtt);
        changed |= raise(&mut self.connect_latency_us, &other.connect_latency_us);
        changed |= raise(&mut self.other_peer, &other.other_peer);
        changed
    }
}

/// The larger of two; true when it is the other.
fn raise<T: Ord + Clone>(held: &mut T, other: &T) -> bool {
    let is_larger = *other > *held;
    if is_larger {
        held.clone_from(other);
    }
    is_larger
}

/// The smaller of two; true when it is the other.
fn lower<T: Ord + Clone>(held: &mut T, other: &T) -> bool {
    let is_smaller = *other < *held;
    if is_smaller {
        held.clone_from(other);
    }
    is_smaller
}

/// [`Transaction::link`] of a flow's tuple.
pub fn link(protocol: Protocol, tuple: Tuple) -> i64 {
    let mut ends = [tuple.local, tuple.remote];
    let mut bytes = Vec::with_capacity(37);
    bytes.push(protocol as u8);
    match protocol {
        Protocol::Tcp => {
            ends.sort_unstable();
            for end in ends {
                bytes.extend_from_slice(&weir_model::connection::address_bytes(end.ip()));
                bytes.extend_from_slice(&end.port().to_be_bytes());
            }
        }
        Protocol::Udp => {
            ends.sort_unstable_by_key(std::net::SocketAddr::port);
            for end in ends {
                bytes.extend_from_slice(&end.port().to_be_bytes());
            }
        }
    }
    // FNV-1a, 64 bits, and a final mix: spread enough for an index, and fixed for ever by its definition.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (hash ^ (hash >> 32)) as i64
}

/// Whether an address says nothing about which one it is (`0.0.0.0`, `::`).
pub fn is_wildcard(address: IpAddr) -> bool {
    address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weir_model::{Generation, Instance, NodeName};

    fn key() -> ConnectionKey {
        ConnectionKey {
            node: NodeName("a".into()),
            boot: [1; 16],
            instance: Instance::Socket { cookie: 7 },
            generation: Generation::default(),
        }
    }

    prop_compose! {
        fn reading()(
            sent in 0u64..4, recv in 0u64..4, before in 0u64..4, first in 0i64..4, last in 0i64..4,
            started in proptest::option::of(0i64..4), closed in proptest::option::of(0i64..4),
            state in "[ab]", errno in 0u32..3, claim in proptest::option::of((0usize..3, any::<bool>())),
            owner in proptest::option::of((0u32..3, "[xy]?")), rtt in proptest::option::of(0u32..3), other in any::<bool>(),
        ) -> Transaction {
            let at = UnixNanos(last);
            Transaction {
                key: key(),
                protocol: Protocol::Tcp,
                tuple: Tuple::new([10, 0, 0, 1].into(), 1, [10, 0, 0, 2].into(), 2),
                translated: None,
                netns: 0,
                totals: Totals { sent: Bytes(sent), recv: Bytes(recv), retransmits: recv },
                before: Before { sent: Bytes(before), recv: Bytes(sent) },
                started: started.map(UnixNanos),
                first: UnixNanos(first),
                seen: at,
                last: at,
                condition: Condition { closed: closed.map(UnixNanos), at, state, close_reason: None, errno },
                claim: claim.map(|(certainty, incoming)| Claim {
                    certainty: [Certainty::Unknown, Certainty::Inferred, Certainty::Known][certainty],
                    at,
                    direction: if incoming { Direction::Incoming } else { Direction::Outgoing },
                }),
                owner: owner.map(|(pid, process)| Owner { at, pid, process, ..Owner::default() }),
                rtt: rtt.map(|us| Rtt { at, us }),
                connect_latency_us: rtt,
                other_peer: other,
            }
        }
    }

    proptest! {
        #[test]
        fn merging_is_idempotent_commutative_and_associative(a in reading(), b in reading(), c in reading()) {
            prop_assert_eq!(a.clone().merge(a.clone()), a.clone());
            prop_assert_eq!(a.clone().merge(b.clone()), b.clone().merge(a.clone()));
            let mut merged = a.clone();
            prop_assert_eq!(merged.absorb(&b), merged != a);
            prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.merge(b.merge(c)));
        }

        #[test]
        fn a_closed_connection_stays_closed(a in reading(), b in reading()) {
            let closed = a.closed().is_some() || b.closed().is_some();
            prop_assert_eq!(a.merge(b).closed().is_some(), closed);
        }
    }

    #[test]
    fn both_views_fall_into_one_bucket() {
        let tuple = Tuple::new([10, 0, 0, 1].into(), 40000, [10, 0, 0, 2].into(), 80);
        assert_eq!(link(Protocol::Tcp, tuple), link(Protocol::Tcp, tuple.reversed()));
        let wildcard = Tuple::new([0, 0, 0, 0].into(), 53, [10, 0, 0, 1].into(), 40000);
        let client = Tuple::new([10, 0, 0, 1].into(), 40000, [10, 0, 0, 2].into(), 53);
        assert_eq!(link(Protocol::Udp, wildcard), link(Protocol::Udp, client));
    }

    /// The bucket is stored and indexed.
    #[test]
    fn the_bucket_of_a_tuple_is_part_of_the_stored_format() {
        let tuple = Tuple::new([10, 0, 0, 1].into(), 40000, [10, 0, 0, 2].into(), 80);
        let buckets = (link(Protocol::Tcp, tuple), link(Protocol::Udp, tuple));
        assert_eq!(buckets, (STORED_TCP, STORED_UDP));
    }

    const STORED_TCP: i64 = -4_721_944_118_780_763_931;
    const STORED_UDP: i64 = 4_150_758_295_183_266_573;
}
