//! The spool: batches on disk until the server has them, and the baselines that go with them.
//!
//! A poll's outcome is one record, appended and fsynced before the tracer is told that its closed rows are safe: a
//! killed agent goes on exactly where its last record ends. The records lie in segments (see [`mod@format`]) of a folder
//! with one writer ([`folder`]). A new segment begins with a checkpoint of every baseline, so that older ones can go
//! when their batches are acknowledged.
//!
//! Bounded by bytes and by age: the oldest batches are dropped first, and a tombstone, itself a batch, tells what they
//! held. A full disk fails an append and changes nothing.

pub mod folder;
pub mod format;
pub mod prepare;
mod segment;

use crate::attribute::saved::SavedPart;
use crate::losses::Lost;
use folder::{Lock, at};
pub use folder::{SpoolError, Stream};
use format::{BatchRecord, Position, Summary};
use prost::bytes::Bytes;
use segment::Segment;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use weir_wire::agent::Tombstone;
use weir_wire::losses::{Reason, SPOOL_FULL, SPOOL_OLD};

/// How much the spool keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All segments' bytes.
    pub bytes: u64,
    /// How old an unacknowledged batch may become, nanoseconds.
    pub age: i64,
}

impl Limits {
    /// When a segment is full: an eighth of the spool, so that dropping the oldest one frees little more than needed,
    /// and at most 16 MiB, so that a checkpoint (about 40 B a counter) is a small part of it.
    fn segment_bytes(self) -> u64 {
        (self.bytes / 8).clamp(64 << 10, 16 << 20)
    }
}

/// What a checkpoint is made of.
pub trait Baselines {
    /// Every counter, in parts.
    fn parts(&self) -> Box<dyn Iterator<Item = SavedPart> + '_>;
}

/// Baselines as they were restored.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Compressed parts.
    counters: Vec<Bytes>,
    /// The state beside the counters.
    pub position: Position,
}

impl Recovered {
    /// The counters, part by part, later ones over earlier ones: a table of a million does not have to lie in memory
    /// twice.
    pub fn parts(&self) -> impl Iterator<Item = SavedPart> + '_ {
        self.counters.iter().filter_map(|part| segment::decompress(part))
    }
}

/// What an opening found wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes cut off the end: an append that did not finish.
    pub torn_bytes: u64,
    /// Damaged places that were skipped.
    pub skipped: u64,
}

/// A batch that waits for its acknowledgement.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    sequence: u64,
    segment: u64,
    offset: u64,
    length: u64,
    summary: Summary,
    is_tombstone: bool,
}

/// The open spool.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    stream: Stream,
    limits: Limits,
    _lock: Lock,
    /// Oldest first; the last one is written to. Never empty.
    segments: VecDeque<Segment>,
    waiting: VecDeque<Waiting>,
    next_sequence: u64,
    acknowledged: u64,
    /// The acknowledged sequence that is on disk.
    acknowledged_on_disk: u64,
    damage: Damage,
}

/// A drop that is planned: the tombstone must be durable before it is carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Drop {
    /// What goes.
    pub tombstone: Tombstone,
    /// Why: `spool_full` or `spool_old`.
    pub reason: &'static Reason,
    /// What goes now. Beside it the tombstone stands for what earlier ones, which go with it, told.
    pub now: Lost,
    /// Those earlier tombstones, each with what it stands for.
    pub earlier: Vec<(u64, Summary)>,
}

impl Spool {
    /// Opens the spool in `folder`, which is made if it is not there, and restores the baselines. `boot_id` and `now`
    /// (`CLOCK_MONOTONIC` nanoseconds) are kept when the stream begins with this call.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn open(folder: &Path, limits: Limits, boot_id: [u8; 16], now: u64) -> Result<(Self, Recovered), SpoolError> {
        let lock = Lock::take(folder)?;
        let stream = Stream::open(folder, boot_id, now)?;
        let acknowledged = read_acknowledged(folder);
        let mut spool = Self {
            folder: folder.into(),
            stream,
            limits,
            _lock: lock,
            segments: VecDeque::new(),
            waiting: VecDeque::new(),
            next_sequence: acknowledged + 1,
            acknowledged,
            acknowledged_on_disk: acknowledged,
            damage: Damage::default(),
        };
        let recovered = spool.load()?;
        folder::reserve(folder);
        Ok((spool, recovered))
    }

    /// Reads everything again, as a restart would: what a failed append left in memory is forgotten.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn reload(&mut self) -> Result<Recovered, SpoolError> {
        self.segments.clear();
        self.waiting.clear();
        self.load()
    }

    /// Whose batches these are.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The sequence that the next batch gets.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The oldest batch that waits, or [`Spool::next_sequence`].
    pub fn oldest_sequence(&self) -> u64 {
        self.waiting.front().map_or(self.next_sequence, |waiting| waiting.sequence)
    }

    /// The sequence up to which the server has everything.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Batches that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::length).sum()
    }

    /// What opening found wrong.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Appends a batch with what it changed, durably. On an error nothing has changed on disk; what the caller changed
    /// in memory is [`Spool::reload`]ed.
    ///
    /// # Errors
    /// [`SpoolError`]; [`SpoolError::is_full`] tells a full disk.
    pub fn append(
        &mut self,
        batch: Vec<u8>,
        counters: &SavedPart,
        position: Position,
        summary: Summary,
    ) -> Result<u64, SpoolError> {
        self.append_record(&BatchRecord {
            sequence: self.next_sequence,
            batch: batch.into(),
            counters: segment::compress(counters)?,
            position: Some(position),
            summary: Some(summary),
            dropped_to: 0,
        })
    }

    /// Appends the batch that tells of a drop, and carries the drop out.
    ///
    /// # Errors
    /// [`SpoolError`]; then nothing is dropped.
    pub fn append_tombstone(&mut self, batch: Vec<u8>, position: Position, drop: &Drop) -> Result<u64, SpoolError> {
        let to = drop.tombstone.last_sequence;
        let sequence = self.append_record(&BatchRecord {
            sequence: self.next_sequence,
            batch: batch.into(),
            counters: Bytes::new(),
            position: Some(position),
            summary: Some(Summary {
                from_unix_ns: drop.tombstone.from_unix_ns,
                to_unix_ns: drop.tombstone.to_unix_ns,
                sent_bytes: drop.tombstone.sent_bytes,
                recv_bytes: drop.tombstone.recv_bytes,
                connections: drop.tombstone.connections,
                records: drop.tombstone.records,
            }),
            dropped_to: to,
        })?;
        self.forget_to(to)?;
        Ok(sequence)
    }

    /// Begins a new segment if the present one is full. To be called while `baselines` are exactly those of the last
    /// append.
    ///
    /// # Errors
    /// [`SpoolError`]; the present segment is then still written to.
    pub fn roll_if_full(&mut self, baselines: &dyn Baselines, position: &Position) -> Result<(), SpoolError> {
        let full = self.limits.segment_bytes();
        if self.segments.back().is_some_and(|segment| segment.batch_bytes() < full) {
            return Ok(());
        }
        self.begin_segment(baselines.parts(), position)?;
        self.forget_to(self.acknowledged)
    }

    /// Makes room on a full disk, where that loses nothing: when no batch waits, a new segment's checkpoint replaces the
    /// present segment. The space for it was kept back ([`folder::RESERVE`]). Answers whether it was done.
    ///
    /// # Errors
    /// [`SpoolError`]; then the present segment is still the one in use.
    pub fn rescue(&mut self, baselines: &dyn Baselines, position: &Position) -> Result<bool, SpoolError> {
        if !self.waiting.is_empty() || self.segments.back().is_none_or(|segment| segment.batch_bytes() == 0) {
            return Ok(false);
        }
        folder::give_up_reserve(&self.folder)?;
        self.begin_segment(baselines.parts(), position)?;
        self.forget_to(self.acknowledged)?;
        folder::reserve(&self.folder);
        Ok(true)
    }

    /// What has to go so that another segment fits and nothing is too old at `now` (wall time, nanoseconds).
    pub fn due_drop(&self, now: i64) -> Option<Drop> {
        let too_old = now.saturating_sub(self.limits.age);
        // A tombstone is as old as what it stands for and goes with the next batch that does: by itself it would only
        // make place for another.
        let by_age = (self.waiting.iter())
            .take_while(|waiting| waiting.is_tombstone || waiting.summary.to_unix_ns < too_old)
            .filter(|waiting| !waiting.is_tombstone)
            .last();
        let by_bytes = (self.bytes() + self.limits.segment_bytes() > self.limits.bytes && self.segments.len() > 1)
            .then(|| {
                let oldest = self.segments.front().map(Segment::number);
                self.waiting.iter().take_while(|waiting| Some(waiting.segment) == oldest).last()
            })
            .flatten();
        let (last, reason) = match (by_bytes, by_age) {
            (Some(bytes), Some(age)) if age.sequence > bytes.sequence => (age, SPOOL_OLD),
            (Some(bytes), _) => (bytes, SPOOL_FULL),
            (None, Some(age)) => (age, SPOOL_OLD),
            (None, None) => return None,
        };
        let mut tombstone = Tombstone {
            first_sequence: self.oldest_sequence(),
            last_sequence: last.sequence,
            from_unix_ns: i64::MAX,
            ..Tombstone::default()
        };
        let (mut now, mut earlier) = (Lost::default(), Vec::new());
        for waiting in self.waiting.iter().take_while(|waiting| waiting.sequence <= last.sequence) {
            let summary = &waiting.summary;
            if waiting.is_tombstone {
                earlier.push((waiting.sequence, *summary));
            } else {
                now.count += 1;
                now.add(summary);
            }
            if summary.from_unix_ns > 0 {
                tombstone.from_unix_ns = tombstone.from_unix_ns.min(summary.from_unix_ns);
            }
            tombstone.to_unix_ns = tombstone.to_unix_ns.max(summary.to_unix_ns);
            tombstone.sent_bytes = tombstone.sent_bytes.saturating_add(summary.sent_bytes);
            tombstone.recv_bytes = tombstone.recv_bytes.saturating_add(summary.recv_bytes);
            tombstone.connections = tombstone.connections.saturating_add(summary.connections);
            tombstone.records = tombstone.records.saturating_add(summary.records);
        }
        tombstone.from_unix_ns = tombstone.from_unix_ns.min(tombstone.to_unix_ns);
        Some(Drop { tombstone, reason, now, earlier })
    }

    /// A waiting batch's bytes; `None` when it is not in the spool (any more).
    ///
    /// # Errors
    /// [`SpoolError`] when its segment cannot be read.
    pub fn read(&self, sequence: u64) -> Result<Option<Bytes>, SpoolError> {
        let index = self.waiting.partition_point(|waiting| waiting.sequence < sequence);
        let Some(waiting) = self.waiting.get(index).filter(|waiting| waiting.sequence == sequence) else {
            return Ok(None);
        };
        let Some(segment) = self.segments.iter().find(|segment| segment.number() == waiting.segment) else {
            return Ok(None);
        };
        segment.read_batch(waiting.offset, waiting.length)
    }

    /// Notes that the server has everything up to `sequence`.
    ///
    /// # Errors
    /// [`SpoolError`] when a segment that is done with cannot be removed.
    pub fn acknowledge(&mut self, sequence: u64) -> Result<(), SpoolError> {
        self.acknowledged = self.acknowledged.max(sequence.min(self.next_sequence.saturating_sub(1)));
        self.forget_to(self.acknowledged)
    }

    /// Writes the acknowledged sequence down. Losing it costs a resend, which the server takes for what it is.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn write_acknowledged(&mut self) -> Result<(), SpoolError> {
        if self.acknowledged == self.acknowledged_on_disk {
            return Ok(());
        }
        folder::replace(&self.folder, "acknowledged", format!("{}\n", self.acknowledged).as_bytes(), folder::Sync::No)?;
        self.acknowledged_on_disk = self.acknowledged;
        Ok(())
    }

    /// Goes on after a sequence that the server already has from this stream: the spool is older than what was sent
    /// (a restored disk). New batches must not take its numbers again.
    pub fn skip_to(&mut self, next_sequence: u64) {
        self.next_sequence = self.next_sequence.max(next_sequence);
    }

    fn append_record(&mut self, record: &BatchRecord) -> Result<u64, SpoolError> {
        let sequence = record.sequence;
        let summary = record.summary.unwrap_or_default();
        let Some(segment) = self.segments.back_mut() else { return Ok(sequence) };
        let (offset, length) = segment.append(format::Kind::Batch, record)?;
        let is_tombstone = record.dropped_to > 0;
        self.waiting.push_back(Waiting { sequence, segment: segment.number(), offset, length, summary, is_tombstone });
        self.next_sequence = sequence + 1;
        Ok(sequence)
    }

    /// Forgets waiting batches up to `sequence`, and removes segments that none waits in.
    fn forget_to(&mut self, sequence: u64) -> Result<(), SpoolError> {
        while self.waiting.front().is_some_and(|waiting| waiting.sequence <= sequence) {
            self.waiting.pop_front();
        }
        let needed = self.waiting.front().map_or(u64::MAX, |waiting| waiting.segment);
        while self.segments.len() > 1 && self.segments.front().is_some_and(|segment| segment.number() < needed) {
            if let Some(segment) = self.segments.pop_front() {
                std::fs::remove_file(segment.path()).map_err(at("remove", segment.path()))?;
            }
        }
        Ok(())
    }

    fn begin_segment(&mut self, parts: impl Iterator<Item = SavedPart>, position: &Position) -> Result<(), SpoolError> {
        let number = self.segments.back().map_or(1, |segment| segment.number() + 1);
        let segment = Segment::create(&self.folder, &self.stream.id, number, self.next_sequence, parts, position)?;
        weir_daemon::failpoint::reach("spool-segment-begun");
        self.segments.push_back(segment);
        Ok(())
    }

    fn load(&mut self) -> Result<Recovered, SpoolError> {
        let mut recovered = Recovered::default();
        let mut dropped_to = self.acknowledged;
        self.damage = Damage::default();
        let paths = segment::list(&self.folder)?;
        let last = paths.len().saturating_sub(1);
        for (index, (number, path)) in paths.into_iter().enumerate() {
            let tail = if index == last { segment::Tail::Cut } else { segment::Tail::Skip };
            let Some(loaded) = Segment::load(&path, number, tail)? else {
                // Its checkpoint was never finished: nothing refers to it, and the one before holds the state.
                std::fs::remove_file(&path).map_err(at("remove", &path))?;
                continue;
            };
            self.damage.torn_bytes += loaded.torn_bytes;
            self.damage.skipped += loaded.skipped;
            self.next_sequence = self.next_sequence.max(loaded.next_sequence);
            // The newest segment's checkpoint holds all that the older ones say.
            recovered = Recovered { counters: loaded.counters, position: loaded.position };
            for batch in loaded.batches {
                dropped_to = dropped_to.max(batch.dropped_to);
                self.next_sequence = self.next_sequence.max(batch.sequence + 1);
                self.waiting.push_back(Waiting {
                    sequence: batch.sequence,
                    segment: number,
                    offset: batch.offset,
                    length: batch.length,
                    summary: batch.summary,
                    is_tombstone: batch.dropped_to > 0,
                });
            }
            self.segments.push_back(loaded.segment);
        }
        if self.segments.is_empty() {
            self.begin_segment(std::iter::empty(), &Position::default())?;
        }
        self.forget_to(dropped_to)?;
        Ok(recovered)
    }
}

fn read_acknowledged(folder: &Path) -> u64 {
    std::fs::read_to_string(folder.join("acknowledged")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
