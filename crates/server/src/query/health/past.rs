//! What edges did in the hour before a span, minute by minute.
//!
//! It ends at the last full minute before the span. What was read of a minute is kept for whoever asks again, so that an hour
//! is read once and then a minute each minute: connections are many, edges few. What arrives late for a minute is seen when
//! that is read anew, in turns, all within [`TURNS`] minutes: a past is what is usual, not a count.

use super::asked::AllAsked;
use super::judge::{Steps, Within};
use crate::query::Sources;
use crate::query::edges::{self, EdgeName};
use crate::query::params::{HealthAsked, Question};
use crate::query::recent::Recent;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use weir_model::UnixNanos;
use weir_store::{Step, StoreError};
use weir_wire::api::Edge;

const MINUTE_NS: i64 = 60_000_000_000;
/// How far the past reaches back, minutes.
const PAST: i64 = 60;
/// Minutes that are read at once: of each connection in them some hundred bytes are held meanwhile.
const BLOCK: i64 = 5;
/// Each block is read anew once in so many minutes, one a minute.
const TURNS: i64 = PAST / BLOCK;
/// Minutes that nobody has asked for in so many are forgotten.
const UNASKED: i64 = 10;
/// Minutes of a question that are kept at most: those of four spans that have nothing in common.
const MINUTES_MAX: usize = 4 * PAST as usize;

/// The past of a question's edges.
pub(crate) struct Past {
    pub(crate) span: (UnixNanos, UnixNanos),
    edges: Arc<HashMap<EdgeName, Steps>>,
    pub(crate) asked: Arc<AllAsked>,
}

impl Past {
    /// What an edge did in it.
    pub(crate) fn of(&self, edge: &Edge) -> Option<Within<'_>> {
        Within::of(self.edges.get(&EdgeName::of(edge))?, self.span)
    }
}

/// The pasts that were asked for last, each by its question, whenever that is about. With 10,000 edges that all move every
/// minute one has some 100 MB.
#[derive(Debug, Default)]
pub(crate) struct Pasts {
    kept: Recent<Question, Kept>,
}

/// What was read of a question's past. Minutes are counted from 1970.
#[derive(Debug, Default)]
struct Kept {
    edges: Arc<HashMap<EdgeName, Steps>>,
    minutes: BTreeMap<i64, Read>,
    /// What was asked of DNS in the hour that ends at a minute, and when it was read.
    asked: Option<((i64, i64), Arc<AllAsked>)>,
}

/// When a minute was read, and asked for last.
#[derive(Clone, Copy, Debug)]
struct Read {
    at: i64,
    asked_at: i64,
}

impl Pasts {
    /// The hour before the question's span.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) fn of(&self, sources: &Sources, question: &Question, since: UnixNanos) -> Result<Past, StoreError> {
        let now = sources.clock.wall().0.div_euclid(MINUTE_NS);
        let until = since.0.div_euclid(MINUTE_NS);
        let asked = Question {
            since: None,
            until: None,
            step: Some(Step(MINUTE_NS)),
            health: HealthAsked::All,
            sort: None,
            limit: 0,
            ..question.clone()
        };
        let place = self.kept.place(asked.clone());
        let mut kept = place.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget(now);
        for block in kept.due(until - PAST, until, now) {
            kept.read(sources, &asked, block, now)?;
        }
        for (_, read) in kept.minutes.range_mut(until - PAST..until) {
            read.asked_at = now;
        }
        let span = (UnixNanos((until - PAST) * MINUTE_NS), UnixNanos(until * MINUTE_NS));
        let all_asked = match &kept.asked {
            Some((of, asked)) if *of == (until, now) => Arc::clone(asked),
            _ => {
                let read = Arc::new(AllAsked::load(sources, question, span, Step(MINUTE_NS))?);
                kept.asked = Some(((until, now), Arc::clone(&read)));
                read
            }
        };
        Ok(Past { span, edges: Arc::clone(&kept.edges), asked: all_asked })
    }
}

impl Kept {
    /// What has to be read of the minutes `[from, until)`, by blocks: what was not read yet, and whose turn has come since.
    fn due(&self, from: i64, until: i64, now: i64) -> Vec<(i64, i64)> {
        let mut due: Vec<(i64, i64)> = Vec::new();
        for minute in from..until {
            let block = minute.div_euclid(BLOCK);
            let turn = now - (now - block).rem_euclid(TURNS);
            if self.minutes.get(&minute).is_some_and(|read| read.at >= turn) {
                continue;
            }
            match due.last_mut() {
                Some((first, end)) if *end == minute && first.div_euclid(BLOCK) == block => *end = minute + 1,
                _ => due.push((minute, minute + 1)),
            }
        }
        due
    }

    fn read(
        &mut self,
        sources: &Sources,
        question: &Question,
        (from, until): (i64, i64),
        now: i64,
    ) -> Result<(), StoreError> {
        let span = (UnixNanos(from * MINUTE_NS), UnixNanos(until * MINUTE_NS));
        let asked = Question { since: Some(span.0), until: Some(span.1), ..question.clone() };
        let (rows, _) = edges::all(sources, &asked)?;
        self.remove(|minute| (from..until).contains(&minute));
        let edges = Arc::make_mut(&mut self.edges);
        for row in rows {
            // Of two rows of one name (opened nodes have such), both are the past of either.
            let steps = edges.entry(EdgeName::of(&row.edge)).or_default();
            for (at, quality) in row.into_quality() {
                steps.entry(at).or_default().merge(&quality);
            }
        }
        self.minutes.extend((from..until).map(|minute| (minute, Read { at: now, asked_at: now })));
        Ok(())
    }

    /// Those that nobody asks for any more, and the ones that were asked for longest ago where there are too many.
    fn forget(&mut self, now: i64) {
        let mut minutes: Vec<(i64, i64)> = self.minutes.iter().map(|(minute, read)| (read.asked_at, *minute)).collect();
        minutes.sort_unstable();
        let too_many = minutes.len().saturating_sub(MINUTES_MAX - PAST as usize);
        let is_left = |(index, (asked_at, _)): &(usize, (i64, i64))| *index < too_many || now - asked_at > UNASKED;
        let left: BTreeSet<i64> =
            minutes.into_iter().enumerate().filter(is_left).map(|(_, (_, minute))| minute).collect();
        self.remove(|minute| left.contains(&minute));
    }

    fn remove(&mut self, is_left: impl Fn(i64) -> bool) {
        let known = self.minutes.len();
        self.minutes.retain(|minute, _| !is_left(*minute));
        if self.minutes.len() == known {
            return;
        }
        Arc::make_mut(&mut self.edges).retain(|_, steps| {
            steps.retain(|at, _| !is_left(at.0.div_euclid(MINUTE_NS)));
            !steps.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_read_once_then_a_minute_and_a_block_each_minute() {
        let mut kept = Kept::default();
        let mut read_at: BTreeMap<i64, i64> = BTreeMap::new();
        let mut ask = |kept: &mut Kept, now: i64| {
            kept.forget(now);
            let due = kept.due(now - PAST, now, now);
            for (from, until) in &due {
                assert!(until - from <= BLOCK && from.div_euclid(BLOCK) == (until - 1).div_euclid(BLOCK));
                for minute in *from..*until {
                    kept.minutes.insert(minute, Read { at: now, asked_at: now });
                    read_at.insert(minute, now);
                }
            }
            for (_, read) in kept.minutes.range_mut(now - PAST..now) {
                read.asked_at = now;
            }
            for minute in now - PAST..now {
                assert!(now - read_at[&minute] < TURNS, "{minute} was read at {}", read_at[&minute]);
            }
            due.iter().map(|(from, until)| until - from).sum::<i64>()
        };
        let first = 28_000_003;
        assert_eq!(ask(&mut kept, first), PAST);
        assert_eq!(ask(&mut kept, first), 0);
        for now in first + 1..first + 100 {
            let minutes = ask(&mut kept, now);
            assert!((1..=BLOCK + 1).contains(&minutes), "{minutes} at {now}");
            assert!(kept.minutes.len() as i64 <= PAST + UNASKED + 1);
        }
        // Nobody has asked for an hour and a half: all of it anew.
        assert_eq!(ask(&mut kept, first + 190), PAST);
        // Who looks back over a day leaves no day behind.
        for back in 1..24 {
            kept.forget(first + 190);
            let minutes = first - 60 * back..first - 60 * back + PAST;
            kept.minutes.extend(minutes.map(|minute| (minute, Read { at: first + 190, asked_at: first + 190 })));
            assert!(kept.minutes.len() <= MINUTES_MAX, "{}", kept.minutes.len());
        }
    }
}
