//! A netlink socket of the netfilter family: what conntrack is asked through, and what its events come from.
//!
//! It never blocks. The kernel works on a request within `send`, so its answers (or a dump's first part) wait when that
//! returns; what then is not there will not come. Messages are the business of `conntrack::message`.

#![expect(unsafe_code, reason = "a socket filter is attached by a pointer")]

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// One instruction of a classic BPF program (`linux/filter.h`).
pub type Instruction = libc::sock_filter;

/// The socket.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
}

/// What a look into the socket found.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// Some messages.
    Messages(&'a [u8]),
    /// Nothing is there.
    Nothing,
    /// The socket's buffer was full, and the kernel dropped messages.
    Overflow,
}

impl Netlink {
    /// Opens one in this thread's network namespace, with room for `buffer` bytes of messages that wait.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` where the kernel has no netfilter.
    pub fn open(buffer: usize) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        // Without CAP_NET_ADMIN the plain option takes what the machine's limit allows.
        if setsockopt(&fd, sockopt::RcvBufForce, &buffer).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &buffer)?;
        }
        Ok(Self { fd })
    }

    /// Takes an address, and joins the groups of a mask (bit 0 is group 1).
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN in the namespace.
    pub fn bind(&self, groups: u32) -> io::Result<()> {
        Ok(bind(self.fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?)
    }

    /// Lets through only what `program` accepts.
    ///
    /// # Errors
    /// When the kernel refuses the program.
    pub fn filter(&self, program: &[Instruction]) -> io::Result<()> {
        let mut program = program.to_vec();
        let whole = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the pointers are to a program of `len` instructions, which the kernel copies before it returns.
        let outcome = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const whole).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends messages; the kernel has worked on them when this returns.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, messages: &[u8]) -> io::Result<()> {
        loop {
            match send(self.fd.as_raw_fd(), messages, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes what is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        loop {
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => return Ok(Received::Messages(&buffer[..length])),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(Errno::ENOBUFS) => return Ok(Received::Overflow),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
