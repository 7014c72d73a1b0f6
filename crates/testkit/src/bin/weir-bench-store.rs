//! What a real server takes in, how long an agent waits for its acknowledgement, and how long the largest edges take to
//! be found. See `weir_testkit::crowd`; `make bench-store` and `make bench-growth` play it.

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use weir_testkit::crowd::delivery::Pace;
use weir_testkit::crowd::{self, Order, Outcome, Server};

/// Measures a server that runs beside it; prints Markdown. Needs the program `weir` built beside it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Where data folders are made and removed again.
    #[arg(long, global = true, value_name = "DIR", default_value = "target/bench-store")]
    work: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// As fast as it goes: every agent sends its next batch as soon as the protocol's window lets it.
    Ingest {
        /// Agents.
        #[arg(long, default_value_t = 64)]
        agents: usize,
        /// Records of a batch; even.
        #[arg(long, default_value_t = 2_000)]
        records: usize,
        /// Batches of each agent.
        #[arg(long, default_value_t = 20)]
        batches: u64,
        /// More settings of the server: where it keeps its state (`-- --state etcd --etcd-endpoints URL`).
        #[arg(last = true)]
        server: Vec<String>,
    },
    /// At a rate: so many agents, each with a batch every so often.
    Paced {
        /// Agents; several steps, each with a new server.
        #[arg(long, value_delimiter = ',', default_value = "500")]
        agents: Vec<usize>,
        /// Records of a batch; even.
        #[arg(long, default_value_t = 200)]
        records: usize,
        /// Batches of each agent.
        #[arg(long, default_value_t = 20)]
        batches: u64,
        /// Between two batches of an agent.
        #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
        every: Duration,
    },
    /// The edges of most bytes, asked of a server that runs on a folder that holds history.
    Top {
        /// The data folder.
        folder: PathBuf,
        /// The end of the spans that are asked for, nanoseconds since 1970.
        #[arg(long)]
        until: i64,
        /// Hours before it.
        #[arg(long, value_delimiter = ',', default_value = "1,24,168")]
        hours: Vec<u64>,
        /// How often each is asked; the median is told.
        #[arg(long, default_value_t = 5)]
        times: usize,
        /// Writes the edges' bytes of each span to this file, as JSON, so that other engines' answers can be held against
        /// them.
        #[arg(long, value_name = "FILE")]
        sums: Option<PathBuf>,
    },
}

/// How many edges the largest are.
const TOP: usize = 20;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("weir-bench-store: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False: the server's answers differ from what was sent.
fn run(args: &Args) -> Result<bool> {
    std::fs::create_dir_all(&args.work).with_context(|| format!("failed to make {}", args.work.display()))?;
    match &args.what {
        What::Ingest { agents, records, batches, server } => {
            let order = Order { members: *agents, connections: *records, polls: *batches, pace: Pace::Flat };
            let more: Vec<&str> = server.iter().map(String::as_str).collect();
            println!("{}", Outcome::HEAD);
            play(&args.work, &order, &more)
        }
        What::Paced { agents, records, batches, every } => {
            println!("{}", Outcome::HEAD);
            let mut exact = true;
            for members in agents {
                let order =
                    Order { members: *members, connections: *records, polls: *batches, pace: Pace::Every(*every) };
                exact &= play(&args.work, &order, &[])?;
            }
            Ok(exact)
        }
        What::Top { folder, until, hours, times, sums } => top(folder, *until, hours, *times, sums.as_deref()),
    }
}

fn play(work: &Path, order: &Order, more: &[&str]) -> Result<bool> {
    ensure!(order.connections.is_multiple_of(2), "a batch has as many clients' views as servers'");
    let folder = tempfile::Builder::new().prefix("server-").tempdir_in(work)?;
    let outcome = crowd::play(order, folder.path(), more)?;
    println!("{}", outcome.row());
    Ok(outcome.wrong.is_empty())
}

fn top(folder: &Path, until: i64, hours: &[u64], times: usize, file: Option<&Path>) -> Result<bool> {
    let mut sums = BTreeMap::new();
    // Nothing becomes coarser while it is asked.
    let server =
        Server::start(folder, &["--minutes-after", "365d", "--hours-after", "365d", "--retain-history", "3650d"])?;
    for hours in hours {
        let mut took = Vec::new();
        let mut found = Vec::new();
        for _ in 0..times.max(1) {
            let (answer, time) = server.top(TOP, *hours, until)?;
            found = answer.items.iter().map(|edge| edge.sent_bytes + edge.recv_bytes).collect();
            took.push(time);
        }
        took.sort_unstable();
        println!(
            "weir, top {TOP} of {hours} h: {:.1} ms ({:.1} to {:.1}), {} edges",
            took[took.len() / 2].as_secs_f64() * 1e3,
            took[0].as_secs_f64() * 1e3,
            took[took.len() - 1].as_secs_f64() * 1e3,
            found.len(),
        );
        found.sort_unstable();
        sums.insert(hours.to_string(), found);
    }
    if let Some(file) = file {
        std::fs::write(file, serde_json::to_string(&sums)?)?;
    }
    println!("the server's memory: at most {} MiB", server.used()?.resident_max >> 20);
    Ok(true)
}
