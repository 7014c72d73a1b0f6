//! What a run is made of, all of it drawn from its seed, and what a run showed.

use super::parts::can_set_clocks;
use super::random::Random;
use super::relay::{Happened, Rates};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where the server keeps current state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum State {
    /// In its data folder.
    #[default]
    Embedded,
    /// Also in an etcd of the run's own, which is killed and frozen, too.
    Etcd,
    /// Also in an etcd of three members, of which one at a time is killed or frozen.
    #[value(name = "etcd-members")]
    EtcdMembers,
    /// Also in ConfigMaps at an API server of the run's own, which fails calls and goes away.
    #[value(name = "configmap")]
    ConfigMap,
}

impl State {
    /// Whether it is also elsewhere than in the folder.
    pub fn is_shared(self) -> bool {
        self != Self::Embedded
    }

    /// How many members of etcd it is in.
    pub fn members(self) -> usize {
        match self {
            Self::Etcd => 1,
            Self::EtcdMembers => 3,
            Self::Embedded | Self::ConfigMap => 0,
        }
    }
}

/// How long a node cannot reach the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    /// Now and then, for moments.
    #[default]
    None,
    /// From early on until all is over.
    Within,
    /// Until the server's clock is beyond the lateness horizon of all that the node has to tell.
    Beyond,
}

/// What bounds the agents' spools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spools {
    /// Nothing that is reached.
    #[default]
    Large,
    /// What waits longer is dropped, milliseconds.
    Age(u64),
    /// The smallest spool that an agent takes, and far more connections.
    Bytes,
}

/// What lies between agents and the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Network {
    /// The host's loopback interface.
    #[default]
    Loopback,
    /// A network namespace for each agent, with a cable that is pulled (as root).
    Cables,
    /// A simulated network whose links are cut and held.
    Simulated,
}

/// What a run is made of.
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
    /// Whether a node falls silent, and when it comes back.
    pub silence: Silence,
    /// Whether agents have to drop what they could not deliver.
    pub spools: Spools,
    /// What lies between agents and the relay.
    pub network: Network,
    /// Where the server keeps current state.
    pub state: State,
    /// Whether one node more has a real tracer of real connections, which is killed, too.
    pub tracer: bool,
    pub(super) random: Random,
}

impl Plan {
    /// The plan of a seed, by an ordinary user without what needs root.
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
        let is_root = nix::unistd::geteuid().is_root();
        let mut plan = Self {
            seed,
            writers: 3 + random.below(6) as usize,
            chaos: Duration::from_millis(4000 + random.below(4000)),
            rates,
            clocks: random.permille(250),
            silence: [Silence::Within, Silence::Beyond].get(random.below(6) as usize).copied().unwrap_or_default(),
            spools: match random.below(10) {
                0 | 1 => Spools::Age(500 + random.below(2000)),
                2 => Spools::Bytes,
                _ => Spools::Large,
            },
            full_disk: random.permille(150),
            network: if random.permille(250) { Network::Cables } else { Network::Loopback },
            state: match random.below(1000) {
                0..130 => State::Etcd,
                130..230 => State::EtcdMembers,
                230..380 => State::ConfigMap,
                _ => State::Embedded,
            },
            tracer: random.permille(150),
            random,
        };
        plan.clocks &= can_set_clocks();
        if plan.silence == Silence::Beyond && (plan.clocks || !can_set_clocks()) {
            plan.silence = Silence::Within;
        }
        if plan.spools == Spools::Bytes {
            // Only who waits for seconds has a megabyte to tell.
            plan.writers = plan.writers.min(3);
            if plan.silence == Silence::None {
                plan.silence = Silence::Within;
            }
        }
        plan.full_disk &= is_root;
        if !is_root {
            plan.network = Network::Loopback;
        }
        // Its truth is held against all of it.
        plan.tracer &= is_root && plan.spools == Spools::Large;
        plan
    }

    /// The same run with current state elsewhere.
    #[must_use]
    pub fn with_state(self, state: State) -> Self {
        Self { state, ..self }
    }

    /// The same run over another network.
    #[must_use]
    pub fn with_network(self, network: Network) -> Self {
        Self { network, ..self }
    }

    /// Whether something is told as lost in the end: then every flow has one view, so that each byte of it is either in
    /// an edge or in a told loss.
    pub fn loses(&self) -> bool {
        self.spools != Spools::Large || self.silence == Silence::Beyond
    }

    /// What else is in it, beside what is in every run.
    pub fn conditions(&self) -> Vec<&'static str> {
        [
            (self.clocks, "wrong clocks"),
            (self.full_disk, "a full disk"),
            (self.silence == Silence::Within, "a silent node"),
            (self.silence == Silence::Beyond, "a node back beyond the horizon"),
            (matches!(self.spools, Spools::Age(_)), "spools bounded by age"),
            (self.spools == Spools::Bytes, "spools bounded by bytes"),
            (self.network == Network::Cables, "pulled cables"),
            (self.network == Network::Simulated, "a simulated network"),
            (self.state == State::Etcd, "state in etcd"),
            (self.state == State::EtcdMembers, "state in three members of etcd"),
            (self.state == State::ConfigMap, "state in ConfigMaps"),
            (self.tracer, "a real tracer"),
        ]
        .into_iter()
        .filter_map(|(is_so, word)| is_so.then_some(word))
        .collect()
    }
}

/// How often what was done to processes, beside their kills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Processes stopped and let go on.
    pub frozen: u64,
    /// Nodes kept apart from the server.
    pub apart: u64,
    /// Cables pulled.
    pub pulled: u64,
    /// Links of the simulated network cut or held.
    pub cut: u64,
    /// Wall clocks set.
    pub clocks: u64,
    /// Disks filled.
    pub filled: u64,
    /// Calls that an API server failed.
    pub calls_failed: u64,
    /// Times that an API server was away.
    pub api_away: u64,
    /// ConfigMaps that somebody else wrote.
    pub touched: u64,
}

/// What was told as lost in the end, and was missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToldLost {
    /// Bytes that spools dropped.
    pub dropped_bytes: u64,
    /// Bytes that came too late to be counted.
    pub late_bytes: u64,
    /// Of the former, bytes that had arrived when the spool dropped them, which its agent had not learned.
    pub arrived_bytes: u64,
}

/// What a run showed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Agents.
    pub writers: usize,
    /// Processes that were killed.
    pub kills: BTreeMap<&'static str, u64>,
    /// Processes that ended at a fail point, by its name.
    pub steps: BTreeMap<String, u64>,
    /// How often else something was done to them.
    pub done: Done,
    /// What happened to messages.
    pub messages: Happened,
    /// Polls that a feed failed.
    pub feed_faults: u64,
    /// Flows that were played; the real ones of [`Plan::tracer`] included.
    pub flows: usize,
    /// How often the reader was answered.
    pub reads: u64,
    /// What was told as lost.
    pub lost: ToldLost,
    /// What else was in it: [`Plan::conditions`].
    pub conditions: Vec<&'static str>,
}

impl Outcome {
    /// All kills.
    pub fn killed(&self) -> u64 {
        self.kills.values().sum()
    }

    /// All ends at fail points.
    pub fn aborted(&self) -> u64 {
        self.steps.values().sum()
    }
}
