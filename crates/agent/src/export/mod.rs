//! Export: brings the spool's batches to the server, in sequence, and takes its acknowledgements.
//!
//! One call at a time. After a Welcome frames follow from the sequence that the server wants, at most [`WINDOW`]
//! unacknowledged; a lost connection is made again after a wait that doubles up to `MAX_WAIT`. Resending is harmless:
//! a batch's bytes never change and the server knows their sequence.

mod session;

use crate::commit::{Identity, lock};
use crate::metrics::Metrics;
use crate::spool::Spool;
use crate::spool::folder::random;
use session::Session;
pub use session::SessionError;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use weir_daemon::clock::Clock;

/// Frames sent and not yet acknowledged: at up to about 1 MiB each, what one poll of 300,000 changes yields.
pub const WINDOW: usize = 16;
/// A message either way is refused beyond this: a batch has at most 20,000 records of about 200 B before compression.
pub const MAX_MESSAGE: usize = 16 << 20;
/// The first wait after a lost connection.
const MIN_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The wait after a refusal that only a new version, another agent's end, or a new token changes.
const REFUSED_WAIT: Duration = Duration::from_secs(5);

/// What export needs.
#[derive(Clone)]
pub struct Exporter {
    /// Where the server is.
    pub server: Endpoint,
    /// Holds what is sent as a bearer token. It is read for each call: a token that the kubelet projects is replaced
    /// within the hour.
    pub token_file: Option<PathBuf>,
    /// Who this is.
    pub identity: Identity,
    /// The spool.
    pub spool: Arc<Mutex<Spool>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").field("server", &self.server.uri()).finish_non_exhaustive()
    }
}

/// Ends of an exporter's life.
#[derive(Clone, Debug)]
pub struct Stop {
    /// The observer has written its last batch: what is in the spool now is all.
    pub drained: CancellationToken,
    /// No more time: what is unsent stays in the spool.
    pub deadline: CancellationToken,
}

/// Runs until everything is acknowledged after `stop.drained`, or until `stop.deadline`. `durable` tells the newest
/// durable sequence.
///
/// # Errors
/// None: a server that cannot be reached is waited for.
pub async fn run(exporter: Exporter, durable: watch::Receiver<u64>, stop: Stop) -> anyhow::Result<()> {
    let mut wait = MIN_WAIT;
    let mut told = "";
    loop {
        let before = lock(&exporter.spool).acknowledged();
        let outcome = tokio::select! {
            outcome = connect_and_deliver(&exporter, durable.clone(), &stop) => outcome,
            () = stop.deadline.cancelled() => Ok(()),
        };
        exporter.metrics.server_connected.set(0);
        if lock(&exporter.spool).acknowledged() > before {
            wait = MIN_WAIT;
            told = "";
        }
        let reason = match &outcome {
            Ok(()) => break,
            Err(error) => error.reason(),
        };
        exporter.metrics.count(&exporter.metrics.export_errors, reason, 1);
        if let Err(error) = &outcome {
            let server = exporter.server.uri();
            if told == reason {
                tracing::debug!(%error, %server, "the server does not take batches");
            } else {
                tracing::warn!(%error, %server, "the server does not take batches; they wait in the spool");
            }
        }
        told = reason;
        if stop.drained.is_cancelled() {
            // One attempt was asked for; the spool keeps the rest.
            break;
        }
        let pause =
            if matches!(reason, "protocol" | "second_writer" | "unavailable" | "unauthenticated" | "not_allowed") {
                REFUSED_WAIT
            } else {
                wait
            };
        wait = (wait * 2).min(MAX_WAIT);
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            () = stop.drained.cancelled() => {}
            () = stop.deadline.cancelled() => break,
        }
    }
    if let Err(error) = lock(&exporter.spool).write_acknowledged() {
        tracing::warn!(%error, "failed to write down what the server acknowledged; it will be sent again");
    }
    Ok(())
}

async fn connect_and_deliver(
    exporter: &Exporter,
    durable: watch::Receiver<u64>,
    stop: &Stop,
) -> Result<(), SessionError> {
    let channel: Channel = exporter.server.connect().await.map_err(SessionError::Connect)?;
    Session::open(exporter, channel).await?.deliver(durable, stop).await
}

/// Between half of `wait` and `wait`, so that a restarted server is not asked by every agent at once.
fn jittered(wait: Duration) -> Duration {
    let [byte] = random::<1>();
    wait / 2 + (wait / 2) * u32::from(byte) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_at_least_half_and_never_more() {
        for _ in 0..1000 {
            let wait = jittered(MAX_WAIT);
            assert!(wait >= MAX_WAIT / 2 && wait <= MAX_WAIT, "{wait:?}");
        }
    }
}
