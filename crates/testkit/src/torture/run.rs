//! One run: drawn from its seed, played, and held against the truth.
//!
//! ```text
//! world ◀─poll─ weir-agent ─▶ relay ─▶ weir server ◀─ reader
//!   │           (killed, ended, frozen)  (the same)      │
//!   └────────────────────── check ──────────────────────┘
//! ```

use super::care;
use super::check;
use super::disk::Disk;
use super::parts::{self, AGENT_STEPS, Part, PartCommand, SERVER_STEPS, can_set_clocks};
use super::random::Random;
use super::reader::{self, Reader};
use super::relay::{Happened, Rates, Relay};
use super::world::{Tuples, World, address, name};
use crate::feed::{Behaviour, StandIn};
use crate::process::until;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_wire::api::Transaction;

/// How long a part may take to do what it must; machines are busy.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at everything.
const TICK: Duration = Duration::from_millis(25);
/// The longest that a part stays dead.
const DEAD_MS: u64 = 600;
/// How far a wall clock is set wrong at most, seconds.
const CLOCK_MAX_S: u64 = 1500;

/// What a run is made of, all of it from the seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Agents, each with a node of its own.
    pub writers: usize,
    /// How long things go wrong.
    pub chaos: Duration,
    /// What the relay does to messages.
    pub rates: Rates,
    /// Whether agents' wall clocks are wrong and jump.
    pub clocks: bool,
    /// Whether the server's disk is full for a while.
    pub full_disk: bool,
    /// Whether a node falls silent early on, and comes back when all is over.
    pub silence: bool,
    random: Random,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut rate = |most: u64| if random.permille(250) { 0 } else { random.below(most) };
        let rates = Rates {
            drop: rate(60),
            repeat: rate(120),
            reorder: rate(80),
            delay: rate(250),
            damage: rate(40),
            old: rate(120),
            cut: rate(60),
        };
        Self {
            seed,
            writers: 3 + random.below(6) as usize,
            chaos: Duration::from_millis(4000 + random.below(4000)),
            rates,
            clocks: can_set_clocks() && random.permille(300),
            silence: random.permille(300),
            full_disk: nix::unistd::geteuid().is_root() && random.permille(200),
            random,
        }
    }
}

/// What a run showed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Agents.
    pub writers: usize,
    /// Processes that were killed.
    pub kills: u64,
    /// Processes that a fail point ended.
    pub aborts: u64,
    /// What happened to messages.
    pub messages: Happened,
    /// Polls that a feed failed.
    pub feed_faults: u64,
    /// Flows that were played.
    pub flows: usize,
    /// How often the reader was answered.
    pub reads: u64,
    /// What else was in it: clocks, silence.
    pub conditions: Vec<&'static str>,
}

/// Plays a run; its folder is kept when it fails.
///
/// # Errors
/// With what is wrong.
pub fn play(plan: &Plan) -> Result<Outcome> {
    let folder = tempfile::Builder::new().prefix(&format!("weir-torture-{}-", plan.seed)).tempdir()?;
    let mut run = Run::prepare(plan, folder.path())?;
    match run.play() {
        Ok(outcome) => Ok(outcome),
        Err(error) => {
            drop(run);
            Err(error.context(format!("seed {}, logs and data in {}, {plan:?}", plan.seed, folder.keep().display())))
        }
    }
}

struct Run {
    plan: Plan,
    random: Random,
    data: PathBuf,
    folder: PathBuf,
    world: Arc<World>,
    relay: Relay,
    reader: Reader,
    server: Part,
    agents: Vec<Part>,
    feeds: Vec<StandIn>,
    feed_faults: Arc<AtomicU64>,
    /// Of a thousand polls so many get half a reply or an error.
    feed_rate: Arc<AtomicU64>,
    disk: Option<Disk>,
    /// When each part is started again: the server, then the agents.
    due: Vec<Option<Instant>>,
    server_is_known: bool,
}

impl Run {
    fn prepare(plan: &Plan, folder: &Path) -> Result<Self> {
        let mut random = plan.random.clone();
        let world =
            Arc::new(World::new(plan.writers, if plan.clocks { Tuples::Once } else { Tuples::Again }, random.fork()));
        let relay = Relay::start(random.fork(), plan.rates)?;
        let data = folder.join("server");
        let disk = if plan.full_disk {
            std::fs::create_dir(&data)?;
            Some(Disk::mount(&data)?)
        } else {
            None
        };
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let arguments: Vec<String> =
            ["server", "--data", &text(&data), "--listen", "127.0.0.1:0", "--agents-listen", "127.0.0.1:0"]
                .map(str::to_owned)
                .into();
        let server = Part::new("server", folder, PartCommand { program: "weir", arguments });
        let (feed_faults, feed_rate) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (mut feeds, mut agents) = (Vec::new(), Vec::new());
        for node in 0..plan.writers {
            let socket = folder.join(format!("feed-{node}.sock"));
            let (told, faults, rate, mut dice) =
                (Arc::clone(&world), Arc::clone(&feed_faults), Arc::clone(&feed_rate), random.fork());
            feeds.push(StandIn::serve(&socket, move |target| {
                let behaviour = told.answer(node, target);
                let Behaviour::Body(body) = behaviour else { return behaviour };
                if !dice.permille(rate.load(Ordering::Relaxed)) {
                    return Behaviour::Body(body);
                }
                faults.fetch_add(1, Ordering::Relaxed);
                if dice.permille(500) { Behaviour::Half(body) } else { Behaviour::Status(500) }
            })?);
            let arguments = vec![
                "--feed".into(),
                format!("unix:{}", text(&socket)),
                "--spool".into(),
                text(&folder.join(format!("spool-{node}"))),
                "--spool-max-bytes".into(),
                // Small segments, so that they are changed in the middle of a run; far from full.
                "1MiB".into(),
                "--server".into(),
                format!("http://{}", relay.address),
                "--interval".into(),
                "120ms".into(),
                "--metrics-listen".into(),
                "127.0.0.1:0".into(),
                "--node".into(),
                name(node),
                "--node-ip".into(),
                address(node).to_string(),
            ];
            let part = Part::new(&format!("agent-{node}"), folder, PartCommand { program: "weir-agent", arguments });
            if plan.clocks {
                part.set_clock(random.below(2 * CLOCK_MAX_S) as i64 - CLOCK_MAX_S as i64)?;
            }
            agents.push(part);
        }
        Ok(Self {
            due: vec![None; plan.writers + 1],
            disk,
            plan: plan.clone(),
            random,
            data,
            folder: folder.to_owned(),
            world,
            relay,
            reader: Reader::start(),
            server,
            agents,
            feeds,
            feed_faults,
            feed_rate,
            server_is_known: false,
        })
    }

    fn play(&mut self) -> Result<Outcome> {
        self.start_server(None)?;
        for agent in &mut self.agents {
            agent.start(None)?;
        }
        let nodes = 0..self.plan.writers;
        // An agent that has polled twice has the first poll in its spool.
        self.keep_up(PATIENCE, "every agent polls", |run| Ok(nodes.clone().all(|node| run.world.answers(node) > 2)))?;
        self.world.begin();
        self.feed_rate.store(self.random.below(120), Ordering::Relaxed);
        let silent = self.plan.silence.then(|| self.random.below(self.plan.writers as u64) as usize);
        let mut silent_since = None;
        let end = now() + self.plan.chaos;
        while now() < end {
            if let Some(node) = silent
                && silent_since.is_none()
                && now() + self.plan.chaos * 3 / 4 > end
            {
                self.relay.apart(&name(node), true);
                silent_since = Some(node);
            }
            self.disturb(silent)?;
            self.restart_due(true)?;
            pause(TICK);
        }
        self.calm(silent)?;
        self.relay.behave();
        self.settle()?;
        // Once more from the disk.
        self.server.kill()?;
        self.start_server(None)?;
        self.settle()?;
        for agent in &mut self.agents {
            agent.stop()?;
        }
        self.settle()?;
        let before = self.read()?;
        self.forget_server();
        self.server.stop()?;
        let faults = self.reader.faults();
        ensure!(faults.is_empty(), "{faults}");
        let expected = care::Expected { flows: self.world.flows(), rows: before };
        care::check(&self.data, &self.folder, &expected, &mut self.random)?;
        Ok(self.outcome())
    }

    fn outcome(&self) -> Outcome {
        let parts = || std::iter::once(&self.server).chain(&self.agents);
        let mut conditions = Vec::new();
        if self.plan.clocks {
            conditions.push("clocks");
        }
        if self.plan.full_disk {
            conditions.push("a full disk");
        }
        if self.plan.silence {
            conditions.push("silence");
        }
        Outcome {
            seed: self.plan.seed,
            writers: self.plan.writers,
            kills: parts().map(|part| part.kills).sum(),
            aborts: parts().map(|part| part.aborts).sum(),
            messages: self.relay.happened(),
            feed_faults: self.feed_faults.load(Ordering::Relaxed),
            flows: self.world.flows().len(),
            reads: self.reader.reads(),
            conditions,
        }
    }

    /// Does one thing at random, or none.
    fn disturb(&mut self, silent: Option<usize>) -> Result<()> {
        let node = self.random.below(self.plan.writers as u64) as usize;
        match self.random.below(240) {
            0..=3 => {
                self.forget_server();
                self.server.kill()?;
            }
            4..=11 => self.agents[node].kill()?,
            12..=14 => {
                self.agents[node].kill()?;
                self.relay.ghost(&name(node));
            }
            15..=17 => self.agents[node].freeze(true)?,
            18..=23 => self.agents[node].freeze(false)?,
            24 => self.server.freeze(true)?,
            25..=32 => self.server.freeze(false)?,
            33..=35 if silent != Some(node) => self.relay.apart(&name(node), true),
            36..=45 if silent != Some(node) => self.relay.apart(&name(node), false),
            46..=48 if self.plan.clocks => {
                let seconds = self.random.below(2 * CLOCK_MAX_S) as i64 - CLOCK_MAX_S as i64;
                self.agents[node].set_clock(seconds)?;
            }
            49..=52 => self.fill_disk(true)?,
            53..=57 => self.fill_disk(false)?,
            _ => {}
        }
        Ok(())
    }

    fn fill_disk(&mut self, full: bool) -> Result<()> {
        if let Some(disk) = &self.disk {
            let but = self.random.below(200_000);
            disk.fill(full.then_some(but))?;
        }
        Ok(())
    }

    /// Starts what is dead and has been for long enough, and lets the server be found once it has been looked at.
    fn restart_due(&mut self, with_fail_points: bool) -> Result<()> {
        // A server that finds no room says so and ends.
        let server_is_dead = match self.server.is_running() {
            Ok(runs) => !runs,
            Err(_) if self.disk.is_some() => true,
            Err(error) => return Err(error),
        };
        let mut is_dead = vec![server_is_dead];
        for agent in &mut self.agents {
            is_dead.push(!agent.is_running()?);
        }
        for (index, is_dead) in is_dead.into_iter().enumerate() {
            if !is_dead {
                continue;
            }
            if index == 0 {
                self.forget_server();
            }
            let longest = if with_fail_points { DEAD_MS } else { 1 };
            let due = *self.due[index].get_or_insert_with(|| now() + Duration::from_millis(self.random.below(longest)));
            if now() < due {
                continue;
            }
            self.due[index] = None;
            let steps = if index == 0 { SERVER_STEPS } else { AGENT_STEPS };
            let fail_point = (with_fail_points && self.random.permille(500))
                .then(|| {
                    let step = self.random.pick(steps)?;
                    Some(format!("{step}:{}", 1 + self.random.below(if index == 0 { 4 } else { 20 })))
                })
                .flatten();
            if index == 0 {
                self.start_server(fail_point.as_deref())?;
            } else {
                self.agents[index - 1].start(fail_point.as_deref())?;
            }
        }
        self.look_for_server()
    }

    fn start_server(&mut self, fail_point: Option<&str>) -> Result<()> {
        self.forget_server();
        self.server.start(fail_point)
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
        let Some((http, agents)) = parts::addresses(&self.data, self.server.pid()) else { return Ok(()) };
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

    fn http(&self) -> Result<SocketAddr> {
        let (http, _) = parts::addresses(&self.data, self.server.pid()).context("the server does not listen")?;
        Ok(http)
    }

    fn read(&self) -> Result<Vec<Transaction>> {
        reader::transactions(self.http()?)
    }

    /// Everything runs again, and nothing is disturbed any more.
    fn calm(&mut self, silent: Option<usize>) -> Result<()> {
        self.feed_rate.store(0, Ordering::Relaxed);
        self.fill_disk(false)?;
        self.server.freeze(false)?;
        for (node, agent) in self.agents.iter_mut().enumerate() {
            agent.freeze(false)?;
            if silent != Some(node) {
                self.relay.apart(&name(node), false);
            }
        }
        // Whoever still waits for a fail point would die of it later: all are started anew.
        self.forget_server();
        self.server.kill()?;
        for agent in &mut self.agents {
            agent.kill()?;
        }
        self.restart_due(false)?;
        self.keep_up(PATIENCE, "everything runs again", |run| {
            run.restart_due(false)?;
            let is_up = run.agents.iter_mut().map(Part::is_running).collect::<Result<Vec<bool>>>()?;
            Ok(run.server_is_known && is_up.into_iter().all(|is_up| is_up))
        })?;
        self.world.freeze();
        let nodes: Vec<u64> = (0..self.plan.writers).map(|node| self.world.answers(node)).collect();
        self.keep_up(PATIENCE, "every agent has polled all that is", |run| {
            let done =
                |(node, before): (usize, &u64)| run.world.answers(node) > before + 2 && run.world.is_drained(node);
            Ok(nodes.iter().enumerate().all(done))
        })
    }

    /// Waits until the answers are the truth, and says what they are not if they do not become it.
    fn settle(&mut self) -> Result<()> {
        let flows = self.world.flows();
        self.keep_up(PATIENCE, "the answers are the truth", |run| {
            run.look_for_server()?;
            let http = run.http()?;
            let rows = reader::transactions(http)?;
            let mut faults = check::transactions(&flows, &rows);
            faults.push_str(&check::acknowledged(&run.relay.acknowledged(), &rows));
            let edges = reader::edges(http)?;
            faults.push_str(&check::edges(&flows, &rows, &edges.items));
            ensure!(faults.is_empty(), "{faults}");
            Ok(true)
        })
    }

    /// Asks until it is so, while every part has to run.
    fn keep_up(
        &mut self,
        patience: Duration,
        what: &str,
        mut done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let mut ended = None;
        until(patience, || {
            if let Err(error) = self.server.is_running() {
                ended = Some(error);
                return Ok(true);
            }
            self.look_for_server()?;
            done(self)
        })
        .with_context(|| format!("waited until {what}"))?;
        match ended {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // A stopped process does not take SIGTERM.
        for part in std::iter::once(&mut self.server).chain(&mut self.agents) {
            let _ = part.kill();
        }
        self.disk = None;
        self.feeds.clear();
    }
}

#[expect(clippy::disallowed_methods, reason = "faults come at random times; nothing is assumed after the pause")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
fn now() -> Instant {
    Instant::now()
}
