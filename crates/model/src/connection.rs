//! What a connection is and when two readings are of the same one (R1).

use crate::time::MonotonicNanos;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

/// The transport protocol. The discriminants are the feed's `type` (facts of the 2019 tracer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, 0 in the feed.
    Tcp = 0,
    /// UDP, 1 in the feed.
    Udp = 1,
}

impl Protocol {
    /// `tcp` or `udp`, the form in every answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Reads `tcp` or `udp`, case ignored.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a node, as Kubernetes knows it, or the host name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(pub String);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A socket's two ends as its owner sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// The socket's own address and port (`source`, `sport` in the feed).
    pub local: SocketAddr,
    /// The peer's address and port (`dest`, `dport` in the feed).
    pub remote: SocketAddr,
}

impl Tuple {
    /// A tuple of plain addresses; IPv4-mapped IPv6 (`::ffff:a.b.c.d`) becomes IPv4.
    pub fn new(local: IpAddr, local_port: u16, remote: IpAddr, remote_port: u16) -> Self {
        Self {
            local: SocketAddr::new(local.to_canonical(), local_port),
            remote: SocketAddr::new(remote.to_canonical(), remote_port),
        }
    }

    /// The same pair of ends as the peer's socket sees it.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { local: self.remote, remote: self.local }
    }

    /// The record's key as the project's first page defines it: `ip_source-ip_dest-port_src-port_dest`.
    ///
    /// ```
    /// # use weir_model::Tuple;
    /// let tuple = Tuple::new([172, 17, 0, 2].into(), 41515, [172, 17, 0, 5].into(), 53);
    /// assert_eq!(tuple.transaction_key(), "172.17.0.2-172.17.0.5-41515-53");
    /// ```
    pub fn transaction_key(&self) -> String {
        format!("{}-{}-{}-{}", self.local.ip(), self.remote.ip(), self.local.port(), self.remote.port())
    }

    /// Whether both ends are loopback addresses, so that the tuple names a flow only together with its network
    /// namespace.
    pub fn is_loopback(&self) -> bool {
        self.local.ip().is_loopback() || self.remote.ip().is_loopback()
    }
}

/// What tells one counter of a node's boot from every other (R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instance {
    /// A TCP socket by the kernel's socket cookie (`net/core/sock_diag.c`): one for a socket's life.
    Socket {
        /// The cookie, never 0.
        cookie: u64,
    },
    /// One peer of a UDP socket.
    Peer {
        /// The socket's cookie, never 0.
        cookie: u64,
        /// The socket's address and this peer's.
        tuple: Tuple,
    },
    /// A connection from a feed that gives no cookie.
    Tuple {
        /// Its protocol.
        protocol: Protocol,
        /// The network namespace's inode, 0 where the feed has none.
        netns: u32,
        /// The process id in the initial pid namespace.
        pid: u32,
        /// Its two ends.
        tuple: Tuple,
    },
}

/// Which life of an [`Instance`]'s counter (R1): rises when a total falls, when the cookie's tuple changes, or after a
/// closed row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// How often this instance's counter began anew.
    pub count: u32,
    /// For counters that live in the tracer's maps (UDP): the run of the maps that hold them. 0 for counters that the
    /// kernel keeps (TCP), which no restart changes.
    pub run: u64,
}

/// The key of one counter: absolute, one writer (R1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// The node it was seen on.
    pub node: NodeName,
    /// The node's boot (`/proc/sys/kernel/random/boot_id`): cookies begin anew with each.
    pub boot: [u8; 16],
    /// Which counter.
    pub instance: Instance,
    /// Which life of it.
    pub generation: Generation,
}

/// A [`ConnectionKey`] in 16 bytes: what stores and records refer to.
///
/// SipHash-2-4-128 with a fixed key over the key's canonical bytes. Two of a billion keys collide with a chance of
/// about 10^-21.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub [u8; 16]);

impl ConnectionId {
    /// The id as 32 hexadecimal digits.
    pub fn to_hex(self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(32), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// The hash's key is part of the stored format: changing it orphans every stored record.
const ID_KEY: [u8; 16] = *b"weir/connection1";

impl ConnectionKey {
    /// The key's id. Canonical bytes: each variable part preceded by its length, integers little-endian, addresses in
    /// 16 bytes (IPv4 as mapped).
    pub fn id(&self) -> ConnectionId {
        let mut hasher = SipHasher24::new_with_key(&ID_KEY);
        hasher.write(&(self.node.0.len() as u32).to_le_bytes());
        hasher.write(self.node.0.as_bytes());
        hasher.write(&self.boot);
        match self.instance {
            Instance::Socket { cookie } => {
                hasher.write(&[1]);
                hasher.write(&cookie.to_le_bytes());
            }
            Instance::Peer { cookie, tuple } => {
                hasher.write(&[2]);
                hasher.write(&cookie.to_le_bytes());
                write_tuple(&mut hasher, tuple);
            }
            Instance::Tuple { protocol, netns, pid, tuple } => {
                hasher.write(&[3, protocol as u8]);
                hasher.write(&netns.to_le_bytes());
                hasher.write(&pid.to_le_bytes());
                write_tuple(&mut hasher, tuple);
            }
        }
        hasher.write(&self.generation.count.to_le_bytes());
        hasher.write(&self.generation.run.to_le_bytes());
        ConnectionId(hasher.finish128().as_bytes())
    }
}

fn write_tuple(hasher: &mut SipHasher24, tuple: Tuple) {
    for end in [tuple.local, tuple.remote] {
        hasher.write(&address_bytes(end.ip()));
        hasher.write(&end.port().to_le_bytes());
    }
}

/// An address in 16 bytes, network order; IPv4 as `::ffff:a.b.c.d`. The inverse is [`address_from_bytes`].
pub fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address in `bytes`: 16 of them in network order, IPv4-mapped ones unmapped.
pub fn address_from_bytes(bytes: [u8; 16]) -> IpAddr {
    IpAddr::from(bytes).to_canonical()
}

/// A process: the pid alone is re-used, with its start time it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// The pid in the initial pid namespace.
    pub pid: u32,
    /// When it started (field 22 of `/proc/PID/stat`, in nanoseconds since boot).
    pub start: MonotonicNanos,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(instance: Instance) -> ConnectionKey {
        ConnectionKey { node: NodeName("a".into()), boot: [7; 16], instance, generation: Generation::default() }
    }

    #[test]
    fn mapped_addresses_are_unmapped() {
        let tuple = Tuple::new("::ffff:10.0.0.1".parse().unwrap(), 1, "::1".parse().unwrap(), 2);
        assert_eq!(tuple.local, "10.0.0.1:1".parse().unwrap());
        assert_eq!(tuple.transaction_key(), "10.0.0.1-::1-1-2");
    }

    #[test]
    fn ids_tell_generations_runs_and_instances_apart() {
        let tuple = Tuple::new([1, 2, 3, 4].into(), 5, [6, 7, 8, 9].into(), 10);
        let mut ids = std::collections::BTreeSet::new();
        for instance in [
            Instance::Socket { cookie: 1 },
            Instance::Socket { cookie: 2 },
            Instance::Peer { cookie: 1, tuple },
            Instance::Peer { cookie: 1, tuple: tuple.reversed() },
            Instance::Tuple { protocol: Protocol::Tcp, netns: 1, pid: 1, tuple },
            Instance::Tuple { protocol: Protocol::Udp, netns: 1, pid: 1, tuple },
        ] {
            for generation in [Generation::default(), Generation { count: 1, run: 0 }, Generation { count: 0, run: 1 }]
            {
                assert!(ids.insert(ConnectionKey { generation, ..key(instance) }.id()));
            }
        }
    }

    /// The id is in every stored record: this value may never change.
    #[test]
    fn the_id_of_a_key_is_part_of_the_stored_format() {
        assert_eq!(key(Instance::Socket { cookie: 42 }).id().to_hex(), "86e52a9965ebc3b2d0484af948a839c6");
    }
}
