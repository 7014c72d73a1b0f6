//! What is different between two spans: edges that are new or gone, that move more or less, that do worse or better.
//!
//! ```text
//! edges of the earlier span ─┐
//! edges of the later span ───┼─▶ compare (presence, rates: the tests) ─▶ Change, the weightiest first
//! what was before both ──────┘   health::judge: sicker, better
//! ```
//! Which tests, and why: `docs/diff.md`.

mod compare;
mod earlier;
mod rollout;

use super::completeness::Watched;
use super::edges::{self, EdgeName, Row};
use super::health::asked::AllAsked;
use super::params::{Compared, Grouping, HealthAsked, Question, Span};
use super::{Sources, Unanswered, cut, steps};
use compare::{Seen, Spans};
use earlier::Earlier;
pub(crate) use earlier::Earliers;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use weir_model::UnixNanos;
use weir_store::{HistoryStore as _, Step};
use weir_wire::api::{Answer, Change, Completeness, Edge, EdgeEnd};

/// One of the two spans.
struct Side {
    span: Span,
    edges: BTreeMap<Name, Row>,
    asked: AllAsked,
    watched: Watched,
    completeness: Completeness,
}

/// Answers `/api/v1/diff`.
pub(crate) fn answer(sources: &Sources, question: &Question) -> Result<Answer<Change>, Unanswered> {
    let now = sources.clock.wall();
    let (before, after) = match &question.compared {
        Some(Compared::Spans { before, after }) => (*before, *after),
        Some(Compared::Rollout { workload, window }) => rollout::spans(sources, workload, *window, now)?,
        None => {
            return Err(Unanswered::Question("nothing to compare is named; write `before` or `rollout`".to_owned()));
        }
    };
    let step = step(sources, before, after, now)?;
    let (mut before, mut after) =
        (Side::load(sources, question, before, step)?, Side::load(sources, question, after, step)?);
    (before.watched, after.watched) =
        (before.watched.clone().beside(&after.watched), after.watched.beside(&before.watched));
    let names: BTreeSet<&Name> = before.edges.keys().chain(after.edges.keys()).collect();
    let earlier = Earlier::load(sources, question, before.span.0, step)?;
    let spans = Spans { before: before.span, after: after.span, step, edges: names.len() };
    let mut changes = Vec::new();
    for name in names {
        let (was, is) = (before.edges.get(name), after.edges.get(name));
        let lets = |row: &Row| edges::lets(question, &row.edge);
        if !was.is_some_and(lets) && !is.is_some_and(lets) {
            continue;
        }
        let Some(edge) = is.or(was).map(|row| &row.edge) else { continue };
        let seen = Seen { was: before.seen(was), is: after.seen(is), earlier: earlier.of(name, edge) };
        changes.extend(compare::compare(&seen, &spans));
    }
    compare::without_halves(&mut changes);
    changes.sort_by_key(|change| (compare::weight(change), std::cmp::Reverse(compare::bytes(change))));
    let omitted = cut(&mut changes, question.limit);
    let completeness = Completeness { omitted, before: Some(Box::new(before.completeness)), ..after.completeness };
    Ok(Answer { items: changes, completeness })
}

/// The step that fits both spans, and the history of them and of what was before.
///
/// # Errors
/// In words, when two whole steps do not lie in each of them.
fn step(sources: &Sources, before: Span, after: Span, now: UnixNanos) -> Result<Step, Unanswered> {
    let (_, pending) = sources.live.read(&*sources.store)?;
    let history = sources.store.history(pending.watermark)?;
    let choose = |(since, until): Span, step| {
        let spanned = Question { since: Some(since), until: Some(until), step, ..Question::default() };
        steps::choose(&*history, &spanned, now).map_err(Unanswered::Question)
    };
    let step = Step(choose(before, None)?.0.max(choose(after, None)?.0));
    let step = choose((before.0.plus(-earlier::reach_ns(step)), before.0), Some(step))?;
    for (name, span) in [("before", before), ("after", after)] {
        let shown = |ns: i64| humantime::format_duration(Duration::from_nanos(ns.unsigned_abs()));
        let (long, least) = (span.1.since(span.0), step.0 * WHOLE_MIN);
        if step.windows() > 1 && long < least {
            return Err(Unanswered::Question(format!(
                "the span `{name}` is {} long: too short for steps of {}, which the other span or what is kept of its time asks for; \
                 write spans of {} or more, for example with `window`",
                shown(long),
                shown(step.0),
                shown(least)
            )));
        }
    }
    Ok(step)
}

/// In so many steps there are always two whole ones.
const WHOLE_MIN: i64 = 3;

/// An edge as it is found again: what runs on an opened node beside pods, by its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    edge: EdgeName,
    nodes: [Option<String>; 2],
}

impl Name {
    fn of(edge: &Edge, question: &Question) -> Self {
        let node = |end: &EdgeEnd| match &question.by {
            Grouping::Namespace(expand) if end.namespace.is_none() && expand.has_node(end.node.as_deref()) => {
                end.node.clone()
            }
            _ => None,
        };
        Self { edge: EdgeName::of(edge), nodes: [node(&edge.client), node(&edge.server)] }
    }
}

/// Every edge of a span, step by step, with how well it did in each.
fn stepped(
    sources: &Sources,
    question: &Question,
    (since, until): Span,
    step: Step,
) -> Result<(Vec<Row>, Completeness), Unanswered> {
    let (since, until, step) = (Some(since), Some(until), Some(step));
    Ok(edges::all(sources, &Question { since, until, step, health: HealthAsked::All, ..question.clone() })?)
}

impl Side {
    fn load(sources: &Sources, question: &Question, span: Span, step: Step) -> Result<Self, Unanswered> {
        let (rows, completeness) = stepped(sources, question, span, step)?;
        let (view, _) = sources.live.read(&*sources.store)?;
        Ok(Self {
            span,
            edges: rows.into_iter().map(|row| (Name::of(&row.edge, question), row)).collect(),
            asked: AllAsked::load(sources, question, span, step)?,
            watched: Watched::load(&*view, span, step)?,
            completeness: Completeness { steps: None, ..completeness },
        })
    }

    fn seen<'s>(&'s self, row: Option<&'s Row>) -> compare::Side<'s> {
        let asked = row.and_then(|row| self.asked.of(&row.edge));
        compare::Side { row, asked, watched: &self.watched }
    }
}
