//! The applier: the one thread that merges durable batches into the state, gathers history rows, and has them written.
//!
//! ```text
//! Durable ─▶ convert ─▶ state + pending rows ─▶ every window or 100,000 rows: the flusher (see `flush`)
//!               └─▶ names (the live inventory) ◀─ facts that the server observes itself, which also go to the state
//! ```
//!
//! At start the same steps run over the log from the watermark on. A failing disk does not end the thread: it tries
//! again, the queue fills, the agents keep their batches.

use crate::counts::Counts;
use crate::flush::{Flush, Flusher};
use crate::ingest::convert::{Converted, convert};
use crate::ingest::frame;
use crate::ingest::writer::Durable;
use crate::live::Live;
use crate::names::Names;
use crate::tiers::Tiers;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use weir_daemon::clock::Clock;
use weir_daemon::failpoint;
use weir_model::fact::kind;
use weir_model::{Fact, NodeName, WINDOW};
use weir_store::embedded::Embedded;
use weir_store::embedded::log::{Entry, EntryKind, NewEntry};
use weir_store::shared::Joined;
use weir_store::{
    BATCHES_LOST, BatchReport, FactsMax, HistoryRow, HistoryStore as _, Loss, Lsn, Retention, StateChanges, StateStore,
    StoreError, StreamId,
};

/// A segment is written when so many rows wait: about 30 MB of memory, 1 MB of file. While one is written as many again
/// may come.
const PENDING_ROWS_MAX: usize = 100_000;
/// Batches merged in one step at most, so that a reader waits at most for that.
const GROUP_RECORDS: usize = 50_000;
/// How often the applier looks whether a flush or retention is due.
const TICK: Duration = Duration::from_millis(200);
/// How often it forgets what is past its time.
const RETAIN_EVERY_NS: u64 = 60_000_000_000;
/// How long it waits before it tries a failed step again.
const RETRY: Duration = Duration::from_secs(1);

/// Transactions leave two hours after their close (R9).
const CLOSED_NS: i64 = 2 * 3600 * 1_000_000_000;
/// Far behind anything that the log could still replay.
const JOIN_COVERAGE_NS: i64 = 3600 * 1_000_000_000;
/// About 80 MB of SQLite: a NodePort's masqueraded connections at 2 a second for a day.
const TRANSLATIONS_MAX: u64 = 200_000;
/// About 500 MB of SQLite.
const TRANSACTIONS_MAX: u64 = 1_000_000;
/// Ended facts name what the last day's connections refer to.
const FACTS_NS: i64 = 24 * 3600 * 1_000_000_000;
/// By kind, so that processes (a busy build machine starts 100,000 a day) take no place from pods: 150,000 pods with two
/// containers each, 200,000 endpoints, and as many again that ended within the day. About 500 bytes of SQLite each.
const FACTS_MAX: FactsMax = FactsMax {
    by_kind: &[
        (kind::NODE, 20_000),
        (kind::NAMESPACE, 20_000),
        (kind::POD, 300_000),
        (kind::CONTAINER, 600_000),
        (kind::PROCESS, 200_000),
        (kind::REPLICA_SET, 100_000),
        (kind::JOB, 100_000),
        (kind::SERVICE, 50_000),
        (kind::ENDPOINT, 400_000),
    ],
    others: 50_000,
};

/// About 150 MB of SQLite: half an hour of 50 clients that each ask for 50 names every 10 s; most ask far less.
const DNS_MAX: u64 = 500_000;
/// About 20 MB of SQLite, and 0.1 s of every answer that names ends.
const DNS_NAMES_MAX: u64 = 100_000;

/// What the applier takes.
#[derive(Debug)]
pub(crate) enum Input {
    /// A batch in the log.
    Batch(Box<Durable>),
    /// What the server itself observed, through a [`FactSink`](crate::facts::FactSink).
    Facts(Vec<Fact>),
}

/// The applier's state.
pub(crate) struct Applier {
    pub(crate) store: Arc<Embedded>,
    /// The folder, joined with what is shared.
    pub(crate) state: Joined,
    pub(crate) live: Arc<Live>,
    /// What is pending goes through it.
    pub(crate) flush: Flush,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) tiers: Tiers,
    /// The last sequence applied of each stream: a batch that came twice is applied once.
    pub(crate) applied: HashMap<StreamId, Applied>,
    pub(crate) names: Arc<Names>,
    /// When the oldest pending row came that is not being written, on the monotonic clock.
    pub(crate) pending_since: Option<u64>,
    pub(crate) retained_at: Option<u64>,
}

/// Where a stream stands.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    sequence: u64,
    node: NodeName,
    boot: [u8; 16],
    covered_to: weir_model::UnixNanos,
    /// When the stream began.
    since: weir_model::UnixNanos,
}

/// Everything that one merge changes.
#[derive(Default)]
struct Group {
    changes: StateChanges,
    rows: Vec<HistoryRow>,
    last: Lsn,
    batches: u64,
}

impl Applier {
    /// Merges a log entry at start, before the writer exists.
    ///
    /// # Errors
    /// When the state cannot be changed.
    pub(crate) fn replay(&mut self, entry: Entry) -> Result<(), StoreError> {
        let mut group = Group::default();
        let Entry { lsn, entry } = entry;
        self.add(&mut group, Durable { lsn, entry, batch: None, clock_offset_ns: None });
        match self.state.share(&group.changes) {
            Ok(()) => {}
            Err(lost @ StoreError::Lost { .. }) => return Err(lost),
            Err(error) => {
                // A state that is full may have room once what is past its time has left it. Otherwise the next start
                // tries again: a server that cannot merge what it acknowledged shall not look as if it could.
                tracing::warn!(%error, "failed to merge; trying again without what is past its time");
                self.retain_when_due()?;
                self.state.share(&group.changes)?;
            }
        }
        self.live.apply(&*self.store, &group.changes, &Arc::new(group.rows), group.last)?;
        self.pending_since = Some(0);
        // A log that grew while segments could not be written does not have to fit into memory.
        if self.live.pending_rows() >= PENDING_ROWS_MAX { self.flush.write() } else { Ok(()) }
    }

    /// Notes where a stream stands in the state, before the replay.
    pub(crate) fn recover(&mut self, stream: &weir_store::StreamSummary) {
        self.applied.insert(
            stream.stream,
            Applied {
                // The state may be ahead of history: what the log still has is applied to both again, once.
                sequence: 0,
                node: stream.node.clone(),
                boot: stream.boot,
                covered_to: stream.newest.to,
                since: stream.first_covered,
            },
        );
    }

    /// Runs until every sender of `inputs` is gone; then writes what is pending.
    ///
    /// # Errors
    /// [`StoreError::Lost`]: another server owns the shared state. What was not merged stays in the log.
    pub(crate) fn run(mut self, inputs: &Receiver<Input>, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let (mut flusher, work) = Flusher::new();
        let flush = self.flush.clone();
        std::thread::scope(|scope| {
            std::thread::Builder::new().name("flusher".into()).spawn_scoped(scope, move || work.run(&flush)).map_err(
                |source| StoreError::Io { action: "start the thread that writes", path: "segments".into(), source },
            )?;
            let outcome = self.run_with(&mut flusher, inputs, shutdown);
            // Its thread ends with it, and the scope with its thread.
            drop(flusher);
            outcome
        })
    }

    fn run_with(
        &mut self,
        flusher: &mut Flusher,
        inputs: &Receiver<Input>,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        loop {
            match inputs.recv_timeout(TICK) {
                Ok(first) => {
                    let mut group = Group::default();
                    self.take(&mut group, first);
                    while group.changes.transactions.len() + group.changes.facts.len() < GROUP_RECORDS
                        && let Ok(next) = inputs.try_recv()
                    {
                        self.take(&mut group, next);
                    }
                    if !self.merge(group, flusher, shutdown)? {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.flush_when_due(flusher)?;
            self.retain_when_due()?;
        }
        flusher.outcome(true)?;
        // What cannot be written is in the log.
        self.flush.write_and_tell();
        Ok(())
    }

    fn take(&mut self, group: &mut Group, input: Input) {
        match input {
            Input::Batch(durable) => self.add(group, *durable),
            Input::Facts(facts) => {
                self.counts.facts_observed.fetch_add(facts.len() as u64, Ordering::Relaxed);
                self.names.learn(&facts);
                group.changes.facts.extend(facts);
            }
        }
    }

    fn add(&mut self, group: &mut Group, durable: Durable) {
        let Durable { lsn, entry, batch, clock_offset_ns } = durable;
        group.last = group.last.max(lsn);
        let known = self.applied.get(&entry.stream);
        if known.is_some_and(|known| known.sequence >= entry.sequence) {
            self.counts.duplicates.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let converted = match entry.kind {
            EntryKind::Gap => known.map(|known| told_gap(known, &entry)),
            EntryKind::Batch => {
                let batch = match batch {
                    Some(batch) => Ok(batch),
                    None => frame::decode(entry.encoding, &entry.payload),
                };
                match batch {
                    Ok(batch) => Some(convert(entry.stream, &batch, entry.received, clock_offset_ns, &self.names)),
                    // It was decoded before it was appended; a newer build's batch can come here after a downgrade.
                    Err(error) => {
                        tracing::error!(%error, position = lsn.0, "skipped a batch of the log");
                        self.counts.corrupt_frames.fetch_add(1, Ordering::Relaxed);
                        None
                    }
                }
            }
        };
        let Some(Converted { transactions, facts, translations, report, rows, records_refused, rows_late, dns }) =
            converted
        else {
            return;
        };
        let began = report.coverage.as_ref().map_or(entry.received, |coverage| coverage.from);
        let since = self.applied.get(&entry.stream).map_or(began, |known| known.since);
        self.names.vouch(&report.node, since, &report.metadata);
        self.applied.insert(
            entry.stream,
            Applied {
                sequence: entry.sequence,
                node: report.node.clone(),
                boot: report.boot,
                covered_to: report.coverage.as_ref().map_or(entry.received, |coverage| coverage.to),
                since,
            },
        );
        self.counts.records_refused.fetch_add(records_refused, Ordering::Relaxed);
        self.counts.rows_late.fetch_add(rows_late, Ordering::Relaxed);
        group.batches += 1;
        group.changes.transactions.extend(transactions);
        group.changes.facts.extend(facts);
        group.changes.translations.extend(translations);
        group.changes.reports.push(report);
        group.changes.dns.extend(dns);
        group.rows.extend(rows);
    }

    /// False: shut down before it could be merged. The log has it.
    fn merge(&mut self, group: Group, flusher: &mut Flusher, shutdown: &CancellationToken) -> Result<bool, StoreError> {
        let batches = group.batches;
        let rows = Arc::new(group.rows);
        loop {
            // As of before anybody can see them.
            let now = self.clock.monotonic().0;
            // Shared first, and without the lock that readers wait for.
            let shared = self.state.share(&group.changes);
            match shared.and_then(|()| self.live.apply(&*self.store, &group.changes, &rows, group.last)) {
                Ok(()) => {
                    self.pending_since.get_or_insert(now);
                    break;
                }
                Err(lost @ StoreError::Lost { .. }) => return Err(lost),
                Err(error) => {
                    tracing::error!(%error, "failed to merge; trying again");
                    self.counts.apply_failures.fetch_add(1, Ordering::Relaxed);
                    if shutdown.is_cancelled() {
                        return Ok(false);
                    }
                    // What waits behind this one goes on: above all, a state that is full takes nothing until something
                    // has left it.
                    self.flush_when_due(flusher)?;
                    self.retain_when_due()?;
                    std::thread::park_timeout(RETRY);
                }
            }
        }
        failpoint::reach("batch-applied");
        self.counts.batches_applied.fetch_add(batches, Ordering::Relaxed);
        Ok(true)
    }

    fn flush_when_due(&mut self, flusher: &mut Flusher) -> Result<(), StoreError> {
        let rows = self.live.pending_rows();
        let outcome = flusher.outcome(rows >= 2 * PENDING_ROWS_MAX)?;
        let now = self.clock.monotonic().0;
        if outcome == Some(false) {
            // The rows stay pending, and a window passes before the next try, unless a whole segment of them waits.
            self.pending_since = Some(now);
            return Ok(());
        }
        let Some(since) = self.pending_since.filter(|_| !flusher.is_writing()) else { return Ok(()) };
        if now.saturating_sub(since) >= WINDOW as u64 || rows >= PENDING_ROWS_MAX {
            self.pending_since = None;
            flusher.start()?;
        }
        Ok(())
    }

    fn retain_when_due(&mut self) -> Result<(), StoreError> {
        let now = self.clock.monotonic().0;
        if self.retained_at.is_some_and(|at| now.saturating_sub(at) < RETAIN_EVERY_NS) {
            return Ok(());
        }
        self.retained_at = Some(now);
        let history_ns = self.tiers.retain_ns();
        let retention = Retention {
            now: self.clock.wall(),
            closed_ns: CLOSED_NS,
            transactions_max: TRANSACTIONS_MAX,
            facts_ns: FACTS_NS,
            facts_max: FACTS_MAX,
            translations_ns: history_ns,
            translations_max: TRANSLATIONS_MAX,
            reports_ns: history_ns,
            join_coverage_ns: JOIN_COVERAGE_NS,
            dns_max: DNS_MAX,
            dns_names_max: DNS_NAMES_MAX,
        };
        match self.state.retain(&retention) {
            Ok(removed)
                if removed.transactions_evicted
                    + removed.facts_evicted
                    + removed.translations_evicted
                    + removed.dns_evicted
                    > 0 =>
            {
                tracing::warn!(?removed, "evicted rows beyond the caps");
            }
            Ok(_) => {}
            Err(lost @ StoreError::Lost { .. }) => return Err(lost),
            Err(error) => tracing::error!(%error, "failed to forget old state"),
        }
        self.names.expire(self.clock.wall().plus(-FACTS_NS));
        if self.names.read().is_full() {
            self.learn_names_anew();
        }
        match self.store.retain_history(&self.tiers.limits(self.clock.wall())) {
            Ok(removed) => {
                if removed.rows_evicted > 0 {
                    tracing::warn!(?removed, "deleted the oldest history beyond a tier's bytes");
                }
                let rows = removed.rows_expired + removed.rows_evicted;
                self.counts.segments_forgotten.fetch_add(removed.segments, Ordering::Relaxed);
                self.counts.history_rows_forgotten.fetch_add(rows, Ordering::Relaxed);
            }
            Err(error) => tracing::error!(%error, "failed to forget old segments"),
        }
        Ok(())
    }
}

impl Applier {
    /// What has ended long ago is no longer in the state: the names that are left fit again.
    fn learn_names_anew(&self) {
        if let Err(error) = self.store.view().and_then(|view| self.names.fill(&*view)) {
            tracing::error!(%error, "failed to read the names anew");
        }
    }
}

/// The report of sequences that the agent no longer had when it came back. Its tombstone, which comes later, replaces
/// the loss.
fn told_gap(known: &Applied, entry: &NewEntry) -> Converted {
    let NewEntry { stream, sequence: last_sequence, received, ref payload, .. } = *entry;
    let first_sequence = payload.as_ref().try_into().map_or(last_sequence, u64::from_le_bytes);
    let count = 1 + last_sequence.saturating_sub(first_sequence);
    let loss = Loss {
        node: known.node.0.clone(),
        from: known.covered_to,
        to: received,
        place: "agent".into(),
        reason: BATCHES_LOST.into(),
        count,
        ..Loss::default()
    };
    let report = BatchReport {
        stream,
        sequence: last_sequence,
        dropped: None,
        node: known.node.clone(),
        boot: known.boot,
        agent_run: [0; 16],
        version: String::new(),
        received,
        clock_offset_ns: None,
        // What they covered is not known: the time that no other batch covers says it.
        coverage: None,
        source: None,
        metadata: Vec::new(),
        losses: vec![loss],
        counts: [("batches_skipped".to_owned(), count)].into(),
    };
    Converted {
        transactions: Vec::new(),
        facts: Vec::new(),
        translations: Vec::new(),
        report,
        rows: Vec::new(),
        records_refused: 0,
        rows_late: 0,
        dns: Vec::new(),
    }
}
