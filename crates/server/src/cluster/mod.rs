//! The cluster as the server itself watches it: Services, EndpointSlices, Nodes, Namespaces, ReplicaSets and Jobs.
//!
//! ```text
//! API server ─▶ Watch (one a kind) ─▶ Tracker: what is held, and since when ─▶ FactSink ─▶ applier
//!                     └─▶ Health ─▶ weir status, /metrics
//! ```
//!
//! A kind has a task of its own: one that is refused or slow holds up no other. The facts that a burst yields are handed
//! on together; the applier's queue is bounded, so a task waits there, its watch waits for it, and the API server for
//! that. The server is whole without any of this.

mod health;
mod held;
mod tracker;
#[cfg(test)]
mod tracker_tests;

pub(crate) use health::{Cluster, KindHealth};

use crate::args::{AgentsAuth, Args, Kubernetes, WrongSetting};
use crate::facts::{FactSink, SinkError};
use anyhow::Context as _;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracker::Tracker;
use weir_daemon::clock::Clock;
use weir_daemon::tasks::Tasks;
use weir_discovery::collect::Collect;
use weir_discovery::kubernetes::client::Access;
use weir_discovery::kubernetes::objects::{WATCHED, Watched};
use weir_discovery::kubernetes::pace::Pace;
use weir_discovery::kubernetes::watch::{Heard, Watch};
use weir_model::fact::{kind, source};
use weir_model::{Fact, UnixNanos};

/// What is heard before its facts are handed on, when more is there at once: 2,000 facts are some milliseconds of
/// merging, and some hundred bytes each.
const HEARD_AT_ONCE: usize = 2_000;
/// How often a kind says until when it is known: after a crash so much time at most is unknown that was known.
const CONFIRM: Duration = Duration::from_secs(10);

/// Where the API server is that is watched; `None`: none is.
///
/// # Errors
/// When one is named and cannot be used.
pub(crate) fn access(args: &Args) -> anyhow::Result<Option<Access>> {
    let mut access = match &args.kubernetes {
        Kubernetes::Off => return Ok(None),
        Kubernetes::Url(url) => Access { url: url.clone(), token_file: None, ca_file: None },
        Kubernetes::Auto => match Access::in_cluster(|name| std::env::var(name).ok()) {
            Some(access) => access,
            None => return Ok(None),
        },
    };
    if args.kubernetes_token_file.is_some() {
        access.token_file.clone_from(&args.kubernetes_token_file);
    }
    if args.kubernetes_ca.is_some() {
        access.ca_file.clone_from(&args.kubernetes_ca);
    }
    match access.check() {
        Ok(()) => Ok(Some(access)),
        // A pod without a token is a pod that shall not ask.
        Err(error) if args.kubernetes == Kubernetes::Auto && args.agents_auth == AgentsAuth::Token => {
            tracing::warn!("the cluster is not watched: failed to {error}");
            Ok(None)
        }
        Err(error) => anyhow::bail!("failed to {error}"),
    }
}

/// What `--collect` lists.
///
/// # Errors
/// [`WrongSetting`] when an entry is wrong.
pub(crate) fn collected(list: &[String]) -> Result<Collect, WrongSetting> {
    let kinds: Vec<&'static str> = WATCHED.iter().map(|watched| watched.kind).collect();
    Collect::parse(list, &kinds).map_err(|error| WrongSetting(format!("--collect {error}")))
}

/// Starts the watches, which also collect what `collect` lists.
///
/// # Errors
/// When there can be no client (a wrong address, an unreadable CA).
pub(crate) fn start(
    tasks: &mut Tasks,
    access: &Access,
    collect: Collect,
    cluster: &Arc<Cluster>,
    sink: &FactSink,
    clock: &Arc<dyn Clock>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let collect = Arc::new(collect);
    for watched in &WATCHED {
        let now = Arc::clone(clock);
        let pace = Pace::new(move || now.wall());
        let client = access.client(&pace).map_err(|error| anyhow::anyhow!("failed to {error}"))?;
        let health = cluster.watch(watched, Arc::clone(&pace));
        let follower = Follower {
            watched,
            watch: Watch::new(client, watched, Arc::clone(&collect)),
            pace,
            health,
            sink: sink.clone(),
            clock: Arc::clone(clock),
        };
        tasks.spawn(watched.call.resource, follower.run(shutdown.clone()));
    }
    Ok(())
}

/// Ends what an earlier run watched and nobody watches now: what it said is known until it stopped.
///
/// # Errors
/// When the state cannot be read.
pub(crate) async fn let_go(sink: &FactSink, clock: &dyn Clock) -> anyhow::Result<()> {
    let mut ended = Vec::new();
    for watched in &WATCHED {
        let (standing, confirmed) = standing(sink, watched.kind).await?;
        let mut tracker = Tracker::new(watched.kind, standing, confirmed);
        ended.extend(tracker.let_go(clock.wall()));
    }
    if !ended.is_empty() {
        tracing::warn!(facts = ended.len(), "nobody watches the cluster any more; what was known of it ends");
        sink.put(ended).await?;
    }
    Ok(())
}

/// What the state has of a kind without an end, and until when that is known.
async fn standing(sink: &FactSink, of: &'static str) -> Result<(Vec<Fact>, Option<UnixNanos>), SinkError> {
    let watches = sink.standing(source::API, vec![kind::WATCH]).await?;
    let confirmed = watches.iter().find(|fact| fact.id == of).map(|fact| fact.said);
    Ok((sink.standing(source::API, vec![of]).await?, confirmed))
}

struct Follower {
    watched: &'static Watched,
    watch: Watch,
    pace: Arc<Pace>,
    health: Arc<KindHealth>,
    sink: FactSink,
    clock: Arc<dyn Clock>,
}

impl Follower {
    async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let (standing, confirmed) = standing(&self.sink, self.watched.kind)
            .await
            .with_context(|| format!("failed to read what was known of {}", self.watched.call.resource))?;
        let mut tracker = Tracker::new(self.watched.kind, standing, confirmed);
        let mut confirm = tokio::time::interval(CONFIRM);
        confirm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut facts = Vec::new();
            tokio::select! {
                () = shutdown.cancelled() => break,
                heard = self.watch.next() => self.take(heard, &mut tracker, &mut facts),
                _ = confirm.tick() => {
                    facts.extend(tracker.confirm(self.pace.heard(), self.pace.behind_since(self.clock.wall())));
                }
            }
            for _ in 0..HEARD_AT_ONCE {
                tokio::select! {
                    biased;
                    heard = self.watch.next() => self.take(heard, &mut tracker, &mut facts),
                    () = std::future::ready(()) => break,
                }
            }
            self.health.holds(tracker.objects(), tracker.facts(), tracker.refused());
            if facts.is_empty() {
                continue;
            }
            match self.sink.put(facts).await {
                Ok(()) => {}
                Err(SinkError::Stopping) => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Until now it is known: the next start ends what is gone at this instant, and not ten seconds earlier.
        if let Some(last) = tracker.confirm(self.pace.heard(), self.pace.behind_since(self.clock.wall())) {
            let _ = self.sink.put(vec![last]).await;
        }
        Ok(())
    }

    fn take(&self, heard: Heard, tracker: &mut Tracker, facts: &mut Vec<Fact>) {
        let now = self.clock.wall();
        self.health.hear(&heard, now);
        if let Heard::Failed(failure) = &heard {
            tracing::debug!(kind = self.watched.kind, failure = failure.detail, "the watch has failed");
        }
        tracker.hear(heard, now, self.pace.heard(), self.pace.behind_since(now), facts);
    }
}
