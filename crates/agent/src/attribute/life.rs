//! One counter's entry in the table, and the rules that say which life of it a row belongs to (R1).
//!
//! A *life* is what one generation counts. An entry holds the present life; lives that were superseded before their
//! closed row came wait in `older`.

use super::key::{Key, PackedTuple};
use super::stage::{Reading, StagedRow};
use super::words::Word;
use weir_model::Protocol;

/// Superseded lives that wait for their closed row. A socket that is used again more often within one poll loses the
/// oldest one's last bytes; the loss is counted.
const MAX_OLDER: usize = 8;

/// One generation of a counter. Times are `CLOCK_MONOTONIC` nanoseconds, 0 unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its ends.
    pub tuple: PackedTuple,
    /// Sent, received, sent again.
    pub totals: [u64; 3],
    /// The part of sent and received that lies before weir's first sight.
    pub before: [u64; 2],
    /// When it began.
    pub start: u64,
    /// The run of the tracer's maps that hold it (UDP), else 0.
    pub run: u64,
    /// [`weir_model::Generation::count`].
    pub generation: u32,
    /// The tracer's own count.
    pub tracer_generation: Option<u32>,
    /// The feed's `state`, last seen.
    pub state: Word,
    /// How the totals follow from the source's own count, for a source that has only deltas ([`super::table`]).
    pub anchor: Option<Box<Anchor>>,
}

/// What a sum of deltas has to do with the count of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The source's run, never 0.
    pub run: u64,
    /// Our total less the source's count, modulo 2^64: sent, received, sent again.
    pub base: [u64; 3],
}

impl Anchor {
    /// An anchor in a run; none where the run is not known.
    pub fn of(run: u64, base: [u64; 3]) -> Option<Box<Self>> {
        (run != 0).then(|| Box::new(Self { run, base }))
    }
}

/// A counter in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The present life, or the last one when `close` is not 0.
    pub life: Life,
    /// The generation of the next life.
    pub next_generation: u32,
    /// The last poll whose reply had it.
    pub seen: u32,
    /// When the life ended, 0 while it lives.
    pub close: u64,
    /// The newest closed row that was counted: one at or before it is a repetition.
    pub closed_until: u64,
    /// It ended by AF_UNSPEC: the socket may live on.
    pub disconnected: bool,
    /// Superseded lives whose closed row has not come.
    pub older: Option<Box<Older>>,
}

/// See [`Entry::older`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Older {
    /// Oldest first.
    pub lives: Vec<Life>,
}

/// What a row is to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It reads the present life.
    Same,
    /// It begins the next life, since the key says so or since the socket is used again.
    Next,
    /// It closes the superseded life at this index.
    Older(usize),
    /// It closes a life before the present one that was never seen.
    Missed,
    /// It was counted before.
    Repeated,
    /// It is a reading of a life that has ended.
    Stale,
}

/// What the rules need to know of the poll.
#[derive(Clone, Copy, Debug)]
pub struct Poll {
    /// Its number within this agent's run, from 1.
    pub number: u32,
    /// When the reply's snapshot began, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// The run of the tracer's maps, 0 unknown.
    pub run: u64,
    /// The last poll at which the run changed: the tracer's own generations do not compare across it.
    pub run_since: u32,
    /// Whether the run is that of the last successful poll.
    pub same_run: bool,
    /// The last successful poll.
    pub previous: Option<Previous>,
    /// When this stream of batches began, if that was in this boot.
    pub stream_began: Option<u64>,
}

/// The last successful poll of this boot, also of an earlier run of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// When its snapshot began, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// The same as wall time, nanoseconds.
    pub unix: i64,
    /// Whether a connection that it did not have did not exist.
    pub complete: bool,
}

/// How long before a complete snapshot a connection may have begun and still be missing from it: its start is noted
/// when the SYN is sent, the walk meets it once it is hashed, within the same system call. A second is generous.
const UNHASHED: u64 = 1_000_000_000;

impl Poll {
    /// Whether everything that a row at first sight has counted came after the last successful poll (R2).
    pub fn began_since(&self, start: u64) -> bool {
        match (self.previous, start) {
            (None, 0) => false,
            (None, start) => self.stream_began.is_some_and(|began| start > began),
            (Some(previous), 0) => previous.complete,
            (Some(previous), start) => {
                start > previous.at
                    || previous.complete && self.same_run && start.saturating_add(UNHASHED) > previous.at
            }
        }
    }
}

impl Life {
    /// The life that a row begins, before its totals are read.
    pub fn of(row: &StagedRow, key: Key, poll: &Poll, generation: u32) -> Self {
        Self {
            tuple: row.tuple,
            totals: [0; 3],
            before: [0; 2],
            start: row.start,
            run: run_of(key, poll),
            generation,
            tracer_generation: row.tracer_generation,
            state: row.state,
            anchor: None,
        }
    }

    /// The totals after this row.
    pub fn read(&self, row: &StagedRow) -> [u64; 3] {
        match row.reading {
            Reading::Totals(totals) => totals,
            // The source's count is not ours; see `super::table`.
            Reading::Baseline(_) => self.totals,
            Reading::Deltas(deltas) | Reading::FirstDeltas(deltas) => {
                let mut totals = self.totals;
                for (total, delta) in totals.iter_mut().zip(deltas) {
                    *total = total.saturating_add(delta);
                }
                totals
            }
        }
    }

    fn is_of(&self, row: &StagedRow) -> bool {
        if self.start != 0 && row.start != 0 { self.start == row.start } else { self.tuple == row.tuple }
    }
}

/// The run that a counter's generation carries: UDP is counted in the tracer's maps, TCP by the kernel.
pub fn run_of(key: Key, poll: &Poll) -> u64 {
    if key.protocol() == Protocol::Udp { poll.run } else { 0 }
}

/// Whether a byte counter is smaller than it was. Retransmits do not count, see [`weir_model::Totals::fell_below`].
pub fn fell(now: [u64; 3], before: [u64; 3]) -> bool {
    now[0] < before[0] || now[1] < before[1]
}

impl Entry {
    /// A counter that was just seen first.
    pub fn new(life: Life, seen: u32) -> Self {
        let next_generation = life.generation.saturating_add(1);
        Self { life, next_generation, seen, close: 0, closed_until: 0, disconnected: false, older: None }
    }

    /// What `row` is to this counter (R1).
    pub fn relation(&self, key: Key, row: &StagedRow, poll: &Poll) -> Relation {
        let closing = row.close != 0;
        if closing {
            let older = self.older.as_ref().and_then(|older| older.lives.iter().position(|life| life.is_of(row)));
            if let Some(index) = older
                && !(self.close == 0 && self.is_present(row))
            {
                return Relation::Older(index);
            }
            if row.close <= self.closed_until {
                return Relation::Repeated;
            }
        }
        if self.life.run != run_of(key, poll) {
            return Relation::Next;
        }
        let starts_known = self.life.start != 0 && row.start != 0;
        if starts_known && row.start < self.life.start {
            return if closing { Relation::Missed } else { Relation::Stale };
        }
        if self.life.tuple != row.tuple {
            let before = closing && self.close == 0 && self.life.start != 0 && row.close <= self.life.start;
            return if before { Relation::Missed } else { Relation::Next };
        }
        if starts_known && row.start > self.life.start {
            return Relation::Next;
        }
        if !starts_known
            && let (Some(now), Some(then)) = (row.tracer_generation, self.life.tracer_generation)
            && self.seen >= poll.run_since
        {
            if now > then {
                return Relation::Next;
            }
            if now < then && closing {
                return Relation::Missed;
            }
        }
        if self.close == 0 {
            return Relation::Same;
        }
        self.after_close(key, row, poll, starts_known)
    }

    /// The life that a row belongs to when the present one has ended and nothing tells it apart for sure.
    fn after_close(&self, key: Key, row: &StagedRow, poll: &Poll, starts_known: bool) -> Relation {
        if starts_known {
            return if row.close == 0 { Relation::Stale } else { Relation::Repeated };
        }
        let same_reply = self.seen == poll.number;
        let used_again = row.close != 0
            || self.disconnected
            || fell(self.life.read(row), self.life.totals)
            || !key.has_cookie() && !same_reply;
        if used_again { Relation::Next } else { Relation::Stale }
    }

    fn is_present(&self, row: &StagedRow) -> bool {
        self.life.is_of(row)
    }

    /// Begins the next life. Answers whether a life had to be given up that waited for its closed row.
    pub fn supersede(&mut self, life: Life) -> bool {
        let mut lost = false;
        if self.close == 0 {
            let older = self.older.get_or_insert_default();
            lost = older.lives.len() >= MAX_OLDER;
            if lost {
                older.lives.remove(0);
            }
            older.lives.push(self.life.clone());
        }
        self.next_generation = life.generation.saturating_add(1);
        self.life = life;
        self.close = 0;
        self.disconnected = false;
        lost
    }

    /// Notes the end of the present life.
    pub fn end(&mut self, row: &StagedRow) {
        self.close = row.close;
        self.disconnected = row.close_reason == Word::DISCONNECTED;
        self.closed_until = self.closed_until.max(row.close);
    }
}
