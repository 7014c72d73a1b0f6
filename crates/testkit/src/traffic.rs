//! Exchanges over real sockets, and the truth about them.
//!
//! The program `weir-traffic` runs these in processes of their own: a server ([`serve`]) that listens on one port for
//! each [`Manner`], and a client ([`run`]) that plays one [`Script`]. Both print a [`Truth`] line, as JSON, for every
//! connection (UDP: every peer of a socket) that has ended: what its own `read` and `write` calls returned.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes in one call: larger than any datagram sent here, small enough for the stack.
const BLOCK: usize = 16_384;

/// What a server does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// Sends everything back until the client is done, then closes.
    Echo,
    /// Reads until the client is done, then sends 8 bytes and closes.
    Sink,
    /// Reads 1,000 bytes, then closes with a reset.
    Reset,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// Sends `bytes`, reads as many back, closes.
    Echo {
        /// How many.
        bytes: u64,
    },
    /// Sends `bytes`, closes its half, reads the 8 bytes of the answer.
    Upload {
        /// How many.
        bytes: u64,
    },
    /// Sends 1,000 bytes and waits for the reset.
    Reset,
    /// Connects to a port where nobody listens.
    Refused,
    /// One socket, disconnected by `AF_UNSPEC` and connected again: three echoes of different sizes.
    Reuse,
    /// `connections` one after the other, each an echo of its number of bytes, ended by the server.
    Short {
        /// How many.
        connections: u64,
    },
    /// One unconnected UDP socket; datagrams of different sizes to each server address, each answered.
    Datagrams {
        /// How many datagrams to each.
        count: u64,
    },
    /// One connection that is kept open and echoes `bytes` for every line on standard input, until that ends.
    Hold {
        /// How many.
        bytes: u64,
    },
    /// New connections and traffic on kept ones until standard input ends.
    Churn,
}

/// What one end of one connection really did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// `client` or `server`.
    pub role: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Payload bytes that its writes took.
    pub sent: u64,
    /// Payload bytes that its reads gave.
    pub recv: u64,
    /// `closed`, `reset` or `refused`.
    pub outcome: String,
    /// The process that did it.
    pub pid: u32,
}

/// The ports of a running server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// The port of each manner.
    pub ports: BTreeMap<Manner, u16>,
    /// Ports that answer every datagram with one of the same length.
    pub datagram_ports: Vec<u16>,
}

/// Prints truth lines; several threads share one.
#[derive(Clone, Debug, Default)]
pub struct Teller {
    lock: Arc<Mutex<()>>,
}

impl Teller {
    fn tell(&self, truth: &Truth) {
        let Ok(line) = serde_json::to_string(truth) else { return };
        let _guard = self.lock.lock();
        let mut out = std::io::stdout();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    fn tcp(&self, role: &str, stream: &Counted, outcome: &str) {
        self.tell(&Truth {
            role: role.into(),
            protocol: "tcp".into(),
            local: stream.local,
            remote: stream.remote,
            sent: stream.sent,
            recv: stream.recv,
            outcome: outcome.into(),
            pid: std::process::id(),
        });
    }
}

/// A TCP stream that counts what its calls return.
#[derive(Debug)]
struct Counted {
    stream: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
    sent: u64,
    recv: u64,
}

impl Counted {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        let (local, remote) = (plain(stream.local_addr()?), plain(stream.peer_addr()?));
        Ok(Self { stream, local, remote, sent: 0, recv: 0 })
    }

    fn connect(server: SocketAddr) -> Result<Self> {
        Self::new(TcpStream::connect(server).with_context(|| format!("failed to connect to {server}"))?)
    }

    fn send(&mut self, bytes: u64) -> std::io::Result<()> {
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
    fn take(&mut self, at_most: usize) -> std::io::Result<usize> {
        let mut block = [0_u8; BLOCK];
        let want = at_most.min(block.len());
        let got = self.stream.read(&mut block[..want])?;
        self.recv += got as u64;
        Ok(got)
    }

    fn receive(&mut self, bytes: u64) -> std::io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            match self.take(left.min(BLOCK as u64) as usize)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                got => left -= got as u64,
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> std::io::Result<()> {
        while self.take(BLOCK)? > 0 {}
        Ok(())
    }

    /// Sends and reads back at the same time, so that neither side's buffers fill.
    fn echo(&mut self, bytes: u64) -> Result<()> {
        let mut writer = Self { stream: self.stream.try_clone()?, sent: 0, recv: 0, ..*self };
        let sender = std::thread::spawn(move || writer.send(bytes).map(|()| writer.sent));
        self.receive(bytes)?;
        match sender.join() {
            Ok(sent) => self.sent += sent?,
            Err(_) => bail!("the sending thread panicked"),
        }
        Ok(())
    }
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Serves every manner on a port of its own (0.0.0.0 and, dual stack, `::`), prints [`Listening`] and then the truth of
/// each connection, for ever.
///
/// # Errors
/// When a port cannot be bound.
pub fn serve() -> Result<()> {
    let teller = Teller::default();
    let mut ports = BTreeMap::new();
    for manner in [Manner::Echo, Manner::Sink, Manner::Reset] {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
        socket.listen(4096)?;
        let listener = TcpListener::from(socket);
        ports.insert(manner, listener.local_addr()?.port());
        let teller = teller.clone();
        std::thread::spawn(move || accept(&listener, manner, &teller));
    }
    let mut datagram_ports = Vec::new();
    let mut answering = Vec::new();
    for _ in 0..3 {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        datagram_ports.push(socket.local_addr()?.port());
        answering.push(std::thread::spawn(move || answer_datagrams(&socket)));
    }
    println!("{}", serde_json::to_string(&Listening { ports, datagram_ports })?);
    for thread in answering {
        match thread.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("a datagram thread panicked"),
        }
    }
    Ok(())
}

fn accept(listener: &TcpListener, manner: Manner, teller: &Teller) {
    for stream in listener.incoming().filter_map(std::result::Result::ok) {
        let teller = teller.clone();
        std::thread::spawn(move || {
            let Ok(mut stream) = Counted::new(stream) else { return };
            let outcome = match answer(&mut stream, manner) {
                Ok(outcome) => outcome,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => "reset",
                Err(_) => "broken",
            };
            teller.tcp("server", &stream, outcome);
        });
    }
}

fn answer(stream: &mut Counted, manner: Manner) -> std::io::Result<&'static str> {
    match manner {
        Manner::Echo => loop {
            match stream.take(BLOCK)? {
                0 => return Ok("closed"),
                got => stream.send(got as u64)?,
            }
        },
        Manner::Sink => {
            stream.drain()?;
            stream.send(8)?;
            Ok("closed")
        }
        Manner::Reset => {
            stream.receive(1000)?;
            SockRef::from(&stream.stream).set_linger(Some(Duration::ZERO))?;
            Ok("reset")
        }
    }
}

fn answer_datagrams(socket: &UdpSocket) -> Result<()> {
    let mut block = [0_u8; BLOCK];
    loop {
        let (length, peer) = socket.recv_from(&mut block)?;
        socket.send_to(&block[..length], peer)?;
    }
}

/// Plays `script` against `servers` (all scripts but `Datagrams` use the first) and prints the truth.
///
/// # Errors
/// When an exchange does not go as the script says.
pub fn run(script: &Script, servers: &[SocketAddr]) -> Result<()> {
    let teller = Teller::default();
    let Some(&server) = servers.first() else { bail!("no server address was given") };
    match *script {
        Script::Echo { bytes } => echo(server, bytes, &teller),
        Script::Upload { bytes } => {
            let mut stream = Counted::connect(server)?;
            stream.send(bytes)?;
            stream.stream.shutdown(Shutdown::Write)?;
            stream.drain()?;
            close(stream, &teller, "closed");
            Ok(())
        }
        Script::Reset => {
            let mut stream = Counted::connect(server)?;
            stream.send(1000)?;
            match stream.drain() {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    close(stream, &teller, "reset");
                    Ok(())
                }
                other => bail!("expected a reset, got {other:?}"),
            }
        }
        Script::Refused => refused(server, &teller),
        Script::Reuse => reuse(server, &teller),
        Script::Short { connections } => {
            for number in 0..connections {
                echo(server, number % 200 + 1, &teller)?;
            }
            Ok(())
        }
        Script::Datagrams { count } => datagrams(servers, count, &teller),
        Script::Hold { bytes } => {
            let mut stream = Counted::connect(server)?;
            println!("{{\"local\":\"{}\"}}", stream.local);
            for line in std::io::stdin().lines() {
                line?;
                stream.echo(bytes)?;
                println!("{{\"sent\":{}}}", stream.sent);
            }
            close(stream, &teller, "closed");
            Ok(())
        }
        Script::Churn => churn(server, &teller),
    }
}

fn close(stream: Counted, teller: &Teller, outcome: &str) {
    teller.tcp("client", &stream, outcome);
    drop(stream);
}

fn echo(server: SocketAddr, bytes: u64, teller: &Teller) -> Result<()> {
    let mut stream = Counted::connect(server)?;
    stream.echo(bytes)?;
    stream.stream.shutdown(Shutdown::Write)?;
    stream.drain()?;
    close(stream, teller, "closed");
    Ok(())
}

/// Binds first, so that the local port of the failed connect is known.
fn refused(server: SocketAddr, teller: &Teller) -> Result<()> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::LOCALHOST, 0).into() } else { (Ipv6Addr::LOCALHOST, 0).into() };
    socket.bind(&any.into())?;
    let local = socket.local_addr()?.as_socket().context("an IP address")?;
    match socket.connect(&server.into()) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        other => bail!("expected a refusal from {server}, got {other:?}"),
    }
    teller.tell(&Truth {
        role: "client".into(),
        protocol: "tcp".into(),
        local,
        remote: server,
        sent: 0,
        recv: 0,
        outcome: "refused".into(),
        pid: std::process::id(),
    });
    Ok(())
}

/// `connect(AF_UNSPEC)` resets the socket (the peer sees a reset), keeps its cookie and restarts its counters.
fn reuse(server: SocketAddr, teller: &Teller) -> Result<()> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    for bytes in [700_u64, 30, 90_000] {
        socket.connect(&server.into())?;
        let mut stream = Counted::new(TcpStream::from(socket.try_clone()?))?;
        stream.echo(bytes)?;
        teller.tcp("client", &stream, "closed");
        rustix::net::connect_unspec(&socket)?;
    }
    Ok(())
}

fn datagrams(servers: &[SocketAddr], count: u64, teller: &Teller) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut totals: BTreeMap<SocketAddr, (u64, u64)> = BTreeMap::new();
    let mut block = [0_u8; BLOCK];
    for number in 0..count {
        for (index, &server) in servers.iter().enumerate() {
            let length = 1 + (number as usize * 37 + index * 101) % 1200;
            let sent = socket.send_to(&block[..length], server)? as u64;
            let (got, peer) = socket.recv_from(&mut block)?;
            totals.entry(server).or_default().0 += sent;
            totals.entry(peer).or_default().1 += got as u64;
        }
    }
    let port = socket.local_addr()?.port();
    for (remote, (sent, recv)) in totals {
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        for (role, local, remote, sent, recv) in
            [("client", local, remote, sent, recv), ("server", remote, local, recv, sent)]
        {
            teller.tell(&Truth {
                role: role.into(),
                protocol: "udp".into(),
                local,
                remote,
                sent,
                recv,
                outcome: "closed".into(),
                pid: std::process::id(),
            });
        }
    }
    Ok(())
}

/// Two kept connections that echo all the time beside ones that come and go, until standard input ends.
fn churn(server: SocketAddr, teller: &Teller) -> Result<()> {
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut threads = Vec::new();
    for kind in 0..4_u64 {
        let (stop, teller) = (Arc::clone(&stop), teller.clone());
        threads.push(std::thread::spawn(move || -> Result<()> {
            let mut kept = if kind < 2 { Some(Counted::connect(server)?) } else { None };
            let mut number = kind;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                number += 1;
                let bytes = number * 7919 % 20_000 + 1;
                match &mut kept {
                    Some(stream) => stream.echo(bytes)?,
                    None => echo(server, bytes, &teller)?,
                }
                #[expect(clippy::disallowed_methods, reason = "paces the traffic; nothing waits for it")]
                std::thread::sleep(Duration::from_millis(5));
            }
            if let Some(mut stream) = kept {
                stream.stream.shutdown(Shutdown::Write)?;
                stream.drain()?;
                close(stream, &teller, "closed");
            }
            Ok(())
        }));
    }
    for line in std::io::stdin().lines() {
        line?;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for thread in threads {
        match thread.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("a traffic thread panicked"),
        }
    }
    Ok(())
}
