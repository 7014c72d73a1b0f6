//! What one end of one connection really did: a line that `weir-traffic` prints and the checker reads.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// The role of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It opened the connection, or sent the first datagram.
    Client,
    /// It accepted it.
    Server,
}

/// The transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP, and each subflow of MPTCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`, as weir's answers have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a connection ended for this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Orderly: both ends read what the other wrote.
    Closed,
    /// The peer's reset ended it.
    Reset,
    /// This end's own reset ended it.
    Aborted,
    /// This end left it by connecting to `AF_UNSPEC`.
    Disconnected,
    /// Its process was killed; the kernel closed it in order.
    Killed,
    /// Nobody listened.
    Refused,
    /// Nobody answered.
    TimedOut,
    /// The script did not see it end as it should have.
    Broken,
}

impl Outcome {
    /// Whether the connection ever was one, so that the other end tells of it too.
    pub fn was_established(self) -> bool {
        !matches!(self, Self::Refused | Self::TimedOut)
    }

    /// Whether what the applications wrote and read need not be what the kernel moved.
    pub fn is_abortive(self) -> bool {
        matches!(self, Self::Reset | Self::Aborted | Self::Disconnected | Self::Broken)
    }
}

/// The kernel's own last word about a TCP connection (`TCP_INFO`): payload that left at least once, and payload that was
/// accepted in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// `tcpi_bytes_sent - tcpi_bytes_retrans`.
    pub sent: u64,
    /// `tcpi_bytes_received`, less the peer's FIN.
    pub recv: u64,
}

/// What one end of one connection really did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// Its role.
    pub role: Role,
    /// Its protocol.
    pub protocol: Protocol,
    /// This end, as its socket sees it; IPv4 as IPv4 also where the socket is an IPv6 one.
    pub local: SocketAddr,
    /// The other end, as this socket sees it: the Service's address where the client was translated.
    pub remote: SocketAddr,
    /// Payload bytes that its writes took.
    pub sent: u64,
    /// Payload bytes that its reads gave.
    pub recv: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The process that did it; the one that closed it, where the socket was inherited.
    pub pid: u32,
    /// That process's name (`comm`).
    pub process: String,
    /// The inode of its network namespace.
    pub net_ns: u32,
    /// The inode of its cgroup v2 directory, 0 where that cannot be read.
    pub cgroup_id: u64,
    /// `CLOCK_MONOTONIC` nanoseconds when this end knew of the connection.
    pub started_ns: u64,
    /// And when it told of its end.
    pub ended_ns: u64,
    /// The kernel's last word, where the ending is abortive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Word>,
}

impl Truth {
    /// What weir has to say: what the applications moved, or the kernel's word where the ending is abortive.
    pub fn moved(&self) -> Word {
        match self.kernel {
            Some(word) if self.outcome.is_abortive() => word,
            _ => Word { sent: self.sent, recv: self.recv },
        }
    }

    /// Whether the truth agrees with itself: no more left than was written, no less arrived than was read.
    pub fn is_sound(&self) -> bool {
        let moved = self.moved();
        self.outcome != Outcome::Broken && moved.sent <= self.sent && moved.recv >= self.recv
    }
}
