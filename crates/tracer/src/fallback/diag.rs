//! sock_diag's messages (`include/uapi/linux/inet_diag.h`): what is asked, and what is answered. Pure.
//!
//! A message describes a TCP socket that lives, one that was just destroyed (the multicast groups), or the little that
//! is left of one in TIME_WAIT, which has no counters.

use nix::libc;
use zerocopy::{Immutable, IntoBytes};

/// `SOCK_DIAG_BY_FAMILY`: request, answer and multicast alike.
pub const BY_FAMILY: u16 = 20;
const HEADER: usize = 16;
const MESSAGE: usize = 72;
/// `INET_DIAG_INFO`, `INET_DIAG_CGROUP_ID`.
const INFO: u16 = 2;
const CGROUP_ID: u16 = 21;
/// Up to and with `tcpi_bytes_retrans` (Linux 4.19).
const INFO_LEAST: usize = 216;

/// `include/net/tcp_states.h`.
pub mod state {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
}

/// Every state with counters of a connection.
pub const CONNECTIONS: u32 = 1 << state::ESTABLISHED
    | 1 << state::SYN_SENT
    | 1 << state::SYN_RECV
    | 1 << state::FIN_WAIT1
    | 1 << state::FIN_WAIT2
    | 1 << state::CLOSE_WAIT
    | 1 << state::LAST_ACK
    | 1 << state::CLOSING;

/// Those of them in which the peer's FIN has not come.
pub const BEFORE_PEERS_FIN: u32 = 1 << state::ESTABLISHED
    | 1 << state::SYN_SENT
    | 1 << state::SYN_RECV
    | 1 << state::FIN_WAIT1
    | 1 << state::FIN_WAIT2;

/// The ends of a connection, addresses in network order and mapped ones unmapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ends {
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// As `local`.
    pub remote: [u8; 16],
    /// In host order.
    pub local_port: u16,
    /// In host order, 0 when the socket is not connected.
    pub remote_port: u16,
}

impl Ends {
    /// As the other side sees it.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        Self {
            local: self.remote,
            remote: self.local,
            local_port: self.remote_port,
            remote_port: self.local_port,
            ..*self
        }
    }
}

/// What is needed of `struct tcp_info`; all of it read under the socket's lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `bytes_sent - bytes_retrans`: payload that left at least once.
    pub sent: u64,
    /// `bytes_received`: payload accepted in order, and the peer's FIN once it came.
    pub received: u64,
    /// `bytes_acked`: payload, our SYN (on the side that opened) and our FIN.
    pub acked: u64,
    /// `packets_out`.
    pub unacked: u32,
    /// `write_seq - snd_nxt`.
    pub unsent: u32,
    /// Segments that brought payload.
    pub data_segments: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Smoothed, microseconds; 0 unknown.
    pub rtt_us: u32,
}

/// One socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its ends.
    pub ends: Ends,
    /// As the socket has it: a mapped address is asked for under `AF_INET6`.
    pub family: u8,
    /// See [`state`].
    pub state: u8,
    /// The socket's cookie.
    pub cookie: u64,
    /// The socket's inode, 0 when no process holds it.
    pub inode: u32,
    /// `rcv_nxt - copied_seq`: what the application has not read, the peer's FIN included.
    pub unread: u32,
    /// `write_seq - snd_una`.
    pub unsettled: u32,
    /// The inode of its cgroup v2 directory, 0 unknown.
    pub cgroup_id: u64,
    /// Absent from what has none: requests, TIME_WAIT.
    pub counters: Option<Counters>,
}

/// One netlink message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A socket.
    Socket(Message),
    /// The end of a dump.
    Done,
    /// An errno, 0 for an acknowledgement.
    Error(i32),
    /// Something else.
    Other,
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct Request {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    local_port: [u8; 2],
    remote_port: [u8; 2],
    local: [u8; 16],
    remote: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

const _: () = assert!(size_of::<Request>() == HEADER + 56);

/// Whether the counters are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Only which sockets there are.
    States,
    /// `INET_DIAG_INFO` too.
    Counters,
}

impl Request {
    /// Every TCP socket of `family` in one of `states` (a mask).
    pub fn dump(family: i32, states: u32, detail: Detail, sequence: u32) -> Self {
        Self {
            length: size_of::<Self>() as u32,
            kind: BY_FAMILY,
            flags: (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16,
            sequence,
            port: 0,
            family: family as u8,
            protocol: libc::IPPROTO_TCP as u8,
            extensions: if detail == Detail::Counters { 1 << (INFO - 1) } else { 0 },
            pad: 0,
            states,
            local_port: [0; 2],
            remote_port: [0; 2],
            local: [0; 16],
            remote: [0; 16],
            interface: 0,
            // INET_DIAG_NOCOOKIE.
            cookie: [u32::MAX; 2],
        }
    }

    /// Whoever the kernel would give a segment for `ends` to: the connection, what is left of it in TIME_WAIT, or the
    /// listener.
    pub fn find(ends: &Ends, sequence: u32) -> Self {
        Self {
            flags: libc::NLM_F_REQUEST as u16,
            local_port: ends.local_port.to_be_bytes(),
            remote_port: ends.remote_port.to_be_bytes(),
            local: ends.local,
            remote: ends.remote,
            ..Self::dump(i32::from(ends.family), u32::MAX, Detail::States, sequence)
        }
    }
}

/// Reads the messages of one datagram. What is cut short ends it.
pub fn read(mut bytes: &[u8], mut each: impl FnMut(u32, Answer)) {
    while let (Some(length), Some(kind), Some(sequence)) = (u32_at(bytes, 0), u16_at(bytes, 4), u32_at(bytes, 8)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { return };
        each(sequence, answer(kind, body));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn answer(kind: u16, body: &[u8]) -> Answer {
    match i32::from(kind) {
        libc::NLMSG_DONE => Answer::Done,
        libc::NLMSG_ERROR => Answer::Error(u32_at(body, 0).map_or(libc::EIO, |errno| -(errno as i32))),
        _ if kind == BY_FAMILY => message(body).map_or(Answer::Other, Answer::Socket),
        _ => Answer::Other,
    }
}

fn message(body: &[u8]) -> Option<Message> {
    let address = |at: usize| -> Option<[u8; 16]> { body.get(at..at + 16)?.try_into().ok() };
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let family = *body.first()?;
    let mut message = Message {
        ends: unmapped(family, address(8)?, address(24)?, port(4)?, port(6)?),
        family,
        state: *body.get(1)?,
        cookie: u64::from(u32_at(body, 44)?) | u64::from(u32_at(body, 48)?) << 32,
        unread: u32_at(body, 56)?,
        unsettled: u32_at(body, 60)?,
        inode: u32_at(body, 68)?,
        ..Message::default()
    };
    let mut rest = body.get(MESSAGE..)?;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let Some(value) = rest.get(4..length) else { break };
        // The upper two bits are flags.
        match kind & 0x3fff {
            INFO => message.counters = counters(value),
            CGROUP_ID => message.cgroup_id = u64_at(value, 0).unwrap_or(0),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(message)
}

fn counters(info: &[u8]) -> Option<Counters> {
    if info.len() < INFO_LEAST {
        return None;
    }
    Some(Counters {
        sent: u64_at(info, 200)?.saturating_sub(u64_at(info, 208)?),
        received: u64_at(info, 128)?,
        acked: u64_at(info, 120)?,
        unacked: u32_at(info, 24)?,
        unsent: u32_at(info, 144)?,
        data_segments: u32_at(info, 152)?,
        retransmits: u32_at(info, 100)?,
        rtt_us: u32_at(info, 68)?,
    })
}

/// Addresses as they are on the wire. A socket that is not connected has the unspecified address as its remote one.
fn unmapped(family: u8, local: [u8; 16], remote: [u8; 16], local_port: u16, remote_port: u16) -> Ends {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let is_mapped = i32::from(family) == libc::AF_INET6 && remote.starts_with(&MAPPED);
    if !is_mapped {
        return Ends { family: u16::from(family), local, remote, local_port, remote_port };
    }
    let short = |address: [u8; 16]| {
        let mut short = [0; 16];
        short[..4].copy_from_slice(&address[12..]);
        short
    };
    Ends { family: libc::AF_INET as u16, local: short(local), remote: short(remote), local_port, remote_port }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn datagram(family: u8, remote: [u8; 16], info: usize) -> Vec<u8> {
        let mut body = vec![0; MESSAGE];
        (body[0], body[1]) = (family, state::ESTABLISHED);
        body[4..6].copy_from_slice(&80_u16.to_be_bytes());
        body[6..8].copy_from_slice(&40_000_u16.to_be_bytes());
        body[24..40].copy_from_slice(&remote);
        body[44..48].copy_from_slice(&7_u32.to_ne_bytes());
        body[48..52].copy_from_slice(&1_u32.to_ne_bytes());
        let mut tcp_info = vec![0; info];
        if info >= INFO_LEAST {
            tcp_info[200..208].copy_from_slice(&100_u64.to_ne_bytes());
            tcp_info[208..216].copy_from_slice(&30_u64.to_ne_bytes());
        }
        body.extend(attribute(INFO, &tcp_info));
        body.extend(attribute(CGROUP_ID, &99_u64.to_ne_bytes()));
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(BY_FAMILY.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(3_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    fn all(bytes: &[u8]) -> Vec<Answer> {
        let mut answers = Vec::new();
        read(bytes, |_, answer| answers.push(answer));
        answers
    }

    #[test]
    fn a_socket_is_read_with_its_counters_and_cgroup() {
        let Some(Answer::Socket(message)) = all(&datagram(2, [0; 16], 280)).first().copied() else { panic!() };
        assert_eq!((message.ends.local_port, message.ends.remote_port), (80, 40_000));
        assert_eq!((message.cookie, message.cgroup_id), (1 << 32 | 7, 99));
        assert_eq!(message.counters.map(|counters| counters.sent), Some(70));
    }

    #[test]
    fn mapped_addresses_are_unmapped_and_an_old_kernel_has_no_counters() {
        let mut remote = [0; 16];
        remote[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        let Some(Answer::Socket(message)) = all(&datagram(10, remote, 192)).first().copied() else { panic!() };
        assert_eq!((message.ends.family, &message.ends.remote[..4]), (2, &[10, 0, 0, 1][..]));
        assert_eq!((message.family, message.counters), (10, None));
    }

    #[test]
    fn what_is_cut_short_is_no_socket() {
        let whole = datagram(2, [0; 16], 280);
        for length in 0..whole.len() {
            assert!(all(&whole[..length]).is_empty());
        }
        assert_eq!(all(&[whole.clone(), whole].concat()).len(), 2);
    }
}
