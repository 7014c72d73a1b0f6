//! What the tracer and the agent use of a node: at rest, and with many connections open. The real programs with their
//! usual settings, the agent without a server; the connections are in a network namespace of this process.

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use weir_testkit::overhead::kept::Used;
use weir_testkit::process::{Process, binary, until};

/// Measures what the tracer and the agent use. Needs root, and binaries built beside it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// With nothing but what the machine does anyway.
    Rest {
        /// For how long, after the first poll.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// With many connections open; both ends of each are on this node.
    Live {
        /// Rows in the feed: twice as many as there are connections.
        #[arg(long, default_value_t = 200_000)]
        rows: usize,
        /// Polls to measure.
        #[arg(long, default_value_t = 3)]
        polls: u64,
    },
    /// Opens connections, says so, and holds them until its input ends.
    #[command(hide = true)]
    Hold {
        /// How many.
        connections: usize,
    },
}

const INTERVAL: Duration = Duration::from_secs(10);
const COMPLETE: &[u8] = b"\"complete\":true";
/// Both ends of each are open in one process: what the usual hard limit of open files allows, and every process has a
/// listener of its own, so ports suffice.
const CONNECTIONS_OF_A_PROCESS: usize = 9_000;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-bench-footprint: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this needs root: it loads a tracer and makes a network namespace");
    }
    if let What::Hold { connections } = args.what {
        return hold(connections);
    }
    let folder = tempfile::tempdir()?;
    match args.what {
        What::Hold { .. } => Ok(()),
        What::Rest { seconds } => {
            let node = Node::start(folder.path())?;
            wait(INTERVAL);
            let before = node.used()?;
            wait(Duration::from_secs(seconds));
            node.tell("at rest", before, seconds as f64)
        }
        What::Live { rows, polls } => live(folder.path(), rows, polls),
    }
}

/// A tracer and an agent.
struct Node {
    // The agent ends first.
    agent: Process,
    tracer: Process,
    socket: PathBuf,
}

impl Node {
    fn start(folder: &Path) -> Result<Self> {
        let socket = folder.join("tracer.sock");
        let mut command = Command::new(binary("weir-tracer")?);
        command.arg("--socket").arg(&socket).args(["--log", "warn"]);
        let tracer = Process::spawn(command)?;
        until(Duration::from_secs(30), || Ok(socket.exists())).context("the tracer did not come to work")?;
        let mut command = Command::new(binary("weir-agent")?);
        command.arg("--feed").arg(format!("unix:{}", socket.display())).arg("--spool").arg(folder.join("spool"));
        command.args(["--server", "http://127.0.0.1:1", "--metrics-listen", "127.0.0.1:0", "--log", "error"]);
        let agent = Process::spawn(command)?;
        Ok(Self { agent, tracer, socket })
    }

    fn used(&self) -> Result<[Used; 2]> {
        Ok([Used::by(self.tracer.pid().as_raw())?, Used::by(self.agent.pid().as_raw())?])
    }

    fn tell(&self, what: &str, before: [Used; 2], seconds: f64) -> Result<()> {
        let after = self.used()?;
        let names = ["tracer", "agent"];
        let mut percents = 0.0;
        let mut residents = 0;
        let mut parts = Vec::new();
        for ((name, before), after) in names.into_iter().zip(before).zip(after) {
            let percent = (after.processor_ms - before.processor_ms) as f64 / 10.0 / seconds;
            percents += percent;
            residents += after.resident_max;
            parts.push(format!("{name} {percent:.2} % of a core, at most {} MiB", after.resident_max >> 20));
        }
        println!("{what}: {}; together {percents:.2} %, {} MiB", parts.join("; "), residents >> 20);
        Ok(())
    }
}

fn live(folder: &Path, rows: usize, polls: u64) -> Result<()> {
    let node = Node::start(folder)?;
    wait(Duration::from_secs(2));
    // What is started from here on is in a namespace of its own; tracer and agent are not.
    unshare(CloneFlags::CLONE_NEWNET).context("failed to make a network namespace")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    ensure!(up.success(), "failed to bring loopback up");
    let netns = std::fs::metadata("/proc/self/ns/net")?.ino();
    let base = node.used()?;
    let began = now();
    let mut holders = Vec::new();
    let mut left = rows / 2;
    while left > 0 {
        let connections = left.min(CONNECTIONS_OF_A_PROCESS);
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("hold").arg(connections.to_string()).stdin(Stdio::piped());
        holders.push(Process::spawn(command)?);
        left -= connections;
    }
    for holder in &holders {
        ensure!(holder.line(Duration::from_secs(120))? == "open", "a process could not open its connections");
    }
    let took = began.elapsed().as_secs_f64();
    node.tell(&format!("opening {} connections in {took:.1} s", rows / 2), base, took)?;
    wait(2 * INTERVAL);
    let before = node.used()?;
    wait(INTERVAL * polls as u32);
    node.tell(&format!("{rows} rows live, {polls} polls"), before, (INTERVAL * polls as u32).as_secs_f64())?;
    let grown = node.used()?.into_iter().zip(base).map(|(now, then)| now.resident_max - then.resident_max).sum::<u64>();
    println!("{} bytes a row beyond what both had before", grown / rows as u64);
    let fetched = fetch(&node.socket, netns)?;
    println!(
        "one fetch: first byte after {:.3} s, whole after {:.3} s, {} bytes, {} rows of ours, {}",
        fetched.first.as_secs_f64(),
        fetched.whole.as_secs_f64(),
        fetched.bytes,
        fetched.rows,
        if fetched.is_complete { "complete" } else { "not complete, as it says" },
    );
    let missing = (rows as u64).saturating_sub(fetched.rows);
    // A walk that had to pause may lack some, and then says so: the machine was too busy to tell more.
    ensure!(missing == 0 || !fetched.is_complete, "{missing} rows are missing from a reply that calls itself complete");
    drop(holders);
    Ok(())
}

/// Opens connections, sends a byte on each, and holds them until the input ends.
fn hold(connections: usize) -> Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut client = TcpStream::connect(address).context("failed to connect (the limit of open files?)")?;
        client.write_all(b"x")?;
        held.push((client, listener.accept()?.0));
    }
    println!("open");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    drop(held);
    Ok(())
}

struct Fetched {
    first: Duration,
    whole: Duration,
    bytes: usize,
    rows: u64,
    is_complete: bool,
}

/// One reply, read as fast as it comes and not kept; counts the rows of a network namespace.
fn fetch(socket: &Path, netns: u64) -> Result<Fetched> {
    let mut stream = UnixStream::connect(socket)?;
    let began = now();
    stream.write_all(b"GET /connections?client_id=bench&last=no HTTP/1.0\r\n\r\n")?;
    let needle = format!("\"net_ns\":{netns},").into_bytes();
    let (mut first, mut bytes, mut rows) = (None, 0, 0);
    let mut buffer = vec![0; 1 << 20];
    let (mut kept, mut is_complete) = (0, false);
    loop {
        let count = stream.read(&mut buffer[kept..])?;
        first.get_or_insert_with(|| began.elapsed());
        if count == 0 {
            break;
        }
        bytes += count;
        let filled = kept + count;
        rows += buffer[..filled].windows(needle.len()).filter(|window| *window == needle.as_slice()).count() as u64;
        // It stands behind the rows, so the last reads decide.
        is_complete |= buffer[..filled].windows(COMPLETE.len()).any(|window| window == COMPLETE);
        // A needle may lie across two reads; one byte less than it cannot hold it twice.
        let tail = (needle.len() - 1).min(filled);
        buffer.copy_within(filled - tail..filled, 0);
        kept = tail;
    }
    Ok(Fetched { first: first.unwrap_or_default(), whole: began.elapsed(), bytes, rows, is_complete })
}

#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "it measures what happens meanwhile")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}
