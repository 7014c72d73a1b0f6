//! A stream of a runtime's events that is opened again when it ends.
//!
//! A task holds the stream, since opening it may take as long as the first event lets wait for itself; its events
//! come through a bounded queue, and a full queue holds the stream back. Whoever reads is told of every break: between
//! a break and the next event something may have been missed, and only a fresh read of everything closes that gap.

use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Events that wait to be read: the creation of a full node's pods at once.
const WAITING: usize = 1_024;
/// The first wait before a stream is opened again; it doubles with each failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest: the node is read every 10 s anyway.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What is told of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told<T> {
    /// An event.
    Event(T),
    /// The stream is open now; only from runtimes that answer before the first event.
    Opened,
    /// The stream broke, with the reason; it will be opened again.
    Broken(String),
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It broke: open it again.
    Broken(String),
    /// The runtime has no events: never ask again.
    Unsupported(String),
}

/// Where a stream's events go.
#[derive(Clone, Debug)]
pub(crate) struct Sink<T> {
    told: mpsc::Sender<Told<T>>,
    has_told: Arc<AtomicBool>,
}

impl<T> Sink<T> {
    /// Says that the stream is open.
    pub(crate) async fn opened(&self) {
        let _ = self.told.send(Told::Opened).await;
    }

    /// Hands an event on; waits while the queue is full. Once nobody reads any more the task is ended.
    pub(crate) async fn event(&self, event: T) {
        self.has_told.store(true, Ordering::Relaxed);
        let _ = self.told.send(Told::Event(event)).await;
    }
}

/// The events of one runtime.
#[derive(Debug)]
pub(crate) struct Events<T> {
    told: mpsc::Receiver<Told<T>>,
    unsupported: Arc<AtomicBool>,
    /// Ends with this value.
    _task: JoinSet<()>,
}

impl<T: Send + 'static> Events<T> {
    /// Runs `stream` (from opening it to its end) again and again until the runtime turns out to have no events.
    pub(crate) fn start(mut stream: impl FnMut(Sink<T>) -> BoxFuture<'static, Ending> + Send + 'static) -> Self {
        let (sender, told) = mpsc::channel(WAITING);
        let unsupported = Arc::new(AtomicBool::new(false));
        let says_so = Arc::clone(&unsupported);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut wait = FIRST_WAIT;
            loop {
                let has_told = Arc::new(AtomicBool::new(false));
                let ending = stream(Sink { told: sender.clone(), has_told: Arc::clone(&has_told) }).await;
                match ending {
                    Ending::Unsupported(reason) => {
                        tracing::info!(reason, "the runtime tells no events: changes are seen at the next reading");
                        says_so.store(true, Ordering::Relaxed);
                        return;
                    }
                    Ending::Broken(reason) => {
                        if sender.send(Told::Broken(reason)).await.is_err() {
                            return;
                        }
                    }
                }
                if has_told.load(Ordering::Relaxed) {
                    wait = FIRST_WAIT;
                }
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        });
        Self { told, unsupported, _task: task }
    }

    /// What comes next. Never ends where the runtime has no events. Nothing is lost when it is dropped before its end.
    pub(crate) async fn next(&mut self) -> Told<T> {
        match self.told.recv().await {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }

    /// What waits, without waiting for more.
    pub(crate) fn waiting(&mut self) -> Option<Told<T>> {
        self.told.try_recv().ok()
    }

    /// Whether the runtime said that it has no events.
    pub(crate) fn are_unsupported(&self) -> bool {
        self.unsupported.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test(start_paused = true)]
    async fn a_broken_stream_is_told_and_opened_again_ever_more_slowly() {
        let mut opened = 0_u64;
        let mut events = Events::start(move |sink: Sink<u64>| {
            opened += 1;
            let number = opened;
            async move {
                if number == 3 {
                    sink.event(number).await;
                }
                Ending::Broken(format!("break {number}"))
            }
            .boxed()
        });
        let start = tokio::time::Instant::now();
        assert_eq!(events.next().await, Told::Broken("break 1".into()));
        assert_eq!(events.next().await, Told::Broken("break 2".into()));
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!(events.next().await, Told::Event(3));
        assert_eq!(events.next().await, Told::Broken("break 3".into()));
        assert_eq!(start.elapsed(), Duration::from_secs(1 + 2));
        assert_eq!(events.next().await, Told::Broken("break 4".into()));
        assert_eq!(start.elapsed(), Duration::from_secs(1 + 2 + 1), "after an event the waits begin anew");
        for _ in 0..20 {
            events.next().await;
        }
        let start = tokio::time::Instant::now();
        events.next().await;
        assert_eq!(start.elapsed(), LONGEST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_without_events_is_asked_once() {
        let (asked, mut count) = mpsc::channel(8);
        let mut events = Events::start(move |_sink: Sink<u64>| {
            let asked = asked.clone();
            async move {
                let _ = asked.send(()).await;
                Ending::Unsupported("no such call".into())
            }
            .boxed()
        });
        tokio::time::timeout(Duration::from_secs(3_600), events.next()).await.unwrap_err();
        assert!(events.are_unsupported());
        assert_eq!(count.recv().await, Some(()));
        assert_eq!(count.recv().await, None);
    }
}
