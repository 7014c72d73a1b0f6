//! A TCP stream that counts what its calls return.

use super::sockets::{TcpInfo, tcp_info};
use super::tell::{now_ns, plain};
use super::truth::Word;
use crate::process::until;
use anyhow::{Context, Result, bail};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes in one call: larger than any datagram sent here, small enough for the stack.
pub(super) const BLOCK: usize = 16_384;

/// How long one call may wait before the script gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// States in which `tcpi_bytes_received` counts the peer's FIN (`include/net/tcp_states.h`): time_wait, close_wait,
/// last_ack, closing.
const PEER_IS_DONE: [u8; 4] = [6, 8, 9, 11];

/// A TCP stream that counts what its calls return.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) stream: TcpStream,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) sent: u64,
    pub(super) recv: u64,
    pub(super) started_ns: u64,
    saw_end: bool,
}

impl Counted {
    /// Begins to count at 0.
    pub(super) fn new(stream: TcpStream) -> Result<Self> {
        let started_ns = now_ns();
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let (local, remote) = (plain(stream.local_addr()?), plain(stream.peer_addr()?));
        Ok(Self { stream, local, remote, sent: 0, recv: 0, started_ns, saw_end: false })
    }

    pub(super) fn connect(server: SocketAddr) -> Result<Self> {
        Self::new(TcpStream::connect(server).with_context(|| format!("failed to connect to {server}"))?)
    }

    pub(super) fn send(&mut self, bytes: u64) -> std::io::Result<()> {
        let block = [0x5a_u8; BLOCK];
        let mut left = bytes;
        while left > 0 {
            let want = left.min(block.len() as u64) as usize;
            let took = self.stream.write(&block[..want])?;
            self.sent += took as u64;
            left -= took as u64;
        }
        Ok(())
    }

    /// Reads once; 0 at the end.
    pub(super) fn take(&mut self, at_most: usize) -> std::io::Result<usize> {
        let mut block = [0_u8; BLOCK];
        let want = at_most.min(block.len());
        let got = self.stream.read(&mut block[..want])?;
        self.recv += got as u64;
        self.saw_end |= got == 0 && want > 0;
        Ok(got)
    }

    pub(super) fn receive(&mut self, bytes: u64) -> std::io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            match self.take(left.min(BLOCK as u64) as usize)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                got => left -= got as u64,
            }
        }
        Ok(())
    }

    pub(super) fn drain(&mut self) -> std::io::Result<()> {
        while self.take(BLOCK)? > 0 {}
        Ok(())
    }

    /// Sends and reads back at the same time, so that neither side's buffers fill.
    pub(super) fn echo(&mut self, bytes: u64) -> Result<()> {
        let mut writer = Self { stream: self.stream.try_clone()?, sent: 0, recv: 0, ..*self };
        let sender = std::thread::spawn(move || writer.send(bytes).map(|()| writer.sent));
        self.receive(bytes)?;
        match sender.join() {
            Ok(sent) => self.sent += sent?,
            Err(_) => bail!("the sending thread panicked"),
        }
        Ok(())
    }

    /// What the kernel says of it now.
    pub(super) fn info(&self) -> std::io::Result<TcpInfo> {
        tcp_info(&self.stream)
    }

    /// The kernel's word: final once the connection rests or is over.
    pub(super) fn word(&self) -> std::io::Result<Word> {
        let info = self.info()?;
        let fin = u64::from(self.saw_end || PEER_IS_DONE.contains(&info.state));
        Ok(Word { sent: info.bytes_sent - info.bytes_retrans, recv: info.bytes_received - fin })
    }

    /// Waits until nothing is in flight and nothing moves any more: all was acknowledged, or the peer's window is full.
    pub(super) fn rest(&self) -> Result<()> {
        let mut last = None;
        until(PATIENCE, || {
            let now = self.info()?;
            let rests = now.unacked == 0 && last == Some(now);
            last = Some(now);
            Ok(rests)
        })
        .context("the connection did not come to rest")
    }
}
