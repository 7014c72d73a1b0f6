//! A crowd: many agents' deliveries to one real server, what that costs it, and whether all of it is in its answers.
//!
//! ```text
//! member (what a node tells) ─▶ delivery (gRPC, a connection each) ─▶ weir server in a process of its own ─▶ edges
//!    └──────────────── truth ────────────────────────── compared ─────────────────────────────────────────────┘
//! ```
//!
//! The batches are made before the clock runs, and the programs share the machine: what the crowd itself takes of the
//! processors while it delivers is told beside what the server takes.

pub mod delivery;
pub mod member;
pub mod readers;

use crate::answers::Answers;
use crate::overhead::kept::Used;
use crate::process::{Process, binary, until};
use crate::torture::parts;
use crate::torture::reader::ask;
use anyhow::{Context, Result};
use delivery::{Delivered, Pace};
use member::{Crowd, Truth};
use nix::time::{ClockId, clock_gettime};
use readers::{Readers, Waited};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use weir_wire::api::{Answer, Edge, StatusRow};

/// What a server, or its answers on a busy machine, may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a server may take to merge what it has acknowledged.
const MERGED: Duration = Duration::from_secs(300);
/// A window of the answers before the first poll and after the last.
const MARGIN_NS: i64 = 60_000_000_000;

/// A server in a process of its own.
#[derive(Debug)]
pub struct Server {
    process: Process,
    agents: SocketAddr,
    http: SocketAddr,
    answers: Answers,
}

impl Server {
    /// Starts `weir server` on a folder, with more settings, and waits until it listens.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(data: &Path, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary("weir")?);
        command.args(["server", "--listen", "127.0.0.1:0", "--agents-listen", "127.0.0.1:0", "--log", "error"]);
        command.arg("--data").arg(data).args(more);
        let process = Process::spawn(command)?;
        let pid = process.pid().as_raw();
        let mut found = None;
        until(PATIENCE, || {
            found = parts::addresses(data, pid);
            Ok(found.is_some())
        })
        .context("the server does not listen")?;
        let (http, agents) = found.context("the server does not listen")?;
        Ok(Self { process, agents, http, answers: Answers::of(&http.to_string()) })
    }

    /// What it has used.
    ///
    /// # Errors
    /// When it is gone.
    pub fn used(&self) -> Result<Used> {
        Used::by(self.process.pid().as_raw())
    }

    /// The `top` edges by pod of most bytes whose end is within `hours` before `until` (nanoseconds since 1970), and how long
    /// the answer took to its last byte.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn top(&self, top: usize, hours: u64, until: i64) -> Result<(Answer<Edge>, Duration)> {
        let since = instant(until - hours as i64 * 3_600_000_000_000);
        let path = format!("/api/v1/edges?by=pod&since={since}&until={}&limit={top}", instant(until));
        let began = monotonic()?;
        let answer = ask(self.http, &path)?;
        Ok((answer, Duration::from_nanos((monotonic()? - began).unsigned_abs())))
    }

    /// Records that are merged into its state.
    fn merged(&self) -> Result<u64> {
        let status: Answer<StatusRow> = ask(self.http, "/api/v1/status")?;
        Ok(status.items.iter().filter_map(|row| row.counters.get("records").filter(|_| row.kind == "node")).sum())
    }
}

/// What a run came to.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Outcome {
    /// Members.
    pub members: usize,
    /// Records of a batch.
    pub records_of_a_batch: usize,
    /// Records in all.
    pub records: u64,
    /// Seconds from the first batch that was due to the last acknowledgement.
    pub seconds: f64,
    /// Records a second, durable and acknowledged.
    pub acknowledged_a_second: f64,
    /// Records a second, merged into the state as well.
    pub merged_a_second: f64,
    /// From when a batch was due to its acknowledgement, milliseconds.
    pub acknowledged_p50_ms: f64,
    /// 99 of 100 batches were acknowledged earlier.
    pub acknowledged_p99_ms: f64,
    /// The last of all.
    pub acknowledged_max_ms: f64,
    /// From when the last batch was due to the last acknowledgement, seconds.
    pub behind_at_the_end_s: f64,
    /// Calls that ended before everything was delivered.
    pub calls_lost: u64,
    /// The server's processor time until all was merged, per cent of one processor.
    pub server_percent: f64,
    /// This process's, over the same time.
    pub crowd_percent: f64,
    /// The most that the server had resident, bytes; before it was asked anything.
    pub server_resident: u64,
    /// Bytes of a record as a batch goes over the wire and into the log.
    pub wire_bytes_a_record: f64,
    /// What differs between the server's answers and the truth; empty when nothing does.
    pub wrong: Vec<String>,
}

impl Outcome {
    /// The columns of [`Self::row`].
    pub const HEAD: &'static str = "| agents | records a batch | records | acknowledged/s | merged/s | ack p50 | p99 | max | behind at the end | calls lost | server | crowd | server's memory | totals |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

    /// For people.
    pub fn row(&self) -> String {
        let wrong = if self.wrong.is_empty() { "exact".to_owned() } else { self.wrong.join("; ") };
        format!(
            "| {} | {} | {} | {:.0} | {:.0} | {:.1} ms | {:.1} ms | {:.0} ms | {:.1} s | {} | {:.0} % | {:.0} % | {} MiB | {wrong} |",
            self.members,
            self.records_of_a_batch,
            self.records,
            self.acknowledged_a_second,
            self.merged_a_second,
            self.acknowledged_p50_ms,
            self.acknowledged_p99_ms,
            self.acknowledged_max_ms,
            self.behind_at_the_end_s,
            self.calls_lost,
            self.server_percent,
            self.crowd_percent,
            self.server_resident >> 20,
        )
    }
}

/// What a run is.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Members.
    pub members: usize,
    /// Records of a batch.
    pub connections: usize,
    /// Batches of a member.
    pub polls: u64,
    /// How fast.
    pub pace: Pace,
}

/// What an order's members tell, from now on.
fn crowd(order: &Order) -> Result<Crowd> {
    let every = match order.pace {
        Pace::Flat => Duration::from_secs(10),
        Pace::Every(every) | Pace::Late(every, _) => every,
    };
    let every_ns = every.as_nanos() as i64;
    // Everything lies in the past when it comes, so that no row is of the future; within the horizon, so that none is late.
    let before = if matches!(order.pace, Pace::Flat) { order.polls } else { order.pace.backlog() };
    let begins = wall()? - every_ns * (before as i64 + 1);
    Ok(Crowd { members: order.members, connections: order.connections, polls: order.polls, every_ns, begins })
}

/// Plays an order against a new server with its data in `data`, which must not exist.
///
/// # Errors
/// When the server does not come up, or refuses a batch. Totals that differ are part of the outcome.
pub fn play(order: &Order, data: &Path, more: &[&str]) -> Result<Outcome> {
    let crowd = crowd(order)?;
    let frames = delivery::prepare(&crowd)?;
    let wire_bytes: usize = frames.iter().flatten().map(prost::bytes::Bytes::len).sum();
    let truth = crowd.truth();
    let server = Server::start(data, more)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (before, crowd_before, began) = (server.used()?, own()?, monotonic()?);
    let delivered = runtime.block_on(delivery::deliver(server.agents, frames, order.pace))?;
    until(MERGED, || Ok(server.merged()? >= truth.records)).context("the server has not merged all it acknowledged")?;
    let merged_s = (monotonic()? - began) as f64 / 1e9;
    let (after, crowd_after) = (server.used()?, own()?);
    let percent = |before: Used, after: Used| (after.processor_ms - before.processor_ms) as f64 / 10.0 / merged_s;
    let Delivered { took, acknowledged_after, behind_at_the_end, calls_lost } = delivered;
    let at = |quantile: f64| {
        let index = (acknowledged_after.len() as f64 * quantile) as usize;
        acknowledged_after[index.min(acknowledged_after.len() - 1)].as_secs_f64() * 1e3
    };
    let mut outcome = Outcome {
        members: order.members,
        records_of_a_batch: order.connections,
        records: truth.records,
        seconds: took.as_secs_f64(),
        acknowledged_a_second: truth.records as f64 / took.as_secs_f64(),
        merged_a_second: truth.records as f64 / merged_s,
        acknowledged_p50_ms: at(0.5),
        acknowledged_p99_ms: at(0.99),
        acknowledged_max_ms: at(1.0),
        behind_at_the_end_s: behind_at_the_end.as_secs_f64(),
        calls_lost,
        server_percent: percent(before, after),
        crowd_percent: percent(crowd_before, crowd_after),
        server_resident: after.resident_max,
        wire_bytes_a_record: wire_bytes as f64 / truth.records as f64,
        wrong: Vec::new(),
    };
    outcome.wrong = compare(&server, &crowd, &truth)?;
    Ok(outcome)
}

/// What readers waited for a server that takes batches all the while.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What was asked first, all others together, then each question.
    pub waited: Vec<Waited>,
    /// How long they read.
    pub took: Duration,
    /// Records that were merged before they began.
    pub records_before: u64,
    /// Records in all.
    pub records: u64,
    /// Calls of agents that ended before everything was delivered.
    pub calls_lost: u64,
    /// The server's processor time while they read, per cent of one processor; and this process's.
    pub percent: [f64; 2],
    /// The most that the server had resident, bytes.
    pub server_resident: u64,
    /// What differs between the server's answers and the truth afterwards.
    pub wrong: Vec<String>,
}

/// Plays an order whose backlog comes first against a server with its data in `data`, which may hold history; then has it
/// read while the rest comes.
///
/// # Errors
/// When the server does not come up, or does not answer.
pub fn read(order: &Order, readers: Readers, data: &Path, more: &[&str]) -> Result<Reading> {
    let crowd = crowd(order)?;
    let frames = delivery::prepare(&crowd)?;
    let truth = crowd.truth();
    let records_before = (order.members * order.connections) as u64 * order.pace.backlog();
    let server = Server::start(data, more)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut delivering = tokio::task::JoinSet::new();
    delivering.spawn_on(delivery::deliver(server.agents, frames, order.pace), runtime.handle());
    until(MERGED, || Ok(server.merged()? >= records_before)).context("the server has not merged what was before")?;
    let (before, crowd_before, began) = (server.used()?, own()?, monotonic()?);
    let waited = runtime.block_on(readers::read(server.http, readers))?;
    let took_s = (monotonic()? - began) as f64 / 1e9;
    let (after, crowd_after) = (server.used()?, own()?);
    let percent = |before: Used, after: Used| (after.processor_ms - before.processor_ms) as f64 / 10.0 / took_s;
    let delivered = runtime.block_on(delivering.join_next()).context("nothing was delivered")???;
    until(MERGED, || Ok(server.merged()? >= truth.records)).context("the server has not merged all it acknowledged")?;
    Ok(Reading {
        waited,
        took: Duration::from_secs_f64(took_s),
        records_before,
        records: truth.records,
        calls_lost: delivered.calls_lost,
        percent: [percent(before, after), percent(crowd_before, crowd_after)],
        server_resident: after.resident_max,
        wrong: compare(&server, &crowd, &truth)?,
    })
}

/// What of the truth is not so in the server's edges, and what the server itself calls lost.
fn compare(server: &Server, crowd: &Crowd, truth: &Truth) -> Result<Vec<String>> {
    let last = crowd.begins + crowd.every_ns * crowd.polls as i64;
    let (since, until) = (instant(crowd.begins - MARGIN_NS), instant(last + MARGIN_NS));
    let words = ["edges", "--by", "namespace", "--since", &since, "--until", &until, "--limit", "1000"];
    let answer: Answer<Edge> = server.answers.answer(&words)?;
    let sum = |pick: fn(&Edge) -> u64| answer.items.iter().map(pick).sum::<u64>();
    let mut wrong = Vec::new();
    for (what, found, true_value) in [
        ("bytes sent", sum(|edge| edge.sent_bytes), truth.sent_bytes),
        ("bytes received", sum(|edge| edge.recv_bytes), truth.recv_bytes),
        ("connections", sum(|edge| edge.connections), truth.connections),
        ("records", server.merged()?, truth.records),
    ] {
        if found != true_value {
            wrong.push(format!("{found} {what} instead of {true_value}"));
        }
    }
    for loss in &answer.completeness.losses {
        wrong.push(format!("told lost: {} {}, {}", loss.place, loss.reason, loss.count));
    }
    Ok(wrong)
}

/// RFC 3339.
fn instant(unix_ns: i64) -> String {
    humantime::format_rfc3339_nanos(std::time::UNIX_EPOCH + Duration::from_nanos(unix_ns.unsigned_abs())).to_string()
}

fn own() -> Result<Used> {
    Used::by(std::process::id() as i32)
}

fn wall() -> Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
    Ok(now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}

fn monotonic() -> Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}
