//! The hour before both spans, by parts of ten minutes: whether edges that seem new were there then, how regularly those
//! that seem gone are there, and how much traffic differs from part to part anyway.

use super::{Name, stepped};
use crate::query::completeness::Watched;
use crate::query::edges;
use crate::query::params::Question;
use crate::query::{Sources, Unanswered};
use crate::statistics::Share;
use std::collections::HashMap;
use weir_model::UnixNanos;
use weir_store::Step;

const PART_NS: i64 = 600_000_000_000;
const PARTS: i64 = 6;
/// How far it reaches back.
pub(crate) const REACH_NS: i64 = PARTS * PART_NS;

/// An edge in one part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    /// Watched steps in which it was there.
    pub(crate) there: Share,
    /// Payload bytes a second.
    pub(crate) rate: f64,
}

/// Every edge in every part that was watched.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    parts: Vec<(u64, HashMap<Name, Part>)>,
}

impl Earlier {
    /// The hour that ends at `until`. One part at a time: ten minutes of 10,000 edges are some tens of MB.
    pub(crate) fn load(
        sources: &Sources,
        question: &Question,
        until: UnixNanos,
        step: Step,
    ) -> Result<Self, Unanswered> {
        let mut parts = Vec::new();
        for part in (0..PARTS).rev() {
            let span = (until.plus(-(part + 1) * PART_NS), until.plus(-part * PART_NS));
            let (view, _) = sources.live.read(&*sources.store)?;
            let watched = Watched::load(&*view, span, step)?;
            let steps = watched.everywhere().count() as u64;
            if steps == 0 {
                continue;
            }
            let (rows, _) = stepped(sources, question, span, step)?;
            let part = |row: &edges::Row| {
                let there = row.quality().values().filter(|quality| quality.active > 0).count() as u64;
                let bytes: u64 = row.quality().values().map(|quality| quality.bytes).sum();
                let seconds = steps as f64 * step.0 as f64 / 1e9;
                Part { there: Share::of(there.min(steps), steps), rate: bytes as f64 / seconds }
            };
            parts.push((steps, rows.iter().map(|row| (Name::of(&row.edge, question), part(row))).collect()));
        }
        Ok(Self { parts })
    }

    /// An edge in each part that was watched, the oldest first.
    pub(crate) fn of(&self, name: &Name) -> Vec<Part> {
        let absent = |steps: u64| Part { there: Share::of(0, steps), rate: 0.0 };
        self.parts.iter().map(|(steps, edges)| edges.get(name).copied().unwrap_or_else(|| absent(*steps))).collect()
    }
}
