//! One sock_diag socket: bound to the network namespace that its thread was in when it was made, and to nothing of the
//! thread's since. It holds that namespace alive, so it must go when the namespace is nobody's any more.

#![expect(
    unsafe_code,
    reason = "a multicast group is joined, and the limit on descriptors raised, by plain system calls"
)]

use super::diag::{self, Answer, Detail, Ends, Message, Request};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use zerocopy::IntoBytes;

/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`.
const DESTROYED: [u32; 2] = [1, 3];
/// As much as the kernel puts into one answer of a dump.
const DATAGRAM: usize = 64 << 10;
/// About 8,000 destroyed sockets: 0.1 s at 80,000 a second. Without `CAP_NET_ADMIN` it is `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 8 << 20;
/// An answer comes at once; nobody may wait for one for ever.
const ANSWER_SECONDS: i64 = 2;

/// A socket to ask, or to hear of destroyed sockets.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What a read of destroyed sockets met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// All that waited.
    All,
    /// All that waited; the socket's buffer had no room for others.
    AfterOverrun,
}

impl Diag {
    /// A socket of the calling thread's network namespace, to ask with.
    pub fn to_ask() -> io::Result<Self> {
        let diag = Self::open(SockFlag::SOCK_CLOEXEC)?;
        let patience = nix::sys::time::TimeVal::new(ANSWER_SECONDS, 0);
        setsockopt(&diag.socket, sockopt::ReceiveTimeout, &patience)?;
        Ok(diag)
    }

    /// A socket of the calling thread's network namespace that hears of every TCP socket's end.
    pub fn to_hear() -> io::Result<Self> {
        let diag = Self::open(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
        if setsockopt(&diag.socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            // An ordinary user gets what net.core.rmem_max allows.
            setsockopt(&diag.socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        for group in DESTROYED {
            join(diag.socket.as_fd(), group)?;
        }
        Ok(diag)
    }

    fn open(flags: SockFlag) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Every TCP socket of `family` in one of `states`.
    pub fn dump(&mut self, family: i32, states: u32, detail: Detail, mut each: impl FnMut(Message)) -> io::Result<()> {
        self.sequence += 1;
        let wanted = self.sequence;
        self.send(&Request::dump(family, states, detail, wanted))?;
        loop {
            let count = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            let mut ended = None;
            diag::read(&self.buffer[..count], |sequence, answer| match answer {
                _ if sequence != wanted => {}
                Answer::Socket(message) => each(message),
                Answer::Done => ended = Some(Ok(())),
                Answer::Error(errno) => ended = Some(outcome(errno)),
                Answer::Other => {}
            });
            if let Some(outcome) = ended {
                return outcome;
            }
        }
    }

    /// Whoever a segment for `ends` would be given to.
    pub fn find(&mut self, ends: &Ends) -> io::Result<Option<Message>> {
        self.sequence += 1;
        let wanted = self.sequence;
        self.send(&Request::find(ends, wanted))?;
        loop {
            let count = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            let mut found = None;
            diag::read(&self.buffer[..count], |sequence, answer| match answer {
                _ if sequence != wanted => {}
                Answer::Socket(message) => found = Some(Ok(Some(message))),
                Answer::Error(libc::ENOENT) => found = Some(Ok(None)),
                Answer::Error(errno) => found = Some(outcome(errno).map(|()| None)),
                Answer::Done | Answer::Other => {}
            });
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// Hands on every destroyed socket that waits.
    pub fn hear(&mut self, mut each: impl FnMut(Message)) -> io::Result<Heard> {
        let mut heard = Heard::All;
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(count) => diag::read(&self.buffer[..count], |_, answer| {
                    if let Answer::Socket(message) = answer {
                        each(message);
                    }
                }),
                Err(nix::errno::Errno::EAGAIN) => return Ok(heard),
                Err(nix::errno::Errno::ENOBUFS) => heard = Heard::AfterOverrun,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&self, request: &Request) -> io::Result<()> {
        send(self.socket.as_raw_fd(), request.as_bytes(), MsgFlags::empty())?;
        Ok(())
    }
}

impl AsFd for Diag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Lets this process open as many descriptors as it may: the usual soft limit is below three a namespace.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit of ours during the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one rlimit of ours during the call.
    let outcome = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn outcome(errno: i32) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

fn join(socket: BorrowedFd<'_>, group: u32) -> io::Result<()> {
    // SAFETY: the option's value is one u32 of ours, read during the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            (&raw const group).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
