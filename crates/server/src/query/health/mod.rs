//! How edges do, each against its own past: refused, reset, timed-out connections, segments sent again, round trips, DNS.
//!
//! ```text
//! edges of the span, in steps of 10 s ─┐
//! the hour before it, in minutes ──────┼─▶ judge (held: the tests; words: the texts) ─▶ Edge.health
//! what was asked of DNS in both ───────┘
//! ```
//! Which tests, and why: `docs/health.md`.

pub(crate) mod asked;
pub(crate) mod held;
pub(crate) mod judge;
pub(crate) mod past;
mod words;

use super::Sources;
use super::edges::{self, Row};
use super::params::{HealthAsked, Question};
use asked::AllAsked;
use judge::{Against, Bounds, Evidence, HEALTHY, UNHEALTHY, UNKNOWN, WINDOW_NS, judge};
use weir_store::{Step, StoreError};
use weir_wire::api::{Completeness, Edge, Health, NodeCoverage};

/// The edges of a question with their verdicts, in no particular order, before anything is chosen by what they sum up.
pub(crate) fn rows(sources: &Sources, question: &Question) -> Result<(Vec<Row>, Completeness), StoreError> {
    let now = sources.clock.wall();
    let until = question.until.unwrap_or(now).min(now);
    let since = question.since.unwrap_or(until).min(until);
    let asking = Question { step: Some(Step(WINDOW_NS)), ..question.clone() };
    let (mut rows, mut completeness) = edges::all(sources, &asking)?;
    completeness.steps = None;
    let past = sources.pasts.of(sources, question, since)?;
    let queries = AllAsked::load(sources, question, (since, until), Step(WINDOW_NS))?;
    let bounds = Bounds { since, until, edges: rows.len(), against: Against::Past };
    for row in &mut rows {
        let (asked, asked_past) = (queries.of(&row.edge), past.asked.of(&row.edge));
        let evidence = Evidence {
            now: row.quality(),
            past: past.of(&row.edge),
            asked: asked.as_ref(),
            asked_past: asked_past.as_ref(),
        };
        let mut health = judge(evidence, bounds, past.span.0);
        if health.verdict == HEALTHY && is_barely_watched(&row.edge, &completeness) {
            UNKNOWN.clone_into(&mut health.verdict);
        }
        row.edge.health = Some(health);
    }
    if question.health == HealthAsked::Unhealthy {
        rows.retain(|row| row.edge.health.as_ref().is_some_and(is_unhealthy));
    }
    Ok((rows, completeness))
}

/// Whether the verdict is that it is.
pub(crate) fn is_unhealthy(health: &Health) -> bool {
    health.verdict == UNHEALTHY
}

/// Whether one of its nodes was watched for less than half of the span.
fn is_barely_watched(edge: &Edge, completeness: &Completeness) -> bool {
    let nodes = [&edge.client.node, &edge.server.node].map(Option::as_deref);
    let told = |node: &&NodeCoverage| nodes.contains(&Some(node.node.as_str()));
    completeness.nodes.iter().filter(told).any(|node| node.missing_ms > node.covered_ms)
}
