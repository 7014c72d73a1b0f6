//! Answers about ended connections that a successor disproves.
//!
//! An entry does not say which of two connections with the same tuple it is of. One that is asked for after its
//! connection's end may already be the next one's, if that began before the question. The next one shows itself, living
//! or ended, before anybody is told of the first: then the first one's answer is withdrawn.

use super::{Ends, Key, Row, ends};
use std::collections::{BTreeSet, HashMap};

/// An accepting end's start may lie so long after its first packet: it is when the connection was established.
const HANDSHAKE_NS: u64 = 1_000_000_000;
/// Answers that a successor can still disprove: two seconds of 10,000 short connections a second, both ends, with room.
const RECENT_MAX: usize = 65_536;

/// [`Row::direction`]: its start is its first packet.
const OUTGOING: u8 = 2;

type Tuple = (u32, u8, Ends);

fn tuple(row: &Row) -> Tuple {
    (row.origin.netns, row.protocol, ends(row))
}

/// One answer.
#[derive(Clone, Copy, Debug)]
struct Answer {
    key: Key,
    /// The connection's number in the journal.
    sequence: u64,
    asked_ns: u64,
}

/// Those answers.
#[derive(Debug, Default)]
pub struct Answered {
    recent: HashMap<Tuple, Answer>,
    withdrawn: BTreeSet<u64>,
}

impl Answered {
    /// Notes an answer about `row`, which is number `sequence` in the journal.
    pub fn note(&mut self, row: &Row, sequence: u64, asked_ns: u64) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.retain(|_, answer| asked_ns.saturating_sub(answer.asked_ns) <= 2 * HANDSHAKE_NS);
            if self.recent.len() >= RECENT_MAX {
                // Rather untold than wrong.
                self.withdrawn.extend(self.recent.drain().map(|(_, answer)| answer.sequence));
            }
        }
        self.recent.insert(tuple(row), Answer { key: Key::of(row), sequence, asked_ns });
    }

    /// Looks at a row, living or ended. Answers whether an answer had to be withdrawn for it.
    pub fn see(&mut self, row: &Row) -> bool {
        if self.recent.is_empty() {
            return false;
        }
        let tuple = tuple(row);
        let Some(answer) = self.recent.get(&tuple).copied() else { return false };
        let handshake = if row.direction == OUTGOING { 0 } else { HANDSHAKE_NS };
        if answer.key == Key::of(row) || row.start_ns > answer.asked_ns.saturating_add(handshake) {
            return false;
        }
        self.recent.remove(&tuple);
        self.withdrawn.insert(answer.sequence);
        true
    }

    /// Forgets what nobody will be told any more, and what no successor can disprove.
    pub fn settle(&mut self, floor: u64, now_ns: u64) {
        self.withdrawn = self.withdrawn.split_off(&(floor + 1));
        self.recent.retain(|_, answer| now_ns.saturating_sub(answer.asked_ns) <= 2 * HANDSHAKE_NS);
    }

    /// The connections, by the journal's sequence, whose translation must not be told.
    pub fn withdrawn(&self) -> BTreeSet<u64> {
        self.withdrawn.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cookie: u64, start_ns: u64) -> Row {
        Row { cookie, start_ns, local_port: 40_000, remote_port: 80, protocol: 6, family: 2, ..Row::default() }
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_successor_that_began_before_the_question_withdraws_the_answer() {
        let mut answered = Answered::default();
        answered.note(&row(1, 5 * SECOND), 100, 10 * SECOND);
        assert!(!answered.see(&row(1, 5 * SECOND)), "it is the connection itself");
        assert!(!answered.see(&Row { local_port: 1, ..row(2, 9 * SECOND) }));
        assert!(!answered.see(&row(2, 12 * SECOND)), "it began long after");
        let opened = |start_ns| Row { direction: OUTGOING, ..row(2, start_ns) };
        assert!(!answered.see(&opened(10 * SECOND + 1)), "its first packet came after the question");
        assert!(answered.see(&row(2, 10 * SECOND)));
        assert!(!answered.see(&row(3, 10 * SECOND)), "once");
        assert_eq!(answered.withdrawn(), BTreeSet::from([100]));
        answered.settle(100, 10 * SECOND);
        assert!(answered.withdrawn().is_empty());
    }

    #[test]
    fn both_are_bounded() {
        let mut answered = Answered::default();
        for number in 0..=RECENT_MAX {
            let tuple = Row { local_port: number as u16, remote_port: (number >> 16) as u16, ..row(1, 1) };
            answered.note(&tuple, number as u64, 10 * SECOND);
        }
        assert_eq!((answered.recent.len(), answered.withdrawn.len()), (1, RECENT_MAX));
        answered.settle(0, 13 * SECOND);
        assert!(answered.recent.is_empty());
    }
}
