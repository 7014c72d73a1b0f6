//! Traffic servers and clients in processes of their own, wherever they are put, and the truth that they tell.

use crate::process::{Process, binary};
use crate::traffic::{Listening, Manner, Protocol, Question, Role, Truth};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

/// How long one exchange may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes a command run where it shall: in a namespace, in a cgroup.
pub type Prepare<'a> = &'a dyn Fn(Command) -> Result<Command>;

/// Runs a command as it is: in the test's own namespace and cgroup.
///
/// # Errors
/// None.
pub fn here(command: Command) -> Result<Command> {
    Ok(command)
}

fn traffic(args: &[&str], servers: &[SocketAddr], prepare: Prepare<'_>) -> Result<Process> {
    let mut command = Command::new(binary("weir-traffic")?);
    command.args(args).args(servers.iter().map(ToString::to_string)).stdin(Stdio::piped());
    Process::spawn(prepare(command)?)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Truth(Box<Truth>),
    Question(Question),
}

/// What a client, or a server, has told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// One for each end of a connection.
    pub truth: Vec<Truth>,
    /// One for each DNS question.
    pub questions: Vec<Question>,
}

impl Told {
    fn take(&mut self, line: &str) {
        match serde_json::from_str(line) {
            Ok(Line::Truth(truth)) => self.truth.push(*truth),
            Ok(Line::Question(question)) => self.questions.push(question),
            // A script's own words to whoever leads it.
            Err(_) => (),
        }
    }

    fn take_all(&mut self, process: &mut Process) -> Result<()> {
        while let Ok(line) = process.line(PATIENCE) {
            self.take(&line);
        }
        let status = process.wait(PATIENCE)?;
        if !status.success() {
            bail!("weir-traffic failed: {status}");
        }
        Ok(())
    }

    fn established(&self) -> usize {
        let is_stream =
            |end: &&Truth| end.role == Role::Client && end.protocol == Protocol::Tcp && end.outcome.was_established();
        self.truth.iter().filter(is_stream).count()
    }
}

/// Plays a client's script to its end.
///
/// # Errors
/// When the client fails.
pub fn play(args: &[&str], servers: &[SocketAddr], prepare: Prepare<'_>) -> Result<Told> {
    let mut client = traffic(args, servers, prepare)?;
    // A script that reads standard input ends with it.
    drop(client.take_input());
    let mut told = Told::default();
    told.take_all(&mut client).with_context(|| format!("the client {} {servers:?}", args.join(" ")))?;
    Ok(told)
}

/// A running traffic server.
#[derive(Debug)]
pub struct Server {
    process: Process,
    input: Option<ChildStdin>,
    listening: Listening,
}

impl Server {
    /// Starts one, with the arguments of `weir-traffic serve`.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn open(args: &[&str], prepare: Prepare<'_>) -> Result<Self> {
        let mut process = traffic(&[&["serve"], args].concat(), &[], prepare)?;
        let input = process.take_input();
        let listening = serde_json::from_str(&process.line(PATIENCE)?).context("the server's first line")?;
        Ok(Self { process, input, listening })
    }

    /// The port of a manner.
    pub fn port(&self, manner: Manner) -> u16 {
        self.listening.ports.get(&manner).copied().unwrap_or_default()
    }

    /// Lets its connections end and takes down everything that it tells.
    ///
    /// # Errors
    /// When it fails, or a connection does not end.
    pub fn close(mut self) -> Result<Told> {
        drop(self.input.take());
        let mut told = Told::default();
        told.take_all(&mut self.process).context("the traffic server")?;
        Ok(told)
    }
}

/// A running traffic server here, and everything that it and its clients told so far.
#[derive(Debug)]
pub struct Stage {
    server: Server,
    told: Told,
}

impl Stage {
    /// Starts the server.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn open() -> Result<Self> {
        Ok(Self { server: Server::open(&[], &here)?, told: Told::default() })
    }

    /// The address of a manner's port at `ip`.
    ///
    /// # Errors
    /// When `ip` is not an address.
    pub fn at(&self, ip: &str, manner: Manner) -> Result<SocketAddr> {
        Ok(SocketAddr::new(ip.parse()?, self.server.port(manner)))
    }

    /// The server's ports that answer datagrams, on 127.0.0.1.
    pub fn datagram_servers(&self) -> Vec<SocketAddr> {
        let at = |manner| SocketAddr::from(([127, 0, 0, 1], self.server.port(manner)));
        [Manner::Answer, Manner::AnswerToo].map(at).into()
    }

    /// The traffic server's process.
    pub fn server(&self) -> &Process {
        &self.server.process
    }

    /// Plays a client's script to its end and takes down its truth and the server's about the same TCP connections.
    ///
    /// # Errors
    /// When the client fails, or the server's truth does not come.
    pub fn play(&mut self, args: &[&str], servers: &[SocketAddr]) -> Result<()> {
        let told = play(args, servers, &here)?;
        self.follow(told)
    }

    /// Starts a client that works until its standard input ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, args: &[&str], server: SocketAddr) -> Result<Playing> {
        start(args, server, &here)
    }

    /// Ends a client and takes down its truth and the server's about the same TCP connections.
    ///
    /// # Errors
    /// When it failed, or the server's truth does not come.
    pub fn end(&mut self, playing: Playing) -> Result<()> {
        let told = playing.end()?;
        self.follow(told)
    }

    fn follow(&mut self, told: Told) -> Result<()> {
        for _ in 0..told.established() {
            self.told.take(&self.server.process.line(PATIENCE)?);
        }
        self.told.truth.extend(told.truth);
        self.told.questions.extend(told.questions);
        Ok(())
    }

    /// Everything told so far; the server tells of its UDP peers at its end only.
    pub fn truth(&self) -> &[Truth] {
        &self.told.truth
    }

    /// Ends the server and gives everything told, of every peer.
    ///
    /// # Errors
    /// When it fails.
    pub fn close(self) -> Result<Vec<Truth>> {
        let mut truth = self.told.truth;
        truth.extend(self.server.close()?.truth);
        Ok(truth)
    }
}

/// Starts a client that works until its standard input ends.
///
/// # Errors
/// When it cannot be started.
pub fn start(args: &[&str], server: SocketAddr, prepare: Prepare<'_>) -> Result<Playing> {
    let mut process = traffic(args, &[server], prepare)?;
    let input = process.take_input();
    Ok(Playing { process, input })
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

    /// Ends it and takes down what it tells.
    ///
    /// # Errors
    /// When it failed.
    pub fn end(mut self) -> Result<Told> {
        drop(self.input.take());
        let mut told = Told::default();
        told.take_all(&mut self.process).context("the traffic client")?;
        Ok(told)
    }
}
