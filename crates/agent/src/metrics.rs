//! The agent's own numbers, and the listener that shows them: `/metrics`, `/healthz`, `/readyz`.
//!
//! Every drop, loss and state is a counter with its reason (invariant 5).

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A state of the source, or of an export.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct State {
    /// `ok`, `missing`, `timeout`, ...
    pub state: String,
}

/// Why something was lost or refused.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    /// A fixed word.
    pub reason: String,
}

/// What was lost where.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LossOf {
    /// `tracer` or `agent`.
    pub place: String,
    /// A word of `docs/losses.md`.
    pub reason: String,
}

/// One of the sources of metadata.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SourceOf {
    /// `kubelet`, `cri`, ...
    pub source: &'static str,
}

/// A source of metadata, and what became of a reading.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReadingOf {
    /// `kubelet`, `cri`, ...
    pub source: &'static str,
    /// `ok`, `off`, `refused` or `failed`.
    pub state: &'static str,
}

/// The numbers.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Polls by their outcome.
    pub polls: Family<State, Counter>,
    /// Rows taken.
    pub rows: Counter,
    /// Rows not used, by reason.
    pub rows_refused: Family<Reason, Counter>,
    /// Bytes of the feed.
    pub feed_bytes: Counter,
    /// Milliseconds of the last poll, from request to durable.
    pub poll_milliseconds: Gauge,
    /// Records written to the spool.
    pub records: Counter,
    /// Batches written to the spool.
    pub batches: Counter,
    /// Counters known.
    pub connections: Gauge,
    /// What durable batches told as lost.
    pub losses: Family<LossOf, Counter>,
    /// Bytes in the spool.
    pub spool_bytes: Gauge,
    /// Batches that wait for the server.
    pub spool_waiting: Gauge,
    /// Spool operations that failed, by reason.
    pub spool_errors: Family<Reason, Counter>,
    /// Batches that the server acknowledged.
    pub acknowledged: Counter,
    /// Frames sent, resends included.
    pub frames: Counter,
    /// Connections to the server that ended, by reason.
    pub export_errors: Family<Reason, Counter>,
    /// 1 while the server has welcomed this agent.
    pub server_connected: Gauge,
    /// Processes known.
    pub processes: Gauge,
    /// Lists of processes, and replies to `/status`, that could not be read, by source.
    pub discovery_errors: Family<Reason, Counter>,
    /// Readings of metadata by source and outcome.
    pub metadata_readings: Family<ReadingOf, Counter>,
    /// Milliseconds of each source's last reading.
    pub metadata_milliseconds: Family<SourceOf, Gauge>,
    /// A poll has succeeded and its batch is durable.
    ready: AtomicBool,
}

impl Metrics {
    /// Counts an outcome of a poll.
    pub fn poll(&self, state: &str) {
        self.polls.get_or_create(&State { state: state.into() }).inc();
    }

    /// Counts a reading of metadata.
    pub fn read_metadata(&self, source: &'static str, state: &'static str, taken: Duration) {
        self.metadata_readings.get_or_create(&ReadingOf { source, state }).inc();
        self.metadata_milliseconds.get_or_create(&SourceOf { source }).set(taken.as_millis() as i64);
    }

    /// Adds to a counter with a reason.
    pub fn count(&self, family: &Family<Reason, Counter>, reason: &str, by: u64) {
        family.get_or_create(&Reason { reason: reason.into() }).inc_by(by);
    }

    /// Counts a loss that a durable batch tells. One whose bytes alone are known counts as one.
    pub fn lose(&self, place: &str, reason: &str, count: u64) {
        self.losses.get_or_create(&LossOf { place: place.into(), reason: reason.into() }).inc_by(count.max(1));
    }

    /// Notes that a batch of a successful poll is durable.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("weir_agent");
        registry.register("polls", "Polls of the feed, by outcome", self.polls.clone());
        registry.register("rows", "Rows of the feed that were taken", self.rows.clone());
        registry.register("rows_refused", "Rows of the feed that were not used, by reason", self.rows_refused.clone());
        registry.register("feed_bytes", "Bytes of the feed", self.feed_bytes.clone());
        registry.register(
            "poll_milliseconds",
            "The last poll, from request to durable",
            self.poll_milliseconds.clone(),
        );
        registry.register("records", "Records written to the spool", self.records.clone());
        registry.register("batches", "Batches written to the spool", self.batches.clone());
        registry.register("connections", "Counters known", self.connections.clone());
        registry.register("losses", "What was lost, as the batches tell it, by place and reason", self.losses.clone());
        registry.register("spool_bytes", "Bytes in the spool", self.spool_bytes.clone());
        registry.register("spool_waiting_batches", "Batches that wait for the server", self.spool_waiting.clone());
        registry.register("spool_errors", "Spool operations that failed, by reason", self.spool_errors.clone());
        registry.register("acknowledged_batches", "Batches that the server acknowledged", self.acknowledged.clone());
        registry.register("frames", "Frames sent, resends included", self.frames.clone());
        registry.register(
            "export_errors",
            "Connections to the server that ended, by reason",
            self.export_errors.clone(),
        );
        registry.register(
            "server_connected",
            "1 while the server has welcomed this agent",
            self.server_connected.clone(),
        );
        registry.register("processes", "Processes known", self.processes.clone());
        registry.register(
            "discovery_errors",
            "Sources of metadata that failed, by source",
            self.discovery_errors.clone(),
        );
        registry.register(
            "metadata_readings",
            "Readings of sources of metadata, by source and outcome",
            self.metadata_readings.clone(),
        );
        registry.register(
            "metadata_milliseconds",
            "The last reading of each source of metadata",
            self.metadata_milliseconds.clone(),
        );
        registry
    }

    /// The numbers in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut text, &self.registry());
        text
    }
}

/// Connections served at once: a scraper or two, and a probe.
const MAX_CONNECTIONS: usize = 32;

/// Serves the numbers on `listener` until shutdown. With a `token`, `/metrics` wants it as a bearer token.
///
/// # Errors
/// None now; the signature is that of a task.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    token: Option<String>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    let token: Option<Arc<str>> = token.map(Into::into);
    loop {
        while connections.try_join_next().is_some() {}
        let stream = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: leave the machine a moment to breathe.
                    tracing::warn!(%error, "failed to accept a connection for the metrics");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let (metrics, token) = (Arc::clone(&metrics), token.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &metrics, token.as_deref());
                async move { Ok::<_, Infallible>(response) }
            });
            // A scraper that goes away is no event.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, token: Option<&str>) -> Response<Full<Bytes>> {
    let (status, content, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") if !may(request, token) => {
            (StatusCode::UNAUTHORIZED, "text/plain", "a token is needed\n".into())
        }
        (&Method::GET, "/metrics") => {
            (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.text())
        }
        (&Method::GET, "/healthz") => (StatusCode::OK, "text/plain", "ok\n".into()),
        (&Method::GET, "/readyz") if metrics.ready.load(Ordering::Relaxed) => {
            (StatusCode::OK, "text/plain", "ready\n".into())
        }
        (&Method::GET, "/readyz") => {
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "no poll has succeeded yet\n".into())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "there are /metrics, /healthz and /readyz\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content));
    response
}

fn may(request: &Request<Incoming>, token: Option<&str>) -> bool {
    let Some(token) = token else { return true };
    let told = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    told.and_then(|told| told.strip_prefix("Bearer ")).is_some_and(|told| same(told.as_bytes(), token.as_bytes()))
}

/// Compares without telling by its duration where the difference lies.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
