//! One run: drawn from its seed, played, and held against the truth.
//!
//! ```text
//! world ◀─poll─ weir-agent ─(network)▶ relay ─▶ weir server ◀──────── reader
//!   │           (killed, ended, frozen)       (the same)       │         │
//!   │                                   (etcd, or ConfigMaps) ◀┘         │
//!   └─────────────────────────────── check ──────────────────────────────┘
//! ```

mod disturb;
mod prepare;

use super::cables::Cables;
use super::care;
use super::check::{self, Told};
use super::config_maps::ConfigMaps;
use super::disk::Disk;
use super::etcd;
use super::parts::{self, Part};
use super::plan::{Done, Outcome, Plan, Silence, Spools, ToldLost};
use super::random::Random;
use super::reader::{self, Reader};
use super::real::Real;
use super::relay::Relay;
use super::simulated::Simulated;
use super::world::{World, monotonic, name};
use crate::checker::{edges_differ, transactions_differ};
use crate::feed::StandIn;
use crate::process::until;
use crate::traffic::Truth;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_daemon::failpoint;
use weir_wire::api::{Edge, Transaction};
use weir_wire::losses::{LATE, Reason, SPOOL_FULL, SPOOL_OLD};

/// How long a part may take to do what it must; machines are busy.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at everything.
const TICK: Duration = Duration::from_millis(25);
/// The longest that a part stays dead.
const DEAD_MS: u64 = 600;
/// How far a wall clock is set wrong at most, seconds.
const CLOCK_MAX_S: u64 = 1500;
/// How far the server's clock is set ahead when a silent node comes back beyond the horizon (1 h), seconds: less than the
/// two hours after which a closed connection leaves the state.
const BEYOND_S: i64 = 5000;
/// How much longer a run with a shared state is: a killed server's successor waits for the lease.
const LEASES: Duration = Duration::from_secs(8);

/// Plays a run; its folder is kept when it fails.
///
/// # Errors
/// With what is wrong.
pub fn play(plan: &Plan) -> Result<Outcome> {
    let folder = tempfile::Builder::new().prefix(&format!("weir-torture-{}-", plan.seed)).tempdir()?;
    let played = Run::prepare(plan, folder.path()).and_then(|mut run| run.play());
    played.map_err(|error| {
        error.context(format!("seed {}, logs and data in {}, {plan:?}", plan.seed, folder.keep().display()))
    })
}

/// One of the processes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// A member.
    Etcd(usize),
    Server,
    Tracer,
    Agent(usize),
}

struct Run {
    plan: Plan,
    random: Random,
    data: PathBuf,
    folder: PathBuf,
    world: Arc<World>,
    relay: Relay,
    reader: Reader,
    /// In the order of [`Role`].
    parts: BTreeMap<Role, Part>,
    feeds: Vec<StandIn>,
    feed_faults: Arc<AtomicU64>,
    /// Of a thousand polls so many get half a reply or an error.
    feed_rate: Arc<AtomicU64>,
    disk: Option<Disk>,
    etcd: Vec<etcd::Member>,
    config_maps: Option<ConfigMaps>,
    real: Option<Real>,
    /// What really happened on the node with a real tracer.
    truth: Vec<Truth>,
    /// When a dead part is started again.
    due: BTreeMap<Role, Instant>,
    /// The agents were stopped for good.
    is_over: bool,
    server_is_known: bool,
    done: Done,
    /// The thread leaves the run's namespace when all else is gone.
    cables: Option<Cables>,
    simulated: Option<Simulated>,
}

/// What the server answers, once it is the truth.
struct Answers {
    rows: Vec<Transaction>,
    edges: Vec<Edge>,
    dropped: BTreeMap<String, Told>,
    lost: ToldLost,
}

impl Run {
    fn play(&mut self) -> Result<Outcome> {
        for number in 0..self.etcd.len() {
            self.start(Role::Etcd(number), None)?;
        }
        for member in &self.etcd {
            etcd::wait(member.clients)?;
        }
        for role in self.roles() {
            self.start(role, None)?;
        }
        let nodes = 0..self.plan.writers;
        // An agent that has polled twice has the first poll in its spool.
        self.keep_up("every agent polls", |run| Ok(nodes.clone().all(|node| run.world.answers(node) > 2)))?;
        if self.real.is_some() {
            let node = name(self.plan.writers);
            self.keep_up("the real tracer is read", |run| Ok(run.relay.batches(&node) > 1))?;
        }
        self.world.begin();
        if let Some(real) = &mut self.real {
            real.begin()?;
        }
        self.feed_rate.store(self.random.below(120), Ordering::Relaxed);
        let silent = (self.plan.silence != Silence::None).then(|| self.random.below(self.plan.writers as u64) as usize);
        let mut is_silent = false;
        let chaos = self.plan.chaos + if self.plan.state.is_shared() { LEASES } else { Duration::ZERO };
        let end = now() + chaos;
        while now() < end {
            if let Some(node) = silent
                && !is_silent
                && now() + chaos * 3 / 4 > end
            {
                self.relay.apart(&name(node), true);
                is_silent = true;
            }
            self.disturb(silent)?;
            self.restart_due(true)?;
            pause(TICK);
        }
        self.calm(silent)?;
        if let (Some(node), Silence::Beyond) = (silent, self.plan.silence) {
            self.outlast(node)?;
        }
        self.relay.behave();
        self.settle()?;
        // Once more from the disk.
        self.kill(Role::Server)?;
        self.start(Role::Server, None)?;
        self.settle()?;
        self.catch_up()?;
        self.is_over = true;
        for (role, part) in &mut self.parts {
            if matches!(role, Role::Agent(_) | Role::Tracer) {
                part.stop()?;
            }
        }
        let last = self.settle()?;
        self.forget_server();
        self.part(Role::Server)?.stop()?;
        let faults = self.reader.faults();
        ensure!(faults.is_empty(), "{faults}");
        if self.plan.state.is_shared() {
            self.go_on_from_shared(&last).context("a server with an empty folder, from the shared state")?;
        }
        let edges = check::told_edges(&last.edges).into_iter();
        let mut edges: care::Sums = edges.map(|(key, (sent, recv, _))| (key, (sent, recv))).collect();
        edges.retain(|_, sum| *sum != (0, 0));
        let steps = care::check(&self.data, &self.folder, &edges, &mut self.random)?;
        Ok(self.outcome(last.lost, steps))
    }

    fn outcome(&self, lost: ToldLost, mut steps: care::Steps) -> Outcome {
        let mut kills: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (role, part) in &self.parts {
            *kills.entry(title(*role)).or_default() += part.kills;
            for (step, times) in &part.steps {
                *steps.entry(step.clone()).or_default() += times;
            }
        }
        let mut done = self.done;
        if let Some(api) = &self.config_maps {
            (done.calls_failed, done.api_away, done.touched) = (api.failed(), api.away, api.touched);
        }
        Outcome {
            seed: self.plan.seed,
            writers: self.plan.writers + usize::from(self.plan.tracer),
            kills,
            steps,
            done,
            messages: self.relay.happened(),
            feed_faults: self.feed_faults.load(Ordering::Relaxed),
            flows: self.world.flows().len() + self.truth.len() / 2,
            reads: self.reader.reads(),
            lost,
            conditions: self.plan.conditions(),
        }
    }

    fn roles(&self) -> Vec<Role> {
        self.parts.keys().copied().filter(|role| !matches!(role, Role::Etcd(_))).collect()
    }

    fn part(&mut self, role: Role) -> Result<&mut Part> {
        self.parts.get_mut(&role).with_context(|| format!("there is no {role:?} in this run"))
    }

    fn start(&mut self, role: Role, fail_point: Option<&str>) -> Result<()> {
        if role == Role::Server {
            self.forget_server();
        }
        let part = self.parts.get_mut(&role).with_context(|| format!("there is no {role:?} in this run"))?;
        match (role, &self.cables) {
            (Role::Agent(node), Some(cables)) if node < self.plan.writers => {
                cables.inside(node, || part.start(fail_point))
            }
            _ => part.start(fail_point),
        }
    }

    fn kill(&mut self, role: Role) -> Result<()> {
        if role == Role::Server {
            self.forget_server();
        }
        match self.parts.get_mut(&role) {
            Some(part) => part.kill(),
            None => Ok(()),
        }
    }

    fn freeze(&mut self, role: Role, freeze: bool) -> Result<()> {
        let Some(part) = self.parts.get_mut(&role) else { return Ok(()) };
        let changed = part.freeze(freeze)?;
        self.done.frozen += u64::from(changed && freeze);
        Ok(())
    }

    /// Starts what is dead and has been for long enough, and lets the server be found once it has been looked at.
    fn restart_due(&mut self, with_fail_points: bool) -> Result<()> {
        if let Some(api) = &mut self.config_maps {
            api.come_back(now());
        }
        let mut dead = Vec::new();
        for (role, part) in &mut self.parts {
            let may_have_ended = self.is_over && matches!(role, Role::Agent(_) | Role::Tracer);
            let is_running = part.is_running()?;
            if !is_running && !may_have_ended {
                dead.push(*role);
            }
        }
        for role in dead {
            if role == Role::Server {
                self.forget_server();
            }
            let longest = if with_fail_points { DEAD_MS } else { 1 };
            let wait = Duration::from_millis(self.random.below(longest));
            if now() < *self.due.entry(role).or_insert_with(|| now() + wait) {
                continue;
            }
            self.due.remove(&role);
            let (steps, times): (Vec<&[&str]>, u64) = match role {
                Role::Server => (vec![failpoint::SERVER, failpoint::SEGMENT], 4),
                Role::Agent(_) => (vec![failpoint::AGENT], 20),
                Role::Etcd(_) | Role::Tracer => (Vec::new(), 0),
            };
            let steps = steps.concat();
            let fail_point = (with_fail_points && self.random.permille(500))
                .then(|| Some(format!("{}:{}", self.random.pick(&steps)?, 1 + self.random.below(times))))
                .flatten();
            self.start(role, fail_point.as_deref())?;
        }
        self.look_for_server()
    }

    /// Nobody finds the server until it has been looked at again.
    fn forget_server(&mut self) {
        self.relay.server(None);
        self.reader.server(None);
        self.server_is_known = false;
    }

    /// A server that has just come up must have all that was acknowledged, before anybody sends it again.
    fn look_for_server(&mut self) -> Result<()> {
        if self.server_is_known {
            return Ok(());
        }
        let pid = self.part(Role::Server)?.pid();
        let Some((http, agents)) = parts::addresses(&self.data, pid) else { return Ok(()) };
        let (acknowledged, read) = (self.relay.acknowledged(), self.reader.last());
        // It may be ended while it answers.
        if let Ok(rows) = reader::transactions(http) {
            let mut faults = check::acknowledged(&acknowledged, &rows);
            faults.push_str(&check::never_back(&read, &check::totals(&rows)));
            ensure!(faults.is_empty(), "after a restart of the server:\n{faults}");
            self.relay.server(Some(agents));
            self.reader.server(Some(http));
            self.server_is_known = true;
        }
        Ok(())
    }

    fn http(&mut self) -> Result<SocketAddr> {
        let pid = self.part(Role::Server)?.pid();
        let (http, _) = parts::addresses(&self.data, pid).context("the server does not listen")?;
        Ok(http)
    }

    /// Everything runs again, and nothing is disturbed any more.
    fn calm(&mut self, silent: Option<usize>) -> Result<()> {
        self.feed_rate.store(0, Ordering::Relaxed);
        self.fill_disk(false)?;
        for node in 0..=self.plan.writers {
            self.pull(node, false)?;
            if silent != Some(node) {
                self.relay.apart(&name(node), false);
            }
        }
        for number in 0..self.etcd.len() {
            self.freeze(Role::Etcd(number), false)?;
        }
        if let Some(api) = &mut self.config_maps {
            api.behave(now());
        }
        // Whoever still waits for a fail point would die of it later: all are started anew.
        for role in self.roles() {
            self.freeze(role, false)?;
            self.kill(role)?;
        }
        self.keep_up("everything runs again", |run| {
            let parts = run.parts.values_mut().map(Part::is_running).collect::<Result<Vec<bool>>>()?;
            Ok(run.server_is_known && parts.into_iter().all(|is_up| is_up))
        })?;
        self.world.freeze();
        if let Some(real) = &mut self.real {
            self.truth = real.end()?;
        }
        let nodes: Vec<u64> = (0..self.plan.writers).map(|node| self.world.answers(node)).collect();
        self.keep_up("every agent has polled all that is", |run| {
            let done =
                |(node, before): (usize, &u64)| run.world.answers(node) > before + 2 && run.world.is_drained(node);
            Ok(nodes.iter().enumerate().all(done))
        })
    }

    /// Lets everybody but the silent node tell all that there is, and sets the server's clock beyond the horizon of what
    /// that node has to tell.
    fn outlast(&mut self, silent: usize) -> Result<()> {
        let silent = name(silent);
        let (flows, world) = (self.world.flows(), Arc::clone(&self.world));
        self.keep_up("all but the silent node are through", |run| {
            let http = run.http()?;
            let mut rows = reader::transactions(http)?;
            rows.retain(|row| row.node != silent && !run.is_real(&row.node));
            let dropped = check::told(&reader::edges(http)?.completeness.losses, &[SPOOL_FULL, SPOOL_OLD]);
            let others: Vec<_> = flows.iter().filter(|flow| name(flow.client) != silent).cloned().collect();
            let faults = check::transactions(&others, &rows, &dropped);
            ensure!(faults.is_empty(), "{faults}");
            ensure!((0..run.plan.writers).all(|node| world.is_drained(node)), "a tracer has more to tell");
            Ok(true)
        })?;
        self.kill(Role::Server)?;
        self.part(Role::Server)?.set_clock(BEYOND_S)?;
        self.start(Role::Server, None)
    }

    /// Whether a node is the one with a real tracer.
    fn is_real(&self, node: &str) -> bool {
        self.plan.tracer && node == name(self.plan.writers)
    }

    /// Waits until the answers are the truth, and says what they are not if they do not become it.
    fn settle(&mut self) -> Result<Answers> {
        let mut answers = None;
        self.keep_up("the answers are the truth", |run| {
            answers = Some(run.read()?);
            Ok(true)
        })?;
        answers.context("nothing was read")
    }

    /// Waits until every agent has told what it polled from now on, and with that all before: what it dropped while the
    /// server was away, too. One that is stopped earlier may keep a tombstone in its spool, and the gap that it stands for
    /// stays told as batches of which nobody knows what was in them.
    fn catch_up(&mut self) -> Result<()> {
        let (since, agents) = (monotonic(), self.plan.writers + usize::from(self.plan.tracer));
        self.keep_up("every agent has told what it knows", |run| {
            Ok((0..agents).all(|node| run.relay.told_to(&name(node)) > since))
        })
    }

    fn read(&mut self) -> Result<Answers> {
        let flows = self.world.flows();
        let http = self.http()?;
        let rows = reader::transactions(http)?;
        let mut faults = check::acknowledged(&self.relay.acknowledged(), &rows);
        let (real, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| self.is_real(&row.node));
        let answer = reader::edges(http)?;
        let (real_edges, edges): (Vec<_>, Vec<_>) = answer.items.into_iter().partition(is_on_loopback);
        let mut allowed: Vec<&Reason> = Vec::new();
        if self.plan.spools != Spools::Large {
            allowed.extend([SPOOL_FULL, SPOOL_OLD]);
        }
        if self.plan.silence == Silence::Beyond {
            allowed.push(LATE);
        }
        let losses = &answer.completeness.losses;
        let dropped = check::told(losses, &[SPOOL_FULL, SPOOL_OLD]);
        faults.push_str(&check::unexplained(losses, &allowed));
        faults.push_str(&check::transactions(&flows, &rows, &dropped));
        let (lost, under_way) = (check::told(losses, &allowed), self.relay.dropped_under_way());
        faults.push_str(&check::edges(&flows, &rows, &edges, &lost, &under_way));
        if self.plan.tracer {
            faults.push_str(&transactions_differ(&self.truth, &real));
            faults.push_str(&edges_differ(&self.truth, &real_edges));
        }
        ensure!(faults.is_empty(), "{faults}");
        let bytes = |told: &BTreeMap<String, Told>| told.values().map(|told| told.bytes).sum::<u64>();
        let moved = |sums: &BTreeMap<_, (u64, u64, u64)>| sums.values().map(|sum| sum.0 + sum.1).sum::<u64>();
        let truth = moved(&check::expected_edges(&flows, &rows));
        let missing = truth.saturating_sub(moved(&check::told_edges(&edges)));
        let lost = ToldLost {
            dropped_bytes: bytes(&dropped),
            late_bytes: bytes(&check::told(losses, &[LATE])),
            arrived_bytes: bytes(&lost).saturating_sub(missing),
        };
        let edges = edges.into_iter().chain(real_edges).collect();
        Ok(Answers { rows: rows.into_iter().chain(real).collect(), edges, dropped, lost })
    }

    /// What the shared state has is all that a server with nothing else needs to know of transactions.
    fn go_on_from_shared(&self, last: &Answers) -> Result<()> {
        let data = self.folder.join("server-anew");
        let mut server = Part::new("server-anew", &self.folder, self.server_command(&data)?);
        server.start(None)?;
        let mut rows = Vec::new();
        until(PATIENCE, || {
            ensure!(server.is_running()?, "it does not run");
            let (http, _) = parts::addresses(&data, server.pid()).context("it does not listen")?;
            rows = reader::transactions(http)?;
            Ok(true)
        })?;
        let mut faults = check::acknowledged(&self.relay.acknowledged(), &rows);
        faults.push_str(&check::never_back(&check::totals(&last.rows), &check::totals(&rows)));
        rows.retain(|row| !self.is_real(&row.node));
        faults.push_str(&check::transactions(&self.world.flows(), &rows, &last.dropped));
        ensure!(faults.is_empty(), "{faults}");
        server.stop()
    }

    /// Asks until it is so, while whatever ends is started again.
    fn keep_up(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let mut ended = None;
        until(PATIENCE, || {
            if let Err(error) = self.restart_due(false) {
                ended = Some(error);
                return Ok(true);
            }
            done(self)
        })
        .with_context(|| format!("waited until {what}"))?;
        ended.map_or(Ok(()), Err)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // A stopped process does not take SIGTERM.
        for part in self.parts.values_mut() {
            let _ = part.kill();
        }
        self.disk = None;
        self.feeds.clear();
    }
}

fn title(role: Role) -> &'static str {
    match role {
        Role::Etcd(_) => "etcd",
        Role::Server => "server",
        Role::Tracer => "tracer",
        Role::Agent(_) => "agents",
    }
}

fn is_on_loopback(edge: &Edge) -> bool {
    edge.client.address.as_ref().unwrap_or(&edge.client.name).starts_with("127.")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[expect(clippy::disallowed_methods, reason = "faults come at random times; nothing is assumed after the pause")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
fn now() -> Instant {
    Instant::now()
}
