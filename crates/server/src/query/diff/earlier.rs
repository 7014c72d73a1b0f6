//! What was before both spans, in six parts: whether edges that seem new were there then, how regularly those that seem gone
//! are there, and how much traffic differs from part to part anyway.

use super::{Name, stepped};
use crate::query::completeness::Watched;
use crate::query::params::{Question, Span};
use crate::query::{Sources, Unanswered};
use crate::statistics::Share;
use std::collections::HashMap;
use weir_model::UnixNanos;
use weir_store::Step;
use weir_wire::api::Edge;

/// A part is ten minutes, so that all are an hour, or as many steps as two whole ones always lie in.
const PART_NS: i64 = 600_000_000_000;
const STEPS_MIN: i64 = 3;
const PARTS: i64 = 6;
/// How much of a part is read at once.
const PIECE_NS: i64 = 120_000_000_000;

/// An edge in one part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    /// Watched steps in which it was there. One in which it was there is one that was watched.
    pub(crate) there: Share,
    /// Payload bytes a second.
    pub(crate) rate: f64,
}

/// An edge in a part, as it was told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    steps: u64,
    bytes: u64,
}

/// Every edge in every part.
#[derive(Debug)]
pub(crate) struct Earlier {
    parts: Vec<(Watched, HashMap<Name, Told>)>,
    step: Step,
}

/// How long a part is.
fn part_ns(step: Step) -> i64 {
    PART_NS.max(step.0 * STEPS_MIN)
}

/// How far it reaches back.
pub(crate) fn reach_ns(step: Step) -> i64 {
    PARTS * part_ns(step)
}

/// A span in pieces that share no step.
fn pieces((since, until): Span, step: Step) -> Vec<Span> {
    let ends = std::iter::successors(Some(since), |at| {
        (*at < until).then(|| step.floor(at.plus(PIECE_NS.max(step.0))).min(until))
    });
    let ends: Vec<UnixNanos> = ends.collect();
    ends.windows(2).filter_map(|ends| Some((*ends.first()?, *ends.last()?))).collect()
}

impl Earlier {
    /// What ends at `until`, a few minutes at a time: of each connection in them some hundred bytes are held meanwhile.
    pub(crate) fn load(
        sources: &Sources,
        question: &Question,
        until: UnixNanos,
        step: Step,
    ) -> Result<Self, Unanswered> {
        let mut parts = Vec::new();
        for part in (0..PARTS).rev() {
            let span = (until.plus(-(part + 1) * part_ns(step)), until.plus(-part * part_ns(step)));
            let (view, _) = sources.live.read(&*sources.store)?;
            let watched = Watched::load(&*view, span, step)?;
            let mut edges: HashMap<Name, Told> = HashMap::new();
            for piece in pieces(span, step) {
                for row in stepped(sources, question, piece, step)?.0 {
                    let told = edges.entry(Name::of(&row.edge, question)).or_default();
                    told.steps += row.quality().values().filter(|quality| quality.active > 0).count() as u64;
                    told.bytes += row.quality().values().map(|quality| quality.bytes).sum::<u64>();
                }
            }
            parts.push((watched, edges));
        }
        Ok(Self { parts, step })
    }

    /// An edge in each part in which it was watched, or seen, the oldest first.
    pub(crate) fn of(&self, name: &Name, edge: &Edge) -> Vec<Part> {
        let nodes = [edge.client.node.as_deref(), edge.server.node.as_deref()];
        let part = |(watched, edges): &(Watched, HashMap<Name, Told>)| {
            let told = edges.get(name).copied().unwrap_or_default();
            let steps = (watched.on(nodes).count() as u64).max(told.steps);
            let seconds = steps as f64 * self.step.0 as f64 / 1e9;
            (steps > 0).then(|| Part { there: Share::of(told.steps, steps), rate: told.bytes as f64 / seconds })
        };
        self.parts.iter().filter_map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const SECOND_NS: i64 = 1_000_000_000;

    #[test]
    fn what_was_there_is_told_though_nothing_else_was_watched() {
        let watched = |steps: i64| {
            let steps: BTreeSet<UnixNanos> = (0..steps).map(|at| UnixNanos(at * 10 * SECOND_NS)).collect();
            Watched::of(BTreeMap::from([("a".to_owned(), steps)]))
        };
        let edge = |port: u16| Edge { port, ..Edge::default() };
        let name = |port: u16| Name::of(&edge(port), &Question::default());
        let told = |steps: u64| HashMap::from([(name(80), Told { steps, bytes: 1_000 * steps })]);
        let parts = vec![(watched(0), told(3)), (watched(60), told(30)), (watched(60), HashMap::new())];
        let earlier = Earlier { parts, step: Step(10 * SECOND_NS) };
        let of = |port: u16| -> Vec<(u64, u64, f64)> {
            let parts = earlier.of(&name(port), &edge(port)).into_iter();
            parts.map(|Part { there, rate }| (there.hits, there.trials, rate)).collect()
        };
        assert_eq!(of(80), [(3, 3, 100.0), (30, 60, 50.0), (0, 60, 0.0)]);
        assert_eq!(of(81), [(0, 60, 0.0), (0, 60, 0.0)], "of what nobody watched nothing is known");
    }

    #[test]
    fn pieces_are_the_span_and_share_no_step() {
        for (since, until, step) in [(7, 607, 10), (0, 600, 60), (13, 2_713, 900), (5, 9, 10), (100, 220, 10)] {
            let pieces = pieces((UnixNanos(since * SECOND_NS), UnixNanos(until * SECOND_NS)), Step(step * SECOND_NS));
            let seconds = |at: UnixNanos| at.0 / SECOND_NS;
            assert_eq!(pieces.first().map(|piece| seconds(piece.0)), Some(since));
            assert_eq!(pieces.last().map(|piece| seconds(piece.1)), Some(until));
            for both in pieces.windows(2) {
                assert_eq!(both[0].1, both[1].0);
                assert_eq!(seconds(both[0].1) % step, 0, "{since} {until} {step}");
            }
            assert!(
                pieces.iter().all(|piece| piece.0 < piece.1 && seconds(piece.1) - seconds(piece.0) <= step.max(120))
            );
        }
    }

    #[test]
    fn a_part_always_holds_two_whole_steps() {
        for (step, part) in [(10, 600), (60, 600), (300, 900), (900, 2_700), (3_600, 10_800)] {
            assert_eq!(part_ns(Step(step * SECOND_NS)), part * SECOND_NS, "{step}");
        }
        assert_eq!(reach_ns(Step(10 * SECOND_NS)), 3_600 * SECOND_NS);
    }
}
