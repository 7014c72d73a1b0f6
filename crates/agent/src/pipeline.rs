//! The pipeline's tasks, their start and their end. The diagram is the crate's documentation.

use crate::args::Args;
use crate::attribute::{Stage, saved};
use crate::commit::{Committer, Identity, Polled};
use crate::export::{self, Exporter, Stop};
use crate::facts::Facts;
use crate::metadata::told::NODE_READER;
use crate::metadata::{self, Shared, Told, reader};
use crate::metrics::{self, Metrics};
use crate::observe::{self, Dialect, Failure, Feed, Kind, Observed, SourceState};
use crate::spool::folder::random;
use crate::spool::{Limits, Spool};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use weir_daemon::clock::{Clock, SystemClock};
use weir_daemon::tasks::Tasks;
use weir_discovery::node::{Node, NodeFacts};
use weir_discovery::said::Health;
use weir_discovery::source::Reading;
use weir_discovery::unix_http::Timeouts;
use weir_discovery::{proc, tracer};
use weir_model::fact::{kind, source};

/// How long the last poll may take once the agent is told to stop.
const LAST_POLL: Duration = Duration::from_millis(900);
/// How long the last batches may take to reach the server.
const LAST_EXPORT: Duration = Duration::from_millis(900);
/// Both, and the little between them.
const GRACE: Duration = Duration::from_secs(3);

/// Runs the agent until `shutdown`.
///
/// # Errors
/// When a setting is wrong, the spool is held by another agent or cannot be used, or a listener cannot be opened.
pub async fn run(args: Args, shutdown: CancellationToken) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let metrics_token = args.metrics_token_file.as_deref().map(read_token).transpose()?;
    let server = endpoint(&args.server)?;
    let socket = observe::socket_path(&args.feed).map_err(|text| anyhow::anyhow!("--feed {text}"))?;
    let loopback = args.metrics_listen.ip().is_loopback();
    if !loopback && token.is_none() && metrics_token.is_none() && !args.insecure {
        bail!(
            "--metrics-listen {} is not on loopback: give --metrics-token-file (or --token-file), or --insecure to serve \
             it to anyone",
            args.metrics_listen
        );
    }
    let node = NodeFacts::read(&args.proc).context("failed to read the node's facts")?;
    let identity = Identity {
        node: args.node.clone().unwrap_or_else(|| node.name.clone()),
        boot_id: node.boot_id,
        agent_run: random(),
    };
    let source = Node {
        root: args.proc.clone(),
        name: identity.node.clone(),
        addresses: args.node_ip.clone(),
        is_in_pod: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
    };
    let said = source.say(&node);
    let sources = metadata::settings::sources(&args.metadata, source, |name| std::env::var(name).ok())?;
    let metrics = Arc::new(Metrics::default());
    let folder = args.spool_folder();
    let limits = Limits { bytes: args.spool_max_bytes, age: args.spool_max_age.as_nanos() as i64 };
    let (spool, recovered) = Spool::open(&folder, limits, node.boot_id, clock.monotonic().0)?;
    let damage = spool.damage();
    metrics.count(&metrics.spool_errors, "torn_tail", u64::from(damage.torn_bytes > 0));
    metrics.count(&metrics.spool_errors, "damaged_record", damage.skipped);
    if damage != crate::spool::Damage::default() {
        tracing::warn!(torn_bytes = damage.torn_bytes, skipped = damage.skipped, "the spool was damaged and is mended");
    }
    let listener = TcpListener::bind(args.metrics_listen)
        .await
        .with_context(|| format!("failed to listen on {} (--metrics-listen)", args.metrics_listen))?;
    tracing::info!(
        node = %identity.node,
        feed = %socket.display(),
        spool = %folder.display(),
        server = %args.server,
        metrics = %listener.local_addr().unwrap_or(args.metrics_listen),
        waiting = spool.waiting(),
        "weir-agent runs"
    );
    let (durable_tx, durable_rx) = watch::channel(spool.next_sequence().saturating_sub(1));
    let feed = Feed {
        socket,
        client_id: spool.stream().client_id.clone(),
        body: args.interval.max(Duration::from_secs(10)),
        max_body: args.max_body,
        timeouts: Timeouts::default(),
        dialect: Dialect::default(),
    };
    let spool = Arc::new(Mutex::new(spool));
    let mut readers: Vec<&'static str> = sources.iter().map(|listed| listed.reader).collect();
    readers.extend([source::TRACER, source::PROC]);
    let mut told = Told::restored(&readers, saved::open_facts(recovered.parts()), &recovered.position.metadata_read);
    // Who the node is goes with the first batch.
    let reading = Reading::Whole { things: vec![said.0], missing: said.1 };
    let now = clock.wall().0;
    told.take(NODE_READER, source::PROC, &[kind::NODE], (now, now), Ok(reading));
    let shared = Shared::new(told);
    let facts = Facts::new(shared.clone());
    let committer = Committer::new(
        identity.clone(),
        Arc::clone(&clock),
        Arc::clone(&metrics),
        Arc::clone(&spool),
        &recovered,
        facts,
        args.max_connections,
    );
    let stop = Stop { drained: CancellationToken::new(), deadline: CancellationToken::new() };
    let exporter = Exporter {
        server,
        token_file: args.token_file.clone(),
        identity,
        spool,
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
    };
    let readers_clock = Arc::clone(&clock);
    let observer = Observer {
        feed,
        interval: args.interval,
        proc: args.proc,
        clock,
        metrics: Arc::clone(&metrics),
        state: Some((committer, Stage::default())),
        durable: durable_tx,
        last_state: String::new(),
    };
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.spawn("observe", observer.run(shutdown.clone(), stop.clone()));
    for listed in sources {
        let (clock, metrics) = (Arc::clone(&readers_clock), Arc::clone(&metrics));
        tasks.spawn(listed.reader, reader::run(listed, shared.clone(), clock, metrics, shutdown.clone()));
    }
    tasks.spawn("export", export::run(exporter, durable_rx, stop));
    let metrics_token = metrics_token.or(if loopback { None } else { token });
    tasks.spawn("metrics", metrics::serve(listener, metrics, metrics_token, shutdown));
    tasks.run(GRACE).await
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("failed to read token file {}", path.display()))?;
    let token = text.trim();
    if token.is_empty() {
        bail!("token file {} is empty", path.display());
    }
    Ok(token.to_owned())
}

fn endpoint(server: &str) -> anyhow::Result<Endpoint> {
    if server.starts_with("https:") {
        bail!(
            "--server {server}: this version speaks plain http; put a TLS tunnel in front of the server if the way there is not trusted"
        );
    }
    let endpoint = Endpoint::from_shared(server.to_owned())
        .with_context(|| format!("--server {server} is no URL: write for example http://127.0.0.1:7781"))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true))
}

/// The task that polls and commits.
struct Observer {
    feed: Feed,
    interval: Duration,
    proc: PathBuf,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Lent to a blocking thread while a poll is committed; `None` only when that thread panicked.
    state: Option<(Committer, Stage)>,
    durable: watch::Sender<u64>,
    last_state: String,
}

/// What one poll gave.
enum Outcome {
    Whole(Box<Polled>),
    /// Some of the closed rows, and more to come.
    Page(Box<Observed>),
    Failed(Failure),
}

/// What follows a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next page, at once.
    Page,
    /// The next tick.
    Tick,
}

impl Observer {
    async fn run(mut self, shutdown: CancellationToken, stop: Stop) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(self.interval);
        // A poll that took longer than the interval is not made up for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        'polls: loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {}
            }
            // Pages follow each other without a pause; the poll is over with the reply that holds what lives.
            loop {
                let outcome = tokio::select! {
                    biased;
                    // A fetch under way is given up: the last poll below asks anew, and nothing of it was counted.
                    () = shutdown.cancelled() => break 'polls,
                    outcome = self.fetch() => outcome?,
                };
                if self.commit(outcome).await? == Next::Tick {
                    break;
                }
            }
        }
        while let Ok(outcome) = timeout(LAST_POLL, self.fetch()).await
            && let outcome @ (Outcome::Whole(_) | Outcome::Page(_)) = outcome?
            && self.commit(outcome).await? == Next::Page
        {}
        stop.drained.cancel();
        let deadline = stop.deadline;
        tokio::select! {
            () = self.durable.closed() => {}
            () = tokio::time::sleep(LAST_EXPORT) => {}
        }
        deadline.cancel();
        Ok(())
    }

    async fn fetch(&mut self) -> anyhow::Result<Outcome> {
        let Some((committer, stage)) = &mut self.state else { bail!("the last commit did not end") };
        let began = self.clock.monotonic();
        let observed = match self.feed.poll(committer.acknowledged(), stage, &*self.clock).await {
            Ok(observed) => observed,
            Err(failure) => {
                // A reply that was too large must not leave its memory behind.
                *stage = Stage::default();
                return Ok(Outcome::Failed(failure));
            }
        };
        if observed.envelope.more {
            return Ok(Outcome::Page(Box::new(observed)));
        }
        let polled = self.complete(observed).await;
        let taken = self.clock.monotonic().0.saturating_sub(began.0);
        self.metrics.poll_milliseconds.set((taken / 1_000_000) as i64);
        Ok(Outcome::Whole(Box::new(polled)))
    }

    /// Adds what the tracer, or `/proc`, tells beside the connections.
    async fn complete(&self, observed: Observed) -> Polled {
        let is_weir = observed.kind == Kind::Weir;
        let mut polled = Polled {
            observed,
            degraded: String::new(),
            tracer_version: String::new(),
            processes: None,
            troubles: Vec::new(),
        };
        if !is_weir {
            self.read_proc(&mut polled).await;
            return polled;
        }
        match tracer::processes(&self.feed.socket).await {
            Ok(processes) => polled.processes = Some((processes, source::TRACER)),
            Err(error) => {
                tracing::debug!(%error, "the tracer tells no processes; reading them from /proc");
                self.metrics.count(&self.metrics.discovery_errors, "tracer_processes", 1);
                polled.troubles.push(failed(source::TRACER, error.to_string()));
                self.read_proc(&mut polled).await;
            }
        }
        match tracer::status(&self.feed.socket).await {
            Ok(status) => (polled.degraded, polled.tracer_version) = (degraded(&status), status.version),
            Err(error) => {
                tracing::debug!(%error, "the tracer tells no status");
                self.metrics.count(&self.metrics.discovery_errors, "tracer_status", 1);
            }
        }
        polled
    }

    async fn read_proc(&self, polled: &mut Polled) {
        let root = self.proc.clone();
        let read = tokio::task::spawn_blocking(move || proc::processes(&root)).await;
        match read {
            Ok(Ok(processes)) => polled.processes = Some((processes, source::PROC)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no processes");
                self.metrics.count(&self.metrics.discovery_errors, "proc", 1);
                polled.troubles.push(failed(source::PROC, error.to_string()));
            }
            // It panicked, or the runtime ends.
            Err(_) => {}
        }
    }

    /// Commits on a blocking thread: it compresses and fsyncs.
    async fn commit(&mut self, outcome: Outcome) -> anyhow::Result<Next> {
        let Some((mut committer, mut stage)) = self.state.take() else { bail!("the last commit did not end") };
        match &outcome {
            Outcome::Whole(polled) => {
                let missing = polled.missing();
                let state = if missing.is_empty() { SourceState::Ok } else { SourceState::Degraded };
                self.metrics.poll(state.as_str());
                self.tell(state.as_str(), &missing);
            }
            Outcome::Page(_) => {}
            Outcome::Failed(failure) => {
                self.metrics.poll(failure.state.as_str());
                self.tell(failure.state.as_str(), &failure.detail);
            }
        }
        let is_page = matches!(outcome, Outcome::Page(_));
        let work = move || {
            let committed = match outcome {
                Outcome::Whole(polled) => committer.poll(&mut stage, &polled),
                Outcome::Page(observed) => committer.page(&mut stage, &observed),
                Outcome::Failed(failure) => committer.gap(&failure),
            };
            (committer, stage, committed)
        };
        let (committer, stage, committed) = tokio::task::spawn_blocking(work).await.context("a commit panicked")?;
        self.state = Some((committer, stage));
        match committed {
            Ok(sequence) => {
                self.durable.send_replace(sequence);
                Ok(if is_page { Next::Page } else { Next::Tick })
            }
            Err(error) => {
                tracing::error!(%error, "failed to write the poll to the spool; the tracer repeats it");
                self.feed.not_durable();
                Ok(Next::Tick)
            }
        }
    }

    /// Logs the source's state when it changes.
    fn tell(&mut self, state: &str, detail: &str) {
        if self.last_state == state {
            return;
        }
        if matches!(state, "ok" | "degraded") {
            tracing::info!(state, detail, feed = %self.feed.socket.display(), "the feed is read");
        } else {
            tracing::warn!(state, detail, feed = %self.feed.socket.display(), "the feed is not read");
        }
        state.clone_into(&mut self.last_state);
    }
}

fn failed(source: &'static str, detail: String) -> Health {
    Health { source, state: "failed", detail, things: 0 }
}

/// What is missing from a tracer, in words.
fn degraded(status: &weir_wire::feed::Status) -> String {
    if let Some(degraded) = &status.degraded {
        // The first is what is missed most; a line of a terminal has no room for all.
        let first = degraded.cannot_see.first().map_or("", |blind| blind.what.as_str());
        let more = degraded.cannot_see.len().saturating_sub(1);
        return format!(
            "{} instead of eBPF: {}; not seen: {first} and {more} kinds more, see weir doctor",
            degraded.mode, degraded.reason
        );
    }
    let missing: Vec<String> = status
        .probes
        .iter()
        .filter(|probe| matches!(probe.state.as_str(), "failed" | "unsupported"))
        .map(|probe| match &probe.reason {
            Some(reason) => format!("probe {} {}: {reason}", probe.name, probe.state),
            None => format!("probe {} {}", probe.name, probe.state),
        })
        .collect();
    if missing.is_empty() && status.state == "degraded" {
        return "the tracer says that it is degraded".into();
    }
    missing.join("; ")
}
