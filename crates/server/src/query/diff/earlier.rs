//! What was before both spans, in six parts: whether edges that seem new were there then, how regularly those that seem gone
//! are there, and how much traffic differs from part to part anyway.
//!
//! It is read in pieces of two minutes, which are kept for whoever compares again: connections are many, edges few.

use super::{Name, stepped};
use crate::query::completeness::Watched;
use crate::query::params::{Question, Span};
use crate::query::recent::Recent;
use crate::query::{Sources, Unanswered};
use crate::statistics::Share;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use weir_model::UnixNanos;
use weir_store::Step;
use weir_wire::api::Edge;

/// A part is ten minutes, so that all are an hour, or as many steps as two whole ones always lie in.
const PART_NS: i64 = 600_000_000_000;
const STEPS_MIN: i64 = 3;
const PARTS: i64 = 6;
/// How much of a part is read at once, and kept.
const PIECE_NS: i64 = 120_000_000_000;
const MINUTE_NS: i64 = 60_000_000_000;
/// What was read is taken for so many minutes, and up to as many more: each piece is read anew in its own turn.
const STAYS: i64 = 15;
/// Pieces that nobody has asked for in so many minutes are forgotten.
const UNASKED: i64 = 10;

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

/// Every edge in a piece, and what of it was watched when it was read: what came later is in neither.
#[derive(Debug, Default)]
struct Piece {
    watched: Watched,
    edges: HashMap<Name, Told>,
}

/// Every edge in every part, by its pieces.
#[derive(Debug)]
pub(crate) struct Earlier {
    parts: Vec<Vec<Arc<Piece>>>,
    step: Step,
}

/// How long a part is: whole pieces.
fn part_ns(step: Step) -> i64 {
    let least = PART_NS.max(step.0 * STEPS_MIN);
    least.div_euclid(piece_ns(step)) * piece_ns(step)
}

/// How far it reaches back at most.
pub(crate) fn reach_ns(step: Step) -> i64 {
    PARTS * part_ns(step) + piece_ns(step)
}

/// How much is read, and kept, at once: whole steps.
fn piece_ns(step: Step) -> i64 {
    PIECE_NS.max(step.0)
}

/// What was asked for last, each by its question and step. With 10,000 edges that all move one has some 100 MB.
#[derive(Debug, Default)]
pub(crate) struct Earliers {
    kept: Recent<(Question, Step), Read>,
}

/// What was read for a question.
#[derive(Debug, Default)]
struct Read {
    pieces: BTreeMap<i64, Kept>,
    /// What lies between the last piece and an end, by that end and the quarter of an hour ([`STAYS`]) in which it was read.
    rest: Option<((UnixNanos, i64), Arc<Piece>)>,
}

/// What was read of a piece, and when, and when it was asked for last; minutes since 1970.
#[derive(Debug)]
struct Kept {
    piece: Arc<Piece>,
    at: i64,
    asked_at: i64,
}

impl Kept {
    /// Whether what came late for it is looked for now. Not of all at the same time.
    fn is_due(&self, piece: i64, now: i64) -> bool {
        now - self.at >= STAYS + piece.rem_euclid(STAYS)
    }
}

/// What does not matter to what was before is left out, so that whoever compares other spans has the same.
fn key(question: &Question, step: Step) -> (Question, Step) {
    let asked =
        Question { since: None, until: None, step: None, compared: None, sort: None, limit: 0, ..question.clone() };
    (asked, step)
}

/// Reads a span. What was watched first: then the edges have at least that.
fn read(sources: &Sources, question: &Question, span: Span, step: Step) -> Result<Piece, Unanswered> {
    let watched = Watched::load(&*sources.live.read(&*sources.store)?.0, span, step)?;
    let mut edges: HashMap<Name, Told> = HashMap::new();
    for row in stepped(sources, question, span, step)?.0 {
        let told = edges.entry(Name::of(&row.edge, question)).or_default();
        told.steps += row.quality().values().filter(|quality| quality.active > 0).count() as u64;
        told.bytes += row.quality().values().map(|quality| quality.bytes).sum::<u64>();
    }
    Ok(Piece { watched, edges })
}

impl Earlier {
    /// What ends at `until`; what is not kept is read, a piece at a time: of each connection in it some hundred bytes are held
    /// meanwhile.
    pub(crate) fn load(
        sources: &Sources,
        question: &Question,
        until: UnixNanos,
        step: Step,
    ) -> Result<Self, Unanswered> {
        let (piece_ns, now) = (piece_ns(step), sources.clock.wall().0.div_euclid(MINUTE_NS));
        let pieces = part_ns(step) / piece_ns;
        let last = until.0.div_euclid(piece_ns);
        let place = sources.earliers.kept.place(key(question, step));
        let Read { pieces: kept, rest } = &mut *place.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, kept| now - kept.asked_at <= UNASKED);
        let rest_of = (until, now.div_euclid(STAYS));
        let newest = match rest {
            Some((of, piece)) if *of == rest_of => Arc::clone(piece),
            _ => {
                let read = Arc::new(read(sources, question, (UnixNanos(last * piece_ns), until), step)?);
                *rest = Some((rest_of, Arc::clone(&read)));
                read
            }
        };
        let mut parts = Vec::new();
        for part in (0..PARTS).rev() {
            let numbers = last - (part + 1) * pieces..last - part * pieces;
            let mut of_part: Vec<Arc<Piece>> = (part == 0).then(|| Arc::clone(&newest)).into_iter().collect();
            for piece in numbers {
                if kept.get(&piece).is_none_or(|kept| kept.is_due(piece, now)) {
                    let span = (UnixNanos(piece * piece_ns), UnixNanos((piece + 1) * piece_ns));
                    let read = Arc::new(read(sources, question, span, step)?);
                    kept.insert(piece, Kept { piece: read, at: now, asked_at: now });
                }
                if let Some(kept) = kept.get_mut(&piece) {
                    kept.asked_at = now;
                    of_part.push(Arc::clone(&kept.piece));
                }
            }
            parts.push(of_part);
        }
        Ok(Self { parts, step })
    }

    /// An edge in each part in which it was watched, or seen, the oldest first.
    pub(crate) fn of(&self, name: &Name, edge: &Edge) -> Vec<Part> {
        let nodes = [edge.client.node.as_deref(), edge.server.node.as_deref()];
        let part = |pieces: &Vec<Arc<Piece>>| {
            let told = pieces.iter().filter_map(|piece| piece.edges.get(name)).fold(Told::default(), |all, piece| {
                Told { steps: all.steps + piece.steps, bytes: all.bytes.saturating_add(piece.bytes) }
            });
            let watched: usize = pieces.iter().map(|piece| piece.watched.on(nodes).count()).sum();
            let steps = (watched as u64).max(told.steps);
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
        let piece = |of: i64, steps: u64| {
            let told = (steps > 0).then(|| (name(80), Told { steps, bytes: 1_000 * steps }));
            Arc::new(Piece { watched: watched(of), edges: told.into_iter().collect() })
        };
        let parts = vec![vec![piece(0, 3)], vec![piece(40, 20), piece(20, 10)], vec![piece(60, 0)]];
        let earlier = Earlier { parts, step: Step(10 * SECOND_NS) };
        let of = |port: u16| -> Vec<(u64, u64, f64)> {
            let parts = earlier.of(&name(port), &edge(port)).into_iter();
            parts.map(|Part { there, rate }| (there.hits, there.trials, rate)).collect()
        };
        assert_eq!(of(80), [(3, 3, 100.0), (30, 60, 50.0), (0, 60, 0.0)]);
        assert_eq!(of(81), [(0, 60, 0.0), (0, 60, 0.0)], "of what nobody watched nothing is known");
    }

    #[test]
    fn each_piece_is_read_anew_in_its_own_turn() {
        let kept = Kept { piece: Arc::default(), at: 100, asked_at: 100 };
        let due: Vec<i64> = (0..30).map(|piece| (100..200).find(|now| kept.is_due(piece, *now)).unwrap()).collect();
        assert_eq!(due.iter().min(), Some(&115));
        assert_eq!(due.iter().max(), Some(&129));
        assert!((115..130).all(|minute| due.iter().filter(|at| **at == minute).count() == 2), "{due:?}");
    }

    #[test]
    fn whoever_compares_other_spans_has_the_same() {
        let step = Step(10 * SECOND_NS);
        let asked = |port: u16, limit: usize| Question { port: Some(port), limit, ..Question::default() };
        assert_eq!(key(&asked(1, 5), step), key(&asked(1, 7), step));
        assert_ne!(key(&asked(1, 5), step), key(&asked(2, 5), step));
        assert_ne!(key(&asked(1, 5), step), key(&asked(1, 5), Step(SECOND_NS)));
    }

    #[test]
    fn a_part_always_holds_two_whole_steps() {
        for (step, part) in [(10, 600), (60, 600), (300, 900), (900, 2_700), (3_600, 10_800)] {
            assert_eq!(part_ns(Step(step * SECOND_NS)), part * SECOND_NS, "{step}");
            assert_eq!(piece_ns(Step(step * SECOND_NS)) % (step * SECOND_NS), 0, "{step}");
        }
        assert_eq!(reach_ns(Step(10 * SECOND_NS)), 3_720 * SECOND_NS);
    }
}
