//! The table of `docs/accuracy.md`: scenario by scenario what was true and what weir said.
//!
//! Its form depends on the scenarios only: no port, pid or time is in it.

use super::edges;
use super::ends::End;
use super::fault::{Fault, Kind, View};
use super::rows::{Sum, Verdict};
use crate::traffic::{Outcome, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A difference that is known, and why it is there. It explains the faults of its kind in its views of its scenarios;
/// one that explains nothing in any of them is itself a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The scenarios' names.
    pub scenarios: Vec<String>,
    /// The answers that differ.
    pub views: Vec<View>,
    /// How.
    pub kinds: Vec<Kind>,
    /// When.
    pub found: Found,
    /// Why, for a person.
    pub reason: String,
}

/// Whether an expectation has to explain something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A run without it shows that the expectation is wrong.
    InEveryRun,
    /// It takes a moment that a run may miss.
    ByChance,
}

impl Expectation {
    fn explains(&self, fault: &Fault, names: &[String]) -> bool {
        let name = fault.scenario.and_then(|scenario| names.get(scenario));
        self.views.contains(&fault.view)
            && self.kinds.contains(&fault.kind)
            && name.is_some_and(|name| self.scenarios.contains(name))
    }
}

/// Everything that a run of scenarios showed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The scenarios' names.
    pub names: Vec<String>,
    /// The truth.
    pub ends: Vec<End>,
    /// The feed.
    pub feed: Verdict,
    /// The transactions.
    pub transactions: Verdict,
    /// The edges.
    pub edges: Verdict,
    /// What is known to differ.
    pub expectations: Vec<Expectation>,
}

impl Report {
    fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.feed.faults.iter().chain(&self.transactions.faults).chain(&self.edges.faults)
    }

    /// Faults that no expectation explains, and expectations that explain none.
    pub fn unexplained(&self) -> Vec<String> {
        let explained = |fault: &&Fault| self.expectations.iter().any(|known| known.explains(fault, &self.names));
        let mut lines: Vec<String> = self
            .faults()
            .filter(|fault| !explained(fault))
            .map(|fault| {
                let scenario = fault.scenario.and_then(|scenario| self.names.get(scenario));
                format!("[{}] {fault}", scenario.map_or("?", String::as_str))
            })
            .collect();
        for known in &self.expectations {
            let is_played = known.scenarios.iter().any(|name| self.names.contains(name));
            if known.found == Found::InEveryRun
                && is_played
                && !self.faults().any(|fault| known.explains(fault, &self.names))
            {
                lines.push(format!(
                    "[{}] expected to differ, but is exact: {}",
                    known.scenarios.join("; "),
                    known.reason
                ));
            }
        }
        for end in self.ends.iter().filter(|end| !end.truth.is_sound()) {
            lines.push(format!("[{}] the truth is not sound: {:?}", self.names[end.scenario], end.truth));
        }
        lines
    }

    /// The rows of the table and what is below it.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| scenario | truth by | ends true / feed / transactions | bytes true / feed / transactions | connections true / edges | bytes true / edges | off | direction |\n\
             |---|---|--:|--:|--:|--:|--:|--:|\n",
        );
        let edges = edges::expected(&self.ends);
        for (scenario, name) in self.names.iter().enumerate() {
            let mut truth = Sum::default();
            let seen = self.ends.iter().filter(|end| end.scenario == scenario && end.is_seen);
            seen.for_each(|end| truth.add(end.moved()));
            let of = |verdict: &Verdict| verdict.found.get(&scenario).copied().unwrap_or_default();
            let (feed, transactions, found) = (of(&self.feed), of(&self.transactions), of(&self.edges));
            let wanted = edges.get(&scenario).copied().unwrap_or_default();
            let off = [&self.feed, &self.transactions, &self.edges]
                .map(|verdict| verdict.off.get(&scenario).copied().unwrap_or_default());
            let right = [&self.feed, &self.transactions]
                .map(|verdict| verdict.direction.get(&scenario).copied().unwrap_or_default());
            let direction = match right {
                [(_, 0), _] => "-".to_owned(),
                [(feed, all), (transactions, _)] => format!("{} / {all}", feed.min(transactions)),
            };
            let _ = writeln!(
                text,
                "| {name} | {} | {} / {} / {} | {} / {} / {} | {} / {} | {} / {} | {} | {direction} |",
                self.kind_of_truth(scenario),
                truth.connections,
                feed.connections,
                transactions.connections,
                bytes(truth.bytes),
                bytes(feed.bytes),
                bytes(transactions.bytes),
                wanted.connections,
                found.connections,
                bytes(wanted.bytes),
                bytes(found.bytes),
                bytes(off.into_iter().sum()),
            );
        }
        let mut reasons: BTreeMap<&str, BTreeMap<&str, BTreeSet<View>>> = BTreeMap::new();
        for known in &self.expectations {
            for name in known.scenarios.iter().filter(|name| self.names.contains(name)) {
                reasons.entry(&known.reason).or_default().entry(name).or_default().extend(&known.views);
            }
        }
        if !reasons.is_empty() {
            text.push_str("\nNot exact, and why:\n\n");
        }
        for (reason, places) in reasons {
            let place = |(name, views): (&str, BTreeSet<View>)| {
                let views: Vec<_> = views.into_iter().map(View::as_str).collect();
                format!("{name} ({})", views.join(", "))
            };
            let places: Vec<_> = places.into_iter().map(place).collect();
            let _ = writeln!(text, "- {}: {reason}", places.join("; "));
        }
        text
    }

    fn kind_of_truth(&self, scenario: usize) -> &'static str {
        let ends = || self.ends.iter().filter(|end| end.scenario == scenario);
        if ends().any(|end| end.truth.outcome.is_abortive()) {
            "kernel"
        } else if ends().any(|end| end.truth.protocol == Protocol::Tcp && end.truth.outcome == Outcome::Killed) {
            "applications, one killed"
        } else {
            "applications"
        }
    }
}

/// With separators, so that a person can read them.
fn bytes(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
