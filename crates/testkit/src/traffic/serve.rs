//! The server: a port for each manner, IPv4 and IPv6 (one dual-stack socket: an IPv4 client is `::ffff:a.b.c.d` to it).

use super::calls::{allow_fast_open, wait_unread};
use super::counted::{BLOCK, Counted, PATIENCE};
use super::endings::linger_zero;
use super::tell::Teller;
use super::truth::{Outcome, Role};
use super::{datagrams, dns, heirs};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a server does with a connection, or with datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// Sends everything back until the client is done, then closes.
    Echo,
    /// Reads until the client is done, then sends 8 bytes and closes.
    Sink,
    /// Reads 1,000 bytes, then closes with a reset.
    Reset,
    /// Reads how many bytes the client wants (8 bytes, big endian), sends them, closes its half, reads to the end.
    Source,
    /// Reads 1,000 of 10,000 bytes, then closes: the kernel sends a reset since the rest is unread.
    Unread,
    /// Sends 1 byte, then reads nothing until the connection breaks.
    Deaf,
    /// As `Echo`, by one of the processes that share the listener.
    Prefork,
    /// As `Echo`, on a multipath TCP listener.
    Mptcp,
    /// UDP: answers every datagram with one of the same length.
    Answer,
    /// The same on another port: another peer.
    AnswerToo,
    /// UDP with a small buffer: reads nothing until the end.
    Slow,
    /// UDP: answers questions, see the room `dns`.
    Dns,
}

impl Manner {
    /// Every one, in the order of their ports.
    pub const ALL: [Self; 12] = [
        Self::Echo,
        Self::Sink,
        Self::Reset,
        Self::Source,
        Self::Unread,
        Self::Deaf,
        Self::Prefork,
        Self::Mptcp,
        Self::Answer,
        Self::AnswerToo,
        Self::Slow,
        Self::Dns,
    ];

    /// How far its port lies above the first one, where the ports are fixed.
    pub fn offset(self) -> u16 {
        self as u16
    }

    fn is_tcp(self) -> bool {
        !matches!(self, Self::Answer | Self::AnswerToo | Self::Slow | Self::Dns)
    }
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Offer {
    /// The first manner's port; the others follow. Without it, any free ports.
    #[arg(long)]
    first_port: Option<u16>,
    /// The port for DNS instead.
    #[arg(long)]
    dns_port: Option<u16>,
}

impl Offer {
    fn port(self, manner: Manner) -> u16 {
        match (manner, self.dns_port, self.first_port) {
            (Manner::Dns, Some(port), _) => port,
            (_, _, Some(first)) => first + manner.offset(),
            _ => 0,
        }
    }
}

/// The ports of a running server: its first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// The port of each manner.
    pub ports: BTreeMap<Manner, u16>,
}

/// Prefork processes of one listener.
const WORKERS: usize = 3;

/// Serves every manner on a port of its own, prints [`Listening`] and then the truth of each connection when it ends.
/// When its standard input ends it lets its connections end, tells of every peer of its UDP sockets, and returns.
///
/// # Errors
/// When a port cannot be bound.
pub fn serve(offer: Offer) -> Result<()> {
    let teller = Teller::new()?;
    let attended = Arc::new(AtomicU64::new(0));
    let mut ports = BTreeMap::new();
    let (mut listeners, mut accepting, mut workers) = (Vec::new(), Vec::new(), Vec::new());
    let mut sockets = Vec::new();
    for manner in Manner::ALL {
        let any = (Ipv6Addr::UNSPECIFIED, offer.port(manner));
        if !manner.is_tcp() {
            let socket = datagrams::open(any.into(), manner)?;
            ports.insert(manner, socket.local_addr()?.port());
            sockets.push((manner, socket));
            continue;
        }
        let protocol = (manner == Manner::Mptcp).then_some(Protocol::MPTCP);
        let socket = Socket::new(Domain::IPV6, Type::STREAM, protocol)?;
        socket.set_only_v6(false)?;
        socket.set_reuse_address(true)?;
        socket.bind(&std::net::SocketAddr::from(any).into()).with_context(|| format!("the port of {manner:?}"))?;
        if manner == Manner::Echo {
            allow_fast_open(&socket)?;
        }
        socket.listen(4096)?;
        let listener = Arc::new(TcpListener::from(socket));
        ports.insert(manner, listener.local_addr()?.port());
        listeners.push(Arc::clone(&listener));
        if manner == Manner::Prefork {
            workers = heirs::prefork(&listener, WORKERS)?;
            continue;
        }
        let (teller, attended) = (teller.clone(), Arc::clone(&attended));
        accepting.push(std::thread::spawn(move || accept(&listener, manner, &teller, &attended)));
    }
    teller.line(&Listening { ports });
    let answering: Vec<_> = sockets
        .into_iter()
        .map(|(manner, socket)| {
            let stopper = socket.try_clone()?;
            let teller = teller.clone();
            let thread = std::thread::spawn(move || attend_datagrams(&socket, manner, &teller));
            Ok((stopper, thread))
        })
        .collect::<Result<_>>()?;

    for line in std::io::stdin().lines() {
        line?;
    }
    for listener in &listeners {
        nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&listener.as_fd()),
            nix::sys::socket::Shutdown::Both,
        )?;
    }
    for thread in accepting {
        if thread.join().is_err() {
            bail!("an accepting thread panicked");
        }
    }
    crate::process::until(PATIENCE, || Ok(attended.load(Ordering::SeqCst) == 0))
        .context("connections are still open")?;
    for mut worker in workers {
        worker.wait()?;
    }
    for (stopper, thread) in answering {
        datagrams::stop(&stopper)?;
        match thread.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("a datagram thread panicked"),
        }
    }
    Ok(())
}

fn attend_datagrams(socket: &UdpSocket, manner: Manner, teller: &Teller) -> Result<()> {
    match manner {
        Manner::Slow => datagrams::drain_at_the_end(socket, teller),
        Manner::Dns => dns::serve(socket, teller),
        _ => datagrams::answer(socket, teller),
    }
}

fn accept(listener: &TcpListener, manner: Manner, teller: &Teller, attended: &Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept() {
        attended.fetch_add(1, Ordering::SeqCst);
        let (teller, attended) = (teller.clone(), Arc::clone(attended));
        std::thread::spawn(move || {
            attend(stream, manner, &teller);
            attended.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Serves one connection to its end and tells of it.
pub(super) fn attend(stream: TcpStream, manner: Manner, teller: &Teller) {
    let Ok(mut stream) = Counted::new(stream) else { return };
    let outcome = match converse(&mut stream, manner) {
        Ok(outcome) => outcome,
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(is_reset) => Outcome::Reset,
        Err(_) => Outcome::Broken,
    };
    teller.tcp(Role::Server, &stream, outcome);
}

fn is_reset(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

fn converse(stream: &mut Counted, manner: Manner) -> Result<Outcome> {
    match manner {
        Manner::Sink => {
            stream.drain()?;
            stream.send(8)?;
        }
        Manner::Reset => {
            stream.receive(1_000)?;
            linger_zero(stream)?;
            return Ok(Outcome::Aborted);
        }
        Manner::Source => {
            use std::io::Read as _;
            let mut wanted = [0; 8];
            stream.stream.read_exact(&mut wanted)?;
            stream.recv += 8;
            stream.send(u64::from_be_bytes(wanted))?;
            stream.stream.shutdown(Shutdown::Write)?;
            stream.drain()?;
        }
        Manner::Unread => {
            stream.receive(1_000)?;
            wait_unread(stream, 9_000)?;
            return Ok(Outcome::Aborted);
        }
        Manner::Deaf => {
            stream.send(1)?;
            // POLLERR and POLLHUP are always asked for.
            let mut wait = [PollFd::new(stream.stream.as_fd(), PollFlags::empty())];
            poll(&mut wait, PollTimeout::try_from(PATIENCE)?)?;
            return Ok(Outcome::Reset);
        }
        _ => loop {
            match stream.take(BLOCK)? {
                0 => break,
                got => stream.send(got as u64)?,
            }
        },
    }
    Ok(Outcome::Closed)
}
