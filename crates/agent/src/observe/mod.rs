//! Observe: one poll of the feed, into a [`Stage`]. Whatever the other side does (missing, slow, lying, endless), the
//! outcome is a whole stage or a state with a reason, within a deadline and a bound.

pub mod state;

use crate::attribute::Stage;
use bytes::Bytes;
pub use state::{Failure, SourceState};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;
use weir_daemon::clock::Clock;
use weir_discovery::unix_http::{self, Timeouts};
use weir_model::MonotonicNanos;
use weir_wire::feed::decode::{Decoder, Envelope, Limits};

/// Where the feed is and how far it is trusted.
#[derive(Clone, Debug)]
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
}

/// A whole reply; its rows are in the stage.
#[derive(Debug)]
pub struct Observed {
    /// What stood around the rows.
    pub envelope: Envelope,
    /// When the snapshot began: the tracer's word if it gave a plausible one, else when it was asked.
    pub at: MonotonicNanos,
}

impl Feed {
    /// Fetches one reply. `acknowledged` tells the tracer what it may let go of.
    ///
    /// # Errors
    /// [`Failure`]: the stage then holds rows that mean nothing.
    pub async fn poll(
        &self,
        acknowledged: Acknowledged,
        stage: &mut Stage,
        clock: &dyn Clock,
    ) -> Result<Observed, Failure> {
        stage.clear();
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
        Ok(Observed { envelope, at: told.unwrap_or(asked) })
    }

    async fn fetch(&self, target: &str, stage: &mut Stage) -> Result<Envelope, Failure> {
        let reply = unix_http::get(&self.socket, target, self.timeouts).await?.ok()?;
        if let Some(length) = reply.announced().filter(|length| *length > self.max_body) {
            let detail = format!("the reply announces {length} bytes, at most {} are taken", self.max_body);
            return Err(Failure::new(SourceState::TooLarge, detail));
        }
        let limits = Limits { body: self.max_body, ..Limits::default() };
        let read = read(reply, Decoder::new(limits), stage);
        match timeout(self.body, read).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Failure::new(
                SourceState::Timeout,
                format!("{} did not finish its reply within {:?}", self.socket.display(), self.body),
            )),
        }
    }
}

async fn read(mut reply: unix_http::Reply, mut decoder: Decoder, stage: &mut Stage) -> Result<Envelope, Failure> {
    loop {
        let chunk: Option<Bytes> = match reply.chunk().await {
            Ok(chunk) => chunk,
            Err(error) => {
                let detail = format!("after {} bytes: {error}", decoder.bytes());
                return Err(Failure::new(SourceState::Truncated, detail));
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
