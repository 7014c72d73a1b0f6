//! The engine: one thread that owns the kernel's maps, the journal and the clients, so nothing of it is locked.
//!
//! ```text
//! tcp_closed ring, udp_gone ring ──drain──▶ journal ──┐
//! tcp_sockets walk, udp_flows ────────────────────────┼──▶ Snapshot ──▶ server (streams it)
//! requests ──Command (16)──▶ engine ──────────────────┘
//! ```
//! The ring is drained every 100 ms and around every walk. A walk comes first and the ring after it: a connection that
//! ends in between is then an ended row, and nothing falls through.

use crate::clients::{Answer, Clients, Fetch, Kept};
use crate::journal::{Ended, Journal, JournalError, Reader};
use crate::losses::{self, Loss};
use crate::places::{Place, Places};
use crate::probes::layout::Row;
use crate::probes::tcp::Tcp;
use crate::probes::udp::Udp;
use crate::probes::{Descriptors, ProbeReport, ProbeState};
use crate::rows::Last;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::oneshot;
use weir_daemon::clock::Clock;
use weir_wire::feed::{Probe, Status};
use zerocopy::FromBytes;

/// The ring holds 55,188 ended connections: ten drains a second carry 550,000 a second.
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

fn kernel(step: &'static str) -> impl FnOnce(std::io::Error) -> EngineError {
    move |source| EngineError::Kernel { step, source }
}

/// One living row, ready to be told.
#[derive(Debug)]
pub struct Open {
    /// The row.
    pub row: Row,
    /// Where its owner lives.
    pub place: Option<Arc<Place>>,
    /// What came since the client's last fetch.
    pub last: Last,
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
    /// What to acknowledge.
    pub cursor: Option<u64>,
    /// Whether no living connection can be missing.
    pub complete: bool,
    /// Every loss of this run.
    pub losses: BTreeMap<String, u64>,
}

/// One life of the kernel's maps.
#[derive(Clone, Debug)]
pub struct Run {
    /// Random.
    pub id: u64,
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
    /// The cgroup below which is traced, if not everywhere.
    pub scope: Option<String>,
}

/// The engine. See the module.
pub struct Engine<C> {
    run: Run,
    descriptors: Arc<Descriptors>,
    probes: Vec<ProbeReport>,
    tcp: Tcp,
    udp: Option<Udp>,
    journal: Journal,
    clients: Clients,
    places: Places,
    settings: Settings,
    clock: C,
    since_ns: u64,
    drained_ns: u64,
    backfilled_ns: u64,
    expired_ns: u64,
    journal_write_errors: u64,
}

impl<C: Clock> Engine<C> {
    /// Takes everything over. Nothing is read yet but the maps' memory.
    pub fn new(
        run: Run,
        descriptors: Arc<Descriptors>,
        probes: Vec<ProbeReport>,
        journal: Journal,
        places: Places,
        settings: Settings,
        clock: C,
    ) -> Result<Self, EngineError> {
        let tcp = Tcp::open(&descriptors).map_err(kernel("map the rings of probe tcp"))?;
        let udp = Udp::open(&descriptors).map_err(kernel("map the ring of probe udp"))?;
        let now = clock.monotonic().0;
        let mut engine = Self {
            run,
            descriptors,
            probes,
            tcp,
            udp,
            journal,
            clients: Clients::default(),
            places,
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
        Ok(engine)
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
        let of_udp = if self.udp.is_some() { Udp::backfill(&self.descriptors) } else { Ok(()) };
        if let Err(error) = self.tcp.backfill(&self.descriptors).and(of_udp) {
            tracing::warn!(%error, "failed to look up the owners of sockets");
            losses::add(&self.descriptors, Loss::BackfillsFailed, 1);
        }
    }

    fn drain_or_tell(&mut self) {
        if let Err(error) = self.drain() {
            self.journal_write_errors += 1;
            tracing::warn!(%error, "ended connections wait in the kernel");
        }
    }

    /// Moves what ended from the ring into the journal. On failure it stays in the ring.
    fn drain(&mut self) -> Result<(), EngineError> {
        let now = self.clock.monotonic().0;
        self.drained_ns = now;
        let mut to_the_end = false;
        for _ in 0..DRAIN_BATCHES {
            let mut rows = Vec::new();
            let position = self.tcp.closed().read(DRAIN_BYTES, |record| {
                if let Ok((row, _)) = Row::read_from_prefix(record) {
                    rows.push(row);
                }
            });
            if rows.is_empty() {
                self.tcp.closed().advance(position);
                to_the_end = true;
                break;
            }
            self.write(rows, now)?;
            self.tcp.closed().advance(position);
        }
        if let Some(mut udp) = self.udp.take() {
            let outcome = self.drain_udp(&mut udp, now);
            self.udp = Some(udp);
            outcome?;
        }
        if to_the_end {
            // What a killed tracer had written but not taken is dealt with.
            self.journal.forget_already();
        }
        Ok(())
    }

    fn drain_udp(&mut self, udp: &mut Udp, now: u64) -> Result<(), EngineError> {
        let endings = udp.endings(&self.descriptors, now).map_err(kernel("read the UDP flows that ended"))?;
        self.write(endings.rows.clone(), now)?;
        udp.take(&self.descriptors, &endings).map_err(kernel("take the UDP flows that ended"))
    }

    /// Ends flows without a datagram for long. They leave the kernel before they are written: a datagram in between
    /// begins a new flow, and what a kill in between would lose has been told as a living row.
    fn expire(&mut self, now: u64) -> Result<(), EngineError> {
        let Some(udp) = &mut self.udp else { return Ok(()) };
        let rows = udp
            .expire(&self.descriptors, now, self.settings.udp_idle)
            .map_err(kernel("take the UDP flows that are idle"))?;
        self.write(rows, now)
    }

    fn write(&mut self, rows: Vec<Row>, now: u64) -> Result<(), EngineError> {
        let ended: Vec<Ended> = rows
            .into_iter()
            .filter(|row| !self.journal.has(row))
            .map(|row| {
                let place = self.places.find(&row.origin, now);
                (row, place)
            })
            .collect();
        if ended.is_empty() {
            return Ok(());
        }
        let dropped = self.journal.append(&ended)?;
        losses::add(&self.descriptors, Loss::ClosedRowsDropped, dropped);
        Ok(())
    }

    fn snapshot(&mut self, fetch: Option<&Fetch>) -> Result<Snapshot, EngineError> {
        let now = self.clock.monotonic().0;
        self.drain()?;
        let walk = self.tcp.walk(&self.descriptors).map_err(|source| {
            losses::add(&self.descriptors, Loss::WalksFailed, 1);
            EngineError::Kernel { step: "walk the open connections", source }
        })?;
        // Flows only end in this thread, so their walk may come after.
        self.drain()?;
        let mut flows = match &mut self.udp {
            Some(udp) => udp.walk(&self.descriptors).map_err(kernel("read the UDP flows"))?,
            None => Vec::new(),
        };
        let mut rows = walk.rows;
        rows.append(&mut flows);
        let head = self.journal.head();
        let mut answer = fetch.map(|fetch| self.clients.begin(fetch, self.journal.floor(), head, now));
        let mut open = Vec::with_capacity(rows.len());
        for row in rows {
            let place = self.places.find(&row.origin, now);
            let last = answer.as_mut().map(|answer| answer.open(&row)).unwrap_or_default();
            open.push(Open { row, place, last });
        }
        let ended = match &mut answer {
            Some(answer) => Some(self.ended(answer)?),
            None => None,
        };
        if let Some(answer) = answer {
            losses::add(&self.descriptors, Loss::ClientBaselinesCapped, answer.capped);
            self.clients.finish(answer, head);
            losses::add(&self.descriptors, Loss::ClientsEvicted, self.clients.take_evicted());
            self.settle()?;
        }
        Ok(Snapshot {
            run_id: self.run_id(),
            boot_id: self.run.boot_id.clone(),
            monotonic_ns: now,
            open,
            ended,
            cursor: fetch.map(|_| head),
            complete: walk.complete,
            losses: self.losses()?,
        })
    }

    /// The ended rows of an answer, and what came on each since the last fetch where that is not nothing.
    fn ended(&self, answer: &mut Answer) -> Result<(Reader, BTreeMap<u64, Last>), EngineError> {
        let mut lasts = BTreeMap::new();
        let mut reader = self.journal.reader(answer.after);
        while let Some((sequence, row, _)) = reader.read().map_err(kernel("read the journal of ended connections"))? {
            let last = answer.ended(sequence, &row);
            if last != Last::default() {
                lasts.insert(sequence, last);
            }
        }
        Ok((self.journal.reader(answer.after), lasts))
    }

    /// Lets go what every client has. Half at least, so that the rest is not copied at every fetch.
    fn settle(&mut self) -> Result<(), EngineError> {
        if let Some(settled) = self.clients.settled()
            && settled.saturating_sub(self.journal.floor()) * 2 >= self.journal.len() as u64
        {
            self.journal.drop_until(settled)?;
        }
        self.keep_clients();
        Ok(())
    }

    fn keep_clients(&self) {
        let kept = (self.run_id(), self.clients.keep());
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
            .and_then(|bytes| serde_json::from_slice::<(String, Vec<Kept>)>(&bytes).ok());
        if let Some((run_id, kept)) = kept
            && run_id == self.run_id()
        {
            self.clients.restore(kept);
        }
    }

    fn run_id(&self) -> String {
        format!("{:016x}", self.run.id)
    }

    fn losses(&self) -> Result<BTreeMap<String, u64>, EngineError> {
        let mut all = BTreeMap::new();
        let of_tcp = self.tcp.losses(&self.descriptors).map_err(kernel("read what was lost"))?;
        all.extend(of_tcp.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)));
        if let Some(udp) = &self.udp {
            let of_udp = udp.losses(&self.descriptors).map_err(kernel("read what was lost"))?;
            all.extend(
                of_udp.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)),
            );
        }
        losses::read(&self.descriptors, &mut all).map_err(kernel("read what was lost"))?;
        Ok(all)
    }

    fn status(&mut self) -> Result<Status, EngineError> {
        self.clients.expire(self.clock.monotonic().0);
        let walk = self.tcp.walk(&self.descriptors).map_err(kernel("walk the open connections"))?;
        let counted = costs_are_counted();
        let probes: Vec<Probe> = self.probes.iter().map(|probe| self.probe(probe, counted)).collect();
        let degraded =
            self.probes.iter().any(|probe| !matches!(probe.state, ProbeState::Running | ProbeState::Disabled(_)));
        let gauges = [
            ("tcp_open_connections", walk.rows.len() as u64),
            ("tcp_closed_ring_waiting_bytes", self.tcp.closed().waiting_bytes()),
            ("journal_rows", self.journal.len() as u64),
            ("journal_rows_max", crate::journal::ROWS_MAX as u64),
            ("journal_bytes", self.journal.bytes()),
            ("journal_bytes_max", crate::journal::BYTES_MAX),
            ("journal_torn_tails", self.journal.torn_tails()),
            ("journal_write_errors", self.journal_write_errors),
            ("clients", self.clients.len() as u64),
            ("keeper_restarts", self.settings.keeper_restarts.load(Ordering::Relaxed)),
            ("clients_max", crate::clients::CLIENTS_MAX as u64),
        ];
        let mut gauges: BTreeMap<String, u64> =
            gauges.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if let Some(udp) = &self.udp {
            let of_udp = udp.gauges(&self.descriptors).map_err(kernel("read the numbers of probe udp"))?;
            gauges.extend(of_udp.map(|(name, value)| (name.to_owned(), value)));
        }
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run_id: self.run_id(),
            boot_id: self.run.boot_id.clone(),
            state: if degraded { "degraded" } else { "running" }.to_owned(),
            probes,
            losses: self.losses()?,
            gauges,
            since_monotonic_ns: self.since_ns,
            takeovers: self.run.takeovers,
            scope: self.settings.scope.clone(),
        })
    }

    fn probe(&self, report: &ProbeReport, counted: bool) -> Probe {
        let (state, reason) = match &report.state {
            ProbeState::Running => ("running", None),
            ProbeState::Partly(reason) => ("running", Some(reason)),
            ProbeState::Disabled(reason) => ("disabled", Some(reason)),
            ProbeState::Unsupported(reason) => ("unsupported", Some(reason)),
            ProbeState::Failed(reason) => ("failed", Some(reason)),
        };
        let mut probe =
            Probe { name: report.name.clone(), state: state.to_owned(), reason: reason.cloned(), ..Probe::default() };
        if counted && !report.links.is_empty() {
            let costs = report
                .links
                .iter()
                .filter_map(|name| self.descriptors.get(name))
                .filter_map(|link| crate::kernel::sys::program_cost(std::os::fd::AsFd::as_fd(link)).ok());
            let (runs, nanoseconds) = costs.fold((0, 0), |sum, cost| (sum.0 + cost.runs, sum.1 + cost.nanoseconds));
            (probe.runs, probe.nanoseconds) = (Some(runs), Some(nanoseconds));
        }
        probe
    }
}

/// A flow lives at most this much, or a quarter of its idle time, longer than it should.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);

/// One batch of the ring: an eighth of it, so that a drain's memory stays small.
const DRAIN_BYTES: usize = 1 << 20;
/// Twice what the ring holds: all that was there when a drain began, but no race with a producer that never rests.
const DRAIN_BATCHES: usize = 16;

/// Counting costs every program about 20 ns a run, so it is the machine's owner who switches it on.
fn costs_are_counted() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.trim() == "1")
}
