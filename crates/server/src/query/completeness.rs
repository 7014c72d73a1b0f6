//! How complete an answer is: which nodes reported, which time they covered, what was lost (invariant 5).

use super::params::Question;
use super::rfc3339;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use weir_model::UnixNanos;
use weir_store::{Coverage, HistoryView, Loss, StateView, Step, StoreError, StreamSummary};
use weir_wire::api::{Completeness, LossTotal, NodeCoverage, Resolution, Steps};
use weir_wire::filter::Glob;

/// The interval that is assumed until a node's second poll: the agent's default.
const INTERVAL_NS: i64 = 10_000_000_000;
/// A shorter measured interval counts as this, so that a busy moment is not called late.
const INTERVAL_NS_MIN: i64 = 1_000_000_000;
/// Nothing for so long: silent.
pub(crate) const SILENT_NS: i64 = 120_000_000_000;

/// Each node's spans that a poll covered: sorted, merged.
#[derive(Debug, Default)]
pub(crate) struct Covered {
    spans: HashMap<String, Vec<(i64, i64)>>,
}

impl Covered {
    pub(crate) fn of(coverage: &[Coverage]) -> Self {
        let mut spans: HashMap<String, Vec<(i64, i64)>> = HashMap::new();
        for span in coverage.iter().filter(|span| span.covered) {
            spans.entry(span.node.clone()).or_default().push((span.from.0, span.to.0));
        }
        for spans in spans.values_mut() {
            spans.sort_unstable();
            let mut merged: Vec<(i64, i64)> = Vec::with_capacity(spans.len());
            for &(from, to) in spans.iter() {
                match merged.last_mut() {
                    Some(last) if from <= last.1 => last.1 = last.1.max(to),
                    _ => merged.push((from, to)),
                }
            }
            *spans = merged;
        }
        Self { spans }
    }

    /// Whether a poll of the node covered what a record that ends at `at` tells of: `at` in `(from, to]`.
    pub(crate) fn covers(&self, node: &str, at: UnixNanos) -> bool {
        let Some(spans) = self.spans.get(node) else { return false };
        let next = spans.partition_point(|&(from, _)| from < at.0);
        next > 0 && at.0 <= spans[next - 1].1
    }

    /// Nanoseconds of `[from, to)` that are covered.
    fn within(&self, node: &str, from: i64, to: i64) -> i64 {
        let spans = self.spans.get(node).into_iter().flatten();
        spans.map(|&(start, end)| (end.min(to) - start.max(from)).max(0)).sum()
    }
}

/// Sums up what is known about the question's span.
pub(crate) fn of(
    view: &dyn StateView,
    question: &Question,
    now: UnixNanos,
    own_losses: Vec<Loss>,
) -> Result<Completeness, StoreError> {
    let streams = view.streams()?;
    let to = question.until.unwrap_or(now);
    let newest = question.until.unwrap_or(UnixNanos(i64::MAX));
    let coverage = view.coverage(question.since.unwrap_or(UnixNanos(i64::MIN)), newest)?;
    // Everything that is kept: from the oldest span on that is.
    let from = question.since.or(coverage.iter().map(|span| span.from).min()).unwrap_or(now);
    let covered = Covered::of(&coverage);
    let wanted = |node: &str| question.node.as_ref().is_none_or(|glob: &Glob| glob.matches(node));
    let mut nodes = Vec::new();
    for (node, streams) in by_node(&streams) {
        if wanted(node) {
            nodes.push(node_coverage(node, &streams, &covered, (from.0, to.0), now));
        }
    }
    let losses = view.losses(from, newest)?.into_iter().chain(own_losses);
    let losses = sum_losses(losses.filter(|loss| loss.node.is_empty() || wanted(&loss.node)));
    let complete = !nodes.is_empty() && losses.is_empty() && nodes.iter().all(is_whole);
    let (from, to) = (rfc3339(from), rfc3339(to));
    Ok(Completeness { complete, from, to, nodes, losses, omitted: 0, resolution: None, steps: None, before: None })
}

/// A series' steps within the question's span, and those of them in which something is missing.
pub(crate) fn steps(
    view: &dyn StateView,
    question: &Question,
    step: Step,
    now: UnixNanos,
) -> Result<Steps, StoreError> {
    let until = question.until.unwrap_or(now).min(now);
    let since = question.since.unwrap_or(until);
    let wanted = |node: &str| question.node.as_ref().is_none_or(|glob| glob.matches(node));
    let covered = Covered::of(&view.coverage(since, until)?);
    let streams = view.streams()?;
    let mut watched: Vec<(&str, i64, i64)> = Vec::new();
    for (node, streams) in by_node(&streams).into_iter().filter(|(node, _)| wanted(node)) {
        let Some(stream) = newest(&streams) else { continue };
        let first = streams.iter().map(|stream| stream.first_covered.0).min().unwrap_or(until.0);
        // As of the whole span: a reporting node's next poll will cover the time since its last.
        let end = if node_state(stream, now) == "reporting" { until.0.min(stream.newest.to.0) } else { until.0 };
        watched.push((node, first.max(since.0), end));
    }
    let losses: Vec<Loss> = view
        .losses(since, until)?
        .into_iter()
        .filter(|loss| loss.to != UnixNanos::default() && (loss.node.is_empty() || wanted(&loss.node)))
        .collect();
    let is_whole = |from: i64, to: i64| {
        let is_covered = watched.iter().all(|&(node, first, end)| {
            let (from, to) = (from.max(first), to.min(end));
            to <= from || covered.within(node, from, to) >= to - from
        });
        is_covered && !losses.iter().any(|loss| loss.from.0 < to && loss.to.0 > from)
    };
    let from = step.floor(since);
    let mut incomplete = Vec::new();
    let mut at = from;
    while at < until {
        if watched.is_empty() || !is_whole(at.0, at.0.saturating_add(step.0)) {
            incomplete.push(rfc3339(at));
        }
        at = at.plus(step.0);
    }
    Ok(Steps { seconds: (step.0 / 1_000_000_000) as u64, from: rfc3339(from), to: rfc3339(at), incomplete })
}

/// Which steps of a span were watched, by node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    /// The starts of the steps that a node's polls covered whole.
    nodes: BTreeMap<String, BTreeSet<UnixNanos>>,
    /// The steps in which every node was, of those that were watched in any.
    everywhere: BTreeSet<UnixNanos>,
}

impl Watched {
    /// The whole steps of `[since, until)`.
    pub(crate) fn load(
        view: &dyn StateView,
        (since, until): (UnixNanos, UnixNanos),
        step: Step,
    ) -> Result<Self, StoreError> {
        let covered = Covered::of(&view.coverage(since, until)?);
        let streams = view.streams()?;
        let first = step.floor(since.plus(step.0 - 1));
        let starts = std::iter::successors(Some(first), |at| Some(at.plus(step.0)));
        let starts: Vec<UnixNanos> = starts.take_while(|at| at.plus(step.0) <= until).collect();
        let of = |node: &str| -> BTreeSet<UnixNanos> {
            let is_whole = |at: &&UnixNanos| covered.within(node, at.0, at.0 + step.0) >= step.0;
            starts.iter().filter(is_whole).copied().collect()
        };
        let nodes: BTreeMap<String, BTreeSet<UnixNanos>> =
            by_node(&streams).into_keys().map(|node| (node.to_owned(), of(node))).collect();
        Ok(Self::of(nodes))
    }

    /// By node, the starts of the steps in which it was watched.
    pub(crate) fn of(nodes: BTreeMap<String, BTreeSet<UnixNanos>>) -> Self {
        // A node that left long ago says nothing of those that are there.
        let watched = nodes.values().filter(|steps| !steps.is_empty()).cloned();
        let everywhere = watched.reduce(|all, node| &all & &node).unwrap_or_default();
        Self { nodes, everywhere }
    }

    /// Says nothing of edges of no one node where a node was watched in the other span alone: what it saw there nobody could
    /// see here.
    pub(crate) fn beside(mut self, other: &Self) -> Self {
        let is_watched = |watched: &Self, node: &str| watched.nodes.get(node).is_some_and(|steps| !steps.is_empty());
        if other.nodes.keys().any(|node| is_watched(other, node) && !is_watched(&self, node)) {
            self.everywhere.clear();
        }
        self
    }

    /// Steps in which one of these nodes was: an edge is seen from either end. Where none is named, every node must be.
    pub(crate) fn on(&self, nodes: [Option<&str>; 2]) -> impl Iterator<Item = UnixNanos> + use<> {
        let told = nodes.into_iter().flatten().filter_map(|node| self.nodes.get(node));
        let steps = told.cloned().reduce(|either, node| &either | &node);
        steps.unwrap_or_else(|| self.everywhere.clone()).into_iter()
    }
}

/// How coarse the history of the question's span is.
pub(crate) fn resolution(history: &dyn HistoryView, question: &Question, now: UnixNanos) -> Option<Resolution> {
    let grain = history.grain(question.since.unwrap_or(UnixNanos(i64::MIN)), question.until.unwrap_or(now))?;
    // Of everything that is kept, the start is not asked for.
    let from = question.since.map_or_else(String::new, |_| rfc3339(grain.from));
    Some(Resolution { seconds: (grain.resolution.nanos() / 1_000_000_000) as u64, from, to: rfc3339(grain.to) })
}

/// Whether nothing of a node is missing. A degraded source says itself that something is.
fn is_whole(node: &NodeCoverage) -> bool {
    node.state == "reporting" && node.missing_ms == 0 && node.source_state != "degraded"
}

fn by_node(streams: &[StreamSummary]) -> BTreeMap<&str, Vec<&StreamSummary>> {
    let mut nodes: BTreeMap<&str, Vec<&StreamSummary>> = BTreeMap::new();
    for stream in streams {
        nodes.entry(&stream.node.0).or_default().push(stream);
    }
    nodes
}

/// A node can have several streams: its spool was lost once. The newest speaks for it.
pub(crate) fn newest<'a>(streams: &[&'a StreamSummary]) -> Option<&'a StreamSummary> {
    streams.iter().copied().max_by_key(|stream| (stream.received, stream.stream))
}

/// `reporting`, `late` or `silent`.
pub(crate) fn node_state(stream: &StreamSummary, now: UnixNanos) -> &'static str {
    let measured = stream.newest.to.since(stream.newest.from);
    let interval = if measured == 0 { INTERVAL_NS } else { measured.max(INTERVAL_NS_MIN) };
    let age = now.since(stream.received);
    // A long gap makes a long last span: silence is silence all the same.
    if age > SILENT_NS {
        "silent"
    } else if age > interval.saturating_mul(3) {
        "late"
    } else {
        "reporting"
    }
}

fn node_coverage(
    node: &str,
    streams: &[&StreamSummary],
    covered: &Covered,
    (from, to): (i64, i64),
    now: UnixNanos,
) -> NodeCoverage {
    let Some(stream) = newest(streams) else { return NodeCoverage::default() };
    let state = node_state(stream, now);
    let first = streams.iter().map(|stream| stream.first_covered.0).min().unwrap_or(to);
    // The time since a reporting node's last poll is not missing: its next poll will cover it.
    let end = if state == "reporting" { to.min(stream.newest.to.0) } else { to };
    let asked = (end - from.max(first)).max(0);
    let covered_ns = covered.within(node, from.max(first), to);
    let covered_to_end = covered.within(node, from.max(first), end);
    NodeCoverage {
        node: node.to_owned(),
        state: state.to_owned(),
        last_seen: streams
            .iter()
            .filter(|stream| stream.newest.covered)
            .map(|stream| stream.newest.to)
            .max()
            .or_else(|| covered.spans.get(node)?.last().map(|span| UnixNanos(span.1)))
            .map(rfc3339),
        covered_ms: (covered_ns / 1_000_000) as u64,
        missing_ms: ((asked - covered_to_end).max(0) / 1_000_000) as u64,
        clock_offset_ms: stream.clock_offset_ns.map(|offset| offset / 1_000_000),
        source_state: stream.source.state.clone(),
        source_detail: stream.source.detail.clone(),
    }
}

pub(crate) fn sum_losses(losses: impl Iterator<Item = Loss>) -> Vec<LossTotal> {
    let mut sums: BTreeMap<(String, String, String), (Loss, bool)> = BTreeMap::new();
    for loss in losses {
        let key = (loss.node.clone(), loss.place.clone(), loss.reason.clone());
        let timed = loss.to != UnixNanos::default();
        let Some((sum, known)) = sums.get_mut(&key) else {
            sums.insert(key, (loss, timed));
            continue;
        };
        sum.count = sum.count.saturating_add(loss.count);
        sum.bytes = sum.bytes.saturating_add(loss.bytes);
        sum.connections = sum.connections.saturating_add(loss.connections);
        sum.intended &= loss.intended;
        sum.from = sum.from.min(loss.from);
        sum.to = sum.to.max(loss.to);
        *known &= timed;
    }
    sums.into_values()
        .map(|(sum, known)| LossTotal {
            from: known.then(|| rfc3339(sum.from)),
            to: known.then(|| rfc3339(sum.to)),
            node: sum.node,
            place: sum.place,
            reason: sum.reason,
            count: sum.count,
            bytes: sum.bytes,
            connections: sum.connections,
            intended: sum.intended,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: i64, to: i64, covered: bool) -> Coverage {
        Coverage { node: "a".into(), from: UnixNanos(from), to: UnixNanos(to), covered, gap_reason: String::new() }
    }

    #[test]
    fn covered_spans_are_merged_and_gaps_are_not_covered() {
        let covered = Covered::of(&[span(20, 30, true), span(0, 10, true), span(10, 20, false), span(30, 40, true)]);
        assert_eq!(covered.within("a", 0, 40), 30);
        assert_eq!(covered.within("a", 5, 25), 10);
        assert_eq!(covered.within("b", 0, 40), 0);
        for (at, expected) in [(0, false), (1, true), (10, true), (11, false), (20, false), (35, true), (41, false)] {
            assert_eq!(covered.covers("a", UnixNanos(at)), expected, "{at}");
        }
    }

    #[test]
    fn a_node_that_left_long_ago_blinds_nobody_and_one_that_left_between_does() {
        let watched = |nodes: &[(&str, &[i64])]| {
            let steps = |at: &[i64]| at.iter().copied().map(UnixNanos).collect();
            Watched::of(nodes.iter().map(|(node, at)| ((*node).to_owned(), steps(at))).collect())
        };
        let on = |watched: &Watched, nodes| watched.on(nodes).map(|at| at.0).collect::<Vec<_>>();
        let before = watched(&[("a", &[10, 20]), ("b", &[20]), ("left", &[])]);
        assert_eq!(on(&before, [None, None]), [20]);
        assert_eq!(on(&before, [Some("a"), None]), [10, 20]);
        assert_eq!(on(&before, [Some("a"), Some("b")]), [10, 20], "it is seen from either end");
        assert!(on(&before, [Some("left"), None]).is_empty());
        assert_eq!(on(&before, [Some("of another cluster"), None]), [20]);
        let after = watched(&[("a", &[30, 40]), ("b", &[])]);
        assert_eq!(on(&after, [None, None]), [30, 40]);
        assert!(on(&after.clone().beside(&before), [None, None]).is_empty(), "what b saw before, nobody sees after");
        assert_eq!(on(&after.clone().beside(&before), [Some("a"), None]), [30, 40]);
        assert_eq!(on(&before.beside(&after), [None, None]), [20]);
    }

    #[test]
    fn losses_of_one_reason_add_up_and_say_when() {
        let loss = |from, to, count, intended| Loss {
            place: "agent".into(),
            reason: "spool_full".into(),
            from: UnixNanos(from),
            to: UnixNanos(to),
            count,
            intended,
            ..Loss::default()
        };
        let sums = sum_losses([loss(30, 40, 2, true), loss(10, 20, 3, true)].into_iter());
        assert_eq!((sums.len(), sums[0].count, sums[0].intended), (1, 5, true));
        assert_eq!((&sums[0].from, &sums[0].to), (&Some(rfc3339(UnixNanos(10))), &Some(rfc3339(UnixNanos(40)))));
        let sums = sum_losses([loss(0, 0, 1, true), loss(30, 40, 2, false)].into_iter());
        assert_eq!((sums[0].count, sums[0].intended, &sums[0].from), (3, false, &None), "one of them has no time");
    }
}
