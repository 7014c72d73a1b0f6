//! The probes' structs as user space sees them: the same bytes as in `row.bpf.h` and `origin.bpf.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct origin`: whose a socket is. 0 is unknown throughout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Origin {
    /// Nanoseconds since boot.
    pub process_start: u64,
    /// The inode of the cgroup v2 directory.
    pub cgroup_id: u64,
    /// Under cgroup version 1 the inode in the memory or pids hierarchy, that hierarchy's number in the highest byte.
    pub v1_cgroup: u64,
    /// The thread group in the initial pid namespace.
    pub pid: u32,
    /// The network namespace's inode.
    pub netns: u32,
    /// The thread group leader's name, zero-terminated.
    pub comm: [u8; 16],
}

/// `struct row`: one connection, living or ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Row {
    /// Whose it is.
    pub origin: Origin,
    /// The socket's cookie.
    pub cookie: u64,
    /// When it began, `CLOCK_MONOTONIC` nanoseconds; 0 unknown.
    pub start_ns: u64,
    /// Living: when the totals last changed. Ended: when it ended.
    pub at_ns: u64,
    /// Payload bytes that left at least once.
    pub sent: u64,
    /// Payload bytes accepted in order.
    pub recv: u64,
    /// Segments sent again.
    pub retransmits: u32,
    /// Smoothed, microseconds; 0 unknown.
    pub rtt_us: u32,
    /// The mean deviation of the round-trip time, microseconds; 0 unknown.
    pub rtt_var_us: u32,
    /// Segments that were given up for lost, each time again.
    pub lost: u32,
    /// From SYN to established; 0 unknown.
    pub connect_latency_us: u32,
    /// How many connections the socket had ended before.
    pub generation: u32,
    /// The local address; IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// The remote address.
    pub remote: [u8; 16],
    /// In host order.
    pub local_port: u16,
    /// In host order.
    pub remote_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `sk_err` at the end.
    pub error: u16,
    /// Living: the TCP state. Ended: the state before CLOSE.
    pub state: u8,
    /// `sk_shutdown`: 1 receive, 2 send.
    pub shutdown: u8,
    /// 1 incoming, 2 outgoing, 0 unknown.
    pub direction: u8,
    /// 1 known, 2 inferred, 0 unknown.
    pub certainty: u8,
    /// 6 or 17.
    pub protocol: u8,
    /// [`OTHER_PEER`], [`IDLE`], [`LAST_SEEN`], [`RECV_ONE_SHORT`] and [`OWNER_UNSURE`].
    pub flags: u8,
    /// Zero.
    pub pad: u16,
}

const _: () = assert!(size_of::<Origin>() == 48 && size_of::<Row>() == 160);

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;
/// `AF_INET6`.
pub const INET6: u16 = 10;

/// [`Row::flags`]: the row stands for every peer beyond the cap.
pub const OTHER_PEER: u8 = 1;
/// [`Row::flags`]: ended because nothing came or went for a while, its socket lives.
pub const IDLE: u8 = 2;
/// [`Row::flags`]: ended with the totals that were seen last, its own are lost.
pub const LAST_SEEN: u8 = 4;
/// [`Row::flags`]: one byte more may have been received.
pub const RECV_ONE_SHORT: u8 = 8;

/// [`Row::flags`]: several processes hold the listener, and which of them accepted is not known yet.
pub const OWNER_UNSURE: u8 = 16;

impl Row {
    /// The local address.
    pub fn local_address(&self) -> IpAddr {
        address(self.family, self.local)
    }

    /// The remote address.
    pub fn remote_address(&self) -> IpAddr {
        address(self.family, self.remote)
    }
}

impl Origin {
    /// The process' name, where it is known.
    pub fn name(&self) -> Option<String> {
        let end = self.comm.iter().position(|byte| *byte == 0).unwrap_or(self.comm.len());
        (end > 0).then(|| String::from_utf8_lossy(&self.comm[..end]).into_owned())
    }
}

/// The address in 16 bytes of the kernel's structs.
pub(crate) fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    if family == INET6 {
        return IpAddr::V6(Ipv6Addr::from(bytes));
    }
    let [a, b, c, d, ..] = bytes;
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}
