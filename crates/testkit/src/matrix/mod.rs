//! The matrix: every kind of traffic and every path through a cluster, played while weir watches, and checked.
//!
//! [`kinds`] says what is played, [`machine`] and [`paths`] where, [`run`] plays and checks it, [`fallback`] what a
//! tracer without eBPF cannot see. `tests/accuracy.rs` plays the short form in `make test`, the program `weir-accuracy`
//! all of it for `docs/accuracy.md`.

pub mod fallback;
pub mod kinds;
pub mod machine;
pub mod paths;
pub mod run;

use crate::checker::table::{Expectation, Found, Report};
use crate::checker::{Kind, View};
use crate::cluster::Dnat;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

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
    /// Where it is played.
    pub grounds: &'static [(&'static str, Ground)],
    /// Says what differs in a scenario of this name, if something does.
    pub differs: Option<fn(&str) -> Vec<Difference>>,
}

/// What differs in a scenario because the tracer cannot see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The tracer's word for what it cannot see; its reason is told with it.
    pub what: &'static str,
    /// The answers of which at least one differs.
    pub views: &'static [View],
    /// How.
    pub kinds: &'static [Kind],
    /// Where it has to be found.
    pub holds: Holds,
}

/// Where a difference has to be found, so that none is expected that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holds {
    /// In every scenario that it is named for.
    InEach,
    /// In at least one of them: which, is chance.
    InSome,
    /// Perhaps in none: it takes a moment that a run may miss.
    ByChance,
}

const MACHINE: (&str, Ground) = ("one machine", Ground::Machine);
const EVERYWHERE: &[(&str, Ground)] = &[
    MACHINE,
    ("a cluster, DNAT by nftables", Ground::Cluster(Dnat::Nftables)),
    ("a cluster, DNAT by iptables", Ground::Cluster(Dnat::Iptables)),
];

impl Mode {
    /// eBPF: everything.
    pub fn full() -> Self {
        Self { name: "eBPF", grounds: EVERYWHERE, ..Self::default() }
    }

    /// sock_diag, where eBPF is not to be had. A tracer that is kept to one cgroup, as on a node of the cluster, takes
    /// eBPF.
    pub fn fallback() -> Self {
        let environment = &[("WEIR_TRACER_MODE", "fallback")];
        Self { name: "fallback", environment, grounds: &[MACHINE], differs: Some(fallback::differs) }
    }

    /// What is known to differ in scenarios of these `names`. `cannot_see` is what the tracer says of itself, words and reasons.
    ///
    /// # Errors
    /// When something differs that the tracer does not say.
    pub fn expectations(&self, names: &[String], cannot_see: &BTreeMap<String, String>) -> Result<Vec<Expectation>> {
        let Some(differs) = self.differs else { return Ok(Vec::new()) };
        let mut places: BTreeMap<(Difference, usize), Vec<String>> = BTreeMap::new();
        for (number, name) in names.iter().enumerate() {
            for difference in differs(name) {
                let number = if difference.holds == Holds::InEach { number } else { 0 };
                places.entry((difference, number)).or_default().push(name.clone());
            }
        }
        let expected = places.into_iter().map(|((Difference { what, views, kinds, holds }, _), scenarios)| {
            let why =
                cannot_see.get(what).with_context(|| format!("the tracer does not say that it cannot see {what}"))?;
            let found = if holds == Holds::ByChance { Found::ByChance } else { Found::InEveryRun };
            let reason = format!("`{what}`: {why}");
            Ok(Expectation { scenarios, views: views.into(), kinds: kinds.into(), found, reason })
        });
        expected.collect()
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
    /// Every section of each mode.
    pub fn all(modes: &[Mode]) -> Vec<Self> {
        let mut sections = Vec::new();
        for mode in modes {
            for &(name, ground) in mode.grounds {
                sections.push(Self { title: format!("{}: {name}", mode.name), ground, mode: mode.clone() });
            }
        }
        sections
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
