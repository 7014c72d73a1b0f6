//! What a real server takes in, how long an agent waits for its acknowledgement, and how long the largest edges take to
//! be found. See `weir_testkit::crowd`; `make bench-store` and `make bench-growth` play it.

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use weir_testkit::cluster::kubernetes::{ApiServer, Tls};
use weir_testkit::crowd::delivery::Pace;
use weir_testkit::crowd::readers::Readers;
use weir_testkit::crowd::{self, Order, Outcome, Reading, Server};
use weir_wire::api::OTHER;

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
        /// The server keeps its state in ConfigMaps, too: those of a stand-in of the API server, in this process.
        #[arg(long)]
        config_maps: bool,
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
    /// How long many readers wait for their answers while agents go on delivering.
    Read {
        /// The data folder: one that holds history, or a new one.
        folder: PathBuf,
        /// Readers at the same time.
        #[arg(long, default_value_t = 50)]
        readers: usize,
        /// For how long they read.
        #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
        lasts: Duration,
        /// What is asked before so much of it has passed is told apart.
        #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
        first: Duration,
        /// Between an answer and the next question of the same reader.
        #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
        pause: Duration,
        /// How old an answer readers take, seconds, as the page does [default: each is made for who asks].
        #[arg(long, value_name = "SECONDS")]
        age_max: Option<u64>,
        /// How much older an answer readers take rather than to wait for one, seconds.
        #[arg(long, value_name = "SECONDS")]
        stale_max: Option<u64>,
        /// Every reader has a filter and a limit of its own.
        #[arg(long)]
        all_different: bool,
        /// Agents, each with a batch every 10 s.
        #[arg(long, default_value_t = 100)]
        agents: usize,
        /// Records of a batch; even.
        #[arg(long, default_value_t = 200)]
        records: usize,
        /// Batches that each agent has delivered before.
        #[arg(long, default_value_t = 30)]
        before: u64,
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

/// Nothing becomes coarser while it is asked.
const KEEP: [&str; 6] = ["--minutes-after", "365d", "--hours-after", "365d", "--retain-history", "3650d"];
/// An agent's window.
const EVERY: Duration = Duration::from_secs(10);
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
        What::Ingest { agents, records, batches, config_maps, server } => {
            let order = Order { members: *agents, connections: *records, polls: *batches, pace: Pace::Flat };
            let stand_in = config_maps.then(|| ConfigMaps::start(&args.work)).transpose()?;
            let more = stand_in.iter().flat_map(|stand_in| &stand_in.settings).chain(server);
            let more: Vec<&str> = more.map(String::as_str).collect();
            println!("{}", Outcome::HEAD);
            play(&args.work, &order, &more)
        }
        What::Read {
            folder,
            readers,
            lasts,
            first,
            pause,
            age_max,
            stale_max,
            all_different,
            agents,
            records,
            before,
        } => {
            ensure!(records.is_multiple_of(2), "a batch has as many clients' views as servers'");
            let polls = before + lasts.as_secs() / EVERY.as_secs() + 1;
            let order = Order { members: *agents, connections: *records, polls, pace: Pace::Late(EVERY, *before) };
            let readers = Readers {
                count: *readers,
                lasts: *lasts,
                first: *first,
                pause: *pause,
                age_max_s: *age_max,
                stale_max_s: *stale_max,
                are_all_different: *all_different,
            };
            let reading = crowd::read(&order, readers, folder, &KEEP)?;
            tell(&reading, readers);
            Ok(reading.wrong.is_empty())
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

/// The stand-in of the API server, and the settings of a server that keeps its state there.
struct ConfigMaps {
    _api: ApiServer,
    _folder: tempfile::TempDir,
    settings: Vec<String>,
}

impl ConfigMaps {
    fn start(work: &Path) -> Result<Self> {
        let api = ApiServer::start(Tls::Off)?;
        api.put("namespaces", serde_json::json!({"metadata": {"name": "weir"}}))?;
        let folder = tempfile::Builder::new().prefix("token-").tempdir_in(work)?;
        let token = folder.path().join("token");
        std::fs::write(&token, api.token())?;
        let token = token.to_str().context("the folder's path is no text")?;
        let url = api.url();
        let settings = ["--kubernetes", &url, "--kubernetes-token-file", token, "--state", "configmap"];
        let settings = settings.into_iter().chain(["--configmap-namespace", "weir", "--configmap-bytes", "32MiB"]);
        Ok(Self { settings: settings.map(str::to_owned).collect(), _api: api, _folder: folder })
    }
}

fn tell(reading: &Reading, readers: Readers) {
    println!("| question | answers | p50 | p99 | max | age p50 | age p99 |\n|---|---|---|---|---|---|---|");
    for waited in &reading.waited {
        let ms = |quantile: f64| waited.quantile(quantile).as_secs_f64() * 1e3;
        let (p50, p99, max) = (ms(0.5), ms(0.99), ms(1.0));
        let (age, age_p99) = (waited.age_s(0.5), waited.age_s(0.99));
        println!(
            "| {} | {} | {p50:.1} ms | {p99:.1} ms | {max:.0} ms | {age} s | {age_p99} s |",
            waited.question,
            waited.times.len()
        );
    }
    let answers: usize = reading.waited.iter().take(2).map(|waited| waited.times.len()).sum();
    println!(
        "{} readers, {:.0} answers/s; {} records before and {} while they read; the server {:.0} % of a core, this program \
         {:.0} %; at most {} MiB; {} calls of agents lost; totals {}",
        readers.count,
        answers as f64 / reading.took.as_secs_f64(),
        reading.records_before,
        reading.records - reading.records_before,
        reading.percent[0],
        reading.percent[1],
        reading.server_resident >> 20,
        reading.calls_lost,
        if reading.wrong.is_empty() { "exact".to_owned() } else { reading.wrong.join("; ") },
    );
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
    let server = Server::start(folder, &KEEP)?;
    for hours in hours {
        let mut took = Vec::new();
        let mut found = Vec::new();
        for _ in 0..times.max(1) {
            let (answer, time) = server.top(TOP, *hours, until)?;
            // Not the row that sums up all others.
            let edges = answer.items.iter().filter(|edge| edge.client.kind != OTHER);
            found = edges.map(|edge| edge.sent_bytes + edge.recv_bytes).collect();
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
