//! Where a run's shared state is: ConfigMaps at a stand-in of the API server, which fails calls, goes away and comes back,
//! and lets somebody else write. What it has said that it wrote, it keeps.

use super::etcd::LEASE;
use super::random::Random;
use crate::cluster::kubernetes::faults::Fault;
use crate::cluster::kubernetes::{ApiServer, Tls};
use anyhow::Result;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "weir";
/// Calls in a row that go wrong: a writer gives up after four without an answer, and begins anew.
const CALLS_MAX: u64 = 6;
/// The longest that it is away.
const AWAY_MS: u64 = 1500;

/// The API server of a run.
#[derive(Debug)]
pub struct ConfigMaps {
    server: ApiServer,
    token: PathBuf,
    /// When it comes back, while it is away.
    back: Option<Instant>,
    /// How often it went away.
    pub away: u64,
    /// How often somebody else wrote.
    pub touched: u64,
}

impl ConfigMaps {
    /// Starts it; what a client must show is written below `folder`.
    ///
    /// # Errors
    /// When it cannot listen, or the file cannot be written.
    pub fn start(folder: &Path) -> Result<Self> {
        let server = ApiServer::start(Tls::Off)?;
        server.put("namespaces", json!({"metadata": {"name": NAMESPACE}}))?;
        let token = folder.join("api-server.token");
        std::fs::write(&token, server.token())?;
        Ok(Self { server, token, back: None, away: 0, touched: 0 })
    }

    /// What a server is told of it.
    pub fn arguments(&self) -> Vec<String> {
        let (url, token) = (self.server.url(), self.token.to_string_lossy());
        [
            "--kubernetes",
            &url,
            "--kubernetes-token-file",
            &token,
            "--state",
            "configmap",
            "--configmap-namespace",
            NAMESPACE,
            "--configmap-lease",
            LEASE,
        ]
        .map(str::to_owned)
        .into()
    }

    /// Breaks every connection and listens no more, for a while.
    pub fn leave(&mut self, random: &mut Random, now: Instant) {
        if self.back.is_none() {
            self.server.stop();
            self.away += 1;
            self.back = Some(now + Duration::from_millis(random.below(AWAY_MS)));
        }
    }

    /// Lets some of the next calls go wrong.
    pub fn fail(&self, random: &mut Random) {
        const WRITES: [&str; 3] = ["configmaps/update", "configmaps/create", "configmaps/delete"];
        let of_writes = [
            Fault::Busy { retry_after: 1 },
            Fault::Fail(500),
            Fault::Fail(503),
            // Done, and told as if it was not; the same without a whole answer; not done, and looks the same.
            Fault::FailAfter(500),
            Fault::FailAfter(504),
            Fault::Break,
            Fault::Close,
            Fault::Stall,
        ];
        let of_reads = [Fault::Busy { retry_after: 1 }, Fault::Fail(500), Fault::Fail(503), Fault::Break, Fault::Gone];
        let times = 1 + random.below(CALLS_MAX) as usize;
        let (call, fault, times) = match random.below(20) {
            // Once: each makes the ConfigMaps smaller that are written until the server starts again.
            0 => ("configmaps/update", Some(Fault::Fail(413)), 1),
            1..=2 => ("configmaps", random.pick(&of_reads).cloned(), times.min(2)),
            3..=5 => ("configmaps/get", random.pick(of_reads.get(..4).unwrap_or_default()).cloned(), times.min(2)),
            6..=9 => (random.pick(&WRITES).copied().unwrap_or_default(), random.pick(&of_writes).cloned(), times),
            _ => ("configmaps/update", random.pick(&of_writes).cloned(), times),
        };
        // One that is not answered is waited for, for 15 s.
        let times = if fault == Some(Fault::Stall) { 1 } else { times };
        if let Some(fault) = fault {
            self.server.fault(call, false, fault, 0, times);
        }
    }

    /// Somebody else writes an annotation into one of them: the version that the server saw is no longer the current one.
    ///
    /// # Errors
    /// None; the stand-in serves ConfigMaps.
    pub fn touch(&mut self, random: &mut Random) -> Result<()> {
        let all = self.server.objects("configmaps")?;
        let Some(name) = random.pick(&all).and_then(|object| object["metadata"]["name"].as_str()) else {
            return Ok(());
        };
        self.server.annotate("configmaps", NAMESPACE, name, ("touched", &random.draw().to_string()))?;
        self.touched += 1;
        Ok(())
    }

    /// Comes back when it is time; one that finds its port in use tries again with the next call.
    pub fn come_back(&mut self, now: Instant) {
        if self.back.is_some_and(|back| back <= now) && self.server.start_again().is_ok() {
            self.back = None;
        }
    }

    /// From now on nothing goes wrong any more, and what waits for an answer does not wait for longer.
    pub fn behave(&mut self, now: Instant) {
        self.server.heal();
        self.server.stop();
        self.back = Some(now);
        self.come_back(now);
    }

    /// Calls that went wrong.
    pub fn failed(&self) -> u64 {
        self.server.struck()
    }
}
