//! Connections that the node translates at both ends (a NodePort's, masqueraded), its own or only passing through: their
//! tuples without bytes, so that the client behind the node can be found.
//!
//! The kernel tells of each as it begins, and a filter in it holds back every other. What was there before, and what an
//! overflow cost, a dump brings; where events are switched off, there is a dump a poll. Each is told to every client at
//! least twice; once all have it, it goes. A dump now and then tells again what lives, so that a server may forget.

use super::message::{self, BOTH_TRANSLATED, Message};
use super::{Entry, Translation};
use crate::kernel::netlink::{Netlink, Received};
use crate::probes::layout::{TCP, UDP};
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::io;
use std::path::Path;
use weir_wire::feed::Translation as Told;

/// Half a minute of 2,000 a second that no client fetches; 10 MB.
const KEPT_MAX: usize = 65_536;
/// Events between two drains, 100 ms apart: 30,000 a second at 1.4 kB each in the kernel's reckoning.
const BUFFER: usize = 4 << 20;
/// Events taken in one drain.
const EVENTS_MAX: usize = 16_384;
/// `NFNLGRP_CONNTRACK_NEW` is group 1.
const NEW_CONNECTIONS: u32 = 1;
/// What lives is told again so often; a server keeps it for longer.
const TELL_AGAIN_NS: u64 = 1_800_000_000_000;
/// Between two dumps at least: one of 50,000 entries takes up to 0.2 s.
const DUMP_PAUSE_NS: u64 = 1_000_000_000;

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// 6 TCP, 17 UDP.
    pub protocol: u8,
    /// Its tuples.
    pub translation: Translation,
    /// When it was seen first.
    pub seen_ns: u64,
    /// It was seen as it began.
    pub began: bool,
}

impl Seen {
    /// As the feed tells it.
    pub fn to_feed(&self) -> Told {
        Told {
            kind: u8::from(self.protocol != TCP),
            family: u8::from(self.translation.original.source.is_ipv6()),
            conntrack: self.translation.to_feed(),
            seen_epoch: self.seen_ns,
            began: self.began,
        }
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.protocol, self.translation).hash(&mut hasher);
        hasher.finish()
    }
}

/// When a dump is considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Events were taken.
    Drain,
    /// A client asks for the feed.
    Poll,
}

/// Those connections, with a sequence number each.
#[derive(Debug, Default)]
pub struct Forwarded {
    source: Source,
    kept: VecDeque<Seen>,
    /// How often each of `kept` is in it, by its hash.
    known: HashMap<u64, u32>,
    /// The sequence before that of the first of `kept`.
    floor: u64,
    settled: u64,
    dump_wanted: bool,
    dumped_ns: Option<u64>,
    dumps: u64,
    overflows: u64,
    dropped: u64,
}

/// Where they come from.
#[derive(Debug, Default)]
enum Source {
    #[default]
    Nothing,
    Events(Netlink),
    /// A dump a poll, and why.
    Dumps(String),
}

impl Forwarded {
    /// Begins to listen, and wants a dump of what is there.
    pub fn begin(&mut self) {
        self.source = match listen() {
            Ok(socket) => Source::Events(socket),
            Err(reason) => {
                tracing::info!(%reason, "forwarded connections are read from conntrack's table at every poll");
                Source::Dumps(reason)
            }
        };
        self.dump_wanted = true;
    }

    /// Stops listening.
    pub fn stop(&mut self) {
        self.source = Source::Nothing;
    }

    /// A client asks that was not here before: what lives is told again.
    pub fn tell_again(&mut self) {
        self.dump_wanted = true;
    }

    /// What is not as it should be, in words.
    pub fn reason(&self) -> Option<String> {
        match &self.source {
            Source::Dumps(reason) => Some(format!("{reason}; forwarded connections are read at every poll")),
            Source::Nothing | Source::Events(_) => None,
        }
    }

    /// How many wait to be told.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// How often events came faster than they were taken; a dump followed.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Dumps made.
    pub fn dumps(&self) -> u64 {
        self.dumps
    }

    /// Those that had to go before every client had them, since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// The last sequence number.
    pub fn head(&self) -> u64 {
        self.floor + self.kept.len() as u64
    }

    /// Those after `after`.
    pub fn after(&self, after: u64) -> Vec<Seen> {
        let skip = after.saturating_sub(self.floor).min(self.kept.len() as u64) as usize;
        self.kept.range(skip..).copied().collect()
    }

    /// Every client has those up to `sequence`.
    pub fn settle(&mut self, sequence: u64) {
        self.settled = self.settled.max(sequence.min(self.head()));
        while self.floor < self.settled {
            self.forget_first();
        }
        if self.kept.capacity() > 1024 && self.kept.capacity() > 8 * self.kept.len() {
            self.kept.shrink_to(2 * self.kept.len());
            self.known.shrink_to(2 * self.known.len());
        }
    }

    /// Takes the events that came.
    pub fn listen(&mut self, buffer: &mut [u8], now_ns: u64) {
        for _ in 0..EVENTS_MAX {
            let Source::Events(socket) = &self.source else { return };
            let mut messages = match socket.receive(buffer) {
                Ok(Received::Messages(messages)) => messages,
                Ok(Received::Nothing) => break,
                Ok(Received::Overflow) => {
                    self.overflows += 1;
                    self.dump_wanted = true;
                    continue;
                }
                Err(error) => {
                    let reason = format!("conntrack's events cannot be read: {error}");
                    tracing::warn!(%reason);
                    self.source = Source::Dumps(reason);
                    return;
                }
            };
            while let Some(message) = message::next(&mut messages) {
                if let Message::Entry { entry, .. } = message {
                    self.take(&entry, now_ns, true);
                }
            }
        }
    }

    /// Whether a dump should be made now.
    pub fn is_dump_due(&self, occasion: Occasion, now_ns: u64) -> bool {
        let Some(dumped) = self.dumped_ns else { return self.dump_wanted };
        let since = now_ns.saturating_sub(dumped);
        let at_every_poll = occasion == Occasion::Poll && matches!(self.source, Source::Dumps(_));
        since >= DUMP_PAUSE_NS && (self.dump_wanted || at_every_poll) || since >= TELL_AGAIN_NS
    }

    /// Reads the table's entries that are translated at both ends.
    ///
    /// # Errors
    /// The kernel's, or a dump that breaks off; the socket is of no use then.
    pub fn dump(&mut self, socket: &Netlink, sequence: u32, buffer: &mut [u8], now_ns: u64) -> io::Result<()> {
        self.dumped_ns = Some(now_ns);
        self.dumps += 1;
        self.dump_wanted = false;
        let mut request = Vec::new();
        message::ask_for_both_translated(&mut request, sequence);
        socket.send(&request)?;
        loop {
            let mut messages = match socket.receive(buffer)? {
                Received::Messages(messages) => messages,
                Received::Nothing => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the dump broke off")),
                Received::Overflow => return Err(io::Error::other("the dump overflowed")),
            };
            while let Some(message) = message::next(&mut messages) {
                match message {
                    Message::Entry { sequence: of, entry } if of == sequence => self.take(&entry, now_ns, false),
                    Message::Done { sequence: of } if of == sequence => return Ok(()),
                    Message::Failed { sequence: of, errno } if of == sequence => {
                        return Err(io::Error::from_raw_os_error(errno));
                    }
                    _ => {}
                }
            }
        }
    }

    fn take(&mut self, entry: &Entry, now_ns: u64, began: bool) {
        if entry.status & BOTH_TRANSLATED != BOTH_TRANSLATED || !matches!(entry.protocol, TCP | UDP) {
            return;
        }
        let translation = Translation { original: entry.original, reply: entry.reply };
        let seen = Seen { protocol: entry.protocol, translation, seen_ns: now_ns, began };
        let count = self.known.entry(seen.hash()).or_default();
        if *count > 0 && !began {
            return;
        }
        *count += 1;
        self.kept.push_back(seen);
        if self.kept.len() > KEPT_MAX {
            self.dropped += u64::from(self.floor >= self.settled);
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some(first) = self.kept.pop_front() else { return };
        self.floor += 1;
        let hash = first.hash();
        if let Some(count) = self.known.get_mut(&hash) {
            *count -= 1;
            if *count == 0 {
                self.known.remove(&hash);
            }
        }
    }
}

/// A socket that hears of new connections that are translated at both ends; a reason where that cannot be.
fn listen() -> Result<Netlink, String> {
    // Absent where the kernel was built without events.
    let path = Path::new("/proc/sys/net/netfilter/nf_conntrack_events");
    let events = std::fs::read_to_string(path).unwrap_or_else(|_| "0".to_owned());
    if events.trim() == "0" {
        return Err("net.netfilter.nf_conntrack_events is 0".to_owned());
    }
    let open = || -> io::Result<Netlink> {
        let socket = Netlink::open(BUFFER)?;
        // The filter first: nothing else may come in.
        socket.filter(&message::both_translated_only())?;
        socket.bind(NEW_CONNECTIONS)?;
        Ok(socket)
    };
    open().map_err(|error| format!("conntrack's events cannot be heard: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::Ends;
    use super::*;

    fn entry(port: u16, status: u32) -> Entry {
        let end = |last: u8, port| std::net::SocketAddr::from(([10, 0, 0, last], port));
        Entry {
            protocol: TCP,
            original: Ends { source: end(1, port), dest: end(2, 30080) },
            reply: Ends { source: end(9, 8080), dest: end(3, port) },
            status,
            tcp_state: None,
            started_unix_ns: None,
        }
    }

    #[test]
    fn only_what_is_translated_at_both_ends_is_kept_and_a_dump_repeats_nothing_that_waits() {
        let mut forwarded = Forwarded::default();
        forwarded.take(&entry(1, 0x1b8), 5, true);
        forwarded.take(&entry(2, 0x1a8), 5, true);
        forwarded.take(&entry(1, 0x1b8), 6, false);
        forwarded.take(&entry(3, 0x1b8), 7, false);
        assert_eq!(forwarded.after(0).iter().map(|seen| seen.seen_ns).collect::<Vec<_>>(), [5, 7]);
        // The same tuples again are another connection.
        forwarded.take(&entry(1, 0x1b8), 8, true);
        assert_eq!((forwarded.head(), forwarded.after(2).len(), forwarded.after(9).len()), (3, 1, 0));
    }

    #[test]
    fn what_every_client_has_goes_and_a_later_dump_tells_it_again() {
        let mut forwarded = Forwarded::default();
        forwarded.take(&entry(1, 0x30), 5, true);
        forwarded.take(&entry(2, 0x30), 6, true);
        forwarded.settle(1);
        assert_eq!((forwarded.len(), forwarded.after(0)[0].seen_ns), (1, 6));
        forwarded.take(&entry(1, 0x30), 9, false);
        assert_eq!((forwarded.head(), forwarded.after(2)[0].seen_ns), (3, 9));
    }

    #[test]
    fn beyond_the_bound_the_oldest_go_and_are_counted() {
        let mut forwarded = Forwarded::default();
        for number in 0..KEPT_MAX + 3 {
            forwarded.take(&entry((number % 60_000) as u16, 0x30), number as u64, true);
        }
        assert_eq!((forwarded.len(), forwarded.take_dropped(), forwarded.take_dropped()), (KEPT_MAX, 3, 0));
        assert_eq!((forwarded.after(0)[0].seen_ns, forwarded.head()), (3, KEPT_MAX as u64 + 3));
    }

    #[test]
    fn a_dump_is_made_at_the_beginning_after_an_overflow_and_every_half_hour() {
        let mut forwarded = Forwarded::default();
        assert!(!forwarded.is_dump_due(Occasion::Poll, 0));
        forwarded.dump_wanted = true;
        assert!(forwarded.is_dump_due(Occasion::Drain, 0));
        (forwarded.dumped_ns, forwarded.dump_wanted) = (Some(0), false);
        assert!(!forwarded.is_dump_due(Occasion::Poll, DUMP_PAUSE_NS));
        assert!(forwarded.is_dump_due(Occasion::Drain, TELL_AGAIN_NS));
        forwarded.tell_again();
        assert!(!forwarded.is_dump_due(Occasion::Drain, DUMP_PAUSE_NS - 1));
        assert!(forwarded.is_dump_due(Occasion::Drain, DUMP_PAUSE_NS));
        forwarded.dump_wanted = false;
        forwarded.source = Source::Dumps(String::new());
        assert!(forwarded.is_dump_due(Occasion::Poll, DUMP_PAUSE_NS));
        assert!(!forwarded.is_dump_due(Occasion::Drain, DUMP_PAUSE_NS));
    }
}
