//! The ledger: the journal, and what an ended row needs on its way into it: where its owner lived, and how its connection
//! was translated. Both are looked up at once, while they can still be found.

use crate::conntrack::Conntrack;
use crate::conntrack::reuse::Answered;
use crate::engine::EngineError;
use crate::journal::{Ended, Journal};
use crate::losses::Loss;
use crate::places::Places;
use crate::probes::layout::Row;

/// The journal and its sources.
pub struct Ledger {
    /// The journal.
    pub journal: Journal,
    /// Where owners live.
    pub places: Places,
    /// How connections are translated.
    pub conntrack: Conntrack,
    /// When what is being written was read.
    pub now_ns: u64,
    /// Translations that may have to be withdrawn.
    pub answered: Answered,
    /// What every client has of the journal.
    pub settled: u64,
    dropped: u64,
    ownerless: u64,
    pathless: u64,
    withdrawn: u64,
}

impl Ledger {
    /// A ledger of these.
    pub fn new(journal: Journal, places: Places, conntrack: Conntrack) -> Self {
        Self {
            journal,
            places,
            conntrack,
            now_ns: 0,
            answered: Answered::default(),
            settled: 0,
            dropped: 0,
            ownerless: 0,
            pathless: 0,
            withdrawn: 0,
        }
    }

    /// Writes ended rows.
    ///
    /// # Errors
    /// The journal's.
    pub fn write(&mut self, mut rows: Vec<Row>) -> Result<(), EngineError> {
        rows.retain(|row| !self.journal.has(row));
        if rows.is_empty() {
            return Ok(());
        }
        let translations = self.conntrack.of_ended(&rows);
        let first = self.journal.head() + 1;
        let ended: Vec<Ended> = rows
            .iter()
            .zip(&translations)
            .map(|(row, translation)| Ended {
                row: *row,
                place: self.places.find(&row.origin, self.now_ns),
                translation: translation.map(|(translation, _)| translation),
            })
            .collect();
        self.dropped += self.journal.append(&ended, self.settled)?;
        for Ended { row, place, .. } in &ended {
            self.ownerless += u64::from(row.origin.pid == 0);
            self.pathless += u64::from(row.origin.cgroup_id != 0 && place.is_none());
        }
        for (sequence, (row, translation)) in (first..).zip(rows.iter().zip(translations)) {
            self.withdrawn += u64::from(self.answered.see(row));
            if let Some((_, Some(asked_ns))) = translation {
                self.answered.note(row, sequence, asked_ns);
            }
        }
        Ok(())
    }

    /// Looks at what lives: a connection that has the tuple of one that ended may disprove what was said of that.
    pub fn look_at(&mut self, living: &[Row]) {
        for row in living {
            self.withdrawn += u64::from(self.answered.see(row));
        }
        self.answered.settle(self.journal.floor(), self.now_ns);
    }

    /// What was lost since the last call, by reason; zeros too.
    pub fn take_losses(&mut self) -> [(Loss, u64); 8] {
        let unresolved = self.conntrack.take_unresolved();
        [
            (Loss::ClosedRowsDropped, std::mem::take(&mut self.dropped)),
            (Loss::OwnerUnknown, std::mem::take(&mut self.ownerless)),
            (Loss::CgroupUnresolved, std::mem::take(&mut self.pathless)),
            (Loss::ConntrackOverBudget, unresolved.over_budget),
            (Loss::ConntrackFailed, unresolved.failed),
            (Loss::ConntrackReused, unresolved.reused + std::mem::take(&mut self.withdrawn)),
            (Loss::ConntrackLate, unresolved.late),
            (Loss::TranslationsDropped, unresolved.forwarded_dropped),
        ]
    }
}
