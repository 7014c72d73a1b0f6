//! The two ends, and the operations between them.

use super::place::Ground;
use super::{Made, Quartiles, Told, Workload};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;

/// The small message, bytes.
pub(super) const SMALL: usize = 64;
/// The large answer, bytes.
pub(super) const LARGE: usize = 65_536;
/// Ports that connections are spread over: each has 64,000 local ports, and an ended connection keeps its own for a
/// minute, so 17,000 connections a second can go on for ever.
const PORTS: usize = 16;
/// A large answer fits twice, so that one thread can write it before it reads it. (The kernel may grant less.)
const BUFFER: usize = 1 << 20;
/// Fresh sockets are slow at first: windows grow, caches fill.
const WARM_UP_NANOS: u64 = 15_000_000;
/// Bounds what is kept of one order: 50 s of rounds.
const ROUNDS_MAX: usize = 100_000;

/// The listeners, and what was done so far by one order.
#[derive(Debug)]
pub(super) struct Ends<'a> {
    ground: &'a Ground,
    listeners: Vec<(TcpListener, SocketAddr)>,
    next: usize,
    /// What a large answer is written from and read into.
    block: Vec<u8>,
    pub(super) made: Made,
    operations: u64,
}

/// Sockets that one order uses all the time.
enum Pair {
    Stream { client: TcpStream, server: TcpStream },
    Datagram { client: UdpSocket, server: UdpSocket },
    None,
}

impl<'a> Ends<'a> {
    /// Opens the listeners.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub(super) fn open(ground: &'a Ground) -> Result<Self> {
        let listeners = ground.at_server(|| (0..PORTS).map(|_| listener(ground)).collect::<Result<Vec<_>>>())?;
        Ok(Self { ground, listeners, next: 0, block: vec![0x5a; LARGE], made: Made::default(), operations: 0 })
    }

    /// See [`super::Order::Time`].
    ///
    /// # Errors
    /// When an exchange fails.
    pub(super) fn time(&mut self, workload: Workload, millis: u32) -> Result<Told> {
        self.begin();
        let pair = self.pair(workload)?;
        let start = nanos(ClockId::CLOCK_MONOTONIC)?;
        while nanos(ClockId::CLOCK_MONOTONIC)? < start + WARM_UP_NANOS {
            self.round(workload, &pair)?;
        }
        let (mut processor, mut wall) = (Vec::new(), Vec::new());
        let end = nanos(ClockId::CLOCK_MONOTONIC)? + u64::from(millis) * 1_000_000;
        loop {
            let before = self.timed_round(workload, &pair, &mut processor, &mut wall)?;
            if before >= end || wall.len() == ROUNDS_MAX {
                break;
            }
        }
        drop(pair);
        self.told(start, &mut processor, &mut wall)
    }

    /// See [`super::Order::Rounds`].
    ///
    /// # Errors
    /// When an exchange fails.
    pub(super) fn rounds(&mut self, workload: Workload, rounds: u32) -> Result<Told> {
        self.begin();
        let pair = self.pair(workload)?;
        let start = nanos(ClockId::CLOCK_MONOTONIC)?;
        let (mut processor, mut wall) = (Vec::new(), Vec::new());
        for _ in 0..rounds.min(ROUNDS_MAX as u32) {
            self.timed_round(workload, &pair, &mut processor, &mut wall)?;
        }
        drop(pair);
        self.told(start, &mut processor, &mut wall)
    }

    /// Forgets what the last order did.
    pub(super) fn begin(&mut self) {
        (self.made, self.operations) = (Made::default(), 0);
    }

    pub(super) fn told(&self, start: u64, processor: &mut [f64], wall: &mut [f64]) -> Result<Told> {
        Ok(Told {
            made: self.made,
            operations: self.operations,
            rounds: wall.len() as u64,
            processor: Quartiles::of(processor),
            wall: Quartiles::of(wall),
            took_ms: (nanos(ClockId::CLOCK_MONOTONIC)? - start) / 1_000_000,
            late_us_max: 0,
        })
    }

    /// Returns when the round ended.
    fn timed_round(
        &mut self,
        workload: Workload,
        pair: &Pair,
        processor: &mut Vec<f64>,
        wall: &mut Vec<f64>,
    ) -> Result<u64> {
        let wall_before = nanos(ClockId::CLOCK_MONOTONIC)?;
        let before = nanos(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        self.round(workload, pair)?;
        let after = nanos(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        let wall_after = nanos(ClockId::CLOCK_MONOTONIC)?;
        let each = |nanos: u64| nanos as f64 / 1000.0 / f64::from(workload.operations());
        processor.push(each(after - before));
        wall.push(each(wall_after - wall_before));
        Ok(wall_after)
    }

    fn round(&mut self, workload: Workload, pair: &Pair) -> Result<()> {
        for _ in 0..workload.operations() {
            match (workload, pair) {
                (Workload::Exchange64, Pair::Stream { client, server }) => self.exchange(client, server)?,
                (Workload::Answer64k, Pair::Stream { client, server }) => self.answer(client, server)?,
                (Workload::Datagram64, Pair::Datagram { client, server }) => self.datagram(client, server)?,
                _ => drop(self.connection()?),
            }
        }
        self.operations += u64::from(workload.operations());
        Ok(())
    }

    fn pair(&mut self, workload: Workload) -> Result<Pair> {
        Ok(match workload {
            Workload::Exchange64 | Workload::Answer64k => {
                let (client, server) = self.connection()?;
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                Pair::Stream { client, server }
            }
            Workload::Datagram64 => {
                let server = self.ground.at_server(|| Ok(UdpSocket::bind((self.ground.address(), 0))?))?;
                let client = UdpSocket::bind(("0.0.0.0", 0))?;
                client.connect(server.local_addr()?)?;
                Pair::Datagram { client, server }
            }
            Workload::ConnectClose => Pair::None,
        })
    }

    /// A connection, the client's end first; a tuple drops its fields in order, so that the client closes first.
    pub(super) fn connection(&mut self) -> Result<(TcpStream, TcpStream)> {
        self.next = (self.next + 1) % self.listeners.len();
        let (listener, address) = &self.listeners[self.next];
        let client = match TcpStream::connect(address) {
            Ok(client) => client,
            Err(error) => {
                self.made.failed += 1;
                return Err(error).with_context(|| format!("failed to connect to {address}"));
            }
        };
        self.made.connected += 1;
        let (server, _) = listener.accept()?;
        self.made.accepted += 1;
        Ok((client, server))
    }

    pub(super) fn exchange(&mut self, mut client: &TcpStream, mut server: &TcpStream) -> Result<()> {
        let mut block = [0x5a_u8; SMALL];
        client.write_all(&block)?;
        server.read_exact(&mut block)?;
        server.write_all(&block)?;
        client.read_exact(&mut block)?;
        self.count(SMALL, SMALL);
        Ok(())
    }

    fn answer(&mut self, mut client: &TcpStream, mut server: &TcpStream) -> Result<()> {
        let block = &mut self.block;
        client.write_all(&block[..SMALL])?;
        server.read_exact(&mut block[..SMALL])?;
        let (mut sent, mut got) = (0, 0);
        while got < LARGE {
            if sent < LARGE {
                match send(server.as_raw_fd(), &block[sent..], MsgFlags::MSG_DONTWAIT) {
                    Ok(took) => sent += took,
                    Err(Errno::EAGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if sent > got {
                got += client.read(&mut block[got..])?;
            }
        }
        self.count(SMALL, LARGE);
        Ok(())
    }

    fn datagram(&mut self, client: &UdpSocket, server: &UdpSocket) -> Result<()> {
        let mut block = [0x5a_u8; SMALL];
        client.send(&block)?;
        let (length, peer) = server.recv_from(&mut block)?;
        server.send_to(&block[..length], peer)?;
        client.recv(&mut block)?;
        self.count(SMALL, SMALL);
        Ok(())
    }

    /// Both ends saw the same: every read above takes exactly what was written.
    fn count(&mut self, request: usize, answer: usize) {
        self.made.client_sent += request as u64;
        self.made.server_recv += request as u64;
        self.made.server_sent += answer as u64;
        self.made.client_recv += answer as u64;
    }

    /// Counts an operation of an order that has no rounds.
    pub(super) fn operation(&mut self) {
        self.operations += 1;
    }
}

fn listener(ground: &Ground) -> Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Connections have the listener's.
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(&SocketAddrV4::new(ground.address(), 0).into())?;
    socket.listen(128)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A clock's time, nanoseconds.
pub(super) fn nanos(clock: ClockId) -> Result<u64> {
    let time = clock_gettime(clock)?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
