//! UDP: connected and unconnected, one peer and many, empty, segmented, unread.

use super::counted::{BLOCK, PATIENCE};
use super::endings::source_for;
use super::serve::Manner;
use super::sockets;
use super::tell::{Teller, now_ns, plain};
use super::truth::{Outcome, Role, Word};
use anyhow::{Context, Result, bail, ensure};
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Octets of the receive buffer of the slow server: a few dozen datagrams of 1,000.
const SMALL_BUFFER: usize = 65_536;

/// What came from and went to each peer.
#[derive(Debug, Default)]
pub(super) struct Peers(BTreeMap<(SocketAddr, SocketAddr), (Word, u64)>);

impl Peers {
    pub(super) fn add(&mut self, local: SocketAddr, remote: SocketAddr, sent: usize, recv: usize) {
        let ends = (plain(local), plain(remote));
        let (moved, _) = self.0.entry(ends).or_insert((Word::default(), now_ns()));
        moved.sent += sent as u64;
        moved.recv += recv as u64;
    }

    pub(super) fn tell(&self, role: Role, outcome: Outcome, teller: &Teller) {
        for (ends, (moved, started)) in &self.0 {
            teller.udp(role, *ends, *moved, outcome, *started);
        }
    }
}

/// A dual-stack socket that tells to which of its addresses a datagram came.
pub(super) fn open(at: SocketAddr, manner: Manner) -> Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)?;
    socket.set_only_v6(false)?;
    if manner == Manner::Slow {
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
    }
    socket.bind(&at.into()).with_context(|| format!("the port of {manner:?}"))?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    Ok(socket.into())
}

/// Ends the loops that read from `socket`.
pub(super) fn stop(socket: &UdpSocket) -> Result<()> {
    match nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Read) {
        // It wakes readers even where the socket is not connected.
        Ok(()) | Err(nix::errno::Errno::ENOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A datagram that came: how long, to which own address, from whom. `None` once the socket was stopped.
pub(super) fn receive(socket: &UdpSocket, block: &mut [u8]) -> Result<Option<(usize, SocketAddr, SocketAddr)>> {
    let port = socket.local_addr()?.port();
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(block)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
    let Some(peer) = message.address.as_ref().and_then(address) else { return Ok(None) };
    let own = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    // Every datagram tells where it came to; a socket that was stopped gives nothing.
    Ok(own.map(|own| (message.bytes, SocketAddr::new(IpAddr::V6(own), port), peer)))
}

/// Sends from the own address that the question came to.
pub(super) fn reply(socket: &UdpSocket, payload: &[u8], local: SocketAddr, peer: SocketAddr) -> Result<usize> {
    let IpAddr::V6(own) = local.ip() else { bail!("the server's sockets are IPv6 ones") };
    let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: own.octets() }, ipi6_ifindex: 0 };
    let parts = [IoSlice::new(payload)];
    let control = [ControlMessage::Ipv6PacketInfo(&info)];
    let to = SockaddrStorage::from(peer);
    Ok(sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&to))?)
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v6) = storage.as_sockaddr_in6() {
        return Some(SocketAddr::from((v6.ip(), v6.port())));
    }
    storage.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())))
}

/// Answers every datagram with one of the same length, until stopped.
pub(super) fn answer(socket: &UdpSocket, teller: &Teller) -> Result<()> {
    let mut block = [0_u8; BLOCK];
    let mut peers = Peers::default();
    while let Some((length, local, peer)) = receive(socket, &mut block)? {
        let sent = reply(socket, &block[..length], local, peer)?;
        peers.add(local, peer, sent, length);
    }
    peers.tell(Role::Server, Outcome::Closed, teller);
    Ok(())
}

/// Reads nothing until the socket is stopped, then what the kernel has kept: all that it accepted.
pub(super) fn drain_at_the_end(socket: &UdpSocket, teller: &Teller) -> Result<()> {
    let stopped = nix::poll::PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut wait = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(socket), stopped)];
    nix::poll::poll(&mut wait, nix::poll::PollTimeout::NONE)?;
    socket.set_nonblocking(true)?;
    let mut block = [0_u8; BLOCK];
    let mut peers = Peers::default();
    loop {
        match receive(socket, &mut block) {
            Ok(Some((length, local, peer))) => peers.add(local, peer, 0, length),
            Ok(None) => break,
            Err(error) if error.downcast_ref() == Some(&nix::errno::Errno::EAGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    peers.tell(Role::Server, Outcome::Closed, teller);
    Ok(())
}

/// A client's socket, not connected, with a deadline.
fn client(server: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// This end of an unconnected socket's exchanges with `server`.
fn own_end(socket: &UdpSocket, server: SocketAddr) -> Result<SocketAddr> {
    Ok(SocketAddr::new(source_for(server)?.ip(), socket.local_addr()?.port()))
}

fn length(number: u64, index: usize) -> usize {
    1 + (number as usize * 37 + index * 101) % 1_200
}

pub(super) fn unconnected(servers: &[SocketAddr], count: u64, teller: &Teller) -> Result<()> {
    let &first = servers.first().context("no server was named")?;
    let socket = client(first)?;
    let mut peers = Peers::default();
    let mut block = [0_u8; BLOCK];
    for number in 0..count {
        for (index, &server) in servers.iter().enumerate() {
            let sent = socket.send_to(&block[..length(number, index)], server)?;
            let (got, peer) = socket.recv_from(&mut block)?;
            ensure!(plain(peer) == plain(server) && got == sent, "{peer} answered for {server}");
            peers.add(own_end(&socket, server)?, server, sent, got);
        }
    }
    peers.tell(Role::Client, Outcome::Closed, teller);
    Ok(())
}

pub(super) fn connected(servers: &[SocketAddr], count: u64, teller: &Teller) -> Result<()> {
    let mut peers = Peers::default();
    let mut block = [0_u8; BLOCK];
    for (index, &server) in servers.iter().enumerate() {
        let socket = client(server)?;
        socket.connect(server)?;
        for number in 0..count {
            let sent = socket.send(&block[..length(number, index)])?;
            // Without an address: recv(2), as most clients of a connected socket do.
            let got = socket.recv(&mut block)?;
            peers.add(socket.local_addr()?, server, sent, got);
        }
    }
    peers.tell(Role::Client, Outcome::Closed, teller);
    Ok(())
}

pub(super) fn empty(server: SocketAddr, count: u64, teller: &Teller) -> Result<()> {
    let socket = client(server)?;
    let mut peers = Peers::default();
    let mut block = [0_u8; 8];
    for _ in 0..count {
        let sent = socket.send_to(&[], server)?;
        let (got, _) = socket.recv_from(&mut block)?;
        peers.add(own_end(&socket, server)?, server, sent, got);
    }
    peers.tell(Role::Client, Outcome::Closed, teller);
    Ok(())
}

pub(super) fn peers(server: SocketAddr, count: u64, teller: &Teller) -> Result<()> {
    let mut peers = Peers::default();
    let mut sockets = Vec::new();
    let mut block = [0_u8; BLOCK];
    for number in 0..count {
        let socket = client(server)?;
        let sent = socket.send_to(&block[..length(number, 0)], server)?;
        let (got, _) = socket.recv_from(&mut block)?;
        peers.add(own_end(&socket, server)?, server, sent, got);
        // All at once: so many peers at a time.
        sockets.push(socket);
    }
    peers.tell(Role::Client, Outcome::Closed, teller);
    Ok(())
}

pub(super) fn segments(server: SocketAddr, teller: &Teller) -> Result<()> {
    const SEGMENT: usize = 1_000;
    let socket = client(server)?;
    sockets::set(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, SEGMENT as i32)?;
    let payload = [0_u8; 10 * SEGMENT + 500];
    let sent = socket.send_to(&payload, server)?;
    let mut peers = Peers::default();
    peers.add(own_end(&socket, server)?, server, sent, 0);
    let mut block = [0_u8; BLOCK];
    for _ in 0..11 {
        let (got, _) = socket.recv_from(&mut block)?;
        peers.add(own_end(&socket, server)?, server, 0, got);
    }
    peers.tell(Role::Client, Outcome::Closed, teller);
    Ok(())
}

pub(super) fn flood(server: SocketAddr, count: u64, teller: &Teller) -> Result<()> {
    let socket = client(server)?;
    let mut peers = Peers::default();
    for _ in 0..count {
        let sent = socket.send_to(&[0; 1_000], server)?;
        peers.add(own_end(&socket, server)?, server, sent, 0);
    }
    peers.tell(Role::Client, Outcome::Closed, teller);
    Ok(())
}

pub(super) fn nobody(server: SocketAddr, teller: &Teller) -> Result<()> {
    let socket = client(server)?;
    socket.connect(server)?;
    let sent = socket.send(&[0; 77])?;
    match socket.recv(&mut [0; 8]) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        other => bail!("expected a refusal from {server}, got {other:?}"),
    }
    let mut peers = Peers::default();
    peers.add(socket.local_addr()?, server, sent, 0);
    peers.tell(Role::Client, Outcome::Refused, teller);
    Ok(())
}
