//! Plays scenarios while weir watches, then compares what weir says with the truth until it agrees or time is over.

use crate::checker::rows::{Row, check};
use crate::checker::table::{Expectation, Report};
use crate::checker::watcher::Watcher;
use crate::checker::{End, View, Watch, edges};
use crate::matrix::kinds::{Against, Case};
use crate::played::{Prepare, Server, play};
use crate::process::until;
use crate::traffic::{Manner, Truth};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use weir_wire::api::{Edge, Transaction};

/// How long weir may take to say the truth: a few polls, the server's lateness, a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first scenario's ports begin here, below the ephemeral ones; each scenario has its own.
const FIRST_PORT: u16 = 10_000;

/// What weir is asked.
pub trait Watched {
    /// Every stored counter.
    ///
    /// # Errors
    /// When there is no answer.
    fn transactions(&self) -> Result<Vec<Transaction>>;
    /// Every edge by address.
    ///
    /// # Errors
    /// When there is no answer.
    fn edges(&self) -> Result<Vec<Edge>>;
    /// The tracers' sockets.
    fn tracers(&self) -> Vec<PathBuf>;
}

impl Watched for crate::weir::Weir {
    fn transactions(&self) -> Result<Vec<Transaction>> {
        (**self).transactions()
    }

    fn edges(&self) -> Result<Vec<Edge>> {
        (**self).edges()
    }

    fn tracers(&self) -> Vec<PathBuf> {
        vec![self.data().join("run/tracer.sock")]
    }
}

impl Watched for crate::cluster::ClusterWeir {
    fn transactions(&self) -> Result<Vec<Transaction>> {
        (**self).transactions()
    }

    fn edges(&self) -> Result<Vec<Edge>> {
        (**self).edges()
    }

    fn tracers(&self) -> Vec<PathBuf> {
        self.feeds()
    }
}

/// Where processes run, and the address that others reach them at.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Puts a command there.
    pub prepare: Prepare<'a>,
    /// Its address.
    pub ip: IpAddr,
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
    pub fn begin(weir: &dyn Watched) -> Result<Self> {
        let mut run = Self::default();
        run.watch(weir)?;
        Ok(run)
    }

    /// Begins to read the feeds, where scenarios began before weir.
    ///
    /// # Errors
    /// When a tracer does not answer.
    pub fn watch(&mut self, weir: &dyn Watched) -> Result<()> {
        self.watchers = weir.tracers().iter().map(|socket| Watcher::begin(socket)).collect::<Result<_>>()?;
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

    /// Begins a scenario; answers its number.
    pub fn scenario(&mut self, name: &str) -> usize {
        self.names.push(name.to_owned());
        self.names.len() - 1
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
    pub fn play(&mut self, name: &str, case: &Case, client: Place<'_>, server: Place<'_>) -> Result<()> {
        let scenario = self.scenario(name);
        let first = Self::ports(scenario);
        let mut truth = Vec::new();
        match case.against {
            Against::Nobody => {
                let target = SocketAddr::new(server.ip, first);
                truth.extend(play(case.args, &[target], client.prepare).with_context(|| name.to_owned())?.truth);
            }
            Against::Ports(manners) => {
                let playing = Server::open(&["--first-port", &first.to_string()], server.prepare)
                    .with_context(|| format!("the server of {name}"))?;
                let targets: Vec<_> =
                    manners.iter().map(|manner| SocketAddr::new(server.ip, playing.port(*manner))).collect();
                truth.extend(play(case.args, &targets, client.prepare).with_context(|| name.to_owned())?.truth);
                truth.extend(playing.close().with_context(|| format!("the server of {name}"))?.truth);
            }
        }
        ensure!(!truth.is_empty(), "{name}: nothing was told");
        self.take(scenario, truth);
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
    pub fn finish(mut self, weir: &dyn Watched) -> Result<Report> {
        let mut report = Report::default();
        let outcome = until(PATIENCE, || {
            self.fetch()?;
            report = self.report(&weir.transactions()?, &weir.edges()?);
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
