//! The matrix: every kind of traffic and every path through a cluster, played while weir watches, and checked.
//!
//! [`kinds`] says what is played, [`machine`] and [`paths`] where, [`run`] plays and checks it. `tests/accuracy.rs` plays the short form in `make test`,
//! the program `weir-accuracy` all of it for `docs/accuracy.md`.

pub mod kinds;
pub mod machine;
pub mod paths;
pub mod run;

use crate::checker::table::{Expectation, Report};
use crate::checker::{Kind, View};
use crate::cluster::Dnat;
use anyhow::Result;

/// How much is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What a minute allows.
    Short,
    /// Everything.
    Full,
}

/// How the tracer works, and what it cannot see then.
#[derive(Clone, Debug, Default)]
pub struct Mode {
    /// What the document calls it.
    pub name: &'static str,
    /// The settings that make it so, for `weir up` and its parts.
    pub environment: &'static [(&'static str, &'static str)],
    /// Says what differs in a scenario of this name, if something does.
    pub differs: Option<Differs>,
}

/// What differs in a scenario of this name: in which answer, how, why.
pub type Differs = fn(&str) -> Vec<(View, Vec<Kind>, &'static str)>;

impl Mode {
    /// eBPF: everything.
    pub fn full() -> Self {
        Self { name: "eBPF", ..Self::default() }
    }

    /// What is known to differ in the scenarios that were played.
    pub fn expectations(&self, run: &run::Run) -> Vec<Expectation> {
        let Some(differs) = self.differs else { return Vec::new() };
        let mut known = Vec::new();
        for scenario in run.names() {
            for (view, kinds, reason) in differs(scenario) {
                known.push(Expectation { scenario: scenario.clone(), view, kinds, reason: reason.into() });
            }
        }
        known
    }
}

/// A part of the matrix that is played at once, with a weir of its own.
#[derive(Clone, Debug)]
pub struct Section {
    /// What the document calls it.
    pub title: String,
    /// Where it is played.
    pub ground: Ground,
    /// How the tracer works.
    pub mode: Mode,
}

/// Where a section is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// On this machine's loopback, watched by `weir up`.
    Machine,
    /// In a cluster of network namespaces, with a tracer and an agent on each node.
    Cluster(Dnat),
}

impl Section {
    /// Every section, for each mode.
    pub fn all(modes: &[Mode]) -> Vec<Self> {
        let grounds = [
            ("one machine", Ground::Machine),
            ("a cluster, DNAT by nftables", Ground::Cluster(Dnat::Nftables)),
            ("a cluster, DNAT by iptables", Ground::Cluster(Dnat::Iptables)),
        ];
        let of_mode = |mode: &Mode| {
            let sections = grounds.map(|(name, ground)| {
                let title = format!("{}: {name}", mode.name);
                Self { title, ground, mode: mode.clone() }
            });
            sections.into_iter()
        };
        modes.iter().flat_map(of_mode).collect()
    }
}

/// Plays a section and compares.
///
/// # Errors
/// When something cannot be built or played; what weir gets wrong is in the report.
pub fn check(section: &Section, extent: Extent) -> Result<Report> {
    match section.ground {
        Ground::Machine => machine::check(extent, &section.mode),
        Ground::Cluster(dnat) => paths::check(dnat, extent, &section.mode),
    }
}
