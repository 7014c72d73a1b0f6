//! The engine: one thread that owns the source, the journal and the clients, so nothing of it is locked.
//!
//! ```text
//! source ──drain──▶ journal ─────────┐
//! source ──walk──────────────────────┼──▶ Snapshot ──▶ server (streams it)
//! conntrack ──translations───────────┤
//! source ──DNS──▶ dns ───────────────┤
//! requests ──Command (16)──▶ engine ─┘
//! ```
//! The source is drained every 100 ms and around every walk, so that nothing falls through between the living and the
//! ended.

use crate::clients::{Answer, Clients, Fetch, Kept, Page, Stock};
use crate::conntrack::Translation;
use crate::conntrack::forwarded::Seen;
use crate::dns::Dns;
use crate::dns::queue::Told;
use crate::journal::{JournalError, Reader, Record};
use crate::ledger::Ledger;
use crate::losses::Loss;
use crate::places::Place;
use crate::probes::layout::Row;
use crate::rows::Last;
use crate::source::{Drained, Source, Walk, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::oneshot;
use weir_daemon::capabilities::{self, Capability, Held};
use weir_daemon::clock::Clock;
use weir_wire::feed::{Blind, Degraded, Status};

/// The ring holds 49,932 ended connections: ten drains a second carry 499,000 a second.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);
/// Connections are served one by one, and the server lets this many wait.
pub const COMMANDS: usize = 16;

/// What is asked of the engine.
#[derive(Debug)]
pub enum Command {
    /// `GET /connections`.
    Snapshot {
        /// Who asks, if it says so.
        fetch: Option<Fetch>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Snapshot, EngineError>>,
    },
    /// `GET /status`.
    Status {
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Status, EngineError>>,
    },
}

/// Why the engine could not answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel.
    #[error("failed to {step}: {source}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A failure of the kernel while doing `step`.
pub(crate) fn kernel(step: &'static str) -> impl FnOnce(std::io::Error) -> EngineError {
    move |source| EngineError::Kernel { step, source }
}

/// One living row, ready to be told.
#[derive(Debug)]
pub struct Open {
    /// The row.
    pub row: Row,
    /// Where its owner lives.
    pub place: Option<Arc<Place>>,
    /// How its connection is translated.
    pub translation: Option<Arc<Translation>>,
    /// What came since the client's last fetch, if anything did.
    pub last: Option<Box<Last>>,
}

/// An answer to `GET /connections`.
#[derive(Debug)]
pub struct Snapshot {
    /// This run.
    pub run_id: String,
    /// This boot.
    pub boot_id: String,
    /// When the snapshot began.
    pub monotonic_ns: u64,
    /// The living.
    pub open: Vec<Open>,
    /// The ended, with what came since the last fetch, by sequence.
    pub ended: Option<(Reader, BTreeMap<u64, Last>)>,
    /// The ended, by sequence, whose translation is not to be told.
    pub withdrawn: BTreeSet<u64>,
    /// Connections that are translated at both ends.
    pub translations: Vec<Seen>,
    /// What to acknowledge.
    pub cursor: Option<u64>,
    /// Whether no living connection can be missing.
    pub complete: bool,
    /// A page: the last ended row of it. Nothing lives in it.
    pub until: Option<u64>,
    /// Every loss of this run.
    pub losses: BTreeMap<String, u64>,
    /// What is not eBPF.
    pub degraded: Option<Degraded>,
    /// What was asked of DNS servers; `None` where that is not watched.
    pub dns: Option<Told>,
}

/// One life of the kernel's maps.
#[derive(Clone, Debug)]
pub struct Run {
    /// Random.
    pub id: u64,
    /// Whose the journal and the clients' cursors are: this run's, or, where a run ends with its process, this boot's.
    pub journal: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// How often a tracer took it over.
    pub takeovers: u64,
}

/// How the engine is set up.
#[derive(Debug)]
pub struct Settings {
    /// How often owners are looked up anew.
    pub backfill_interval: Duration,
    /// How long an UDP flow lives without a datagram.
    pub udp_idle: Duration,
    /// The file with the clients that acknowledge.
    pub clients_file: PathBuf,
    /// How often the keeper had to be started again.
    pub keeper_restarts: Arc<AtomicU64>,
    /// Baselines of all clients together.
    pub client_baselines_max: usize,
    /// The cgroup below which is traced, if not everywhere.
    pub scope: Option<String>,
}

/// The engine. See the module.
pub struct Engine<C> {
    run: Run,
    source: Box<dyn Source>,
    ledger: Ledger,
    /// `None`: not watched.
    dns: Option<Dns>,
    clients: Clients,
    settings: Settings,
    clock: C,
    since_ns: u64,
    drained_ns: u64,
    backfilled_ns: u64,
    expired_ns: u64,
    journal_write_errors: u64,
}

impl<C: Clock> Engine<C> {
    /// Takes everything over.
    pub fn new(run: Run, source: Box<dyn Source>, ledger: Ledger, settings: Settings, clock: C) -> Self {
        let now = clock.monotonic().0;
        // Microseconds since boot, as the journal's first sequence.
        let dns = source.watches_dns().then(|| Dns::new(now / 1_000 + 1));
        let mut engine = Self {
            run,
            source,
            ledger,
            clients: Clients::new(settings.client_baselines_max),
            dns,
            settings,
            clock,
            since_ns: now,
            drained_ns: now,
            backfilled_ns: now,
            expired_ns: now,
            journal_write_errors: 0,
        };
        engine.restore_clients();
        engine.backfill();
        engine
    }

    /// Works until the senders of commands are gone.
    pub fn run(mut self, commands: &Receiver<Command>) {
        loop {
            match commands.recv_timeout(DRAIN_INTERVAL) {
                Ok(Command::Snapshot { fetch, reply }) => {
                    // A client that went away while it waited has consumed nothing.
                    if !reply.is_closed() {
                        let _ = reply.send(self.snapshot(fetch.as_ref()));
                    }
                }
                Ok(Command::Status { reply }) => {
                    let _ = reply.send(self.status());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.work();
        }
        // What ended until the very end is in the journal for a tracer that takes the run over.
        self.drain_or_tell();
        self.keep_clients();
    }

    fn work(&mut self) {
        let now = self.clock.monotonic().0;
        if now.saturating_sub(self.drained_ns) >= DRAIN_INTERVAL.as_nanos() as u64 {
            self.drain_or_tell();
        }
        if now.saturating_sub(self.backfilled_ns) >= self.settings.backfill_interval.as_nanos() as u64 {
            self.backfill();
        }
        if now.saturating_sub(self.expired_ns) >= EXPIRY_INTERVAL.min(self.settings.udp_idle / 4).as_nanos() as u64 {
            self.expired_ns = now;
            if let Err(error) = self.expire(now) {
                tracing::warn!(%error, "failed to end idle UDP flows");
            }
        }
    }

    fn backfill(&mut self) {
        self.backfilled_ns = self.clock.monotonic().0;
        if let Err(error) = self.source.backfill() {
            tracing::warn!(%error, "failed to look up the owners of sockets");
            self.source.count(Loss::BackfillsFailed, 1);
        }
    }

    fn drain_or_tell(&mut self) {
        if let Err(error) = self.drain() {
            self.journal_write_errors += 1;
            tracing::warn!(%error, "ended connections wait in the kernel");
        }
    }

    /// Moves what ended from the source into the journal. On failure it stays in the source.
    fn drain(&mut self) -> Result<(), EngineError> {
        let now = self.clock.monotonic().0;
        self.drained_ns = now;
        self.ledger.places.learn();
        let drained = self.through(now, |source, write| source.drain(now, write))?;
        if drained == Drained::Wholly {
            // What a killed tracer had written but not taken is dealt with.
            self.ledger.journal.forget_already();
        }
        self.ledger.conntrack.listen();
        self.drain_dns(now)
    }

    fn drain_dns(&mut self, now: u64) -> Result<(), EngineError> {
        let Some(dns) = &mut self.dns else { return Ok(()) };
        let places = &mut self.ledger.places;
        self.source.read_dns(&mut |head, bytes| dns.take(head, bytes, |origin| places.find(origin, now)));
        for (loss, count) in dns.expire(now) {
            self.source.count(loss, count);
        }
        self.source.taken_dns(dns.held()).map_err(kernel("take the DNS messages"))
    }

    /// Gives the source the way into the journal, and counts what the journal had to let go for it.
    fn through<T>(
        &mut self,
        now_ns: u64,
        each: impl FnOnce(&mut dyn Source, Write<'_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.ledger.now_ns = now_ns;
        self.ledger.settled = self.clients.settled().unwrap_or(0);
        let outcome = each(&mut *self.source, &mut |rows| self.ledger.write(rows));
        self.count_losses();
        outcome
    }

    fn count_losses(&mut self) {
        for (loss, count) in self.ledger.take_losses() {
            self.source.count(loss, count);
        }
    }

    fn expire(&mut self, now: u64) -> Result<(), EngineError> {
        let idle = self.settings.udp_idle;
        self.through(now, |source, write| source.expire(now, idle, write))
    }

    fn snapshot(&mut self, fetch: Option<&Fetch>) -> Result<Snapshot, EngineError> {
        let now = self.clock.monotonic().0;
        self.drain()?;
        if let Some(page) = self.page(fetch, now)? {
            return Ok(page);
        }
        let Walk { mut rows, complete } = self.through(now, |source, write| source.walk(now, write))?;
        let journal = &self.ledger.journal;
        let head = journal.head();
        let stock = self.stock();
        let mut answer = fetch.map(|fetch| self.clients.begin(fetch, stock, now));
        self.ledger.look_at(&rows);
        self.ledger.conntrack.ask_living(&rows);
        let mut open = Vec::with_capacity(rows.len());
        while let Some(row) = take_last(&mut rows) {
            let place = self.ledger.places.find(&row.origin, now);
            let last = answer.as_mut().map(|answer| answer.open(&row)).unwrap_or_default();
            let last = (last != Last::default()).then(|| Box::new(last));
            let translation = self.ledger.conntrack.of(&row);
            open.push(Open { row, place, translation, last });
        }
        let translations = self.translations(answer.as_ref());
        let ended = match &mut answer {
            Some(answer) => Some(self.ended(answer)?),
            None => None,
        };
        if let Some(answer) = answer {
            self.source.count(Loss::ClientBaselinesCapped, answer.capped);
            self.source.count(Loss::ClosedRowsLetGo, answer.let_go);
            self.clients.finish(answer, head, self.ledger.conntrack.forwarded().head());
            let evicted = self.clients.take_evicted();
            self.source.count(Loss::ClientsEvicted, evicted);
            self.settle()?;
        }
        self.count_losses();
        let dns = self.dns.as_mut().map(|dns| dns.fetch(fetch, now));
        Ok(Snapshot {
            run_id: self.run_id(),
            boot_id: self.run.boot_id.clone(),
            monotonic_ns: now,
            open,
            ended,
            withdrawn: self.ledger.answered.withdrawn(),
            translations,
            cursor: fetch.map(|_| head),
            complete,
            until: None,
            losses: self.source.losses()?,
            degraded: self.source.degraded(),
            dns,
        })
    }

    fn stock(&self) -> Stock {
        let journal = &self.ledger.journal;
        Stock { run: self.run.id, floor: journal.floor(), head: journal.head(), forced: journal.forced() }
    }

    /// The oldest ended rows alone, where more wait than one reply is to hold: a reader that was away, or a node where
    /// 20,000 connections end a second, gets them in replies of a bounded size. Nothing is walked for it.
    fn page(&mut self, fetch: Option<&Fetch>, now: u64) -> Result<Option<Snapshot>, EngineError> {
        let stock = self.stock();
        let Some(page) = fetch.and_then(|fetch| self.clients.page(fetch, stock, now)) else {
            return Ok(None);
        };
        let Page { after, until, let_go } = page;
        self.source.count(Loss::ClosedRowsLetGo, let_go);
        self.settle()?;
        Ok(Some(Snapshot {
            run_id: self.run_id(),
            boot_id: self.run.boot_id.clone(),
            monotonic_ns: now,
            open: Vec::new(),
            ended: Some((self.ledger.journal.reader(after), BTreeMap::new())),
            withdrawn: self.ledger.answered.withdrawn(),
            translations: Vec::new(),
            cursor: Some(until),
            complete: true,
            until: Some(until),
            losses: self.source.losses()?,
            degraded: self.source.degraded(),
            dns: None,
        }))
    }

    /// The translations of an answer; all that wait for somebody who only looks.
    fn translations(&mut self, answer: Option<&Answer>) -> Vec<Seen> {
        let forwarded = self.ledger.conntrack.forwarded();
        if answer.is_some_and(|answer| answer.is_new) {
            forwarded.tell_again();
        }
        forwarded.after(answer.map_or(0, |answer| answer.translations_after))
    }

    /// The ended rows of an answer, and what came on each since the last fetch where that is not nothing.
    fn ended(&self, answer: &mut Answer) -> Result<(Reader, BTreeMap<u64, Last>), EngineError> {
        let mut lasts = BTreeMap::new();
        let mut reader = self.ledger.journal.reader(answer.after);
        while let Some(record) = reader.read().map_err(kernel("read the journal of ended connections"))? {
            let Record { sequence, row, .. } = record;
            let last = answer.ended(sequence, &row);
            if last != Last::default() {
                lasts.insert(sequence, last);
            }
        }
        Ok((self.ledger.journal.reader(answer.after), lasts))
    }

    /// Lets go what every client has. Half at least, so that the rest is not copied at every fetch.
    fn settle(&mut self) -> Result<(), EngineError> {
        if let Some(settled) = self.clients.settled()
            && settled.saturating_sub(self.ledger.journal.floor()) * 2 >= self.ledger.journal.len() as u64
        {
            self.ledger.journal.drop_until(settled)?;
        }
        if let Some(settled) = self.clients.translations_settled() {
            self.ledger.conntrack.forwarded().settle(settled);
        }
        self.keep_clients();
        Ok(())
    }

    fn keep_clients(&self) {
        let kept = (format!("{:016x}", self.run.journal), self.clients.keep(), self.ledger.journal.forced());
        let next = self.settings.clients_file.with_extension("next");
        let outcome = serde_json::to_vec(&kept)
            .map_err(std::io::Error::from)
            .and_then(|bytes| std::fs::write(&next, bytes))
            .and_then(|()| std::fs::rename(&next, &self.settings.clients_file));
        if let Err(error) = outcome {
            tracing::warn!(%error, file = %self.settings.clients_file.display(), "failed to keep the clients' cursors");
        }
    }

    fn restore_clients(&mut self) {
        let kept = std::fs::read(&self.settings.clients_file)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<(String, Vec<Kept>, u64)>(&bytes).ok());
        if let Some((run_id, kept, forced)) = kept
            && run_id == format!("{:016x}", self.run.journal)
        {
            self.clients.restore(kept);
            self.ledger.journal.set_forced(forced);
        }
    }

    fn run_id(&self) -> String {
        format!("{:016x}", self.run.id)
    }

    fn status(&mut self) -> Result<Status, EngineError> {
        self.clients.expire(self.clock.monotonic().0);
        let mut probes = self.source.probes();
        probes.push(self.ledger.conntrack.probe());
        let degraded = self.source.degraded();
        let journal = &self.ledger.journal;
        let gauges = [
            ("journal_rows", journal.len() as u64),
            ("journal_rows_max", journal.rows_max() as u64),
            ("journal_bytes", journal.bytes()),
            ("journal_bytes_max", crate::journal::BYTES_MAX),
            ("journal_torn_tails", journal.torn_tails()),
            ("journal_write_errors", self.journal_write_errors),
            ("clients", self.clients.len() as u64),
            ("keeper_restarts", self.settings.keeper_restarts.load(Ordering::Relaxed)),
            ("clients_max", crate::clients::CLIENTS_MAX as u64),
        ];
        let mut gauges: BTreeMap<String, u64> =
            gauges.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        gauges.append(&mut self.source.gauges()?);
        gauges.extend(self.ledger.conntrack.gauges().map(|(name, value)| (name.to_owned(), value)));
        let of_dns = self.dns.as_ref().map(Dns::gauges).into_iter().flatten();
        gauges.extend(of_dns.map(|(name, value)| (name.to_owned(), value)));
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run_id: self.run_id(),
            boot_id: self.run.boot_id.clone(),
            state: if self.source.is_degraded() || self.ledger.conntrack.is_refused() { "degraded" } else { "running" }
                .to_owned(),
            mode: degraded.as_ref().map_or("ebpf", |degraded| degraded.mode.as_str()).to_owned(),
            lacks: lacks(degraded.is_some()),
            degraded,
            probes,
            losses: self.source.losses()?,
            gauges,
            since_monotonic_ns: self.since_ns,
            takeovers: self.run.takeovers,
            scope: self.settings.scope.clone(),
            probe_costs_refused: self.source.costs_refused(),
        })
    }
}

/// The capabilities that this process does not have.
fn lacks(fallback: bool) -> Vec<Blind> {
    let lost = |capability: Capability| if fallback { capability.fallback } else { capability.ebpf };
    Held::effective()
        .missing(&capabilities::ALL)
        .into_iter()
        .map(|capability| Blind { what: capability.name.to_owned(), why: lost(capability).to_owned() })
        .collect()
}

/// Takes from the end, and gives the memory back as it gets empty: at 200,000 connections the rows are 30 MB, and they
/// are never held twice.
pub(crate) fn take_last<T>(rows: &mut Vec<T>) -> Option<T> {
    const GIVEN_BACK_AT_ONCE: usize = 8_192;
    let row = rows.pop();
    if rows.len().is_multiple_of(GIVEN_BACK_AT_ONCE) {
        rows.shrink_to_fit();
    }
    row
}

/// A flow lives at most this much, or a quarter of its idle time, longer than it should.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);
