//! What edges did before: an hour in steps of a minute, kept for the minute in which it was asked for.
//!
//! It ends at the last full minute before the span, so that whoever asks again and again has it once a minute and not
//! each time. What arrives late for it within that minute is seen in the next: a past is what is usual, not a count.

use super::asked::AllAsked;
use super::judge::Steps;
use crate::query::Sources;
use crate::query::edges::{self, EdgeName};
use crate::query::params::{HealthAsked, Question};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use weir_model::UnixNanos;
use weir_store::{Step, StoreError};

const MINUTE_NS: i64 = 60_000_000_000;
/// How far the past reaches back.
const PAST_NS: i64 = 60 * MINUTE_NS;
/// Questions whose past is kept: a few people's, who each look at something else. With 10,000 edges that all move every
/// minute one has some 100 MB.
const KEPT: usize = 4;

/// The past of a question's edges.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) from: UnixNanos,
    pub(crate) edges: HashMap<EdgeName, Steps>,
    pub(crate) asked: AllAsked,
}

/// The pasts that were asked for last, the newest last: each by its question, and the minute in which it was read.
#[derive(Debug, Default)]
pub(crate) struct Pasts {
    kept: Mutex<Vec<((Question, i64), Place)>>,
}

/// Where a past is put by who reads it.
type Place = Arc<Mutex<Option<Arc<Past>>>>;

impl Pasts {
    /// The hour before the question's span.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) fn of(&self, sources: &Sources, question: &Question, since: UnixNanos) -> Result<Arc<Past>, StoreError> {
        let until = UnixNanos(since.0.div_euclid(MINUTE_NS) * MINUTE_NS);
        let asked = Question {
            since: Some(until.plus(-PAST_NS)),
            until: Some(until),
            step: Some(Step(MINUTE_NS)),
            health: HealthAsked::All,
            sort: None,
            limit: 0,
            ..question.clone()
        };
        // Of an instant that is gone, too: what came late for it is seen in the next minute.
        let place = self.place(&asked, sources.clock.wall().0.div_euclid(MINUTE_NS));
        // Whoever asks the same waits for who reads it.
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(past) = &*place {
            return Ok(Arc::clone(past));
        }
        let past = Arc::new(Past::read(sources, &asked, until)?);
        *place = Some(Arc::clone(&past));
        Ok(past)
    }

    fn place(&self, asked: &Question, minute: i64) -> Place {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match kept.iter().position(|((question, at), _)| question == asked && *at == minute) {
            Some(at) => kept.remove(at).1,
            None => Arc::default(),
        };
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(((asked.clone(), minute), Arc::clone(&place)));
        place
    }
}

impl Past {
    fn read(sources: &Sources, question: &Question, until: UnixNanos) -> Result<Self, StoreError> {
        let from = until.plus(-PAST_NS);
        let (rows, _) = edges::all(sources, question)?;
        let mut edges: HashMap<EdgeName, Steps> = HashMap::new();
        for row in rows {
            // Of two rows of one name (opened nodes have such), both are the past of either.
            let steps = edges.entry(EdgeName::of(&row.edge)).or_default();
            for (at, quality) in row.into_quality() {
                steps.entry(at).or_default().merge(&quality);
            }
        }
        let asked = AllAsked::load(sources, question, (from, until), Step(MINUTE_NS))?;
        Ok(Self { from, edges, asked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_past_is_kept_for_its_minute_and_four_of_them() {
        let pasts = Pasts::default();
        let asked = |limit| Question { limit, ..Question::default() };
        let first = pasts.place(&asked(1), 7);
        assert!(Arc::ptr_eq(&first, &pasts.place(&asked(1), 7)));
        assert!(!Arc::ptr_eq(&first, &pasts.place(&asked(1), 8)), "what came late since then is in the next");
        for limit in 2..=KEPT {
            pasts.place(&asked(limit), 8);
        }
        assert_eq!(pasts.kept.lock().unwrap().len(), KEPT);
        assert!(!Arc::ptr_eq(&first, &pasts.place(&asked(1), 7)), "the oldest has left");
    }
}
