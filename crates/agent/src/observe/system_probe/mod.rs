//! Datadog's system-probe as a source of rows: `GET /network_tracer/connections` on its unix socket (at the root in those
//! of 2019 to 2021), in protobuf where it can, else in JSON.
//!
//! - [`session`]: which client the agent is, and what a reply's numbers therefore are.
//! - [`decode`], [`protobuf`], [`json`]: a body, streamed; [`message`]: the part of it that is used.
//! - [`rows`]: a connection as a row.
//!
//! The rows go into the same [`Stage`] as those of the feed. They have no cookies and no totals: the table sums them
//! (`docs/decisions/0010-other-tracers.md`). A reply counts only as a whole, and one that did not become durable ends the session.

pub mod decode;
pub mod json;
pub mod message;
pub mod protobuf;
pub mod rows;
pub mod session;

use super::{Acknowledged, Failure, Feed, Kind, Observed, SourceState};
use crate::attribute::Stage;
use crate::losses::Lost;
use crate::spool::folder::random;
use decode::{Decoder, Told};
use http::StatusCode;
use session::{Durable, Meaning, Run, Session};
use std::path::Path;
use tokio::time::timeout;
use weir_daemon::clock::Clock;
use weir_discovery::unix_http::{self, FetchError, Reply};
use weir_wire::feed::decode::Envelope;
use weir_wire::losses::{self, Reason};

/// What is asked for; whoever does not speak it answers JSON.
const ACCEPT: &str = "application/protobuf";

/// The losses of its own that system-probe tells, and what weir calls them.
const TOLD: [&Reason; 5] = [
    losses::CLOSED_CONN_DROPPED,
    losses::CONN_DROPPED,
    losses::PERF_LOST,
    losses::KPROBES_MISSED,
    losses::UDP_SENDS_MISSED,
];

/// A system-probe, and the agent as its client.
#[derive(Debug)]
pub struct SystemProbe {
    /// Before `/connections` and `/register`.
    prefix: &'static str,
    session: Option<Session>,
}

/// Why there is no reply.
enum Refusal {
    /// Nothing is served under the prefix.
    NotFound,
    /// Something else; whether system-probe may have told what it has forgotten since.
    Failed { failure: Failure, is_told: bool },
}

impl From<FetchError> for Refusal {
    fn from(error: FetchError) -> Self {
        let is_told = match &error {
            FetchError::Status { status: StatusCode::NOT_FOUND, .. } => return Self::NotFound,
            FetchError::Status { path, status: StatusCode::TOO_MANY_REQUESTS } => {
                let detail = format!(
                    "{} answered 429: system-probe serves fewer requests at once than it gets; the next poll asks again",
                    path.display()
                );
                return Self::Failed { failure: Failure::new(SourceState::HttpError, detail), is_told: false };
            }
            FetchError::Missing { .. } | FetchError::Denied { .. } | FetchError::Target(_) => false,
            _ => true,
        };
        Self::Failed { failure: error.into(), is_told }
    }
}

impl SystemProbe {
    /// A system-probe of today, or (`prefix` empty) of 2019 to 2021.
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix, session: None }
    }

    /// What was fetched last did not become durable: the next fetch is another client's first.
    pub fn forget(&mut self) {
        self.session = None;
    }

    /// Fetches one reply.
    ///
    /// # Errors
    /// [`Failure`]; `Ok(None)` when this is no system-probe, or one that does not serve connections.
    pub(super) async fn poll(
        &mut self,
        feed: &Feed,
        acknowledged: Acknowledged,
        stage: &mut Stage,
        clock: &dyn Clock,
    ) -> Result<Option<Observed>, Failure> {
        match self.fetch(feed, acknowledged, stage, clock).await {
            Ok(observed) => Ok(Some(observed)),
            Err(Refusal::NotFound) => {
                self.forget();
                Ok(None)
            }
            Err(Refusal::Failed { failure, is_told }) => {
                if is_told {
                    self.forget();
                }
                Err(failure)
            }
        }
    }

    async fn fetch(
        &mut self,
        feed: &Feed,
        acknowledged: Acknowledged,
        stage: &mut Stage,
        clock: &dyn Clock,
    ) -> Result<Observed, Refusal> {
        let run = run_of(&feed.socket)?;
        let asked = clock.monotonic();
        let durable = Durable { run: acknowledged.run, unix: acknowledged.polled_unix };
        let meaning = session::meaning(self.session.as_ref(), run, durable, asked.0);
        if meaning != Meaning::Deltas {
            self.session = None;
        }
        let (client_id, is_known) = match &self.session {
            Some(session) => (session.client_id.clone(), true),
            None => (format!("{}-{:016x}", feed.client_id, u64::from_le_bytes(random())), false),
        };
        if !is_known {
            self.register(feed, &client_id).await?;
        }
        let target = format!("{}/connections?client_id={client_id}", self.prefix);
        let reply = unix_http::get_as(&feed.socket, &target, Some(ACCEPT), feed.timeouts).await?.ok()?;
        let told = read(feed, reply, meaning, asked.0, stage)
            .await
            .map_err(|failure| Refusal::Failed { failure, is_told: true })?;
        if run_of(&feed.socket)? != run {
            let detail = format!("system-probe started again while {} was read", feed.socket.display());
            return Err(Refusal::Failed { failure: Failure::new(SourceState::Truncated, detail), is_told: true });
        }
        let lost = lost(&told, meaning, stage);
        if meaning != Meaning::Baseline && lost.iter().any(|(reason, _)| *reason == losses::CONN_DROPPED) {
            // Beyond its bound it tells totals where deltas belong, and not which rows those are.
            let detail = "system-probe has more connections than it knows baselines of for a client, so this reply's \
                          numbers are not sure: raise its system_probe_config.max_connection_state_buffered";
            return Err(Refusal::Failed { failure: Failure::new(SourceState::TooLarge, detail), is_told: true });
        }
        self.session = Some(Session { client_id, run: run.id, fetched: asked.0 });
        let envelope = Envelope {
            run_id: Some(format!("{:016x}", run.id)),
            rows: stage.len() as u64,
            refused: told.refused,
            bytes: told.bytes,
            ..Envelope::default()
        };
        Ok(Observed { envelope, at: asked, kind: Kind::SystemProbe, lost, is_gapless: meaning == Meaning::Deltas })
    }

    /// Makes the agent known, so that connections which end before its first fetch are kept for it. Old versions do
    /// not serve it, and do as much at the first fetch.
    async fn register(&self, feed: &Feed, client_id: &str) -> Result<(), Refusal> {
        let target = format!("{}/register?client_id={client_id}", self.prefix);
        match unix_http::get(&feed.socket, &target, feed.timeouts).await.and_then(Reply::ok) {
            Ok(_) | Err(FetchError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Err(error) => match Refusal::from(error) {
                Refusal::Failed { failure, .. } => Err(Refusal::Failed { failure, is_told: false }),
                Refusal::NotFound => Ok(()),
            },
        }
    }
}

fn run_of(socket: &Path) -> Result<Run, Refusal> {
    Run::of(socket).map_err(|source| Refusal::from(FetchError::Missing { path: socket.into(), source }))
}

async fn read(feed: &Feed, mut reply: Reply, meaning: Meaning, at: u64, stage: &mut Stage) -> Result<Told, Failure> {
    if let Some(length) = reply.announced().filter(|length| *length > feed.max_body) {
        let detail = format!("the reply announces {length} bytes, at most {} are taken", feed.max_body);
        return Err(Failure::new(SourceState::TooLarge, detail));
    }
    let mut decoder = Decoder::new(reply.content_type(), feed.max_body);
    let mut refused = 0;
    let reading = async {
        loop {
            let chunk = reply.chunk().await.map_err(|error| {
                Failure::new(SourceState::Truncated, format!("after {} bytes: {error}", decoder.bytes()))
            })?;
            let Some(chunk) = chunk else { return Ok(decoder.finish()?) };
            decoder.push(&chunk, |connection| refused += u64::from(!rows::stage(connection, meaning, at, stage)))?;
            tokio::task::yield_now().await;
        }
    };
    let told = timeout(feed.body, reading).await.unwrap_or_else(|_elapsed| {
        Err(Failure::new(
            SourceState::Timeout,
            format!("{} did not finish its reply within {:?}", feed.socket.display(), feed.body),
        ))
    })?;
    Ok(Told { refused: told.refused + refused, ..told })
}

/// What was lost since the last poll: what system-probe says, and what it did not keep for a client that it did not know.
fn lost(told: &Told, meaning: Meaning, stage: &Stage) -> Vec<(&'static Reason, Lost)> {
    let mut lost = Vec::new();
    if meaning != Meaning::Baseline {
        // To a new client it tells the counts since its own start.
        for reason in TOLD {
            let count = told.telemetry.get(reason.word).copied().unwrap_or(0);
            lost.push((reason, Lost::count(u64::try_from(count).unwrap_or(0))));
        }
    }
    if meaning == Meaning::Baseline {
        lost.push((losses::CLOSED_ROWS_NOT_KEPT, Lost::count(1)));
    }
    lost.push((losses::FAILURES_MERGED, Lost::connections(stage.failures_merged)));
    lost.retain(|(_, lost)| lost.count > 0);
    lost
}

/// Whether something on the socket answers as every system-probe does, whatever modules it runs.
pub(super) async fn answers(feed: &Feed) -> bool {
    unix_http::get(&feed.socket, "/debug/stats", feed.timeouts).await.and_then(Reply::ok).is_ok()
}

/// What to do about a system-probe that does not serve its connections.
pub(super) fn no_connections(socket: &Path) -> Failure {
    let detail = format!(
        "{} is Datadog's system-probe, but it answers 404 to /network_tracer/connections: either its \
         network_config.enabled is false, or network_config.direct_send is true, with which it sends by itself and takes \
         the endpoint away; set network_config.enabled: true and network_config.direct_send: false \
         (DD_NETWORK_CONFIG_DIRECT_SEND=false) and start system-probe again, or run weir-tracer instead",
        socket.display()
    );
    Failure::new(SourceState::HttpError, detail)
}

#[cfg(test)]
mod tests;
