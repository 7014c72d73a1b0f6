//! What was lost since the last durable batch, waiting to be told with the next one that ends a poll.
//!
//! A poll that does not become durable is made again: what it lost is then found again, so it is taken back here. The
//! agent's metrics count a loss when the batch that tells it is durable, so that both say the same.

use crate::metrics::Metrics;
use crate::spool::format::Summary;
use std::collections::BTreeMap;
use weir_wire::agent::Loss;
use weir_wire::losses::{self, Reason};

/// Reasons that wait at once: more than there are, so only a feed that makes words up reaches it.
const REASONS_MAX: usize = 200;

/// The losses that wait.
#[derive(Debug, Default)]
pub struct Losses {
    waiting: BTreeMap<(&'static str, String), Loss>,
    /// As they were before the attempt under way.
    before: BTreeMap<(&'static str, String), Loss>,
}

/// How much was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// In the reason's unit.
    pub count: u64,
    /// Bytes known to be in it.
    pub bytes: u64,
    /// Connections known to be in it.
    pub connections: u64,
}

impl Lost {
    /// So many of whatever the reason counts.
    pub fn count(count: u64) -> Self {
        Self { count, ..Self::default() }
    }

    /// So many connections.
    pub fn connections(count: u64) -> Self {
        Self { count, connections: count, ..Self::default() }
    }

    /// Also what a batch holds, whose number the reason counts otherwise.
    pub fn add(&mut self, batch: &Summary) {
        self.bytes = self.bytes.saturating_add(batch.sent_bytes).saturating_add(batch.recv_bytes);
        self.connections = self.connections.saturating_add(batch.connections);
    }
}

impl Losses {
    /// Notes a loss.
    pub fn add(&mut self, reason: &'static Reason, lost: Lost) {
        self.add_word(reason.place, reason.word, reason.intended, lost);
    }

    /// Notes what the tracer lost since the last poll, by its own words.
    pub fn add_tracer(&mut self, since: &BTreeMap<&str, u64>) {
        for (&word, &count) in since {
            let base = word.strip_suffix(losses::BYTES).and_then(|base| Reason::find("tracer", base));
            let lost = match base {
                Some(_) => Lost { bytes: count, ..Lost::default() },
                None => Lost::count(count),
            };
            match base.or_else(|| Reason::find("tracer", word)) {
                Some(reason) => self.add(reason, lost),
                // A newer tracer than this agent, or somebody else's.
                None => self.add_word("tracer", word, false, lost),
            }
        }
    }

    /// Notes losses that a batch told which will not reach the server.
    pub fn merge(into: &mut Vec<Loss>, told: &[Loss]) {
        for loss in told {
            let same = into.iter().position(|own| (&own.place, &own.reason) == (&loss.place, &loss.reason));
            // One more than the bound is the last one, and takes the rest: no count is forgotten.
            let at = same.or((into.len() > REASONS_MAX).then_some(REASONS_MAX));
            let lost = Lost { count: loss.count, bytes: loss.bytes, connections: loss.connections };
            match at.and_then(|at| into.get_mut(at)) {
                Some(own) => {
                    if same.is_none() {
                        own.place = losses::AGENT_FURTHER_REASONS.place.into();
                        own.reason = losses::AGENT_FURTHER_REASONS.word.into();
                    }
                    add(own, lost);
                }
                None => into.push(loss.clone()),
            }
        }
    }

    /// An attempt to make a poll durable begins.
    pub fn begin(&mut self) {
        self.before.clone_from(&self.waiting);
    }

    /// The attempt failed and will be made again.
    pub fn take_back(&mut self) {
        self.waiting.clone_from(&self.before);
    }

    /// What is to be told.
    pub fn waiting(&self) -> Vec<Loss> {
        self.waiting.values().cloned().collect()
    }

    /// What waited is durable.
    pub fn told(&mut self, metrics: &Metrics) {
        for loss in std::mem::take(&mut self.waiting).into_values() {
            metrics.lose(&loss.place, &loss.reason, loss.count);
        }
        self.before.clear();
    }

    fn add_word(&mut self, place: &'static str, word: &str, intended: bool, lost: Lost) {
        let is_new = !self.waiting.contains_key(&(place, word.to_owned()));
        let further = losses::AGENT_FURTHER_REASONS;
        let is_full = is_new && self.waiting.len() >= REASONS_MAX;
        let (place, word) = if is_full { (further.place, further.word) } else { (place, word) };
        let entry = self.waiting.entry((place, word.to_owned())).or_insert_with(|| Loss {
            place: place.into(),
            reason: word.into(),
            intended,
            ..Loss::default()
        });
        add(entry, lost);
    }
}

fn add(loss: &mut Loss, lost: Lost) {
    loss.count = loss.count.saturating_add(lost.count);
    loss.bytes = loss.bytes.saturating_add(lost.bytes);
    loss.connections = loss.connections.saturating_add(lost.connections);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_join_their_reason_and_a_cap_is_told_as_intended() {
        let mut losses = Losses::default();
        losses.add_tracer(&BTreeMap::from([
            ("udp_flows_full", 3),
            ("udp_flows_full_bytes", 4500),
            ("udp_peers_capped", 7),
            ("brewing_failed", 1),
        ]));
        let told: Vec<_> = losses
            .waiting()
            .into_iter()
            .map(|loss| (loss.place.clone(), loss.reason.clone(), loss.count, loss.bytes, loss.intended))
            .collect();
        let tracer = |reason: &str, count, bytes, intended| ("tracer".into(), reason.into(), count, bytes, intended);
        assert_eq!(
            told,
            [
                tracer("brewing_failed", 1, 0, false),
                tracer("udp_flows_full", 3, 4500, false),
                tracer("udp_peers_capped", 7, 0, true),
            ]
        );
    }

    #[test]
    fn an_attempt_that_failed_is_not_counted_twice() {
        let (mut losses, metrics) = (Losses::default(), Metrics::default());
        losses.add(losses::METADATA_FULL, Lost::count(2));
        for _ in 0..3 {
            losses.begin();
            losses.add(losses::CLOSED_UNSEEN, Lost::connections(5));
            losses.take_back();
        }
        assert_eq!(losses.waiting().len(), 1);
        losses.begin();
        losses.add(losses::CLOSED_UNSEEN, Lost::connections(5));
        losses.told(&metrics);
        assert!(losses.waiting().is_empty());
        let text = metrics.text();
        assert!(text.contains("weir_agent_losses_total{place=\"tracer\",reason=\"closed_unseen\"} 5"), "{text}");
    }

    #[test]
    fn words_that_a_feed_makes_up_are_bounded() {
        let mut losses = Losses::default();
        let words: Vec<String> = (0..REASONS_MAX + 50).map(|number| number.to_string()).collect();
        losses.add_tracer(&words.iter().map(|word| (word.as_str(), 1)).collect());
        assert_eq!(losses.waiting().len(), REASONS_MAX + 1);
        assert_eq!(losses.waiting().iter().map(|loss| loss.count).sum::<u64>(), (REASONS_MAX + 50) as u64);
    }
}
