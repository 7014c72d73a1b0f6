//! Which counter a row belongs to (R1), packed: a table of 100,000 connections is most of what an agent holds.

use std::net::{IpAddr, SocketAddr};
use weir_model::connection::{address_bytes, address_from_bytes};
use weir_model::{Protocol, Tuple};

/// An address and a port in 18 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackedEnd {
    ip: [u8; 16],
    port: u16,
}

impl PackedEnd {
    /// Packs an end.
    pub fn of(end: SocketAddr) -> Self {
        Self { ip: address_bytes(end.ip()), port: end.port() }
    }

    /// The end.
    pub fn end(self) -> SocketAddr {
        SocketAddr::new(address_from_bytes(self.ip), self.port)
    }

    /// The address.
    pub fn ip(self) -> IpAddr {
        address_from_bytes(self.ip)
    }

    /// The port.
    pub fn port(self) -> u16 {
        self.port
    }
}

/// A [`Tuple`] in 36 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackedTuple {
    /// The socket's own end.
    pub local: PackedEnd,
    /// The peer's.
    pub remote: PackedEnd,
}

impl PackedTuple {
    /// Length of [`PackedTuple::to_bytes`].
    pub const LENGTH: usize = 36;

    /// Packs a tuple.
    pub fn of(tuple: Tuple) -> Self {
        Self { local: PackedEnd::of(tuple.local), remote: PackedEnd::of(tuple.remote) }
    }

    /// The tuple.
    pub fn tuple(self) -> Tuple {
        Tuple { local: self.local.end(), remote: self.remote.end() }
    }

    /// Local address, local port, remote address, remote port; ports little-endian. The inverse is
    /// [`PackedTuple::from_bytes`].
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..16].copy_from_slice(&self.local.ip);
        bytes[16..18].copy_from_slice(&self.local.port.to_le_bytes());
        bytes[18..34].copy_from_slice(&self.remote.ip);
        bytes[34..].copy_from_slice(&self.remote.port.to_le_bytes());
        bytes
    }

    /// The tuple in `bytes`, `None` unless there are 36 of them.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().ok()?;
        let end = |at: usize| {
            let ip = bytes[at..at + 16].try_into().ok()?;
            Some(PackedEnd { ip, port: u16::from_le_bytes([bytes[at + 16], bytes[at + 17]]) })
        };
        Some(Self { local: end(0)?, remote: end(18)? })
    }
}

/// [`weir_model::Instance`], packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A TCP socket by its cookie.
    Socket {
        /// Never 0.
        cookie: u64,
    },
    /// One peer of a UDP socket.
    Peer {
        /// Never 0.
        cookie: u64,
        /// The socket's address and the peer's.
        tuple: PackedTuple,
    },
    /// A connection from a feed without cookies.
    Tuple {
        /// TCP or UDP.
        protocol: Protocol,
        /// The network namespace's inode.
        netns: u32,
        /// The owner.
        pid: u32,
        /// Its ends.
        tuple: PackedTuple,
    },
}

impl Key {
    /// The key of a connection that a feed describes so.
    pub fn of(protocol: Protocol, cookie: Option<u64>, netns: u32, pid: u32, tuple: PackedTuple) -> Self {
        match (protocol, cookie) {
            (Protocol::Tcp, Some(cookie)) => Self::Socket { cookie },
            (Protocol::Udp, Some(cookie)) => Self::Peer { cookie, tuple },
            (protocol, None) => Self::Tuple { protocol, netns, pid, tuple },
        }
    }

    /// The protocol.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Socket { .. } => Protocol::Tcp,
            Self::Peer { .. } => Protocol::Udp,
            Self::Tuple { protocol, .. } => protocol,
        }
    }

    /// Whether the kernel gave it an identity of its own.
    pub fn has_cookie(self) -> bool {
        !matches!(self, Self::Tuple { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_survives_packing() {
        let tuple = Tuple::new("10.0.0.1".parse().unwrap(), 80, "2001:db8::1".parse().unwrap(), 65535);
        let packed = PackedTuple::of(tuple);
        assert_eq!(packed.tuple(), tuple);
        assert_eq!(PackedTuple::from_bytes(&packed.to_bytes()), Some(packed));
        assert_eq!(PackedTuple::from_bytes(&[0; 35]), None);
    }

    #[test]
    fn the_key_is_the_cookie_where_there_is_one() {
        let tuple = PackedTuple::of(Tuple::new([1, 1, 1, 1].into(), 1, [2, 2, 2, 2].into(), 2));
        assert_eq!(Key::of(Protocol::Tcp, Some(7), 1, 2, tuple), Key::Socket { cookie: 7 });
        assert_eq!(Key::of(Protocol::Udp, Some(7), 1, 2, tuple), Key::Peer { cookie: 7, tuple });
        let key = Key::of(Protocol::Udp, None, 1, 2, tuple);
        assert_eq!(key, Key::Tuple { protocol: Protocol::Udp, netns: 1, pid: 2, tuple });
    }
}
