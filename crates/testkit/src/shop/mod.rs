//! A small shop: the processes that the demo's cluster runs, and that tests of Services talk to.
//!
//! Each is one [`Part`]: it serves requests on its ports, and for each request, or every so often by itself, makes the
//! [`Call`]s of its own. Names of Services are asked from a DNS part ([`dns`]), as in a cluster. The [`town`] is who runs in
//! the demo, [`faults`] are what can go wrong in it, and [`control`] is how a running demo is told so.
//!
//! A request is a line with a number; the answer is a line with the part's name and the address that it saw, then as
//! many bytes. Several may follow each other on one connection. A datagram is answered with such a line.

pub mod control;
pub mod dns;
pub mod faults;
pub mod part;
pub mod town;

pub use part::{Call, Part};

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// How long an answer may take, on a machine that builds something else at the same time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a part answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The part's name.
    pub name: String,
    /// Whom it saw.
    pub seen: IpAddr,
}

impl Reply {
    fn parse(line: &str) -> Result<Self> {
        let (name, seen) = line.trim_end().split_once(' ').with_context(|| format!("no reply: {line:?}"))?;
        Ok(Self { name: name.into(), seen: seen.parse()? })
    }
}

/// A connection to a part.
#[derive(Debug)]
pub struct Customer {
    stream: BufReader<TcpStream>,
}

impl Customer {
    /// Connects.
    ///
    /// # Errors
    /// When nobody accepts in time.
    pub fn connect(server: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect_timeout(&server, PATIENCE).with_context(|| format!("failed to connect to {server}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks for `bytes` bytes.
    ///
    /// # Errors
    /// When the answer does not come, or not whole.
    pub fn ask(&mut self, bytes: u64) -> Result<Reply> {
        self.stream.get_mut().write_all(format!("{bytes}\n").as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let reply = Reply::parse(&line)?;
        let got = std::io::copy(&mut self.stream.by_ref().take(bytes), &mut std::io::sink())?;
        if got != bytes {
            bail!("{} sent {got} of {bytes} bytes", reply.name);
        }
        Ok(reply)
    }
}

/// Asks for `bytes` bytes on a connection of its own.
///
/// # Errors
/// When the answer does not come, or not whole.
pub fn ask(server: SocketAddr, bytes: u64) -> Result<Reply> {
    Customer::connect(server)?.ask(bytes)
}

/// Sends a datagram from `socket` and takes the answer.
///
/// # Errors
/// When none comes in time.
pub fn ask_by_datagram(socket: &UdpSocket, server: SocketAddr) -> Result<Reply> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"0\n", server)?;
    let mut block = [0_u8; 512];
    let (length, _from) = socket.recv_from(&mut block).with_context(|| format!("no datagram from {server}"))?;
    Reply::parse(std::str::from_utf8(&block[..length])?)
}
