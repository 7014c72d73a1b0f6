//! Plays scenarios while weir watches, then compares what weir says with the truth until it agrees or time is over.

use crate::answers::Answers;
use crate::checker::rows::{Row, check};
use crate::checker::table::{Expectation, Report};
use crate::checker::watcher::{Watcher, get};
use crate::checker::{End, View, Watch, edges};
use crate::cluster::Place;
use crate::matrix::kinds::{Against, Case};
use crate::played::{Server, play};
use crate::process::until;
use crate::traffic::{Manner, Role, Truth};
use crate::weir::Weir;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use weir_wire::api::{Edge, Transaction};
use weir_wire::feed::Status;

/// How long weir may take to say the truth: a few polls, the server's lateness, a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Every answer is asked for at one look in so many (20 ms each): a server that answers without pause does little else.
const LOOKS_PER_ANSWER: u32 = 25;
/// The first scenario's ports begin here, below the ephemeral ones; each scenario has its own.
const FIRST_PORT: u16 = 10_000;

/// A weir that watches: what its server answers, and its tracers' sockets.
#[derive(Debug)]
pub struct Watching<'a> {
    /// The server's answers.
    pub answers: &'a Answers,
    /// The tracers' sockets.
    pub tracers: Vec<PathBuf>,
}

impl<'a> Watching<'a> {
    /// `weir up` on this machine.
    pub fn up(weir: &'a Weir) -> Self {
        Self { answers: weir, tracers: vec![weir.data().join("run/tracer.sock")] }
    }

    /// What its tracers say that they cannot see, and why.
    ///
    /// # Errors
    /// When a tracer does not answer.
    pub fn cannot_see(&self) -> Result<BTreeMap<String, String>> {
        let mut words = BTreeMap::new();
        for socket in &self.tracers {
            let status: Status = serde_json::from_slice(&get(socket, "/status")?).context("the tracer's status")?;
            let blind = status.degraded.into_iter().flat_map(|degraded| degraded.cannot_see);
            words.extend(blind.map(|blind| (blind.what, blind.why)));
        }
        Ok(words)
    }
}

/// Where processes run, and the address that others reach them at.
#[derive(Clone, Copy, Debug)]
pub struct Spot<'a> {
    /// A namespace and a cgroup of a cluster; here otherwise.
    pub place: Option<&'a Place>,
    /// Its address.
    pub ip: IpAddr,
}

impl Spot<'_> {
    /// Puts a command there.
    ///
    /// # Errors
    /// When the place is gone.
    pub fn prepare(&self, command: Command) -> Result<Command> {
        match self.place {
            Some(place) => place.prepare(command),
            None => Ok(command),
        }
    }
}

/// How a client reaches servers.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    /// Where the client runs.
    pub client: Spot<'a>,
    /// Where servers run, all on the same ports.
    pub servers: &'a [Spot<'a>],
    /// The first of the servers' ports; one of the scenario's own otherwise.
    pub first_port: Option<u16>,
    /// What the client calls for a port of the servers.
    pub called: &'a dyn Fn(u16) -> SocketAddr,
    /// Whether weir is where the client is.
    pub sight: Sight,
}

/// Which ends a tracer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Both.
    Both,
    /// Only the servers': the client is beyond the cluster.
    Servers,
}

/// Scenarios as they are played.
#[derive(Debug, Default)]
pub struct Run {
    names: Vec<String>,
    ends: Vec<End>,
    watchers: Vec<Watcher>,
    namespaces: Vec<u32>,
    expectations: Vec<Expectation>,
}

impl Run {
    /// Begins to read the feeds of `weir`.
    ///
    /// # Errors
    /// When a tracer does not answer.
    pub fn begin(weir: &Watching<'_>) -> Result<Self> {
        let mut run = Self::default();
        run.watch(weir)?;
        Ok(run)
    }

    /// Begins to read the feeds, where scenarios began before weir.
    ///
    /// # Errors
    /// When a tracer does not answer.
    pub fn watch(&mut self, weir: &Watching<'_>) -> Result<()> {
        self.watchers = weir.tracers.iter().map(|socket| Watcher::begin(socket)).collect::<Result<_>>()?;
        Ok(())
    }

    /// Everything in this namespace is the traffic's.
    pub fn own(&mut self, net_ns: u32) {
        self.namespaces.push(net_ns);
    }

    /// A difference that is known.
    pub fn expect(&mut self, expectation: Expectation) {
        self.expectations.push(expectation);
    }

    /// Begins a scenario, or goes on with the one of this name; answers its number.
    pub fn scenario(&mut self, name: &str) -> usize {
        if let Some(known) = self.names.iter().position(|known| known == name) {
            return known;
        }
        self.names.push(name.to_owned());
        self.names.len() - 1
    }

    /// The scenarios' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The addresses of the servers that a scenario's connections came to, by port.
    pub fn backends(&self, scenario: &str) -> BTreeMap<u16, BTreeSet<IpAddr>> {
        let mut backends: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
        let is_of = |end: &&End| self.names[end.scenario] == scenario && end.truth.role == Role::Server;
        for end in self.ends.iter().filter(is_of) {
            backends.entry(end.truth.local.port()).or_default().insert(end.truth.local.ip());
        }
        backends
    }

    /// The first of this scenario's own ports.
    pub fn ports(scenario: usize) -> u16 {
        FIRST_PORT + scenario as u16 * Manner::ALL.len() as u16
    }

    /// Takes the truth of a scenario.
    pub fn take(&mut self, scenario: usize, truth: Vec<Truth>) {
        self.ends.extend(truth.into_iter().map(|truth| End::new(truth, scenario)));
    }

    /// Takes an end whose first part lies before weir.
    pub fn take_end(&mut self, end: End) {
        self.ends.push(end);
    }

    /// Plays one kind of traffic between two places.
    ///
    /// # Errors
    /// When it does not go as it should.
    pub fn play(&mut self, name: &str, case: &Case, client: Spot<'_>, server: Spot<'_>) -> Result<()> {
        let called = |port| SocketAddr::new(server.ip, port);
        let path = Path { client, servers: &[server], first_port: None, called: &called, sight: Sight::Both };
        self.play_on(name, std::slice::from_ref(case), &path)
    }

    /// Plays kinds of traffic on a path, one after the other, as one scenario.
    ///
    /// # Errors
    /// When it does not go as it should.
    pub fn play_on(&mut self, name: &str, cases: &[Case], path: &Path<'_>) -> Result<()> {
        let scenario = self.scenario(name);
        let first = path.first_port.unwrap_or(Self::ports(scenario));
        let mut client = Vec::new();
        let mut servers = Vec::new();
        let is_served = cases.iter().any(|case| case.against != Against::Nobody);
        for server in path.servers.iter().filter(|_| is_served) {
            let server = Server::open(&["--first-port", &first.to_string()], &|command| server.prepare(command));
            servers.push(server.with_context(|| format!("the server of {name}"))?);
        }
        for case in cases {
            let targets: Vec<_> = match case.against {
                Against::Nobody => vec![(path.called)(first)],
                Against::Ports(manners) => manners.iter().map(|one| (path.called)(first + one.offset())).collect(),
            };
            client.extend(
                play(case.args, &targets, &|command| path.client.prepare(command))
                    .with_context(|| name.to_owned())?
                    .truth,
            );
        }
        ensure!(!client.is_empty(), "{name}: nothing was told");
        let is_seen = path.sight == Sight::Both;
        self.ends.extend(client.into_iter().map(|truth| End { is_seen, ..End::new(truth, scenario) }));
        for server in servers {
            self.take(scenario, server.close().with_context(|| format!("the server of {name}"))?.truth);
        }
        self.fetch()
    }

    /// Reads the feeds once.
    ///
    /// # Errors
    /// When a tracer does not answer.
    pub fn fetch(&mut self) -> Result<()> {
        self.watchers.iter_mut().try_for_each(Watcher::fetch)
    }

    /// Compares until all is explained or patience is over.
    ///
    /// # Errors
    /// When weir does not answer.
    pub fn finish(mut self, weir: &Watching<'_>) -> Result<Report> {
        let mut report = Report::default();
        let mut looks = 0_u32;
        let outcome = until(PATIENCE, || {
            looks += 1;
            if looks % LOOKS_PER_ANSWER != 1 {
                return Ok(false);
            }
            self.fetch()?;
            report = self.report(&weir.answers.transactions()?, &weir.answers.edges()?);
            Ok(report.unexplained().is_empty())
        });
        // What is off is in the report; only an answer that never came is an error here.
        if report.names.is_empty() {
            outcome?;
        }
        Ok(report)
    }

    fn report(&self, transactions: &[Transaction], weir_edges: &[Edge]) -> Report {
        let watch = self.namespaces.iter().fold(Watch::of(&self.ends), |watch, net_ns| watch.and_all_of(*net_ns));
        let rows: Vec<Row> = self.watchers.iter().flat_map(Watcher::rows).collect();
        let mut feed = check(View::Feed, &self.ends, &rows, &watch);
        feed.faults.extend(self.watchers.iter().flat_map(|watcher| watcher.faults().iter().cloned()));
        let rows: Vec<Row> = transactions.iter().map(Row::from).collect();
        Report {
            names: self.names.clone(),
            ends: self.ends.clone(),
            feed,
            transactions: check(View::Transactions, &self.ends, &rows, &watch),
            edges: edges::check(&self.ends, weir_edges, &watch),
            expectations: self.expectations.clone(),
        }
    }
}
