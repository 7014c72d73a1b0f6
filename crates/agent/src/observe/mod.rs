//! Observe: one poll of the feed, into a [`Stage`]. Whatever the other side does (missing, slow, lying, endless), the
//! outcome is a whole stage or a state with a reason, within a deadline and a bound.
//!
//! What listens on the socket is found by asking: `/connections` is weir's tracer, the 2019 one or a system-probe of 2019
//! to 2021, `/network_tracer/connections` today's ([`system_probe`]). What was found is kept until it answers otherwise.

pub mod state;
pub mod system_probe;

use crate::attribute::Stage;
use crate::losses::Lost;
use bytes::Bytes;
pub use state::{Failure, SourceState};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use system_probe::SystemProbe;
use tokio::time::timeout;
use weir_daemon::clock::Clock;
use weir_discovery::unix_http::{self, FetchError, Timeouts};
use weir_model::MonotonicNanos;
use weir_wire::feed::decode::{DecodeError, Decoder, Envelope, Limits};
use weir_wire::losses::Reason;

/// Where the feed is and how far it is trusted.
#[derive(Debug)]
pub struct Feed {
    /// The unix socket.
    pub socket: PathBuf,
    /// How the tracer knows this agent.
    pub client_id: String,
    /// How long a whole reply may take.
    pub body: Duration,
    /// How long a reply may be.
    pub max_body: u64,
    /// How long connecting and the reply's head may take.
    pub timeouts: Timeouts,
    /// What listens on the socket.
    pub dialect: Dialect,
}

/// How the source is spoken to.
#[derive(Debug, Default)]
pub enum Dialect {
    /// Not found out yet.
    #[default]
    Unknown,
    /// The feed.
    Feed,
    /// Datadog's system-probe.
    SystemProbe(SystemProbe),
}

/// What kind of source a reply came from: `Source.kind` in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// weir's tracer.
    Weir,
    /// The 2019 tracer, or another with its feed.
    #[default]
    Legacy,
    /// Datadog's system-probe.
    SystemProbe,
}

impl Kind {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Weir => "weir",
            Self::Legacy => "legacy",
            Self::SystemProbe => "system-probe",
        }
    }
}

/// Closed rows that one reply is to hold at most, about 30 MB of JSON: what a node's busiest interval, or an agent's
/// absence, leaves waiting comes in several replies, each durable before the next.
pub const PAGE_ROWS: u64 = 32_768;

/// What the tracer may let go of: what is durable here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// The cursor of the last durable reply of this boot.
    pub cursor: Option<u64>,
    /// The run that the cursor is of.
    pub run: u64,
    /// The cursor of DNS rows.
    pub dns: Option<u64>,
    /// When the last durable poll was, wall time in nanoseconds, 0 never in this boot.
    pub polled_unix: i64,
}

/// A whole reply; its rows are in the stage.
#[derive(Debug)]
pub struct Observed {
    /// What stood around the rows.
    pub envelope: Envelope,
    /// When the snapshot began: the tracer's word if it gave a plausible one, else when it was asked.
    pub at: MonotonicNanos,
    /// What kind of source it is.
    pub kind: Kind,
    /// What was lost since the last poll, where the source tells that instead of counts that only rise.
    pub lost: Vec<(&'static Reason, Lost)>,
    /// With a source of the same run nothing is missing since the last durable poll, whatever polls failed between.
    pub is_gapless: bool,
}

/// Why `/connections` gave nothing.
enum Refusal {
    /// The path is not served.
    NotFound,
    /// It is an old system-probe's.
    SystemProbe,
    /// Anything else.
    Failed(Failure),
}

impl From<FetchError> for Refusal {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Status { status: http::StatusCode::NOT_FOUND, .. } => Self::NotFound,
            error => Self::Failed(error.into()),
        }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::SystemProbe { .. } => Self::SystemProbe,
            error => Self::Failed(error.into()),
        }
    }
}

impl Feed {
    /// Fetches one reply. `acknowledged` tells the tracer what it may let go of.
    ///
    /// # Errors
    /// [`Failure`]: the stage then holds rows that mean nothing.
    pub async fn poll(
        &mut self,
        acknowledged: Acknowledged,
        stage: &mut Stage,
        clock: &dyn Clock,
    ) -> Result<Observed, Failure> {
        stage.clear();
        // What it is, is found out anew once it does not answer as that any more.
        match std::mem::take(&mut self.dialect) {
            Dialect::SystemProbe(probe) => {
                if let Some(observed) = self.ask(probe, acknowledged, stage, clock).await? {
                    return Ok(observed);
                }
            }
            Dialect::Feed | Dialect::Unknown => {}
        }
        stage.clear();
        let prefixes: &[&'static str] = match self.poll_feed(acknowledged, stage, clock).await {
            Ok(observed) => {
                self.dialect = Dialect::Feed;
                return Ok(observed);
            }
            Err(Refusal::NotFound) => &["/network_tracer"],
            Err(Refusal::SystemProbe) => &[""],
            Err(Refusal::Failed(failure)) => return Err(failure),
        };
        for prefix in prefixes {
            stage.clear();
            if let Some(observed) = self.ask(SystemProbe::new(prefix), acknowledged, stage, clock).await? {
                return Ok(observed);
            }
        }
        if system_probe::answers(self).await {
            return Err(system_probe::no_connections(&self.socket));
        }
        let detail = format!(
            "{} answered 404 to /connections and to /network_tracer/connections: it is no tracer that weir can read",
            self.socket.display()
        );
        Err(Failure::new(SourceState::HttpError, detail))
    }

    /// The last reply did not become durable: a source that does not repeat must be asked so that nothing is lost.
    pub fn not_durable(&mut self) {
        if let Dialect::SystemProbe(probe) = &mut self.dialect {
            probe.forget();
        }
    }

    /// Asks a system-probe, and keeps it unless it does not serve connections or answers as something else does.
    async fn ask(
        &mut self,
        mut probe: SystemProbe,
        acknowledged: Acknowledged,
        stage: &mut Stage,
        clock: &dyn Clock,
    ) -> Result<Option<Observed>, Failure> {
        let outcome = probe.poll(self, acknowledged, stage, clock).await;
        // Another tracer may have taken its place; at the root both serve the same path.
        let is_other = match &outcome {
            Ok(observed) => observed.is_none(),
            Err(failure) => failure.state == SourceState::BadJson,
        };
        if !is_other {
            self.dialect = Dialect::SystemProbe(probe);
        }
        outcome
    }

    async fn poll_feed(
        &self,
        acknowledged: Acknowledged,
        stage: &mut Stage,
        clock: &dyn Clock,
    ) -> Result<Observed, Refusal> {
        let asked = clock.monotonic();
        // Deltas come from totals (R2), so weir's tracer need not remember any for `last_*`.
        let mut target = format!("/connections?client_id={}&last=no", self.client_id);
        if let Some(cursor) = acknowledged.cursor {
            // Writing to a String cannot fail.
            let _ = write!(target, "&page={PAGE_ROWS}&run={:016x}&ack={cursor}", acknowledged.run);
        }
        if let Some(cursor) = acknowledged.dns {
            let _ = write!(target, "&dns_ack={cursor}");
        }
        let envelope = self.fetch(&target, stage).await?;
        let now = clock.monotonic();
        // A snapshot in the future, or long before the question, is no snapshot of this question.
        let told = envelope.monotonic_ns.map(MonotonicNanos).filter(|told| *told >= asked && *told <= now);
        let is_weir = envelope.run_id.is_some() || envelope.cursor.is_some();
        Ok(Observed {
            envelope,
            at: told.unwrap_or(asked),
            kind: if is_weir { Kind::Weir } else { Kind::Legacy },
            lost: Vec::new(),
            is_gapless: true,
        })
    }

    async fn fetch(&self, target: &str, stage: &mut Stage) -> Result<Envelope, Refusal> {
        let reply = unix_http::get(&self.socket, target, self.timeouts).await?.ok()?;
        if let Some(length) = reply.announced().filter(|length| *length > self.max_body) {
            let detail = format!("the reply announces {length} bytes, at most {} are taken", self.max_body);
            return Err(Refusal::Failed(Failure::new(SourceState::TooLarge, detail)));
        }
        let limits = Limits { body: self.max_body, ..Limits::default() };
        let read = read(reply, Decoder::new(limits), stage);
        timeout(self.body, read).await.unwrap_or_else(|_elapsed| {
            Err(Refusal::Failed(Failure::new(
                SourceState::Timeout,
                format!("{} did not finish its reply within {:?}", self.socket.display(), self.body),
            )))
        })
    }
}

async fn read(mut reply: unix_http::Reply, mut decoder: Decoder, stage: &mut Stage) -> Result<Envelope, Refusal> {
    loop {
        let chunk: Option<Bytes> = match reply.chunk().await {
            Ok(chunk) => chunk,
            Err(error) => {
                let detail = format!("after {} bytes: {error}", decoder.bytes());
                return Err(Refusal::Failed(Failure::new(SourceState::Truncated, detail)));
            }
        };
        let Some(chunk) = chunk else { return Ok(decoder.finish()?) };
        decoder.push(&chunk, |row| stage.push(row))?;
        // A reply of 100 MB must not keep the other tasks of this thread waiting.
        tokio::task::yield_now().await;
    }
}

/// The path in `unix:PATH`, or the path itself.
///
/// # Errors
/// A text for the user when it is another kind of address.
pub fn socket_path(feed: &str) -> Result<PathBuf, String> {
    if let Some(path) = feed.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() { Err("write unix:PATH".into()) } else { Ok(Path::new(path).into()) };
    }
    if feed.starts_with('/') || feed.starts_with('.') {
        return Ok(Path::new(feed).into());
    }
    Err(format!("`{feed}` is no feed: write unix:PATH, for example unix:/run/weir/tracer.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_a_unix_socket_by_its_path() {
        assert_eq!(socket_path("unix:/run/x.sock").unwrap(), Path::new("/run/x.sock"));
        assert_eq!(socket_path("unix:///run/x.sock").unwrap(), Path::new("/run/x.sock"));
        assert_eq!(socket_path("/run/x.sock").unwrap(), Path::new("/run/x.sock"));
        assert!(socket_path("http://localhost").unwrap_err().contains("unix:/run/weir/tracer.sock"));
        assert!(socket_path("unix:").is_err());
    }
}
