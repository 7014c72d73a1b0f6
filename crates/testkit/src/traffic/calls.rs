//! The many calls that move bytes: what a counter of `send` and `recv` calls would miss.

use super::counted::{BLOCK, Counted, PATIENCE};
use super::{Socket, sockets};
use anyhow::{Context, Result, bail, ensure};
use io_uring::{IoUring, opcode, types};
use nix::fcntl::{SpliceFFlags, splice};
use nix::libc;
use nix::sys::sendfile::sendfile;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// How a client sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Writing {
    /// write(2).
    #[default]
    Write,
    /// sendfile(2).
    Sendfile,
    /// splice(2) from a pipe.
    Splice,
    /// io_uring, IORING_OP_SEND.
    Uring,
    /// io_uring, IORING_OP_SEND_ZC.
    UringZeroCopy,
}

/// How a client receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Reading {
    /// read(2).
    #[default]
    Read,
    /// Every byte is looked at (MSG_PEEK) before it is read.
    Peek,
    /// splice(2) into a pipe.
    Splice,
    /// io_uring, IORING_OP_RECV.
    Uring,
}

/// The first bytes of a fast open: they fit one SYN.
const EARLY: u64 = 1_000;

/// Connects; a fast open has sent up to 1,000 of `bytes` already.
pub(super) fn open(server: SocketAddr, over: Socket, bytes: u64) -> Result<Counted> {
    let socket = |address: SocketAddr, protocol| -> Result<socket2::Socket> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, protocol)?;
        socket.connect(&address.into()).with_context(|| format!("failed to connect to {address}"))?;
        Ok(socket)
    };
    match over {
        Socket::Plain => Counted::connect(server),
        Socket::Mapped => {
            let IpAddr::V4(ip) = server.ip() else { bail!("only an IPv4 address can be mapped, {server} is none") };
            let mapped: Ipv6Addr = ip.to_ipv6_mapped();
            Counted::new(TcpStream::from(socket((mapped, server.port()).into(), None)?))
        }
        Socket::Mptcp => Counted::new(TcpStream::from(socket(server, Some(socket2::Protocol::MPTCP))?)),
        Socket::FastOpen => {
            let socket = socket2::Socket::new(socket2::Domain::for_address(server), socket2::Type::STREAM, None)?;
            let early = vec![0x5a; bytes.min(EARLY) as usize];
            let took = socket.send_to_with_flags(&early, &server.into(), libc::MSG_FASTOPEN)?;
            let mut stream = Counted::new(TcpStream::from(socket))?;
            stream.sent = took as u64;
            Ok(stream)
        }
    }
}

/// Sends `bytes`.
pub(super) fn write(stream: &mut Counted, bytes: u64, by: Writing) -> Result<()> {
    match by {
        Writing::Write => stream.send(bytes)?,
        Writing::Sendfile => {
            let file = tempfile::tempfile()?;
            file.set_len(bytes)?;
            let before = stream.sent;
            while stream.sent - before < bytes {
                let left = (bytes - (stream.sent - before)) as usize;
                let took = sendfile(&stream.stream, &file, None, left)?;
                ensure!(took > 0, "sendfile moved nothing");
                stream.sent += took as u64;
            }
        }
        Writing::Splice => {
            let (mut into, from) = pipe()?;
            let block = [0x5a; BLOCK];
            let mut left = bytes;
            while left > 0 {
                let mut portion = left.min(BLOCK as u64) as usize;
                into.write_all(&block[..portion])?;
                left -= portion as u64;
                while portion > 0 {
                    let took = splice(&from, None, &stream.stream, None, portion, SpliceFFlags::empty())?;
                    stream.sent += took as u64;
                    portion -= took;
                }
            }
        }
        Writing::Uring => {
            uring(bytes, |ring, left| {
                let block = [0x5a_u8; BLOCK];
                let fd = types::Fd(stream.stream.as_raw_fd());
                let entry = opcode::Send::new(fd, block.as_ptr(), left.min(BLOCK as u64) as u32).build();
                let took = submit(ring, &entry, Completions::One)?;
                stream.sent += took;
                Ok(took)
            })?;
        }
        Writing::UringZeroCopy => {
            // The notification says that the kernel no longer needs the block.
            uring(bytes, |ring, left| {
                let block = [0x5a_u8; BLOCK];
                let fd = types::Fd(stream.stream.as_raw_fd());
                let entry = opcode::SendZc::new(fd, block.as_ptr(), left.min(BLOCK as u64) as u32).build();
                let took = submit(ring, &entry, Completions::AndNotification)?;
                stream.sent += took;
                Ok(took)
            })?;
        }
    }
    Ok(())
}

/// Receives `bytes`.
pub(super) fn read(stream: &mut Counted, bytes: u64, by: Reading) -> Result<()> {
    match by {
        Reading::Read => stream.receive(bytes)?,
        Reading::Peek => {
            let mut left = bytes;
            while left > 0 {
                let mut block = [0; BLOCK];
                let seen = stream.stream.peek(&mut block)?;
                ensure!(seen > 0, "the stream ended early");
                stream.receive(seen as u64)?;
                left -= seen as u64;
            }
        }
        Reading::Splice => {
            let (into, mut from) = pipe()?;
            let mut block = [0; BLOCK];
            let mut left = bytes;
            while left > 0 {
                let portion = left.min(BLOCK as u64) as usize;
                let got = splice(&stream.stream, None, &into, None, portion, SpliceFFlags::empty())?;
                ensure!(got > 0, "the stream ended early");
                from.read_exact(&mut block[..got])?;
                stream.recv += got as u64;
                left -= got as u64;
            }
        }
        Reading::Uring => {
            uring(bytes, |ring, left| {
                let mut block = [0_u8; BLOCK];
                let fd = types::Fd(stream.stream.as_raw_fd());
                let entry = opcode::Recv::new(fd, block.as_mut_ptr(), left.min(BLOCK as u64) as u32).build();
                let got = submit(ring, &entry, Completions::One)?;
                stream.recv += got;
                Ok(got)
            })?;
        }
    }
    Ok(())
}

fn pipe() -> Result<(std::fs::File, std::fs::File)> {
    let (from, into): (OwnedFd, OwnedFd) = nix::unistd::pipe()?;
    Ok((into.into(), from.into()))
}

fn uring(bytes: u64, mut step: impl FnMut(&mut IoUring, u64) -> Result<u64>) -> Result<()> {
    let mut ring = IoUring::new(4).context("io_uring is not allowed here (kernel.io_uring_disabled)")?;
    let mut left = bytes;
    while left > 0 {
        let moved = step(&mut ring, left)?;
        ensure!(moved > 0, "io_uring moved nothing");
        left -= moved;
    }
    Ok(())
}

/// What a call answers with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Completions {
    One,
    AndNotification,
}

/// Submits one call and waits for all its completions, so that its buffer may go; answers how many bytes it moved.
fn submit(ring: &mut IoUring, entry: &io_uring::squeue::Entry, completions: Completions) -> Result<u64> {
    #[expect(unsafe_code, reason = "the ring cannot know how long a buffer lives")]
    // SAFETY: the callers' buffers live until this function has seen the call's last completion.
    unsafe {
        ring.submission().push(entry)?;
    }
    let mut moved = None;
    let mut more = true;
    while more {
        // The kernel's own work for the ring may interrupt the wait; what was submitted stays submitted.
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            waited => drop(waited?),
        }
        for completion in ring.completion() {
            if io_uring::cqueue::notif(completion.flags()) {
                more = false;
            } else {
                moved = Some(completion.result());
                more = completions == Completions::AndNotification && io_uring::cqueue::more(completion.flags());
            }
        }
    }
    let moved = moved.context("io_uring completed nothing")?;
    if moved < 0 {
        return Err(std::io::Error::from_raw_os_error(-moved).into());
    }
    Ok(moved as u64)
}

/// Lets a listener take data that comes with the SYN (`TCP_FASTOPEN`; the namespace's `tcp_fastopen` decides too).
pub(super) fn allow_fast_open(listener: impl AsFd) -> std::io::Result<()> {
    sockets::set(listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 64)
}

/// Waits until so many bytes arrived unread.
pub(super) fn wait_unread(stream: &Counted, bytes: u64) -> Result<()> {
    crate::process::until(PATIENCE, || Ok(sockets::unread(&stream.stream)? == bytes))
        .with_context(|| format!("{bytes} bytes did not arrive"))
}
