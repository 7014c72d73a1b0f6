//! Two sockets' view of one exchange: who is the client (R5).

use crate::connection::{Protocol, Tuple};
use std::fmt;
use std::net::SocketAddr;

/// Which way a connection was opened, as its local end sees it. The discriminants are the feed's `direction`;
/// 3 (local) is never produced by weir's tracer: a connection within the node is two rows, 2 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The peer opened it; the local end is the server.
    Incoming = 1,
    /// The local end opened it and is the client.
    Outgoing = 2,
}

/// The role of a view's local end in its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The end that opened the connection, or sent the first datagram.
    Client,
    /// The end that accepted it.
    Server,
}

impl Side {
    /// `client` or `server`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

impl From<Direction> for Side {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Incoming => Self::Server,
            Direction::Outgoing => Self::Client,
        }
    }
}

/// How sure a name or a role is (invariant 2): a value, never a guess. Ordered from least to most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// Not known.
    #[default]
    Unknown,
    /// Follows from other facts, and could be wrong.
    Inferred,
    /// Observed.
    Known,
}

impl Certainty {
    /// `known`, `inferred` or `unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Inferred => "inferred",
            Self::Known => "known",
        }
    }

    /// Reads the form of [`Certainty::as_str`]; anything else is `unknown`.
    pub fn parse(text: &str) -> Self {
        match text {
            "known" => Self::Known,
            "inferred" => Self::Inferred,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One exchange between a client's and a server's socket, the same value from either view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Its protocol.
    pub protocol: Protocol,
    /// The network namespace's inode where the tuple alone is ambiguous (loopback), else 0.
    pub netns: u32,
    /// The end that opened it.
    pub client: SocketAddr,
    /// The end that accepted it.
    pub server: SocketAddr,
}

impl Flow {
    /// The flow that a view with this tuple and role belongs to. `netns` matters only between loopback addresses.
    pub fn of_view(protocol: Protocol, netns: u32, tuple: Tuple, side: Side) -> Self {
        let (client, server) = match side {
            Side::Client => (tuple.local, tuple.remote),
            Side::Server => (tuple.remote, tuple.local),
        };
        Self { protocol, netns: if tuple.is_loopback() { netns } else { 0 }, client, server }
    }

    /// The same flow with the roles exchanged: what a view that misjudged its direction claims.
    #[must_use]
    pub fn swapped(self) -> Self {
        Self { client: self.server, server: self.client, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_views_of_an_exchange_are_the_same_flow() {
        let tuple = Tuple::new([10, 0, 0, 1].into(), 40000, [10, 0, 0, 2].into(), 80);
        let client = Flow::of_view(Protocol::Tcp, 1, tuple, Side::Client);
        let server = Flow::of_view(Protocol::Tcp, 2, tuple.reversed(), Side::Server);
        assert_eq!(client, server);
    }

    #[test]
    fn loopback_flows_of_different_namespaces_differ() {
        let tuple = Tuple::new([127, 0, 0, 1].into(), 40000, [127, 0, 0, 1].into(), 80);
        assert_ne!(
            Flow::of_view(Protocol::Tcp, 1, tuple, Side::Client),
            Flow::of_view(Protocol::Tcp, 2, tuple, Side::Client)
        );
    }
}
