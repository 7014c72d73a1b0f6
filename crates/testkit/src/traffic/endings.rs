//! TCP exchanges that end badly, or never begin. Every end that is torn off tells the kernel's own last word.

use super::calls::wait_unread;
use super::counted::Counted;
use super::sockets;
use super::tell::{Teller, now_ns};
use super::truth::{Outcome, Role, Truth};
use crate::process::die_with_parent;
use anyhow::{Context, Result, bail, ensure};
use nix::libc;
use socket2::{Domain, SockRef, Type};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a process that is killed has done with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Answer {
    /// It has read it: the kernel closes the connection in order.
    Read,
    /// It lies unread: the kernel resets the connection.
    Unread,
}

fn end(stream: Counted, teller: &Teller, outcome: Outcome) {
    teller.tcp(Role::Client, &stream, outcome);
    drop(stream);
}

/// Reads until the reset.
fn expect_reset(stream: &mut Counted) -> Result<()> {
    match stream.drain() {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("expected a reset, got {other:?}"),
    }
}

pub(super) fn linger_zero(stream: &Counted) -> Result<()> {
    Ok(SockRef::from(&stream.stream).set_linger(Some(Duration::ZERO))?)
}

pub(super) fn reset(server: SocketAddr, teller: &Teller) -> Result<()> {
    let mut stream = Counted::connect(server)?;
    stream.send(1_000)?;
    expect_reset(&mut stream)?;
    end(stream, teller, Outcome::Reset);
    Ok(())
}

pub(super) fn unread(server: SocketAddr, teller: &Teller) -> Result<()> {
    let mut stream = Counted::connect(server)?;
    stream.send(10_000)?;
    expect_reset(&mut stream)?;
    end(stream, teller, Outcome::Reset);
    Ok(())
}

pub(super) fn abort(server: SocketAddr, bytes: u64, teller: &Teller) -> Result<()> {
    let mut stream = Counted::connect(server)?;
    stream.echo(bytes)?;
    stream.rest()?;
    linger_zero(&stream)?;
    end(stream, teller, Outcome::Aborted);
    Ok(())
}

pub(super) fn abort_queued(server: SocketAddr, teller: &Teller) -> Result<()> {
    let mut stream = Counted::connect(server)?;
    stream.receive(1)?;
    stream.stream.set_nonblocking(true)?;
    loop {
        match stream.send(super::counted::BLOCK as u64) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let before = stream.info()?;
                stream.rest()?;
                // What became free while it came to rest is filled again, until nothing moves.
                if stream.info()?.bytes_sent == before.bytes_sent {
                    break;
                }
            }
            other => other?,
        }
    }
    let word = stream.word()?;
    ensure!(word.sent < stream.sent, "nothing is queued: {word:?} of {}", stream.sent);
    linger_zero(&stream)?;
    end(stream, teller, Outcome::Aborted);
    Ok(())
}

pub(super) fn reuse(server: SocketAddr, teller: &Teller) -> Result<()> {
    // connect(AF_UNSPEC) resets the connection (the peer sees a reset); socket and cookie stay, its counters begin anew.
    let socket = socket2::Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    for bytes in [700_u64, 30, 90_000] {
        socket.connect(&server.into())?;
        let mut stream = Counted::new(TcpStream::from(socket.try_clone()?))?;
        stream.echo(bytes)?;
        stream.rest()?;
        teller.tcp(Role::Client, &stream, Outcome::Disconnected);
        rustix::net::connect_unspec(&socket)?;
    }
    Ok(())
}

pub(super) fn same_tuple(server: SocketAddr, connections: u64, teller: &Teller) -> Result<()> {
    let source = source_for(server)?;
    let mut from = SocketAddr::new(source.ip(), 0);
    for number in 0..connections {
        let socket = socket2::Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        from = socket.local_addr()?.as_socket().context("an IP address")?;
        socket.connect(&server.into()).with_context(|| format!("failed to use {from} to {server} again"))?;
        let mut stream = Counted::new(TcpStream::from(socket))?;
        stream.echo(number * 100 + 1)?;
        stream.rest()?;
        linger_zero(&stream)?;
        end(stream, teller, Outcome::Aborted);
    }
    Ok(())
}

/// Starts the victim, passes on its truth, kills it.
pub(super) fn killed(server: SocketAddr, bytes: u64, answer: Answer) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    let answer = if answer == Answer::Read { "read" } else { "unread" };
    command.args(["victim", "--bytes", &bytes.to_string(), "--answer", answer, &server.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = die_with_parent(command).spawn()?;
    let output = child.stdout.take().context("standard output was piped")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let truth: Truth = serde_json::from_str(&line).context("the victim's truth")?;
    ensure!(truth.pid == child.id(), "the truth of another process");
    child.kill()?;
    child.wait()?;
    print!("{line}");
    std::io::stdout().flush()?;
    Ok(())
}

/// Echoes, tells, and waits to be killed.
pub(super) fn victim(server: SocketAddr, bytes: u64, answer: Answer, teller: &Teller) -> Result<()> {
    let mut stream = Counted::connect(server)?;
    match answer {
        Answer::Read => {
            stream.echo(bytes)?;
            stream.rest()?;
            teller.tcp(Role::Client, &stream, Outcome::Killed);
        }
        Answer::Unread => {
            stream.send(bytes)?;
            wait_unread(&stream, bytes)?;
            stream.rest()?;
            teller.tcp(Role::Client, &stream, Outcome::Aborted);
        }
    }
    for line in std::io::stdin().lines() {
        line?;
    }
    bail!("nobody killed it")
}

/// The address that this machine would use towards `server`, with a free port. Sends nothing.
pub(super) fn source_for(server: SocketAddr) -> Result<SocketAddr> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    Ok(socket.local_addr()?)
}

/// Binds first, so that the local port of the failed connect is known.
fn bound(server: SocketAddr) -> Result<(socket2::Socket, SocketAddr)> {
    let socket = socket2::Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source_for(server)?.ip(), 0).into())?;
    let local = socket.local_addr()?.as_socket().context("an IP address")?;
    Ok((socket, local))
}

pub(super) fn refused(server: SocketAddr, teller: &Teller) -> Result<()> {
    let (socket, local) = bound(server)?;
    let started = now_ns();
    match socket.connect(&server.into()) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        other => bail!("expected a refusal from {server}, got {other:?}"),
    }
    teller.failed((local, server), Outcome::Refused, started);
    Ok(())
}

pub(super) fn timed_out(server: SocketAddr, teller: &Teller) -> Result<()> {
    let (socket, local) = bound(server)?;
    sockets::set(&socket, libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1)?;
    let started = now_ns();
    match socket.connect(&server.into()) {
        Err(error) if error.kind() == ErrorKind::TimedOut => {}
        other => bail!("expected no answer from {server}, got {other:?}"),
    }
    teller.failed((local, server), Outcome::TimedOut, started);
    Ok(())
}
