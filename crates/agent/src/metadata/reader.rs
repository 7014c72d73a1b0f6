//! The task that reads one source again and again.

use super::{Listed, Shared};
use crate::metrics::Metrics;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use weir_daemon::clock::Clock;
use weir_discovery::source::Trouble;

/// How often a source is read when nothing calls for it.
pub const PERIOD: Duration = Duration::from_secs(10);
/// How often at most, whatever calls for it.
pub const AT_MOST: Duration = Duration::from_secs(1);
/// How long a reading may take: a loaded kubelet answers within seconds, and the next reading is due after 10 s.
pub const DEADLINE: Duration = Duration::from_secs(8);

/// Reads `listed` until shutdown.
///
/// # Errors
/// None now; the signature is that of a task.
pub async fn run(
    mut listed: Listed,
    shared: Shared,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut woken = shared.woken();
    let mut state = "";
    loop {
        let began = Instant::now();
        woken.mark_unchanged();
        let at = clock.wall().0;
        let reading = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            reading = timeout(DEADLINE, listed.source.read()) => reading,
        };
        let outcome = reading.unwrap_or_else(|_elapsed| {
            Err(Trouble::Failed(format!("it did not answer within {DEADLINE:?}; it is asked again")))
        });
        let now = outcome.as_ref().map_or_else(Trouble::state, |_| "ok");
        match &outcome {
            Err(trouble) if now != state => {
                tracing::warn!(source = listed.reader, state = now, detail = %trouble, "metadata is not read");
            }
            Ok(_) if now != state => tracing::info!(source = listed.reader, "metadata is read"),
            _ => {}
        }
        state = now;
        metrics.read_metadata(listed.reader, now, began.elapsed());
        {
            let (name, kinds) = (listed.source.name(), listed.source.kinds());
            shared.lock().take(listed.reader, name, kinds, (at, clock.wall().0), outcome);
        }
        let called = async {
            tokio::select! {
                _ = woken.changed() => {}
                () = listed.source.changed() => {}
            }
            sleep_until(began + AT_MOST).await;
        };
        if wait(began + PERIOD, called, &shutdown).await == Wait::Over {
            return Ok(());
        }
    }
}

#[derive(PartialEq, Eq)]
enum Wait {
    /// Read again.
    Due,
    /// Shutdown.
    Over,
}

async fn wait(regular: Instant, called: impl Future<Output = ()>, shutdown: &CancellationToken) -> Wait {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Wait::Over,
        () = sleep_until(regular) => Wait::Due,
        () = called => Wait::Due,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Told;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::sync::mpsc;
    use weir_daemon::clock::ManualClock;
    use weir_discovery::source::{Answer, Reading, Source};
    use weir_model::MonotonicNanos;

    /// Tells when it is read.
    struct Counting {
        reads: mpsc::Sender<Duration>,
        since: Instant,
        hangs: bool,
        count: Arc<AtomicU64>,
    }

    impl Source for Counting {
        fn name(&self) -> &'static str {
            "cri"
        }

        fn kinds(&self) -> &'static [&'static str] {
            &["pod"]
        }

        fn read(&mut self) -> Answer<'_, Result<Reading, Trouble>> {
            Box::pin(async move {
                self.count.fetch_add(1, Ordering::Relaxed);
                let _ = self.reads.try_send(self.since.elapsed());
                if self.hangs {
                    std::future::pending::<()>().await;
                }
                Ok(Reading::Whole { things: Vec::new(), missing: String::new() })
            })
        }
    }

    struct Running {
        shared: Shared,
        reads: mpsc::Receiver<Duration>,
        shutdown: CancellationToken,
        tasks: weir_daemon::tasks::Tasks,
    }

    fn start(hangs: bool) -> Running {
        let shared = Shared::new(Told::restored(&["cri"], Vec::new(), &BTreeMap::new()));
        let shutdown = CancellationToken::new();
        let (sender, reads) = mpsc::channel(64);
        let source = Counting { reads: sender, since: Instant::now(), hangs, count: Arc::default() };
        let listed = Listed { reader: "cri", source: Box::new(source) };
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(MonotonicNanos(1), 5));
        let mut tasks = weir_daemon::tasks::Tasks::new(shutdown.clone());
        tasks.spawn("reader", run(listed, shared.clone(), clock, Arc::default(), shutdown.clone()));
        Running { shared, reads, shutdown, tasks }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_is_read_every_ten_seconds_and_at_once_when_called_but_not_more_than_once_a_second() {
        let mut running = start(false);
        let mut next = async || running.reads.recv().await.unwrap().as_secs();
        assert_eq!((next().await, next().await), (0, 10));
        for _ in 0..5 {
            running.shared.wake();
        }
        assert_eq!(next().await, 11, "a second after the reading before");
        assert_eq!(next().await, 21);
        tokio::time::sleep(Duration::from_secs(5)).await;
        running.shared.wake();
        assert_eq!(next().await, 26, "at once");
        running.shutdown.cancel();
        running.tasks.run(Duration::from_secs(1)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_hangs_is_given_up_told_and_asked_again() {
        let mut running = start(true);
        assert_eq!(running.reads.recv().await.unwrap().as_secs(), 0);
        assert_eq!(running.reads.recv().await.unwrap().as_secs(), 10);
        let health = running.shared.lock().health();
        assert_eq!(health[0].state, "failed");
        assert!(health[0].detail.contains("did not answer within 8s"), "{}", health[0].detail);
        running.shutdown.cancel();
        running.tasks.run(Duration::from_secs(1)).await.unwrap();
    }
}
