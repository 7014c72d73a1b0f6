//! Pods and containers as a container runtime tells them over the Container Runtime Interface, version 1: containerd
//! and CRI-O, over their unix socket.
//!
//! ```text
//! ListPodSandbox, ListContainers ──▶ known ──▶ say ──▶ Said
//! PodSandboxStatus, ContainerStatus ──▲   only of what is new or has changed
//! GetContainerEvents ─────────────────┘   where the runtime has them: exact ends, and a fresh reading at once
//! ```
//!
//! - [`client`]: the calls, each with a deadline, and their failures in words.
//! - [`known`]: what is known of each sandbox and container, and what is still to be asked. Pure.
//! - `say`: what of it is said. Pure.
//! - `info`: the process id in what the runtime says beyond the interface. Pure.
//!
//! The socket of a runtime means root on its machine; the agent asks nothing that changes anything, but nobody can
//! hold it to that.

pub mod client;
mod info;
pub mod known;
mod say;

/// The generated client, messages and, for tests, server of the calls that are used.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/runtime/v1/runtime.proto, where the documentation is"
)]
pub mod runtime {
    tonic::include_proto!("runtime.v1");
}

use crate::collect::Collect;
use crate::events::{Events, Told};
use crate::proc;
use crate::source::{Answer, Reading, Source, Trouble};
use client::Client;
use futures_util::StreamExt as _;
use known::Known;
use runtime::ContainerEventResponse;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use weir_model::fact::{kind, source};

/// Where runtimes listen, in the order in which they are tried.
pub const SOCKETS: [&str; 6] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/var/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
];

/// Sandboxes and containers that are asked about in one reading: a full node's, twice. The rest has its turn in the
/// next one.
const ASKED: usize = 1_024;
/// Calls at a time: the runtime has others to serve.
const AT_ONCE: usize = 4;
/// How long events are gathered before they lead to one reading: what creates a pod tells six in half a second.
const GATHER: Duration = Duration::from_millis(500);

/// One runtime's pods and containers.
#[derive(Debug)]
pub struct Cri {
    socket: PathBuf,
    proc: PathBuf,
    client: Option<Client>,
    events: Option<Events<ContainerEventResponse>>,
    known: Known,
    /// Events have come: when to read.
    read_at: Option<Instant>,
}

impl Cri {
    /// The runtime that listens on `socket`; network namespaces are read from `proc` (`/proc`), where that may be.
    pub fn new(socket: impl Into<PathBuf>, proc: impl Into<PathBuf>, collect: Arc<Collect>) -> Self {
        Self {
            socket: socket.into(),
            proc: proc.into(),
            client: None,
            events: None,
            known: Known::new(collect),
            read_at: None,
        }
    }

    /// The first of [`SOCKETS`] that is there, below `root` (`/`).
    pub fn find(root: &Path) -> Option<PathBuf> {
        SOCKETS.iter().map(|path| root.join(path.trim_start_matches('/'))).find(|path| path.exists())
    }

    /// Where the runtime listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Which runtime it is and what it lacks; empty before the first reading.
    pub fn note(&self) -> String {
        let Some(client) = &self.client else { return String::new() };
        let lacks = self.events.as_ref().is_some_and(Events::are_unsupported);
        let lacks = if lacks { ", tells no events: changes are seen at the next reading" } else { "" };
        format!("{}{lacks}", client.runtime())
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
            take(&mut self.known, told);
            self.read_at.get_or_insert_with(|| Instant::now() + GATHER);
        }
    }

    async fn read_once(&mut self) -> Result<Reading, Trouble> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(Client::connect(&self.socket).await?).clone(),
        };
        let events = self.events.get_or_insert_with(|| {
            let socket = self.socket.clone();
            Events::start(move |sink| Box::pin(client::events(socket.clone(), sink)))
        });
        // What was told before the lists are asked for is older than they are.
        while let Some(told) = events.waiting() {
            take(&mut self.known, told);
        }
        let (sandboxes, containers) = tokio::try_join!(client.sandboxes(), client.containers())?;
        self.known.list(sandboxes, containers);
        let sandboxes: Vec<String> = self.known.unknown_sandboxes().take(ASKED).collect();
        let containers: Vec<String> = self.known.unknown_containers().take(ASKED - sandboxes.len()).collect();
        let asked = sandboxes.into_iter().map(|id| {
            let client = client.clone();
            async move { client.sandbox(&id).await }
        });
        let mut told = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some(told) = told.next().await {
            if let Some(told) = told? {
                self.known.tell_sandbox(told);
            }
        }
        drop(told);
        let asked = containers.into_iter().map(|id| {
            let client = client.clone();
            async move { client.container(&id).await }
        });
        let mut told = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some(told) = told.next().await {
            if let Some(told) = told? {
                self.known.tell_container(told);
            }
        }
        drop(told);
        self.known.find_namespaces(|id, pid| namespace(&self.proc, id, pid));
        let unknown = self.known.unknown_containers().count() + self.known.unknown_sandboxes().count();
        let missing = if unknown > ASKED / 2 {
            format!("{unknown} sandboxes and containers are still to be asked about, {ASKED} a reading")
        } else {
            String::new()
        };
        Ok(Reading::Whole { things: self.known.say(), missing })
    }
}

impl Source for Cri {
    fn name(&self) -> &'static str {
        source::CRI
    }

    fn kinds(&self) -> &'static [&'static str] {
        &[kind::POD, kind::CONTAINER]
    }

    /// Every pod, sandbox and container that the runtime knows now, and those whose end was told since the last
    /// reading.
    fn read(&mut self) -> Answer<'_, Result<Reading, Trouble>> {
        Box::pin(async {
            let read = self.read_once().await;
            if read.is_err() {
                self.client = None;
            }
            read
        })
    }

    fn changed(&mut self) -> Answer<'_, ()> {
        Box::pin(self.wait_for_change())
    }
}

fn take(known: &mut Known, told: Told<ContainerEventResponse>) {
    match told {
        Told::Event(event) => known.happen(event),
        Told::Opened => {}
        Told::Broken(reason) => tracing::debug!(reason, "the runtime's events broke off; they are asked for again"),
    }
}

/// The network namespace of the process `pid`, if it is still one of the container `id`; 0 where that may not be read.
fn namespace(root: &Path, id: &str, pid: u32) -> u32 {
    let Some(process) = proc::process(root, pid) else { return 0 };
    if process.container.is_some_and(|container| container.as_str() != id) { 0 } else { process.netns }
}
