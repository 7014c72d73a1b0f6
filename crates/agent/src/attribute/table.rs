//! The baselines: every counter's last totals, and what a row adds to them (R1, R2).
//!
//! Bounded: live counters by `--max-connections`, those that closed by `MAX_CLOSED` and `CLOSED_FOR`, those that
//! vanished without a closed row by `VANISHED_FOR`. What a bound costs is counted.
//!
//! Counters without a cookie are the tuple's, and tuples are used again. One that was forgotten and comes back begins at
//! a later generation (`tuple_generation`). The 2019 tracer sums up a tuple's connections within an interval and shows
//! the last one alone afterwards; what of that was counted already, its `last_*` tell (`counted_anew`).

mod sums;

use super::key::Key;
use super::life::{Entry, Life, Poll, Relation, fell};
use super::stage::{Reading, StagedRow};
use hashbrown::HashMap;
use std::collections::VecDeque;

/// Closed counters that are remembered, so that a row repeated by the tracer is not counted twice: the tracer repeats
/// them only until the next poll's `ack`. 1,000 short connections a second for 100 s.
const MAX_CLOSED: usize = 100_000;
/// How long they are remembered, nanoseconds.
const CLOSED_FOR: u64 = 600_000_000_000;
/// How long a counter is kept whose row vanished (the 2019 tracer drops idle TCP after 2 minutes), nanoseconds.
const VANISHED_FOR: u64 = 1_800_000_000_000;

/// What a row was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing new.
    Unchanged,
    /// Something to tell.
    Changed(Change),
    /// A closed row that was counted before.
    Repeated,
    /// An open row of a connection that has closed.
    Stale,
    /// A new connection for which the table has no room.
    Full,
}

/// What a row adds to its counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The counter's life after it.
    pub life: Life,
    /// Sent, received, sent again.
    pub delta: [u64; 3],
    /// It is the life's first.
    pub opened: bool,
    /// All of the life's bytes came since the last successful poll or its own start.
    pub whole: bool,
}

/// Numbers of the table since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Counters that vanished and were forgotten.
    pub vanished: u64,
    /// New connections refused since the table was full.
    pub full: u64,
    /// Lives given up that waited for their closed row.
    pub superseded: u64,
    /// Generations that began since a total fell.
    pub fallen: u64,
}

/// Every known counter.
#[derive(Debug)]
pub struct Table {
    entries: HashMap<Key, Entry>,
    /// Closed counters, oldest first, with the snapshot at which they closed.
    closed: VecDeque<(Key, u64)>,
    /// Polls and their snapshots, to find out how old an entry's `seen` is.
    polls: VecDeque<(u32, u64)>,
    limit: usize,
    counts: Counts,
    /// A counter was refused: that the last reply did not have a row proves nothing any more.
    leaky: bool,
}

impl Table {
    /// A table for at most `limit` counters.
    pub fn new(limit: usize) -> Self {
        Self {
            entries: HashMap::new(),
            closed: VecDeque::new(),
            polls: VecDeque::new(),
            limit,
            counts: Counts::default(),
            leaky: false,
        }
    }

    /// How many counters are known, closed ones too.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many closed counters are remembered.
    pub fn closed(&self) -> usize {
        self.closed.len()
    }

    /// See [`Counts`].
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A counter's entry.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Every counter.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// Puts back a counter that was saved; it counts as seen by the last poll before the first of this run.
    pub fn restore(&mut self, key: Key, entry: Entry, at: u64) {
        let ends = entry.close != 0;
        let ended = self.entries.insert(key, entry).is_some_and(|before| before.close != 0);
        if ends && !ended {
            self.closed.push_back((key, at));
        }
    }

    /// Whether the absence of a row from the last complete reply proves anything.
    pub fn is_sound(&self) -> bool {
        !self.leaky
    }

    /// Reads one row of `poll`. `carries` says whether its retransmits are its own.
    pub fn apply(&mut self, key: Key, row: &StagedRow, carries: bool, poll: &Poll) -> Outcome {
        if !matches!(row.reading, Reading::Totals(_)) {
            return self.apply_sum(key, row, carries, poll);
        }
        let Some(entry) = self.entries.get_mut(&key) else { return self.first_sight(key, row, carries, poll) };
        match entry.relation(key, row, poll) {
            Relation::Repeated => {
                entry.seen = poll.number;
                Outcome::Repeated
            }
            Relation::Stale => {
                entry.seen = poll.number;
                Outcome::Stale
            }
            Relation::Same => self.read_on(key, row, carries, poll),
            Relation::Next => {
                // The last successful poll still saw the life before: this one began after it.
                let whole = entry.seen.saturating_add(1) >= poll.number && poll.previous.is_some();
                self.next_life(key, row, carries, poll, whole)
            }
            Relation::Older(index) => self.close_older(key, index, row, carries),
            Relation::Missed => self.close_missed(key, row, carries, poll),
        }
    }

    /// Makes room for `rows` of a reply at once, so that the table does not grow step by step beside its older self.
    pub fn expect(&mut self, rows: usize) {
        let wanted = rows.min(self.limit);
        self.entries.reserve(wanted.saturating_sub(self.entries.len()));
    }

    /// The tracer has taken the acknowledgement of every closed row so far: none comes again. What it counts the same
    /// way as the table (its generation goes on where this one ended) need not be remembered.
    pub fn acknowledged(&mut self) {
        for (key, at) in std::mem::take(&mut self.closed) {
            let counts_alike = |entry: &Entry| {
                entry.life.tracer_generation == Some(entry.life.generation)
                    && entry.next_generation == entry.life.generation.saturating_add(1)
                    && entry.older.is_none()
            };
            match self.entries.get(&key) {
                Some(entry) if entry.close != 0 && counts_alike(entry) => {
                    self.entries.remove(&key);
                }
                Some(_) => self.closed.push_back((key, at)),
                None => {}
            }
        }
    }

    /// Ends a poll: forgets what is too old. Called once all its rows are applied.
    pub fn finish(&mut self, poll: &Poll) {
        while let Some((key, at)) = self.closed.front().copied() {
            if self.closed.len() <= MAX_CLOSED && poll.at.saturating_sub(at) < CLOSED_FOR {
                break;
            }
            self.closed.pop_front();
            self.remove_closed(key);
        }
        self.polls.push_back((poll.number, poll.at));
        let mut expired = None;
        while let Some((number, at)) = self.polls.front().copied() {
            if poll.at.saturating_sub(at) < VANISHED_FOR {
                break;
            }
            self.polls.pop_front();
            expired = Some(number);
        }
        if let Some(expired) = expired {
            let before = self.entries.len();
            self.entries.retain(|_, entry| entry.close != 0 || entry.seen > expired);
            self.counts.vanished += (before - self.entries.len()) as u64;
        }
    }

    /// TCP sockets that this poll and the one before lacked although both were complete, and whose closed row never
    /// came: their last bytes are lost. To be called after [`Table::finish`]; each is told once.
    pub fn ended_unseen(&self, poll: &Poll) -> u64 {
        let lost = |key: &Key, entry: &Entry| {
            matches!(key, Key::Socket { .. }) && entry.close == 0 && entry.seen.checked_add(2) == Some(poll.number)
        };
        self.entries.iter().filter(|(key, entry)| lost(key, entry)).count() as u64
    }

    fn first_sight(&mut self, key: Key, row: &StagedRow, carries: bool, poll: &Poll) -> Outcome {
        if !self.make_room() {
            self.counts.full += 1;
            self.leaky = true;
            return Outcome::Full;
        }
        // The tracer's count of a cookie's lives keeps generations apart that an agent sees after it forgot the socket.
        let generation = row.tracer_generation.unwrap_or_else(|| tuple_generation(key, poll));
        let mut life = Life::of(row, key, poll, generation);
        let whole = poll.began_since(row.start) && (row.start != 0 || self.is_sound());
        let new = if whole { [u64::MAX; 2] } else { [0; 2] };
        let delta = begin(&mut life, row, carries, new);
        let mut entry = Entry::new(life.clone(), poll.number);
        if row.close != 0 {
            entry.end(row);
            self.closed.push_back((key, poll.at));
        }
        self.entries.insert(key, entry);
        Outcome::Changed(Change { life, delta, opened: true, whole })
    }

    fn read_on(&mut self, key: Key, row: &StagedRow, carries: bool, poll: &Poll) -> Outcome {
        let Some(entry) = self.entries.get_mut(&key) else { return Outcome::Unchanged };
        let now = entry.life.read(row);
        if fell(now, entry.life.totals) {
            let torn = key.has_cookie() && row.start != 0 && row.start == entry.life.start;
            // A second row of one reply is a repetition, not a later reading.
            let repeated = entry.seen == poll.number;
            if !torn && !repeated {
                self.counts.fallen += 1;
                let new = if key.has_cookie() { [u64::MAX; 2] } else { counted_since(row, poll) };
                return self.begin_next(key, row, carries, poll, new);
            }
        } else if !key.has_cookie() && entry.seen.checked_add(1) == Some(poll.number) && counted_anew(row, entry, now) {
            return self.begin_next(key, row, carries, poll, row.last);
        }
        let (totals, delta) = advance(entry.life.totals, now, carries);
        let told = row.state != entry.life.state && row.state.index() != 0;
        entry.life.totals = totals;
        entry.seen = poll.number;
        if entry.life.start == 0 {
            entry.life.start = row.start;
        }
        if row.tracer_generation.is_some() {
            entry.life.tracer_generation = row.tracer_generation;
        }
        if told {
            entry.life.state = row.state;
        }
        if row.close != 0 {
            entry.end(row);
            self.closed.push_back((key, poll.at));
        } else if delta == [0; 3] && !told {
            return Outcome::Unchanged;
        }
        Outcome::Changed(Change { life: entry.life.clone(), delta, opened: false, whole: false })
    }

    /// `fresh`: the counter began anew since the last successful poll, so that all it shows is new.
    fn next_life(&mut self, key: Key, row: &StagedRow, carries: bool, poll: &Poll, fresh: bool) -> Outcome {
        let whole = fresh || poll.began_since(row.start);
        self.begin_next(key, row, carries, poll, if whole { [u64::MAX; 2] } else { [0; 2] })
    }

    /// `new`: how much of the new life's first totals came since the last successful poll, at most.
    fn begin_next(&mut self, key: Key, row: &StagedRow, carries: bool, poll: &Poll, new: [u64; 2]) -> Outcome {
        let Some(entry) = self.entries.get_mut(&key) else { return Outcome::Unchanged };
        let generation = entry.next_generation.max(row.tracer_generation.unwrap_or(0));
        let mut life = Life::of(row, key, poll, generation);
        let delta = begin(&mut life, row, carries, new);
        let whole = life.before == [0; 2];
        if entry.supersede(life.clone()) {
            self.counts.superseded += 1;
        }
        entry.seen = poll.number;
        if row.close != 0 {
            entry.end(row);
            self.closed.push_back((key, poll.at));
        }
        Outcome::Changed(Change { life, delta, opened: true, whole })
    }

    fn close_older(&mut self, key: Key, index: usize, row: &StagedRow, carries: bool) -> Outcome {
        let Some(entry) = self.entries.get_mut(&key) else { return Outcome::Unchanged };
        let Some(older) = &mut entry.older else { return Outcome::Unchanged };
        let mut life = older.lives.remove(index);
        if older.lives.is_empty() {
            entry.older = None;
        }
        let (totals, delta) = advance(life.totals, life.read(row), carries);
        life.totals = totals;
        life.state = row.state;
        entry.closed_until = entry.closed_until.max(row.close);
        Outcome::Changed(Change { life, delta, opened: false, whole: false })
    }

    fn close_missed(&mut self, key: Key, row: &StagedRow, carries: bool, poll: &Poll) -> Outcome {
        let Some(entry) = self.entries.get_mut(&key) else { return Outcome::Unchanged };
        let generation = entry.next_generation;
        entry.next_generation = generation.saturating_add(1);
        let mut life = Life::of(row, key, poll, generation);
        let whole = poll.began_since(row.start);
        let delta = begin(&mut life, row, carries, if whole { [u64::MAX; 2] } else { [0; 2] });
        entry.closed_until = entry.closed_until.max(row.close);
        Outcome::Changed(Change { life, delta, opened: true, whole })
    }

    fn make_room(&mut self) -> bool {
        while self.entries.len() >= self.limit {
            let Some((key, _)) = self.closed.pop_front() else { return false };
            self.remove_closed(key);
        }
        true
    }

    /// Forgets a closed counter, unless it lives again or waits for older closed rows.
    fn remove_closed(&mut self, key: Key) {
        if self.entries.get(&key).is_some_and(|entry| entry.close != 0) && !self.closes_again(&key) {
            self.entries.remove(&key);
        }
    }

    /// Whether the counter stands in the queue once more: only its last end counts. The queue is searched only for the
    /// few counters that ended more than once.
    fn closes_again(&self, key: &Key) -> bool {
        let Some(entry) = self.entries.get(key) else { return false };
        entry.next_generation > 1 && self.closed.iter().any(|(other, _)| other == key)
    }
}

/// Gives a life its first totals, of which at most `new` came since the last successful poll. What lies before belongs
/// to no window (R2); retransmits count with a life that is new as a whole.
fn begin(life: &mut Life, row: &StagedRow, carries: bool, new: [u64; 2]) -> [u64; 3] {
    life.totals = life.read(row);
    let [sent, recv, retransmits] = life.totals;
    let delta = [sent.min(new[0]), recv.min(new[1])];
    life.before = [sent - delta[0], recv - delta[1]];
    let is_new = new != [0; 2] && carries;
    [delta[0], delta[1], if is_new { retransmits } else { 0 }]
}

/// The first generation of a counter without a cookie and without a count of the tracer's: seconds since boot, so that a
/// tuple which was forgotten and comes back is told apart from what it was. What the very first poll finds begins at 0.
fn tuple_generation(key: Key, poll: &Poll) -> u32 {
    if key.has_cookie() || poll.previous.is_none() { 0 } else { (poll.at / 1_000_000_000) as u32 }
}

/// What a total that fell counts of new bytes. A restart at 0 is new as a whole. A row that summed up two connections and
/// now shows the last one alone is not: then `last_*` say what is new, or the row has not changed since the last poll.
fn counted_since(row: &StagedRow, poll: &Poll) -> [u64; 2] {
    if row.last != [0; 2] {
        return row.last;
    }
    let changed = poll.previous.is_none_or(|previous| row.last_update == 0 || row.last_update > previous.at);
    if changed { [u64::MAX; 2] } else { [0; 2] }
}

/// Whether a total that did not fall is counted from another begin than the last reply's: more came since the last fetch
/// than it rose by. A tracer beyond its bound of clients' baselines tells the total as `last_*`, which proves nothing.
fn counted_anew(row: &StagedRow, entry: &Entry, now: [u64; 3]) -> bool {
    let Reading::Totals([sent, recv, _]) = row.reading else { return false };
    let rose = [now[0] - entry.life.totals[0], now[1] - entry.life.totals[1]];
    let is_beyond_bound = row.last == [sent, recv];
    !is_beyond_bound && row.last[0] <= sent && row.last[1] <= recv && (row.last[0] > rose[0] || row.last[1] > rose[1])
}

/// The larger of each field, and what it adds.
fn advance(before: [u64; 3], now: [u64; 3], carries: bool) -> ([u64; 3], [u64; 3]) {
    let mut totals = before;
    let mut delta = [0; 3];
    for index in 0..3 {
        totals[index] = before[index].max(now[index]);
        delta[index] = totals[index] - before[index];
    }
    if !carries {
        delta[2] = 0;
    }
    (totals, delta)
}

#[cfg(test)]
mod sums_tests;
#[cfg(test)]
mod tests;
