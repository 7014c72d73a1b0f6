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

pub mod forwarded;
pub mod message;
pub mod reuse;

use crate::clients::Key;
use crate::kernel::netlink::{Netlink, Received};
use crate::probes::layout::{OTHER_PEER, Row, TCP};
use forwarded::Forwarded;
use message::Message;
use nix::libc;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_daemon::clock::Clock;
use weir_wire::feed::{Conntrack as Told, Probe};

/// The name under which `/status` tells of it.
pub const NAME: &str = "conntrack";

/// Answers wait in the socket: 32 of at most 4.5 kB (a page and its bookkeeping, before the kernel trims it) are under
/// the 208 kB that every socket may have.
const ASKED_AT_ONCE: usize = 32;
/// The socket's buffer; a dump's parts are up to 32 KiB each.
const BUFFER: usize = 1 << 20;
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
/// How far an entry's start may lie after its connection's end: the system's clock is stepped by less in practice.
const START_SLACK_NS: i64 = 10_000_000;

/// States of a TCP entry (`enum tcp_conntrack`).
const ESTABLISHED: u8 = 3;
const TIME_WAIT: u8 = 7;
const CLOSE: u8 = 8;

/// One direction's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Where they come from.
    pub source: SocketAddr,
    /// Where they go.
    pub dest: SocketAddr,
}

impl Ends {
    /// The packets that answer.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { source: self.dest, dest: self.source }
    }
}

/// An entry of the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 6 TCP, 17 UDP.
    pub protocol: u8,
    /// The opener's packets.
    pub original: Ends,
    /// The answer's packets behind the translation.
    pub reply: Ends,
    /// `enum ip_conntrack_status`.
    pub status: u32,
    /// `enum tcp_conntrack`.
    pub tcp_state: Option<u8>,
    /// When it began, where `nf_conntrack_timestamp` is on.
    pub started_unix_ns: Option<u64>,
}

/// A translated connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translation {
    /// The opener's packets.
    pub original: Ends,
    /// The answer's packets behind the translation.
    pub reply: Ends,
}

impl Translation {
    /// Length of [`Translation::to_bytes`].
    pub const LENGTH: usize = 72;

    /// For the journal: the four ends, 16 bytes of address (IPv4 as mapped) and 2 of port, little endian. The inverse is
    /// [`Translation::from_bytes`].
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let ends = [self.original.source, self.original.dest, self.reply.source, self.reply.dest];
        for (end, slot) in ends.into_iter().zip(bytes.chunks_exact_mut(18)) {
            let ip = match end.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            slot[..16].copy_from_slice(&ip);
            slot[16..].copy_from_slice(&end.port().to_le_bytes());
        }
        bytes
    }

    /// The translation in `bytes`, `None` unless there are 72 of them.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().ok()?;
        let end = |index: usize| {
            let slot = &bytes[index * 18..][..18];
            let ip = IpAddr::from(<[u8; 16]>::try_from(&slot[..16]).ok()?).to_canonical();
            Some(SocketAddr::new(ip, u16::from_le_bytes([slot[16], slot[17]])))
        };
        Some(Self { original: Ends { source: end(0)?, dest: end(1)? }, reply: Ends { source: end(2)?, dest: end(3)? } })
    }

    /// As the feed tells it.
    pub fn to_feed(&self) -> Told {
        Told {
            repl_src_ip: self.reply.source.ip().to_string(),
            repl_dst_ip: self.reply.dest.ip().to_string(),
            repl_src_port: self.reply.source.port(),
            repl_dst_port: self.reply.dest.port(),
            orig_src_ip: Some(self.original.source.ip().to_string()),
            orig_dst_ip: Some(self.original.dest.ip().to_string()),
            orig_src_port: Some(self.original.source.port()),
            orig_dst_port: Some(self.original.dest.port()),
        }
    }
}

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

/// What it has cost: entries asked for and dumps, and the time in them.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    runs: u64,
    nanoseconds: u64,
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

/// What the kernel said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Found(Entry),
    Missing,
    Failed,
}

/// What an answer says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Translated(Translation),
    Plain,
    Missing,
    Failed,
    /// The entry is that of an earlier or later connection.
    Other,
}

/// Conntrack. See the module.
pub struct Conntrack {
    state: State,
    clock: Arc<dyn Clock>,
    socket: Option<Netlink>,
    count_file: PathBuf,
    own_netns: u32,
    asked: HashMap<Key, Known>,
    round: u64,
    plain: HashMap<Destination, u64>,
    forwarded: Forwarded,
    asks_max: usize,
    sequence: u32,
    unresolved: Unresolved,
    waiting: u64,
    cost: Cost,
    buffer: Vec<u8>,
}

/// What rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Destination {
    netns: u32,
    protocol: u8,
    end: SocketAddr,
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
            socket: None,
            count_file: "/proc/sys/net/netfilter/nf_conntrack_count".into(),
            own_netns,
            asked: HashMap::new(),
            round: 0,
            plain: HashMap::new(),
            forwarded: Forwarded::default(),
            asks_max: usize::MAX,
            sequence: 0,
            unresolved: Unresolved::default(),
            waiting: 0,
            cost: Cost::default(),
            buffer: vec![0; 64 << 10],
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
            runs: Some(self.cost.runs),
            nanoseconds: Some(self.cost.nanoseconds),
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
            self.forwarded.listen(&mut self.buffer, self.clock.monotonic().0);
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
        let answers = self.ask(wanted.iter().copied());
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
        let answers = self.ask(wanted.iter().map(|&index| &rows[index]));
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
            self.socket = None;
            self.forwarded.stop();
            return true;
        };
        if self.socket.is_none() {
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
        let socket = Netlink::open(BUFFER)?;
        socket.bind(0)?;
        self.socket = Some(socket);
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        // The kernel says whether it may be asked.
        let answer = self.ask_all(&[(TCP, Ends { source: nobody, dest: nobody })]);
        if let Err(error) = answer {
            self.socket = None;
            return Err(error);
        }
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

    /// Asks for every row's entry; openers first, since their entries answer for the accepting ends of this node, too.
    fn ask<'a>(&mut self, rows: impl Iterator<Item = &'a Row>) -> Vec<Answer> {
        let questions: Vec<(bool, (u8, Ends))> =
            rows.map(|row| (row.direction == 2, (row.protocol, ends(row)))).collect();
        let mut answers = vec![Answer::Failed; questions.len()];
        let mut known: HashMap<(u8, Ends), usize> = HashMap::new();
        for openers in [true, false] {
            let mut open: Vec<usize> = Vec::new();
            for (index, (is_opener, question)) in questions.iter().enumerate() {
                if *is_opener != openers {
                    continue;
                }
                match known.get(question) {
                    Some(&same) => answers[index] = answers[same].clone(),
                    None => open.push(index),
                }
            }
            let asked: Vec<(u8, Ends)> = open.iter().map(|&index| questions[index].1).collect();
            let found = self.ask_all(&asked).unwrap_or_else(|error| {
                tracing::warn!(%error, "failed to ask conntrack");
                // Opened anew at the next look.
                self.socket = None;
                vec![Answer::Failed; asked.len()]
            });
            for (index, answer) in open.into_iter().zip(found) {
                if let Answer::Found(entry) = &answer {
                    known.insert((entry.protocol, entry.reply), index);
                }
                answers[index] = answer;
            }
        }
        answers
    }

    /// Asks in groups, and takes each group's answers: they are there when the group is sent.
    fn ask_all(&mut self, questions: &[(u8, Ends)]) -> io::Result<Vec<Answer>> {
        let mut answers = vec![Answer::Failed; questions.len()];
        let Some(socket) = self.socket.as_ref().filter(|_| !questions.is_empty()) else { return Ok(answers) };
        let begin = self.clock.monotonic().0;
        let mut request = Vec::with_capacity(ASKED_AT_ONCE * 96);
        for (group, answers) in questions.chunks(ASKED_AT_ONCE).zip(answers.chunks_mut(ASKED_AT_ONCE)) {
            request.clear();
            // Sequence numbers tell answers apart, also from late ones of an earlier group.
            let first = self.sequence.wrapping_add(1);
            for (protocol, ends) in group {
                self.sequence = self.sequence.wrapping_add(1);
                message::ask(&mut request, self.sequence, *protocol, *ends);
            }
            socket.send(&request)?;
            let mut missing = group.len();
            while missing > 0 {
                let mut messages = match socket.receive(&mut self.buffer)? {
                    Received::Messages(messages) => messages,
                    // What was dropped stays unanswered; what came before it is still to be read.
                    Received::Overflow => continue,
                    Received::Nothing => break,
                };
                while let Some(message) = message::next(&mut messages) {
                    let (sequence, answer) = match message {
                        Message::Entry { sequence, entry } => (sequence, Answer::Found(entry)),
                        Message::Failed { sequence, errno: libc::ENOENT } => (sequence, Answer::Missing),
                        Message::Failed { errno: errno @ (libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP), .. } => {
                            return Err(io::Error::from_raw_os_error(errno));
                        }
                        Message::Failed { sequence, .. } => (sequence, Answer::Failed),
                        Message::Done { .. } | Message::Other => continue,
                    };
                    if let Some(slot) = answers.get_mut(sequence.wrapping_sub(first) as usize) {
                        *slot = answer;
                        missing -= 1;
                    }
                }
            }
        }
        self.cost.runs += questions.len() as u64;
        self.cost.nanoseconds += self.clock.monotonic().0.saturating_sub(begin);
        Ok(answers)
    }

    fn dump_if_due(&mut self, occasion: forwarded::Occasion) {
        let begin = self.clock.monotonic().0;
        let Some(socket) = self.socket.as_ref().filter(|_| self.forwarded.is_dump_due(occasion, begin)) else { return };
        self.sequence = self.sequence.wrapping_add(1);
        if let Err(error) = self.forwarded.dump(socket, self.sequence, &mut self.buffer, begin) {
            tracing::warn!(%error, "failed to read conntrack's table");
            self.unresolved.failed += 1;
            self.socket = None;
        }
        self.cost.runs += 1;
        self.cost.nanoseconds += self.clock.monotonic().0.saturating_sub(begin);
    }
}

/// Whether a row lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    Ended,
}

/// TCP states of a row (`include/net/tcp_states.h`).
const SYN_SENT: u8 = 2;

/// A row's own packets.
fn ends(row: &Row) -> Ends {
    Ends {
        source: SocketAddr::new(row.local_address(), row.local_port),
        dest: SocketAddr::new(row.remote_address(), row.remote_port),
    }
}

/// The end that rules for this row are about: what was opened asks for its remote end. What was accepted may come by any
/// rule, except over loopback.
fn destination(row: &Row) -> Option<Destination> {
    let Ends { source, dest } = ends(row);
    let end = match row.direction {
        2 => dest,
        1 if source.ip().is_loopback() && dest.ip().is_loopback() => source,
        _ => return None,
    };
    Some(Destination { netns: row.origin.netns, protocol: row.protocol, end })
}

/// Of several connections that ended one after another with the same tuple, an entry can only be the last one's.
fn leave_last_of_each_tuple(wanted: &mut Vec<usize>, rows: &[Row]) {
    let key = |row: &Row| (row.origin.netns, row.protocol, ends(row));
    let last: HashMap<_, usize> = rows.iter().enumerate().map(|(index, row)| (key(row), index)).collect();
    wanted.retain(|&index| last.get(&key(&rows[index])) == Some(&index));
}

/// What an answer says of a row: only an entry of this very connection says anything.
fn judge(row: &Row, life: Life, answer: &Answer, wall_offset: i64) -> Verdict {
    let entry = match answer {
        Answer::Found(entry) => entry,
        Answer::Missing => return Verdict::Missing,
        Answer::Failed => return Verdict::Failed,
    };
    let own = ends(row);
    if entry.protocol != row.protocol || (entry.original != own && entry.reply != own) {
        return Verdict::Failed;
    }
    let is_other = match (life, entry.tcp_state) {
        // The entry of the connection before: this one's first packet has not come by.
        (Life::Open, Some(TIME_WAIT | CLOSE)) => row.state == SYN_SENT,
        // The connection has ended, the entry's has not. Only what ended without a packet (a timeout) may leave one.
        (Life::Ended, Some(state)) if state <= ESTABLISHED => {
            let without_packet =
                matches!(i32::from(row.error), libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH)
                    || (row.state == SYN_SENT && row.error == 0);
            !without_packet
        }
        _ => false,
    };
    let began_later = entry.started_unix_ns.is_some_and(|started| {
        let ended = wall_offset.saturating_add(row.at_ns as i64);
        life == Life::Ended && started as i64 > ended.saturating_add(START_SLACK_NS)
    });
    if is_other || began_later {
        return Verdict::Other;
    }
    if entry.reply == entry.original.reversed() {
        return Verdict::Plain;
    }
    Verdict::Translated(Translation { original: entry.original, reply: entry.reply })
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
