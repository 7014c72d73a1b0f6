//! Counters of a source that has only deltas: summed into totals of our own (R2).
//!
//! Such a source (system-probe) knows its clients and tells each what came since that client's last fetch. The first
//! fetch of a client tells what the source itself has counted so far. So a sum can be *anchored*: the source's count plus
//! a base is our total. After a reply that got lost, or a restart of the agent, a new client's first fetch then says
//! exactly what came meanwhile, and nothing is counted twice. Where a sum has no anchor of the source's present run, it
//! gets one, and what came meanwhile is not counted. No row repeats another: a source has forgotten what it told.

use super::super::key::Key;
use super::super::life::{Anchor, Entry, Life, Poll, run_of};
use super::super::stage::{Reading, StagedRow};
use super::{Change, Outcome, Table, tuple_generation};
use weir_model::Protocol;

impl Table {
    /// Reads one row of a source that tells deltas, or the first fetch of its client.
    pub(super) fn apply_sum(&mut self, key: Key, row: &StagedRow, carries: bool, poll: &Poll) -> Outcome {
        let found = match row.reading {
            Reading::Baseline(found) => Some(found),
            Reading::Deltas(_) | Reading::FirstDeltas(_) | Reading::Totals(_) => None,
        };
        let Some(entry) = self.entries.get_mut(&key) else { return self.first_sum(key, row, carries, poll) };
        let is_over = entry.close != 0 || entry.life.run != run_of(key, poll);
        let used_again = row.begins && entry.life.totals[..2] != [0; 2] && found.is_none();
        entry.seen = poll.number;
        if is_over || used_again {
            if found.is_some_and(|found| found[..2] == [0; 2]) {
                return Outcome::Unchanged;
            }
            let (life, delta) = begin(key, row, carries, poll, entry.next_generation, false);
            // A source of deltas sends no late closed row for the life before.
            entry.close = entry.close.max(1);
            entry.supersede(life.clone());
            let change = Change { life, delta, opened: true, whole: found.is_none() };
            return self.end(key, row, poll, change);
        }
        let before = entry.life.totals;
        match found {
            Some(found) => entry.life.totals = bridge(&mut entry.life, found, poll),
            None => entry.life.totals = entry.life.read(row),
        }
        if matches!(row.reading, Reading::FirstDeltas(_)) || row.begins && found.is_none() {
            entry.life.anchor = Anchor::of(poll.run, before);
        }
        let mut delta = [0; 3];
        for ((delta, now), before) in delta.iter_mut().zip(entry.life.totals).zip(before) {
            *delta = now - before;
        }
        if !carries {
            delta[2] = 0;
        }
        if delta == [0; 3] && row.close == 0 {
            return Outcome::Unchanged;
        }
        let change = Change { life: entry.life.clone(), delta, opened: false, whole: false };
        self.end(key, row, poll, change)
    }

    fn first_sum(&mut self, key: Key, row: &StagedRow, carries: bool, poll: &Poll) -> Outcome {
        if !self.make_room() {
            self.counts.full += 1;
            self.leaky = true;
            return Outcome::Full;
        }
        let is_sound = self.is_sound();
        let (life, delta) = begin(key, row, carries, poll, tuple_generation(key, poll), is_sound);
        let whole = life.before == [0; 2];
        self.entries.insert(key, Entry::new(life.clone(), poll.number));
        self.end(key, row, poll, Change { life, delta, opened: true, whole })
    }

    fn end(&mut self, key: Key, row: &StagedRow, poll: &Poll, change: Change) -> Outcome {
        if row.close != 0
            && let Some(entry) = self.entries.get_mut(&key)
        {
            entry.end(row);
            entry.life.anchor = None;
            self.closed.push_back((key, poll.at));
        }
        Outcome::Changed(change)
    }
}

/// A life that begins with this row, and what of it is new. `is_sound`: that the counter was not known proves that it did
/// not exist (UDP: a source forgets an idle flow long before the table does).
fn begin(key: Key, row: &StagedRow, carries: bool, poll: &Poll, generation: u32, is_sound: bool) -> (Life, [u64; 3]) {
    let mut life = Life::of(row, key, poll, generation);
    let (numbers, is_new) = match row.reading {
        Reading::Baseline(found) => (found, false),
        // Without a poll before, nobody knows what these came since.
        Reading::Deltas(deltas) | Reading::FirstDeltas(deltas) | Reading::Totals(deltas) => {
            (deltas, poll.previous.is_some())
        }
    };
    life.totals = numbers;
    let is_all = match row.reading {
        Reading::Baseline(_) => numbers[..2] != [0; 2],
        Reading::FirstDeltas(_) => true,
        _ => row.begins || is_sound && key.protocol() == Protocol::Udp,
    };
    life.anchor = if is_all { Anchor::of(poll.run, [0; 3]) } else { None };
    if is_new {
        return (life, [numbers[0], numbers[1], if carries { numbers[2] } else { 0 }]);
    }
    life.before = [numbers[0], numbers[1]];
    (life, [0; 3])
}

/// The total after a client's first fetch: what came meanwhile is added where the anchor tells, else the sum is anchored
/// anew where it stands.
fn bridge(life: &mut Life, found: [u64; 3], poll: &Poll) -> [u64; 3] {
    let totals = life.totals;
    if let Some(anchor) = life.anchor.as_ref().filter(|anchor| anchor.run == poll.run) {
        let mut now = found;
        for (now, base) in now.iter_mut().zip(anchor.base) {
            *now = now.wrapping_add(base);
        }
        // It rose, and by no more than the source has counted at all.
        let rose = |at: usize| now[at].checked_sub(totals[at]).is_some_and(|delta| delta <= found[at]);
        if rose(0) && rose(1) {
            now[2] = if rose(2) { now[2] } else { totals[2] };
            return now;
        }
    }
    // Versions before 2022 tell a new client zeros.
    if found[..2] != [0; 2] {
        let mut base = totals;
        for (base, found) in base.iter_mut().zip(found) {
            *base = base.wrapping_sub(found);
        }
        life.anchor = Anchor::of(poll.run, base);
    }
    totals
}
