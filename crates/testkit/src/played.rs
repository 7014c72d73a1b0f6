//! A traffic server and clients in processes of their own, and the truth that they have told so far.

use crate::process::{Process, binary};
use crate::traffic::{Listening, Manner, Truth};
use anyhow::{Context, Result, bail};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

/// How long one exchange may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running traffic server and everything that it and its clients told.
#[derive(Debug)]
pub struct Stage {
    server: Process,
    listening: Listening,
    truth: Vec<Truth>,
}

impl Stage {
    /// Starts the server.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn open() -> Result<Self> {
        let mut command = Command::new(binary("weir-traffic")?);
        command.arg("serve");
        let server = Process::spawn(command)?;
        let listening = serde_json::from_str(&server.line(PATIENCE)?).context("the server's first line")?;
        Ok(Self { server, listening, truth: Vec::new() })
    }

    /// The address of a manner's port at `ip`.
    ///
    /// # Errors
    /// When `ip` is not an address.
    pub fn at(&self, ip: &str, manner: Manner) -> Result<SocketAddr> {
        let port = self.listening.ports.get(&manner).context("the server has every manner")?;
        Ok(SocketAddr::new(ip.parse()?, *port))
    }

    /// The datagram ports, on 127.0.0.1.
    pub fn datagram_servers(&self) -> Vec<SocketAddr> {
        self.listening.datagram_ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    /// The traffic server's process.
    pub fn server(&self) -> &Process {
        &self.server
    }

    /// Plays a client's script to its end and takes down its truth and the server's about the same connections.
    ///
    /// # Errors
    /// When the client fails, or the server's truth does not come.
    pub fn play(&mut self, args: &[&str], servers: &[SocketAddr]) -> Result<()> {
        let mut command = Command::new(binary("weir-traffic")?);
        command.args(args).args(servers.iter().map(ToString::to_string));
        let mut client = Process::spawn(command)?;
        self.finish(&mut client)
    }

    /// Starts a client that works until its standard input ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, args: &[&str], server: SocketAddr) -> Result<Playing> {
        let mut command = Command::new(binary("weir-traffic")?);
        command.args(args).arg(server.to_string()).stdin(Stdio::piped());
        let mut process = Process::spawn(command)?;
        let input = process.take_input().context("standard input was piped")?;
        Ok(Playing { process, input: Some(input) })
    }

    /// Ends a client and takes down its truth and the server's about the same connections.
    ///
    /// # Errors
    /// When it failed, or the server's truth does not come.
    pub fn end(&mut self, mut playing: Playing) -> Result<()> {
        drop(playing.input.take());
        self.finish(&mut playing.process)
    }

    fn finish(&mut self, client: &mut Process) -> Result<()> {
        let mut from_server = 0;
        while let Ok(line) = client.line(PATIENCE) {
            let Ok(truth) = serde_json::from_str::<Truth>(&line) else { continue };
            if truth.role == "client" && truth.protocol == "tcp" && truth.outcome != "refused" {
                from_server += 1;
            }
            self.truth.push(truth);
        }
        let status = client.wait(PATIENCE)?;
        if !status.success() {
            bail!("the traffic client failed: {status}");
        }
        for _ in 0..from_server {
            self.truth.push(serde_json::from_str(&self.server.line(PATIENCE)?)?);
        }
        Ok(())
    }

    /// Everything told so far.
    pub fn truth(&self) -> &[Truth] {
        &self.truth
    }
}

/// A client that works until its standard input ends.
#[derive(Debug)]
pub struct Playing {
    process: Process,
    input: Option<ChildStdin>,
}

impl Playing {
    /// Sends the client a line, and waits for its answer.
    ///
    /// # Errors
    /// When it is gone.
    pub fn step(&mut self) -> Result<String> {
        let input = self.input.as_mut().context("the client was ended")?;
        input.write_all(b"\n")?;
        self.process.line(PATIENCE)
    }

    /// The client's next line.
    ///
    /// # Errors
    /// When none comes.
    pub fn line(&self) -> Result<String> {
        self.process.line(PATIENCE)
    }
}
