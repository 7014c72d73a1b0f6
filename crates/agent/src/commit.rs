//! Commit: what one poll yielded becomes durable, or nothing of it does.
//!
//! The one writer of the baselines, the inventory's answers and the spool. Rows are read against the table, changes
//! become records, records a batch; batch and moved baselines are one spool record. After an append that failed the
//! baselines are read back from the spool, as a restart would, and the tracer, not being acknowledged, repeats.

use crate::attribute::saved::{SavedCounter, SavedPart};
use crate::attribute::{Key, Outcome, Poll, Previous, Stage, Table};
use crate::facts::{Facts, Shown};
use crate::losses::{Losses, Lost};
use crate::metadata::Shared;
use crate::metrics::Metrics;
use crate::observe::{Acknowledged, Failure, Kind, Observed, SourceState};
use crate::spool::format::{Position, Summary};
use crate::spool::{Baselines, Drop, Recovered, Spool, SpoolError};
use crate::window::{Part, Span, Window};
use prost::bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weir_daemon::clock::Clock;
use weir_daemon::failpoint;
use weir_discovery::said::Health;
use weir_inventory::ProcessFact;
use weir_wire::agent::{Address, BATCH_FORMAT, Batch, Loss, Source, Tombstone, Translation};
use weir_wire::feed::decode::{Envelope, Translated};
use weir_wire::losses::{self, Reason};

/// Who the batches come from.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The node's name.
    pub node: String,
    /// The node's boot.
    pub boot_id: [u8; 16],
    /// This agent process.
    pub agent_run: [u8; 16],
}

/// The version in every batch.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a successful poll gave, beside the rows.
#[derive(Debug)]
pub struct Polled {
    /// The reply without its rows.
    pub observed: Observed,
    /// What is missing from the source, in words; empty when all runs.
    pub degraded: String,
    /// The tracer's version, where it told.
    pub tracer_version: String,
    /// The node's processes, where they could be read, and by whom (`tracer` or `proc`).
    pub processes: Option<(Vec<ProcessFact>, &'static str)>,
    /// How those do who could not tell them.
    pub troubles: Vec<Health>,
}

/// Baselines, inventory and spool, with one writer.
pub struct Committer {
    identity: Identity,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    spool: Arc<Mutex<Spool>>,
    facts: Facts,
    /// How far the last batch's metadata goes.
    told: u64,
    table: Table,
    max_connections: usize,
    position: Position,
    polls: u32,
    run_since: u32,
    stream_began: Option<u64>,
    losses: Losses,
    /// The spool is of an earlier boot, and no batch of this one has said so.
    rebooted: bool,
}

impl Polled {
    /// What is missing from the source, in words; empty when all is there.
    pub fn missing(&self) -> String {
        let walk = (self.observed.envelope.complete == Some(false)).then_some("the walk of the sockets was cut short");
        let parts: Vec<&str> =
            [self.degraded.as_str()].into_iter().filter(|text| !text.is_empty()).chain(walk).collect();
        parts.join("; ")
    }
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer")
            .field("identity", &self.identity)
            .field("polls", &self.polls)
            .finish_non_exhaustive()
    }
}

struct Entries<'a>(&'a Table, &'a Shared);

/// A batch's records are bounded, so this is far beyond what one decompresses to.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Counters of one checkpoint record: about 200 kB compressed.
const CHECKPOINT_PART: usize = 4096;

impl Baselines for Entries<'_> {
    fn parts(&self) -> Box<dyn Iterator<Item = SavedPart> + '_> {
        let mut entries = self.0.iter().peekable();
        let open = self.1.lock().open();
        let facts = open.into_iter().map(|facts| SavedPart { counters: Vec::new(), facts });
        Box::new(
            std::iter::from_fn(move || {
                entries.peek()?;
                let counters =
                    entries.by_ref().take(CHECKPOINT_PART).map(|(key, entry)| SavedCounter::of(key, entry)).collect();
                Some(SavedPart { counters, facts: Vec::new() })
            })
            .chain(facts),
        )
    }
}

impl Committer {
    /// Goes on from what the spool holds.
    pub fn new(
        identity: Identity,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        spool: Arc<Mutex<Spool>>,
        recovered: &Recovered,
        facts: Facts,
        max_connections: usize,
    ) -> Self {
        let stream_began = {
            let spool = lock(&spool);
            let stream = spool.stream();
            (stream.boot_id == identity.boot_id).then_some(stream.began)
        };
        let mut committer = Self {
            identity,
            clock,
            metrics,
            spool,
            facts,
            told: 0,
            table: Table::new(max_connections),
            max_connections,
            position: Position::default(),
            polls: 0,
            run_since: 1,
            stream_began,
            losses: Losses::default(),
            rebooted: false,
        };
        committer.restore(recovered);
        committer
    }

    /// What to acknowledge to the tracer, if it is still the same boot's.
    pub fn acknowledged(&self) -> Acknowledged {
        Acknowledged {
            cursor: self.position.cursor,
            run: self.position.run,
            dns: self.position.dns_cursor,
            polled_unix: self.position.previous_at.map_or(0, |_at| self.position.previous_unix),
        }
    }

    /// Counters known.
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// Makes a successful poll durable. Answers the newest sequence.
    ///
    /// # Errors
    /// [`SpoolError`]; then nothing of the poll counts, and the next one begins where the last durable one ended.
    pub fn poll(&mut self, stage: &mut Stage, polled: &Polled) -> Result<u64, SpoolError> {
        let outcome = self.try_poll(stage, polled);
        self.settle(outcome)
    }

    /// Makes a page durable: the oldest of many closed rows (`more` in the reply), as part of the poll that its last reply
    /// ends. Until then nothing is covered, and what began since the last whole poll still counts from 0.
    ///
    /// # Errors
    /// [`SpoolError`]; then the tracer repeats the page.
    pub fn page(&mut self, stage: &mut Stage, observed: &Observed) -> Result<u64, SpoolError> {
        let outcome = self.try_page(stage, observed);
        self.settle(outcome)
    }

    /// Makes a failed poll durable: an empty batch that tells the gap and why.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn gap(&mut self, failure: &Failure) -> Result<u64, SpoolError> {
        let outcome = self.try_gap(failure);
        self.settle(outcome)
    }

    fn settle(&mut self, outcome: Result<u64, SpoolError>) -> Result<u64, SpoolError> {
        if let Err(error) = &outcome {
            self.losses.take_back();
            let reason = if error.is_full() { "disk_full" } else { "append_failed" };
            self.metrics.count(&self.metrics.spool_errors, reason, 1);
            let recovered = lock(&self.spool).reload();
            self.restore(&recovered?);
            if error.is_full()
                && lock(&self.spool).rescue(&Entries(&self.table, self.facts.shared()), &self.position)?
            {
                tracing::warn!("the disk is full; the spool made room by giving up what the server has acknowledged");
            }
        }
        let spool = lock(&self.spool);
        self.metrics.spool_bytes.set(spool.bytes() as i64);
        self.metrics.spool_waiting.set(spool.waiting() as i64);
        self.metrics.connections.set(self.table.len() as i64);
        outcome
    }

    fn restore(&mut self, recovered: &Recovered) {
        self.table = Table::new(self.max_connections);
        self.polls = 0;
        self.run_since = 1;
        self.position = recovered.position.clone();
        self.rebooted = false;
        if self.position.boot_id != self.identity.boot_id {
            self.rebooted = !self.position.boot_id.is_empty();
            // Another boot: cookies, maps and monotonic times began anew. Only wall time goes on.
            self.position = Position {
                boot_id: self.identity.boot_id.to_vec(),
                covered_to: self.position.covered_to,
                ..Position::default()
            };
            return;
        }
        let at = self.position.previous_at.unwrap_or(0);
        for part in recovered.parts() {
            for (key, entry) in part.counters.iter().filter_map(SavedCounter::counter) {
                self.table.restore(key, entry, at);
            }
        }
    }

    fn try_poll(&mut self, stage: &mut Stage, polled: &Polled) -> Result<u64, SpoolError> {
        self.losses.begin();
        self.make_room()?;
        stage.order();
        let envelope = &polled.observed.envelope;
        let poll = self.next_poll(&polled.observed);
        let Poll { run, same_run, previous, .. } = poll;
        self.polls = poll.number;
        self.run_since = poll.run_since;
        self.take_metadata(stage, polled);
        self.note_losses(polled, run, same_run);
        let to = self.clock.to_wall(weir_model::MonotonicNanos(poll.at)).0.max(self.position.covered_to);
        let span = Span { from: previous.map_or(0, |previous| previous.unix.min(to)), to };
        let covers_from = match (previous, same_run && run != 0 && polled.observed.is_gapless) {
            // The tracer's maps went on counting: nothing between the two successful polls is missing.
            (Some(previous), true) => previous.unix.min(to),
            _ => self.position.covered_to.min(to),
        };

        let (mut part, moved) = self.take_rows(stage, envelope, &poll, span, Some(&source(polled, run)))?;
        // All of them in the batch that moves their cursor: a row is durable with the word that it is, or not at all.
        let window = Window {
            clock: &*self.clock,
            processes: self.facts.processes(),
            stage,
            span,
            at: weir_model::MonotonicNanos(poll.at),
        };
        let dns_refused = window.add_dns(&mut part, &envelope.dns);
        self.lose(losses::ROWS_REFUSED, Lost::count(dns_refused));
        self.table.finish(&poll);
        let unseen = if polled.observed.kind == Kind::Weir && envelope.complete != Some(false) {
            self.table.ended_unseen(&poll)
        } else {
            0
        };
        self.lose(losses::CLOSED_UNSEEN, Lost::connections(unseen));
        let position = Position {
            boot_id: self.identity.boot_id.to_vec(),
            cursor: envelope.cursor,
            run,
            previous_at: Some(poll.at),
            previous_unix: to,
            previous_complete: envelope.complete.unwrap_or(true),
            covered_to: to,
            losses: if envelope.losses.is_empty() { BTreeMap::new() } else { envelope.losses.clone() },
            dns_cursor: envelope.dns_cursor,
            metadata_read: BTreeMap::new(),
        };
        let mut batch = self.batch((covers_from, to), poll.at, source(polled, run), part);
        batch.0.translations =
            stage.accepted.iter().chain(&envelope.translations).map(|told| translation(told, &*self.clock)).collect();
        batch.0.losses = self.losses.waiting();
        let sequence = self.append(batch, &moved, position)?;
        self.metrics.rows.inc_by(envelope.rows);
        self.metrics.feed_bytes.inc_by(envelope.bytes);
        self.metrics.count(&self.metrics.rows_refused, "not_a_connection", envelope.refused);
        self.metrics.count(&self.metrics.rows_refused, "not_a_dns_row", dns_refused);
        self.metrics.set_ready();
        Ok(sequence)
    }

    /// The processes of a poll, and what it shows that no source of metadata has told of.
    fn take_metadata(&mut self, stage: &Stage, polled: &Polled) {
        for health in &polled.troubles {
            self.facts.shared().lock().note(health.source, health.clone(), None);
        }
        let mut refused = 0;
        if let Some((processes, source)) = &polled.processes {
            refused = self.facts.observe(polled.observed.at, processes.clone(), source, &*self.clock);
            self.metrics.processes.set(self.facts.processes().living() as i64);
        }
        self.facts.look_for_unknown(stage.ends.iter().map(|end| Shown {
            container: &end.container_id,
            cgroup_path: &end.cgroup_path,
            netns: end.netns,
        }));
        let dropped = self.facts.shared().lock().take_dropped();
        self.lose(losses::METADATA_FULL, Lost::count(dropped + refused));
        // Facts are dropped once, whatever becomes of this poll.
        self.losses.begin();
    }

    /// The tracer pages only for a cursor of its own run, so nothing of a restart is to be told here.
    fn try_page(&mut self, stage: &mut Stage, observed: &Observed) -> Result<u64, SpoolError> {
        self.losses.begin();
        self.make_room()?;
        stage.order();
        let poll = self.next_poll(observed);
        let to = self.clock.to_wall(weir_model::MonotonicNanos(poll.at)).0.max(self.position.covered_to);
        let span = Span { from: poll.previous.map_or(0, |previous| previous.unix.min(to)), to };
        let (part, moved) = self.take_rows(stage, &observed.envelope, &poll, span, None)?;
        let mut batch = self.batch((to, to), poll.at, Source::default(), part);
        batch.0.source = None;
        batch.0.translations = stage.accepted.iter().map(|told| translation(told, &*self.clock)).collect();
        let position = Position { cursor: observed.envelope.cursor, ..self.position.clone() };
        let sequence = self.append(batch, &moved, position)?;
        self.metrics.rows.inc_by(observed.envelope.rows);
        self.metrics.feed_bytes.inc_by(observed.envelope.bytes);
        self.metrics.count(&self.metrics.rows_refused, "not_a_connection", observed.envelope.refused);
        Ok(sequence)
    }

    /// The poll that a reply belongs to: the one after the last whole reply.
    fn next_poll(&self, observed: &Observed) -> Poll {
        let run = observed.envelope.run_id.as_deref().and_then(parse_run).unwrap_or(0);
        let previous = self.position.previous_at.map(|at| Previous {
            at,
            unix: self.position.previous_unix,
            complete: self.position.previous_complete,
        });
        let same_run = previous.is_some() && self.position.run == run;
        let number = self.polls + 1;
        Poll {
            number,
            // Snapshots follow one another; what lies before the last one was asked for while the clock stood.
            at: observed.at.0.max(previous.map_or(0, |previous| previous.at)),
            run,
            run_since: if same_run { self.run_since } else { number },
            same_run,
            previous,
            stream_began: self.stream_began,
        }
    }

    /// Reads every row against the table, in batches as they fill; what is left is for the caller's last batch.
    fn take_rows(
        &mut self,
        stage: &Stage,
        envelope: &Envelope,
        poll: &Poll,
        span: Span,
        source: Option<&Source>,
    ) -> Result<(Part, Vec<Key>), SpoolError> {
        if poll.same_run && self.position.cursor.is_some() && envelope.cursor.is_some() {
            self.table.acknowledged();
        }
        self.table.expect(stage.len());
        let superseded = self.table.counts().superseded;
        let mut moved: Vec<Key> = Vec::new();
        let mut part = Part::default();
        for row in stage.closed.iter().chain(stage.open.iter()) {
            let key = stage.key(row);
            match self.table.apply(key, row, stage.carries_retransmits(row), poll) {
                Outcome::Unchanged => {}
                Outcome::Changed(change) => {
                    moved.push(key);
                    let window = Window {
                        clock: &*self.clock,
                        processes: self.facts.processes(),
                        stage,
                        span,
                        at: weir_model::MonotonicNanos(poll.at),
                    };
                    window.add(&mut part, key, row, &change);
                }
                Outcome::Repeated => self.metrics.count(&self.metrics.rows_refused, "repeated", 1),
                Outcome::Stale => self.metrics.count(&self.metrics.rows_refused, "stale", 1),
                Outcome::Full => self.losses.add(losses::CONNECTION_TABLE_FULL, Lost::connections(1)),
            }
            if part.is_full() {
                // Its span is empty and it tells no loss: the poll is covered once its last batch is there.
                let mut batch = self.batch((span.to, span.to), poll.at, Source::default(), std::mem::take(&mut part));
                batch.0.source = source.cloned();
                let position = self.position.clone();
                self.append(batch, &moved, position)?;
                moved.clear();
            }
        }
        let superseded = self.table.counts().superseded - superseded;
        self.lose(losses::LIVES_SUPERSEDED, Lost::connections(superseded));
        Ok((part, moved))
    }

    fn try_gap(&mut self, failure: &Failure) -> Result<u64, SpoolError> {
        self.losses.begin();
        self.make_room()?;
        self.note_reboot();
        let now = self.clock.monotonic();
        let to = self.clock.to_wall(now).0.max(self.position.covered_to);
        let source = Source {
            kind: "unknown".into(),
            state: failure.state.as_str().into(),
            detail: failure.detail.clone(),
            run_id: Bytes::copy_from_slice(&self.position.run.to_be_bytes()),
            ..Source::default()
        };
        let mut batch = self.batch((self.position.covered_to, to), now.0, source, Part::default());
        batch.0.covered = false;
        batch.0.gap_reason = failure.state.as_str().into();
        batch.0.losses = self.losses.waiting();
        let position = Position { covered_to: to, ..self.position.clone() };
        self.append(batch, &[], position)
    }

    /// Losses that the tracer told since the last durable batch, and a restart of its maps or of the node.
    fn note_losses(&mut self, polled: &Polled, run: u64, same_run: bool) {
        let envelope = &polled.observed.envelope;
        // A feed shows a row that it cannot tell again and again: it is missing from every poll.
        self.lose(losses::ROWS_REFUSED, Lost::count(envelope.refused));
        self.note_reboot();
        // What was lost before this stream's first poll is not this stream's.
        if self.position.previous_at.is_none() {
            return;
        }
        let before = |word: &String| if same_run { self.position.losses.get(word).copied().unwrap_or(0) } else { 0 };
        let since = envelope.losses.iter().map(|(word, count)| (word.as_str(), count.saturating_sub(before(word))));
        self.losses.add_tracer(&since.filter(|(_, count)| *count > 0).collect());
        for (reason, lost) in &polled.observed.lost {
            self.lose(reason, *lost);
        }
        if !same_run && (run != 0 || self.position.run != 0) {
            self.lose(losses::TRACER_RESTARTED, Lost::count(1));
        }
    }

    fn note_reboot(&mut self) {
        self.lose(losses::NODE_RESTARTED, Lost::count(u64::from(self.rebooted)));
    }

    fn lose(&mut self, reason: &'static Reason, lost: Lost) {
        if lost.count > 0 {
            self.losses.add(reason, lost);
        }
    }

    fn batch(&mut self, covers: (i64, i64), at: u64, source: Source, part: Part) -> (Batch, Summary) {
        let spool = lock(&self.spool);
        let (share, metadata_sources) = {
            let told = self.facts.shared().lock();
            (told.untold(), told.health())
        };
        self.told = share.mark;
        let summary = Summary {
            from_unix_ns: covers.0,
            to_unix_ns: covers.1,
            sent_bytes: part.sent_bytes,
            recv_bytes: part.recv_bytes,
            connections: part.connections,
            records: part.records.len() as u64,
        };
        let batch = Batch {
            format: BATCH_FORMAT,
            stream_id: Bytes::copy_from_slice(&spool.stream().id),
            sequence: spool.next_sequence(),
            node: self.identity.node.clone(),
            boot_id: Bytes::copy_from_slice(&self.identity.boot_id),
            agent_run: Bytes::copy_from_slice(&self.identity.agent_run),
            agent_version: VERSION.into(),
            covers_from_unix_ns: covers.0,
            covers_to_unix_ns: covers.1,
            covered: true,
            gap_reason: String::new(),
            source: Some(source),
            local_ends: part.local_ends,
            records: part.records,
            losses: Vec::new(),
            metadata: share.facts,
            metadata_sources,
            tombstone: None,
            monotonic_ns: at,
            translations: Vec::new(),
            dns: part.dns,
        };
        (batch, summary)
    }

    fn append(
        &mut self,
        (batch, summary): (Batch, Summary),
        moved: &[Key],
        mut position: Position,
    ) -> Result<u64, SpoolError> {
        position.metadata_read = self.facts.shared().lock().read_times();
        let counters = moved.iter().filter_map(|key| Some(SavedCounter::of(key, self.table.get(key)?))).collect();
        let bytes = batch.to_bytes().map_err(SpoolError::Compress)?;
        let tells = !batch.losses.is_empty();
        let records = batch.records.len() as u64;
        let facts = batch.metadata;
        let sequence = {
            let mut spool = lock(&self.spool);
            spool.append(bytes, &SavedPart { counters, facts }, position.clone(), summary)?
        };
        failpoint::reach("spool-appended");
        self.position = position;
        if tells {
            self.losses.told(&self.metrics);
        }
        self.rebooted = false;
        self.facts.shared().lock().durable(self.told);
        self.metrics.batches.inc();
        self.metrics.records.inc_by(records);
        let rolled = lock(&self.spool).roll_if_full(&Entries(&self.table, self.facts.shared()), &self.position);
        if let Err(error) = rolled {
            // The present segment grows on; the next append tries again.
            self.metrics.count(&self.metrics.spool_errors, "roll_failed", 1);
            tracing::warn!(%error, "failed to begin a new spool segment");
        }
        Ok(sequence)
    }

    /// Drops what is too old or too much, after its tombstone is durable.
    fn make_room(&mut self) -> Result<(), SpoolError> {
        let now = self.clock.wall().0;
        while let Some(due) = { lock(&self.spool).due_drop(now) } {
            let (losses, first_sequence) = self.losses_within(&due);
            let tombstone = Tombstone { first_sequence, ..due.tombstone };
            tracing::warn!(
                reason = due.reason.word,
                batches = due.now.count,
                last = tombstone.last_sequence,
                "the spool had to drop batches that the server has not acknowledged"
            );
            let (mut batch, _) =
                self.batch((self.position.covered_to, self.position.covered_to), 0, Source::default(), Part::default());
            batch.source = None;
            batch.metadata.clear();
            batch.covered = false;
            batch.gap_reason = due.reason.word.into();
            batch.losses = losses;
            batch.tombstone = Some(tombstone);
            let bytes = batch.to_bytes().map_err(SpoolError::Compress)?;
            lock(&self.spool).append_tombstone(bytes, self.position.clone(), &due)?;
            self.metrics.lose(due.reason.place, due.reason.word, due.now.count);
            self.metrics.batches.inc();
        }
        Ok(())
    }

    /// The drop itself, what the batches in it told as lost, earlier drops among it, since nobody else tells that any
    /// more; and the first sequence that all of that is about.
    fn losses_within(&self, due: &Drop) -> (Vec<Loss>, u64) {
        let Drop { tombstone, reason, mut now, earlier } = due.clone();
        let (mut within, mut first) = (Vec::new(), tombstone.first_sequence);
        let spool = lock(&self.spool);
        for sequence in tombstone.first_sequence..=tombstone.last_sequence {
            let bytes = spool.read(sequence).ok().flatten();
            let batch = bytes.and_then(|bytes| Batch::from_bytes(&bytes, BATCH_BYTES_MAX).ok());
            let summary = earlier.iter().find(|(of, _)| *of == sequence).map(|(_, summary)| summary);
            match (batch, summary) {
                (Some(batch), _) => {
                    Losses::merge(&mut within, &batch.losses);
                    first = batch.tombstone.map_or(first, |earlier| first.min(earlier.first_sequence));
                }
                // What cannot be read any more is part of the drop.
                (None, Some(summary)) => now.add(summary),
                (None, None) => {}
            }
        }
        let mut losses = vec![Loss {
            place: reason.place.into(),
            reason: reason.word.into(),
            count: now.count,
            bytes: now.bytes,
            connections: now.connections,
            intended: reason.intended,
        }];
        Losses::merge(&mut losses, &within);
        (losses, first)
    }
}

fn source(polled: &Polled, run: u64) -> Source {
    let envelope = &polled.observed.envelope;
    let detail = polled.missing();
    let state = if detail.is_empty() { SourceState::Ok } else { SourceState::Degraded };
    Source {
        kind: polled.observed.kind.as_str().into(),
        state: state.as_str().into(),
        detail,
        run_id: if run == 0 { Bytes::new() } else { Bytes::copy_from_slice(&run.to_be_bytes()) },
        version: polled.tracer_version.clone(),
        rows: envelope.rows,
        rows_refused: envelope.refused,
    }
}

fn translation(told: &Translated, clock: &dyn Clock) -> Translation {
    Translation {
        protocol: told.protocol as u32,
        original_source: Some(Address::of(told.original.local)),
        original_dest: Some(Address::of(told.original.remote)),
        translated_source: Some(Address::of(told.translated.local)),
        translated_dest: Some(Address::of(told.translated.remote)),
        seen_unix_ns: clock.to_wall(told.seen).0.min(clock.wall().0).max(1),
        began: told.began,
    }
}

/// The run in 16 hexadecimal digits.
fn parse_run(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// A panic while the lock is held ends the process (a task's panic is fatal), so a poisoned lock is never used on.
pub fn lock(spool: &Mutex<Spool>) -> MutexGuard<'_, Spool> {
    spool.lock().unwrap_or_else(PoisonError::into_inner)
}
