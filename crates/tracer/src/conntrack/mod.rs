//! Conntrack: how the node translates connections (Services, masquerading), asked of the kernel by ctnetlink in this
//! process' own network namespace, the node's.
//!
//! ```text
//! living rows, ended rows ──what can be translated, not asked yet──▶ GET by tuple, 32 a system call ──▶ Translation
//! NEW events (filtered in the kernel), dumps ──translated at both ends──▶ [`Forwarded`] ──▶ the feed's `translations`
//! ```
//! A connection is asked for once: while it lives at a walk, else at its end, when the entry still stands (`TIME_WAIT`
//! 120 s, `CLOSE` 10 s, UDP 30 s). Either end may ask: the entry is found by the opener's packets and by the answer's.
//! An entry that may be another connection's of the same tuple answers nothing ([`reuse`]): unknown is allowed, wrong is
//! not.

mod asker;
mod entry;
pub mod forwarded;
mod judge;
pub mod message;
pub mod reuse;

use crate::clients::Key;
use crate::probes::layout::{OTHER_PEER, Row, TCP};
use asker::Asker;
pub use entry::{Ends, Entry, Translation};
use forwarded::Forwarded;
use judge::{Destination, Life, SYN_SENT, Verdict, destination, ends, judge, leave_last_of_each_tuple};
use nix::libc;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_daemon::clock::Clock;
use weir_wire::feed::Probe;

/// The name under which `/status` tells of it.
pub const NAME: &str = "conntrack";

/// Entries asked for in one poll: 0.2 s of the engine's thread where the table is large. What is beyond waits for the
/// next poll.
const POLL_BUDGET: usize = 20_000;
/// Ended connections asked about in one drain, ten times a second: 35 ms of it. A second's stall at 5,000 connections a
/// second with both ends here.
const DRAIN_BUDGET: usize = 10_000;
/// Living connections that are remembered as asked: as many as a client's baselines.
const ASKED_MAX: usize = 131_072;
/// Destinations that are remembered as untranslated, and for how long: rules are per destination, and they change.
const PLAIN_MAX: usize = 16_384;
const PLAIN_NS: u64 = 2_000_000_000;
/// A living connection without an entry is asked for so often: the entry comes when its first packet has left.
const MISSING_MAX: u8 = 3;
/// An entry in `CLOSE` is gone after 10 s: one that is missing then may have been there.
const GONE_AFTER_NS: u64 = 9_000_000_000;

/// Whether it can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Switched off.
    Disabled,
    /// It can.
    Running,
    /// The kernel tracks nothing: nothing is translated by it.
    Unused,
    /// It should be possible: why not.
    Refused(String),
}

/// What was asked for and not learnt, since the last time this was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unresolved {
    /// Beyond the budget of a drain.
    pub over_budget: u64,
    /// The kernel answered with an error, or not at all.
    pub failed: u64,
    /// The entry may be that of a later connection with the same tuple.
    pub reused: u64,
    /// The entry may have been there, and is gone.
    pub late: u64,
    /// Forwarded translations that had to go before every client had them.
    pub forwarded_dropped: u64,
}

/// What is known of a living connection.
#[derive(Debug)]
struct Known {
    /// The last walk that had it.
    round: u64,
    asked_ns: u64,
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    Plain,
    Missing(u8),
    Translated(Arc<Translation>),
}

/// Conntrack. See the module.
pub struct Conntrack {
    state: State,
    clock: Arc<dyn Clock>,
    asker: Asker,
    count_file: PathBuf,
    own_netns: u32,
    asked: HashMap<Key, Known>,
    round: u64,
    plain: HashMap<Destination, u64>,
    forwarded: Forwarded,
    asks_max: usize,
    unresolved: Unresolved,
    waiting: u64,
}

/// Whether conntrack is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Where the kernel has it.
    On,
    /// Not at all.
    Off,
}

impl Conntrack {
    /// Opens what is there. A kernel that tracks nothing is looked at again at every use.
    pub fn new(switch: Switch, clock: Arc<dyn Clock>) -> Self {
        let own_netns = std::fs::metadata("/proc/self/ns/net").map_or(0, |metadata| metadata.ino() as u32);
        Self {
            state: if switch == Switch::On { State::Unused } else { State::Disabled },
            clock,
            asker: Asker::default(),
            count_file: "/proc/sys/net/netfilter/nf_conntrack_count".into(),
            own_netns,
            asked: HashMap::new(),
            round: 0,
            plain: HashMap::new(),
            forwarded: Forwarded::default(),
            asks_max: usize::MAX,
            unresolved: Unresolved::default(),
            waiting: 0,
        }
    }

    /// With at most so many entries asked for in one poll and in one drain, where that is less than the usual.
    #[must_use]
    pub fn with_asks_max(self, asks_max: usize) -> Self {
        Self { asks_max, ..self }
    }

    /// Whether it can be asked.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether it should run, and cannot.
    pub fn is_refused(&self) -> bool {
        matches!(self.state, State::Refused(_))
    }

    /// What was not learnt since the last call.
    pub fn take_unresolved(&mut self) -> Unresolved {
        self.unresolved.forwarded_dropped += self.forwarded.take_dropped();
        std::mem::take(&mut self.unresolved)
    }

    /// What connections that are translated at both ends are known.
    pub fn forwarded(&mut self) -> &mut Forwarded {
        &mut self.forwarded
    }

    /// Numbers for `/status`.
    pub fn gauges(&self) -> [(&'static str, u64); 6] {
        [
            ("conntrack_asked_connections", self.asked.len() as u64),
            ("conntrack_asked_connections_max", ASKED_MAX as u64),
            ("conntrack_waiting_connections", self.waiting),
            ("conntrack_translations", self.forwarded.len() as u64),
            ("conntrack_event_overflows", self.forwarded.overflows()),
            ("conntrack_dumps", self.forwarded.dumps()),
        ]
    }

    /// How it does, as `/status` tells it.
    pub fn probe(&self) -> Probe {
        let state = match &self.state {
            State::Disabled => "disabled",
            State::Running | State::Unused => "running",
            State::Refused(_) => "unsupported",
        };
        Probe {
            name: NAME.to_owned(),
            state: state.to_owned(),
            reason: self.reason(),
            runs: Some(self.asker.cost().runs),
            nanoseconds: Some(self.asker.cost().nanoseconds),
            ..Probe::default()
        }
    }

    fn reason(&self) -> Option<String> {
        match &self.state {
            State::Running => self.forwarded.reason(),
            State::Disabled => Some("--no-conntrack".to_owned()),
            State::Unused => Some("this kernel tracks no connections here".to_owned()),
            State::Refused(reason) => Some(reason.clone()),
        }
    }

    /// Takes the events that came. Called at every drain.
    pub fn listen(&mut self) {
        self.look();
        if self.state == State::Running {
            self.forwarded.listen(self.asker.buffer(), self.clock.monotonic().0);
            self.dump_if_due(forwarded::Occasion::Drain);
        }
    }

    /// Asks for the living connections of a walk that have not been asked for; then [`Conntrack::of`] knows them.
    pub fn ask_living(&mut self, rows: &[Row]) {
        self.round += 1;
        self.waiting = 0;
        let empty = self.look();
        if self.state == State::Running {
            self.dump_if_due(forwarded::Occasion::Poll);
        }
        if self.state != State::Running || empty {
            self.asked.clear();
            return;
        }
        let now = self.clock.monotonic().0;
        let mut wanted: Vec<&Row> = Vec::new();
        for row in rows {
            if let Some(known) = self.asked.get_mut(&Key::of(row)) {
                known.round = self.round;
                if !matches!(known.asked, Asked::Missing(tries) if tries < MISSING_MAX) {
                    continue;
                }
            }
            if !self.is_possible(row, now) {
                continue;
            }
            if wanted.len() < POLL_BUDGET.min(self.asks_max) && self.asked.len() + wanted.len() < ASKED_MAX {
                wanted.push(row);
            } else {
                self.waiting += 1;
            }
        }
        let answers = self.asker.ask(wanted.iter().copied(), &*self.clock);
        let asked_ns = self.clock.monotonic().0;
        for (row, answer) in wanted.into_iter().zip(answers) {
            let key = Key::of(row);
            let tries = match self.asked.get(&key) {
                Some(Known { asked: Asked::Missing(tries), .. }) => *tries,
                _ => 0,
            };
            let asked = match judge(row, Life::Open, &answer, self.clock.wall_offset()) {
                Verdict::Translated(translation) => Asked::Translated(Arc::new(translation)),
                Verdict::Plain => Asked::Plain,
                Verdict::Missing | Verdict::Other | Verdict::Failed => Asked::Missing(tries + 1),
            };
            if !matches!(asked, Asked::Translated(_)) {
                self.note_plain(row, Life::Open, now);
            }
            self.asked.insert(key, Known { round: self.round, asked_ns, asked });
        }
        let round = self.round;
        self.asked.retain(|_, known| known.round == round);
    }

    /// How a living connection is translated, as far as it was asked for.
    pub fn of(&self, row: &Row) -> Option<Arc<Translation>> {
        match self.asked.get(&Key::of(row)) {
            Some(Known { asked: Asked::Translated(translation), .. }) => Some(Arc::clone(translation)),
            _ => None,
        }
    }

    /// How connections that have just ended were translated. What is not known yet is asked for: such an answer has the
    /// time of the question, for a successor may disprove it.
    pub fn of_ended(&mut self, rows: &[Row]) -> Vec<Option<(Translation, Option<u64>)>> {
        let mut translations = vec![None; rows.len()];
        if self.state == State::Disabled || rows.is_empty() {
            return translations;
        }
        let empty = self.look();
        let now = self.clock.monotonic().0;
        let mut wanted = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            match self.asked.remove(&Key::of(row)) {
                Some(Known { asked_ns, asked: Asked::Translated(translation), .. }) => {
                    let late = (asked_ns >= row.at_ns).then_some(asked_ns);
                    translations[index] = Some((*translation, late));
                }
                Some(Known { asked: Asked::Plain, .. }) => {}
                Some(Known { asked: Asked::Missing(_), .. }) | None => {
                    if self.state == State::Running && !empty && self.is_possible(row, now) {
                        wanted.push(index);
                    }
                }
            }
        }
        let before = wanted.len();
        leave_last_of_each_tuple(&mut wanted, rows);
        self.unresolved.reused += (before - wanted.len()) as u64;
        let budget = DRAIN_BUDGET.min(self.asks_max);
        self.unresolved.over_budget += wanted.len().saturating_sub(budget) as u64;
        wanted.truncate(budget);
        let answers = self.asker.ask(wanted.iter().map(|&index| &rows[index]), &*self.clock);
        let asked_ns = self.clock.monotonic().0;
        for (index, answer) in wanted.into_iter().zip(answers) {
            let row = &rows[index];
            match judge(row, Life::Ended, &answer, self.clock.wall_offset()) {
                Verdict::Translated(translation) => translations[index] = Some((translation, Some(asked_ns))),
                Verdict::Missing if now.saturating_sub(row.at_ns) > GONE_AFTER_NS => self.unresolved.late += 1,
                Verdict::Plain | Verdict::Missing => self.note_plain(row, Life::Ended, now),
                Verdict::Failed => self.unresolved.failed += 1,
                Verdict::Other => self.unresolved.reused += 1,
            }
        }
        translations
    }

    /// Looks whether the kernel tracks connections here; answers whether its table is empty.
    fn look(&mut self) -> bool {
        if self.state == State::Disabled {
            return true;
        }
        let Some(count) = read_number(&self.count_file) else {
            self.state = State::Unused;
            self.asker.close();
            self.forwarded.stop();
            return true;
        };
        if !self.asker.is_open() {
            match self.begin() {
                Ok(()) => self.state = State::Running,
                Err(error) => {
                    let reason = refusal(&error);
                    if self.state != State::Refused(reason.clone()) {
                        tracing::warn!(%reason, "connections through Services are told without their backends");
                    }
                    self.state = State::Refused(reason);
                }
            }
        }
        count == 0
    }

    fn begin(&mut self) -> io::Result<()> {
        self.asker.open(&*self.clock)?;
        self.forwarded.begin();
        tracing::info!("conntrack tells how connections are translated");
        Ok(())
    }

    /// Whether this connection can be translated by the node.
    fn is_possible(&self, row: &Row, now: u64) -> bool {
        let Ends { source, dest } = ends(row);
        if row.flags & OTHER_PEER != 0 || source.ip().is_unspecified() || dest.ip().is_unspecified() {
            return false;
        }
        // What stays on another namespace's loopback never comes by.
        if (source.ip().is_loopback() || dest.ip().is_loopback()) && row.origin.netns != self.own_netns {
            return false;
        }
        destination(row).is_none_or(|destination| self.plain.get(&destination).is_none_or(|until| *until <= now))
    }

    /// Notes that connections to this row's destination are not translated, if it got so far that they would have been.
    fn note_plain(&mut self, row: &Row, life: Life, now: u64) {
        let opened = row.protocol != TCP || row.state != SYN_SENT;
        let Some(destination) = destination(row).filter(|_| opened && (life == Life::Open || row.error == 0)) else {
            return;
        };
        if self.plain.len() >= PLAIN_MAX {
            self.plain.retain(|_, until| *until > now);
            if self.plain.len() >= PLAIN_MAX {
                self.plain.clear();
            }
        }
        self.plain.insert(destination, now + PLAIN_NS);
    }

    fn dump_if_due(&mut self, occasion: forwarded::Occasion) {
        if !self.asker.dump_if_due(&mut self.forwarded, occasion, &*self.clock) {
            self.unresolved.failed += 1;
        }
    }
}

fn read_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn refusal(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "asking conntrack needs CAP_NET_ADMIN".to_owned(),
        _ => format!("conntrack cannot be asked: {error}"),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
