//! What must be said of each fault.

use super::Demo;
use crate::shop::faults::Fault;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;
use weir_wire::api::{Answer, Change, Edge};

/// An edge between workloads, by their names.
type Pair = (String, String);
/// A pair and what is said of it: a symptom's signal, or the kind of change.
pub type Alarm = (&'static str, &'static str, &'static str);

/// A fault and what follows from it.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// The fault.
    pub fault: Fault,
    /// What `weir edges --unhealthy` names, and nothing else.
    pub unhealthy: &'static [Alarm],
    /// What `weir diff` names, and nothing else.
    pub changes: &'static [Alarm],
    /// How long it may stay unsaid: by `weir edges --unhealthy`, else by `weir diff`.
    pub within: Duration,
}

/// Two windows of 10 s, and the poll after them.
const TWO_WINDOWS: Duration = Duration::from_secs(23);
/// A shift is told by how much blocks of a span differ, at least three in it: twice that, and as above.
const SIX_WINDOWS: Duration = Duration::from_secs(63);

/// The whole tour.
pub const STOPS: [Stop; 5] = [
    Stop {
        fault: Fault::Refused,
        unhealthy: &[("checkout", "mail", "refused")],
        changes: &[("checkout", "mail", "sicker")],
        within: TWO_WINDOWS,
    },
    Stop {
        fault: Fault::Loss,
        unhealthy: &[("report", "database", "retransmits")],
        changes: &[("report", "database", "sicker")],
        within: TWO_WINDOWS,
    },
    Stop {
        fault: Fault::Dns,
        unhealthy: &[("checkout", "dns", "dns_failures")],
        changes: &[("checkout", "dns", "sicker")],
        within: TWO_WINDOWS,
    },
    Stop { fault: Fault::Rollout, unhealthy: &[], changes: &[("cart", "mail", "new")], within: TWO_WINDOWS },
    Stop { fault: Fault::Heavy, unhealthy: &[], changes: &[("report", "database", "shifted")], within: SIX_WINDOWS },
];

/// What several faults at once must lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    alarms: BTreeMap<Pair, BTreeSet<&'static str>>,
    /// What may be said beside.
    beside: BTreeSet<Pair>,
}

/// What was said: of each edge, the words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    alarms: BTreeMap<Pair, BTreeSet<String>>,
}

impl Expected {
    /// Of these alarms.
    pub fn of<'a>(alarms: impl IntoIterator<Item = &'a Alarm>) -> Self {
        let mut expected = Self::default();
        for (client, server, word) in alarms {
            expected.alarms.entry(((*client).to_owned(), (*server).to_owned())).or_default().insert(*word);
        }
        expected
    }

    /// The same, where something may still be said of the edges of others, which are just over.
    #[must_use]
    pub fn beside(mut self, others: &Self) -> Self {
        self.beside.extend(others.alarms.keys().cloned());
        self
    }

    /// What is missing from what was seen, in words. An edge that is rightly named may have more symptoms than the one that
    /// must be there: lost packets also take time.
    pub fn missing(&self, seen: &Seen) -> String {
        let mut text = String::new();
        for ((client, server), words) in &self.alarms {
            let said = seen.alarms.get(&(client.clone(), server.clone()));
            for word in words.iter().filter(|word| !said.is_some_and(|said| said.contains(**word))) {
                let _ = writeln!(text, "missing: {client} -> {server} {word}");
            }
        }
        text
    }

    /// What is too much, in words.
    pub fn too_much(&self, seen: &Seen) -> String {
        let mut text = String::new();
        for ((client, server), words) in &seen.alarms {
            let pair = (client.clone(), server.clone());
            if !self.alarms.contains_key(&pair) && !self.beside.contains(&pair) {
                let words = words.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let _ = writeln!(text, "too much: {client} -> {server} {words}");
            }
        }
        text
    }
}

impl Seen {
    /// How far a look at unhealthy edges goes back.
    pub const SINCE: &'static str = "30s";

    /// What `weir edges --unhealthy` says of the last half minute.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn unhealthy(demo: &Demo) -> Result<Self> {
        let answer: Answer<Edge> = demo.answers.answer(&["edges", "--unhealthy", "--since", Self::SINCE])?;
        let mut seen = Self::default();
        for edge in answer.items {
            let signals = edge.health.iter().flat_map(|health| &health.symptoms).map(|symptom| symptom.signal.clone());
            seen.alarms.entry((edge.client.name.clone(), edge.server.name.clone())).or_default().extend(signals);
        }
        Ok(seen)
    }

    /// What `weir diff` says between two spans.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn changes(demo: &Demo, before: &str, after: &str) -> Result<Self> {
        let answer: Answer<Change> = demo.answers.answer(&["diff", "--before", before, "--after", after])?;
        let mut seen = Self::default();
        for change in answer.items {
            let Some(edge) = change.after.as_ref().or(change.before.as_ref()) else { continue };
            let pair = (edge.client.name.clone(), edge.server.name.clone());
            seen.alarms.entry(pair).or_default().insert(change.change);
        }
        Ok(seen)
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.alarms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(alarms: &[(&str, &str, &str)]) -> Seen {
        let mut seen = Seen::default();
        for (client, server, word) in alarms {
            let pair = ((*client).to_owned(), (*server).to_owned());
            seen.alarms.entry(pair).or_default().insert((*word).to_owned());
        }
        seen
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_is_told() {
        let expected = Expected::of(&[("a", "b", "refused"), ("c", "d", "rtt")]);
        let differs = |seen: &Seen| expected.missing(seen) + &expected.too_much(seen);
        assert_eq!(differs(&seen(&[("a", "b", "refused"), ("c", "d", "rtt")])), "");
        assert_eq!(differs(&seen(&[("a", "b", "refused"), ("a", "b", "rtt"), ("c", "d", "rtt")])), "");
        let differs = differs(&seen(&[("a", "b", "reset"), ("d", "c", "rtt")]));
        assert_eq!(differs, "missing: a -> b refused\nmissing: c -> d rtt\ntoo much: d -> c rtt\n");
        assert_eq!(expected.too_much(&seen(&[])), "");
        let after = Expected::of(&[("e", "f", "reset")]).beside(&expected);
        let still = seen(&[("a", "b", "refused")]);
        assert_eq!(
            (after.too_much(&still), after.missing(&still)),
            (String::new(), "missing: e -> f reset\n".to_owned())
        );
    }
}
