//! Containers as a Docker engine tells them over its HTTP API, on its unix socket.
//!
//! ```text
//! GET /containers/json ──────▶ known ──▶ Said
//! GET /containers/ID/json ──────▲   only of what is new, or of which an event told
//! GET /events ──────────────────┘   exact ends, and a fresh reading at once
//! ```
//!
//! A container may be stopped and started again, may get and lose addresses while it runs, and may share another's
//! network; the list shows none of that. So what is known holds as long as the stream of events does: while it is
//! broken every container is inspected in every reading.
//!
//! - [`answer`]: the parts of the API's answers that are used. Pure.
//! - [`known`]: what is known of each container, what is to be inspected, and what is said. Pure.
//! - `client`: the calls and their failures in words.
//!
//! Only the paths without a version are asked: every engine answers them, and the fields that are used have meant the
//! same since version 1.21 of the API.

pub mod answer;
mod client;
pub mod known;

use crate::collect::Collect;
use crate::events::{Events, Told};
use crate::proc;
use crate::source::{Answer, Reading, Source, Trouble};
use answer::Event;
use futures_util::StreamExt as _;
use known::Known;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use weir_model::fact::{kind, source};

/// Where engines listen, in the order in which they are tried.
pub const SOCKETS: [&str; 2] = ["/run/docker.sock", "/var/run/docker.sock"];

/// Containers that are inspected in one reading; the rest has its turn in the next one.
const ASKED: usize = 1_024;
/// Calls at a time.
const AT_ONCE: usize = 4;
/// How long events are gathered before they lead to one reading.
const GATHER: Duration = Duration::from_millis(500);

/// One engine's containers.
#[derive(Debug)]
pub struct Docker {
    socket: PathBuf,
    proc: PathBuf,
    events: Option<Events<Event>>,
    known: Known,
    /// Events have come: when to read.
    read_at: Option<Instant>,
}

impl Docker {
    /// The engine that listens on `socket`; network namespaces are read from `proc` (`/proc`), where that may be.
    pub fn new(socket: impl Into<PathBuf>, proc: impl Into<PathBuf>, collect: Arc<Collect>) -> Self {
        Self { socket: socket.into(), proc: proc.into(), events: None, known: Known::new(collect), read_at: None }
    }

    /// The first of [`SOCKETS`] that is there, below `root` (`/`).
    pub fn find(root: &Path) -> Option<PathBuf> {
        SOCKETS.iter().map(|path| root.join(path.trim_start_matches('/'))).find(|path| path.exists())
    }

    /// Where the engine listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    async fn wait_for_change(&mut self) {
        let Some(events) = &mut self.events else { return std::future::pending().await };
        loop {
            let told = match self.read_at {
                None => events.next().await,
                Some(at) => tokio::select! {
                    told = events.next() => told,
                    () = sleep_until(at) => {
                        self.read_at = None;
                        return;
                    }
                },
            };
            if take(&mut self.known, told) {
                self.read_at.get_or_insert_with(|| Instant::now() + GATHER);
            }
        }
    }

    async fn read_once(&mut self) -> Result<Reading, Trouble> {
        let socket = self.socket.clone();
        let listed = client::list(&socket).await?;
        let events = self.events.get_or_insert_with(|| {
            // What is missed while the stream is broken is told once it is open again: engines keep the last 256.
            let last = Arc::new(AtomicI64::new(0));
            let socket = socket.clone();
            Events::start(move |sink| {
                let (socket, last) = (socket.clone(), Arc::clone(&last));
                Box::pin(async move {
                    let since = last.load(Ordering::Relaxed);
                    client::events(&socket, since, &sink, |at| last.store(at, Ordering::Relaxed)).await
                })
            })
        });
        self.known.list(listed);
        // Marks what is inspected next; a list from before these events lacks nothing that the next reading tells.
        while let Some(told) = events.waiting() {
            take(&mut self.known, told);
        }
        let unknown = self.known.unknown();
        let rest = unknown.len().saturating_sub(ASKED);
        let asked = unknown.into_iter().take(ASKED).map(|id| {
            let socket = socket.clone();
            async move { (client::inspect(&socket, &id).await, id) }
        });
        let mut told = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some((told, id)) = told.next().await {
            match told? {
                Some(told) => self.known.tell(&told),
                None => self.known.miss(&id),
            }
        }
        drop(told);
        self.known.find_namespaces(|id, pid| {
            let Some(process) = proc::process(&self.proc, pid) else { return 0 };
            if process.container.is_some_and(|container| container.as_str() != id) { 0 } else { process.netns }
        });
        let missing = if rest > 0 {
            format!("{rest} containers are still to be inspected, {ASKED} a reading")
        } else {
            String::new()
        };
        Ok(Reading::Whole { things: self.known.say(), missing })
    }
}

impl Source for Docker {
    fn name(&self) -> &'static str {
        source::DOCKER
    }

    fn kinds(&self) -> &'static [&'static str] {
        &[kind::CONTAINER]
    }

    /// Every container that the engine knows now, and those whose end was told since the last reading.
    fn read(&mut self) -> Answer<'_, Result<Reading, Trouble>> {
        Box::pin(self.read_once())
    }

    fn changed(&mut self) -> Answer<'_, ()> {
        Box::pin(self.wait_for_change())
    }
}

/// Whether it is worth to read at once.
fn take(known: &mut Known, told: Told<Event>) -> bool {
    match told {
        Told::Event(event) => known.happen(&event),
        Told::Opened => {
            known.see();
            true
        }
        Told::Broken(reason) => {
            tracing::debug!(reason, "the engine's events broke off; they are asked for again");
            known.be_blind();
            false
        }
    }
}
