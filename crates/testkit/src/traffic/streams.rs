//! TCP exchanges that end well.

use super::Socket;
use super::calls::{self, Reading, Writing};
use super::counted::Counted;
use super::tell::Teller;
use super::truth::{Outcome, Role};
use anyhow::{Result, bail};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Tells of a client's stream and closes it.
pub(super) fn close(stream: Counted, teller: &Teller) {
    teller.tcp(Role::Client, &stream, Outcome::Closed);
    drop(stream);
}

pub(super) fn echo(server: SocketAddr, bytes: u64, over: Socket, teller: &Teller) -> Result<()> {
    let mut stream = calls::open(server, over, bytes)?;
    let left = bytes - stream.sent;
    let early = stream.sent;
    stream.echo(left)?;
    stream.receive(early)?;
    stream.stream.shutdown(Shutdown::Write)?;
    stream.drain()?;
    close(stream, teller);
    Ok(())
}

pub(super) fn upload(server: SocketAddr, bytes: u64, by: Writing, teller: &Teller) -> Result<()> {
    let mut stream = Counted::connect(server)?;
    calls::write(&mut stream, bytes, by)?;
    stream.stream.shutdown(Shutdown::Write)?;
    stream.drain()?;
    close(stream, teller);
    Ok(())
}

pub(super) fn download(server: SocketAddr, bytes: u64, by: Reading, teller: &Teller) -> Result<()> {
    use std::io::Write as _;
    let mut stream = Counted::connect(server)?;
    stream.stream.write_all(&bytes.to_be_bytes())?;
    stream.sent += 8;
    calls::read(&mut stream, bytes, by)?;
    stream.drain()?;
    stream.send(1_000)?;
    close(stream, teller);
    Ok(())
}

pub(super) fn paced(server: SocketAddr, bytes: u64, rate: u64, teller: &Teller) -> Result<()> {
    let mut stream = Counted::connect(server)?;
    let portion = (rate / 50).max(1);
    while stream.sent < bytes {
        stream.echo(portion.min(bytes - stream.sent))?;
        pause(Duration::from_millis(20));
    }
    stream.stream.shutdown(Shutdown::Write)?;
    stream.drain()?;
    close(stream, teller);
    Ok(())
}

pub(super) fn short(server: SocketAddr, connections: u64, teller: &Teller) -> Result<()> {
    for number in 0..connections {
        echo(server, number % 200 + 1, Socket::Plain, teller)?;
    }
    Ok(())
}

pub(super) fn hold(server: SocketAddr, bytes: u64, teller: &Teller) -> Result<()> {
    let mut stream = Counted::connect(server)?;
    println!("{{\"local\":\"{}\"}}", stream.local);
    for line in std::io::stdin().lines() {
        line?;
        stream.echo(bytes)?;
        println!("{{\"sent\":{}}}", stream.sent);
    }
    stream.stream.shutdown(Shutdown::Write)?;
    stream.drain()?;
    close(stream, teller);
    Ok(())
}

/// Two kept connections that echo all the time beside ones that come and go, until standard input ends.
pub(super) fn churn(server: SocketAddr, teller: &Teller) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for kind in 0..4_u64 {
        let (stop, teller) = (Arc::clone(&stop), teller.clone());
        threads.push(std::thread::spawn(move || -> Result<()> {
            let mut kept = if kind < 2 { Some(Counted::connect(server)?) } else { None };
            let mut number = kind;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let bytes = number * 7919 % 20_000 + 1;
                match &mut kept {
                    Some(stream) => stream.echo(bytes)?,
                    None => echo(server, bytes, Socket::Plain, &teller)?,
                }
                pause(Duration::from_millis(15));
            }
            if let Some(mut stream) = kept {
                stream.stream.shutdown(Shutdown::Write)?;
                stream.drain()?;
                close(stream, &teller);
            }
            Ok(())
        }));
    }
    for line in std::io::stdin().lines() {
        line?;
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        match thread.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("a traffic thread panicked"),
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "paces the traffic; nothing waits for it")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
