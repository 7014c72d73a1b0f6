//! A running server: opened, replayed, listening. The wiring is here, and nothing else.
//!
//! ```text
//! agents ─gRPC─▶ session ─256─▶ writer: log, fsync ─64─▶ applier: state.db ─▶ flusher: segments
//! API server ─HTTP─▶ watches of the cluster ──────────────┘
//! readers ─HTTP─▶ question (2 to 4 at a time) ─▶ snapshot of state + pending rows + segments
//! subscribers (64) ─HTTP─▶ the same again, when the applier has applied something
//! ```
//!
//! Stops in the order of the pipeline: listeners and sessions, the writer when its last sender is gone, the applier
//! when the writer is, which flushes what is pending.

use crate::apply::Applier;
use crate::args::{AgentsAuth, Args, NamedNetwork};
use crate::auth::agents::{Expected, Gate, ServiceAccounts};
use crate::auth::{Guard, Token, check_listener};
use crate::cluster::{self, Cluster};
use crate::compact;
use crate::counts::Counts;
use crate::facts::FactSink;
use crate::flush::Flush;
use crate::http::{App, router};
use crate::ingest::frame::FRAME_BYTES_MAX;
use crate::ingest::service::IngestService;
use crate::ingest::streams::Streams;
use crate::ingest::writer::{self, APPENDS_MAX, DURABLE_MAX};
use crate::live::Live;
use crate::names::Names;
use crate::query::Sources;
use crate::state::Place;
use crate::tiers::Tiers;
use anyhow::Context as _;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_daemon::clock::Clock;
use weir_daemon::tasks::Tasks;
use weir_discovery::kubernetes::client::Access;
use weir_discovery::kubernetes::pace::Pace;
use weir_discovery::kubernetes::reviews::Reviewer;
use weir_store::embedded::Embedded;
use weir_store::embedded::log::Log;
use weir_store::shared::Joined;
use weir_store::{StateStore as _, StoreError};
use weir_wire::agent::ingest_server::IngestServer;

/// A protobuf envelope around the largest frame.
const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX + (1 << 20);
/// Connections that wait to be taken: after a restart all agents of a large cluster come at once, and 5,000 of them
/// overflowed a queue of 1,024. The kernel's own bound, `net.core.somaxconn`, is 4,096 by default.
const CONNECTIONS_WAITING: u32 = 4_096;
/// So much an agent may send before it is looked at: what waits of thousands of agents while the writer's queue is full.
const WAITING_BYTES_MAX: u32 = 65_535;
/// An agent that is gone without a word is noticed within twice this, and its stream is free again.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// What stopping may take: a question that is being answered, the last segment. Below every supervisor's patience.
const GRACE: Duration = Duration::from_secs(4);

/// A started server.
pub struct Server {
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// Where agents deliver.
    pub agents: SocketAddr,
    tasks: Tasks,
    addresses: PathBuf,
}

impl Server {
    /// Opens the data folder, replays the log, listens. The bound addresses are also written to `DIR/server.json`,
    /// which is removed when the server stops.
    ///
    /// # Errors
    /// When the folder is held or cannot be read, a port is taken, or a listener that others can reach has no guard.
    pub async fn start(args: Args, clock: Arc<dyn Clock>, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let token = args.token_file.as_deref().map(Token::read).transpose()?.map(Arc::new);
        let by_account = args.agents_auth == AgentsAuth::ServiceAccount;
        check_listener("listen", args.listen, Guard::of(token.is_some(), args.insecure), "--token-file FILE")?;
        check_listener(
            "agents-listen",
            args.agents_listen,
            Guard::of(token.is_some() || by_account, args.insecure),
            "--agents-auth service-account (in a cluster), or --token-file FILE",
        )?;
        let collect = cluster::collected(&args.collect)?;
        let access = cluster::access(&args)?;
        if access.is_none() && !args.collect.is_empty() {
            tracing::warn!("--collect collects nothing: no API server is watched (--kubernetes)");
        }
        let gate = gate(&args, token.clone(), access.as_ref(), &clock)?;
        let tiers = Tiers::of(&args)?;
        let place = args.state.place(&args.data, access.as_ref(), &clock)?;
        let counts = Arc::new(Counts::default());
        let opening = {
            let (data, networks) = (args.data.clone(), args.network.clone());
            let (clock, counts) = (Arc::clone(&clock), Arc::clone(&counts));
            tokio::task::spawn_blocking(move || open(&data, &networks, &place, tiers, clock, counts))
        };
        let Opened { applier, sources } = opening.await.context("failed to open the data folder")??;
        let http = bind("listen", args.listen)?;
        let agents = bind("agents-listen", args.agents_listen)?;
        let (http_address, agents_address) = (http.local_addr()?, agents.local_addr()?);

        let mut tasks = Tasks::new(shutdown.clone());
        let (inputs_sender, inputs) = std::sync::mpsc::sync_channel(DURABLE_MAX);
        let (appends_sender, appends) = mpsc::channel(APPENDS_MAX);
        let applier_shutdown = shutdown.clone();
        tasks.spawn(
            "applier",
            blocking(move || {
                applier.run(&inputs, &applier_shutdown).map_err(|error| anyhow::anyhow!("failed to {error}"))
            }),
        );
        // The applier ends when its last sender is gone: the watches drop theirs at shutdown.
        let facts = FactSink::new(inputs_sender.clone(), Arc::clone(&sources.store));
        match &access {
            Some(access) => {
                cluster::start(&mut tasks, access, collect, &sources.cluster, &facts, &clock, &shutdown)?;
            }
            None => cluster::let_go(&facts, &*clock).await?,
        }
        drop(facts);
        let (log, writer_counts) = (Arc::clone(&sources.log), Arc::clone(&counts));
        tasks.spawn("log writer", blocking(move || writer::write(&log, appends, &inputs_sender, &writer_counts)));
        let sessions = TaskTracker::new();
        let service = IngestService::new(
            Arc::clone(&sources.streams),
            appends_sender,
            clock,
            Arc::clone(&counts),
            sessions.clone(),
            shutdown.clone(),
            gate,
        );
        tasks.spawn("agents", serve_agents(agents, service, sessions, shutdown.clone()));
        tasks.spawn("compaction", compact::run(Arc::clone(&sources), tiers, shutdown.clone()));
        let routes = router(App::new(sources, token, shutdown.clone()));
        tasks.spawn("http", async move {
            axum::serve(http, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
            Ok(())
        });

        let addresses = args.data.join("server.json");
        let text = serde_json::json!({
            "http": http_address.to_string(),
            "agents": agents_address.to_string(),
            "pid": std::process::id(),
        });
        // Whole or not at all: whoever waits for it reads it as soon as it is there.
        let temporary = args.data.join("server.json.tmp");
        std::fs::write(&temporary, format!("{text}\n"))
            .and_then(|()| std::fs::rename(&temporary, &addresses))
            .with_context(|| format!("failed to write {}", addresses.display()))?;
        tracing::info!(http = %http_address, agents = %agents_address, data = %args.data.display(), "the server listens");
        Ok(Self { http: http_address, agents: agents_address, tasks, addresses })
    }

    /// Runs until shutdown, then stops: what is pending is written, the log is cut.
    ///
    /// # Errors
    /// When a part failed, or did not stop in time.
    pub async fn run(self) -> anyhow::Result<()> {
        let outcome = self.tasks.run(GRACE).await;
        if let Err(error) = std::fs::remove_file(&self.addresses) {
            tracing::debug!(%error, "server.json stays");
        }
        outcome
    }
}

/// How agents are let in.
fn gate(
    args: &Args,
    token: Option<Arc<Token>>,
    access: Option<&Access>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Gate> {
    if args.agents_auth == AgentsAuth::Token {
        return Ok(token.map_or(Gate::Open, Gate::Token));
    }
    let access = access.context(
        "failed to use --agents-auth service-account: no API server can be asked about tokens; run in a cluster, or give \
         --kubernetes URL",
    )?;
    let now = Arc::clone(clock);
    let client = access.client(&Pace::new(move || now.wall())).map_err(|error| anyhow::anyhow!("failed to {error}"))?;
    let expected = Expected {
        audience: args.agents_audience.clone(),
        accounts: args.agents_service_account.iter().cloned().collect(),
        any_node: args.agents_any_node,
    };
    let accounts = ServiceAccounts::new(Reviewer::new(client), expected, Arc::clone(clock));
    Ok(Gate::ServiceAccounts(Box::new(accounts)))
}

pub(crate) struct Opened {
    pub(crate) applier: Applier,
    pub(crate) sources: Arc<Sources>,
}

pub(crate) fn open(
    data: &Path,
    networks: &[NamedNetwork],
    place: &Place,
    tiers: Tiers,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
) -> anyhow::Result<Opened> {
    let failed = |error: StoreError| anyhow::anyhow!("failed to {error}");
    let store = Arc::new(Embedded::open(data).map_err(failed)?);
    let state = match place.open().map_err(failed)? {
        Some(shared) => Joined::open(Arc::clone(&store), shared).map_err(failed)?,
        None => Joined::alone(Arc::clone(&store)).map_err(failed)?,
    };
    let shared = state.shared().map(Arc::downgrade);
    let watermark = store.watermark().map_err(failed)?;
    let live = Arc::new(Live::new(watermark));
    let streams = Arc::new(Streams::default());
    let names = Arc::new(Names::new(networks.iter().map(NamedNetwork::pair).collect()));
    let mut applier = Applier {
        store: Arc::clone(&store),
        state,
        live: Arc::clone(&live),
        flush: Flush {
            store: Arc::clone(&store),
            live: Arc::clone(&live),
            log: None,
            clock: Arc::clone(&clock),
            counts: Arc::clone(&counts),
        },
        clock: Arc::clone(&clock),
        counts: Arc::clone(&counts),
        tiers,
        applied: HashMap::new(),
        names: Arc::clone(&names),
        pending_since: None,
        retained_at: None,
    };
    {
        let view = store.view().map_err(failed)?;
        for stream in view.streams().map_err(failed)? {
            streams.recover(stream.stream, stream.applied_sequence);
            applier.recover(&stream);
        }
        names.fill(&*view).map_err(failed)?;
    }
    let mut replayed = 0_u64;
    let (log, recovery) = Log::open(&store.folder().log(), watermark, &mut |entry| {
        replayed += 1;
        streams.recover(entry.entry.stream, entry.entry.sequence);
        applier.replay(entry)
    })
    .map_err(failed)?;
    if replayed > 0 {
        tracing::info!(batches = replayed, "replayed the log");
    }
    counts.log_cut_bytes.store(recovery.cut_bytes, Ordering::Relaxed);
    let log = Arc::new(Mutex::new(log));
    applier.flush.log = Some(Arc::clone(&log));
    let cluster = Arc::new(Cluster::default());
    let pasts = crate::query::health::past::Pasts::default();
    let earliers = crate::query::diff::Earliers::default();
    let sources =
        Arc::new(Sources { store, shared, live, names, log, streams, clock, counts, cluster, pasts, earliers });
    Ok(Opened { applier, sources })
}

fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of a server that was here before may still linger.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(CONNECTIONS_WAITING)
    };
    listen().with_context(|| {
        format!(
            "failed to listen on {address}; another program has the port, or --{flag} names no address of this machine"
        )
    })
}

async fn blocking(work: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(work).await?
}

async fn serve_agents(
    listener: TcpListener,
    service: IngestService,
    sessions: TaskTracker,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let ingest = IngestServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
    tonic::transport::Server::builder()
        .initial_stream_window_size(Some(WAITING_BYTES_MAX))
        .initial_connection_window_size(Some(WAITING_BYTES_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(ingest)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled())
        .await?;
    sessions.close();
    sessions.wait().await;
    Ok(())
}
