//! Sockets that change hands: inherited over fork by a child, and listeners that prefork servers share.
//!
//! A child is this program again, with the socket as its standard input.

use super::counted::Counted;
use super::serve;
use super::tell::Teller;
use super::truth::{Outcome, Role, Word};
use crate::process::die_with_parent;
use anyhow::{Context, Result, ensure};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

/// Which process closes an inherited socket, and so owns it at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Closer {
    /// The child; the parent let it go before.
    Child,
    /// The parent; the child only used it for a while.
    Parent,
}

impl Closer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Child => "child",
            Self::Parent => "parent",
        }
    }
}

/// The name that a worker of a prefork server and an heir take, so that a mistaken owner shows.
const NAME: &std::ffi::CStr = c"weir-heir";

pub(super) fn forked(server: SocketAddr, bytes: u64, closer: Closer, teller: &Teller) -> Result<()> {
    let mut stream = Counted::connect(server)?;
    stream.echo(bytes)?;
    let socket = OwnedFd::from(stream.stream.try_clone()?);
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["heir", "--bytes", &bytes.to_string(), "--before", &stream.sent.to_string()]);
    command.args(["--closer", closer.as_str()]).stdin(Stdio::from(socket));
    let mut command = die_with_parent(command);
    match closer {
        Closer::Child => {
            let mut child = command.spawn()?;
            // The command holds its own copy of the socket.
            drop((command, stream));
            ensure!(child.wait()?.success(), "the heir failed");
        }
        Closer::Parent => {
            let output = command.stdout(Stdio::piped()).output()?;
            drop(command);
            ensure!(output.status.success(), "the heir failed");
            let moved: Word = serde_json::from_slice(&output.stdout).context("what the heir moved")?;
            stream.sent += moved.sent;
            stream.recv += moved.recv;
            stream.stream.shutdown(Shutdown::Write)?;
            stream.drain()?;
            teller.tcp(Role::Client, &stream, Outcome::Closed);
        }
    }
    Ok(())
}

pub(super) fn heir(bytes: u64, before: u64, closer: Closer) -> Result<()> {
    nix::sys::prctl::set_name(NAME)?;
    let teller = Teller::new()?;
    let mut stream = Counted::new(TcpStream::from(std::io::stdin().as_fd().try_clone_to_owned()?))?;
    let_go_of_stdin()?;
    stream.echo(bytes)?;
    if closer == Closer::Parent {
        teller.line(&Word { sent: stream.sent, recv: stream.recv });
        return Ok(());
    }
    stream.sent += before;
    stream.recv += before;
    stream.stream.shutdown(Shutdown::Write)?;
    stream.drain()?;
    teller.tcp(Role::Client, &stream, Outcome::Closed);
    Ok(())
}

/// The standard input that was the socket becomes nothing, so that the last copy's close is the connection's.
fn let_go_of_stdin() -> Result<()> {
    let nothing = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    Ok(())
}

/// Workers that share a listener. They end when it is shut down.
pub(super) fn prefork(listener: &TcpListener, workers: usize) -> Result<Vec<Child>> {
    (0..workers)
        .map(|_| {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("worker").stdin(Stdio::from(OwnedFd::from(listener.try_clone()?)));
            Ok(die_with_parent(command).spawn()?)
        })
        .collect()
}

pub(super) fn worker() -> Result<()> {
    nix::sys::prctl::set_name(NAME)?;
    let teller = Teller::new()?;
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let_go_of_stdin()?;
    while let Ok((stream, _)) = listener.accept() {
        serve::attend(stream, serve::Manner::Prefork, &teller);
    }
    Ok(())
}
