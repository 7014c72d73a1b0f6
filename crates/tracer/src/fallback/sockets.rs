//! The sockets that were seen alive: what was told of each, so that a total never falls, a socket that is used again is
//! another connection, and one that vanished is still told until its end is.

use super::diag::{Counters, Ends, Message, state};
use super::infer::{self, Opener};
use super::owners::Owner;
use crate::probes::layout::{LAST_SEEN, Row, TCP};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Sockets at once, in all namespaces: 260 bytes each.
pub const SOCKETS_MAX: usize = 262_144;
/// Vanished sockets whose end was not told wait for it so long: somebody may hold the descriptor of a connection that is
/// over.
const VANISHED_FOR_NS: u64 = 600_000_000_000;
/// An end that was lost with others is not waited for longer than the others took.
const LOST_AFTER_NS: u64 = 2_000_000_000;
/// Cookies of ends that were told without the kernel's word, in each of two generations.
const TOLD_MAX: usize = 32_768;

/// One socket.
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    /// What was told last.
    pub row: Row,
    /// The kernel's counts as they were: tries that were refused, and the peer's FIN, among them.
    tried: u64,
    received: u64,
    /// 0 when no process holds it.
    pub inode: u32,
    /// The pid that was told last, or that it was looked for.
    pub looked_for: bool,
    walk: u64,
    vanished_ns: u64,
}

impl Socket {
    /// Whether the peer's FIN was among what was received when it was seen last.
    pub fn had_fin(&self) -> bool {
        matches!(self.row.state, state::CLOSE_WAIT | state::CLOSING | state::LAST_ACK)
    }

    /// Who opened it, where that is settled.
    pub fn opener(&self) -> Option<Opener> {
        opener_of(&self.row)
    }

    /// Its ends.
    pub fn ends(&self) -> Ends {
        ends_of(&self.row)
    }
}

/// A row's opener.
pub fn opener_of(row: &Row) -> Option<Opener> {
    match row.direction {
        1 => Some(Opener::Peer),
        2 => Some(Opener::Self_),
        _ => None,
    }
}

/// Writes the opener into a row, as inferred.
pub fn set_opener(row: &mut Row, opener: Option<Opener>) {
    (row.direction, row.certainty) = match opener {
        Some(Opener::Peer) => (1, 2),
        Some(Opener::Self_) => (2, 2),
        None => (0, 0),
    };
}

/// A row's ends.
pub fn ends_of(row: &Row) -> Ends {
    Ends {
        family: row.family,
        local: row.local,
        remote: row.remote,
        local_port: row.local_port,
        remote_port: row.remote_port,
    }
}

/// A row of `ends` that knows nothing else yet.
pub fn row_of(ends: &Ends, cookie: u64, netns: u32) -> Row {
    let mut row = Row {
        cookie,
        local: ends.local,
        remote: ends.remote,
        local_port: ends.local_port,
        remote_port: ends.remote_port,
        family: ends.family,
        protocol: TCP,
        ..Row::default()
    };
    row.origin.netns = netns;
    row
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sockets {
    known: HashMap<u64, Socket>,
    walk: u64,
    /// Sockets for which there was no room in this walk.
    capped: u64,
    told: [HashSet<u64>; 2],
}

impl Sockets {
    /// How many are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A new walk begins.
    pub fn begin_walk(&mut self) {
        self.walk += 1;
        self.capped = 0;
    }

    /// Sockets that this walk had no room for.
    pub fn capped(&self) -> u64 {
        self.capped
    }

    /// Whether a living socket's received bytes rose since it was seen last, so that its state must be confirmed before
    /// they are told: its FIN may have come between the two.
    pub fn is_doubtful(&self, message: &Message, counters: &Counters) -> bool {
        message.state != state::SYN_SENT
            && counters.received > self.known.get(&message.cookie).map_or(0, |socket| socket.received)
    }

    /// Who opened the socket, where that is settled.
    pub fn opener(&self, message: &Message) -> Option<Opener> {
        self.known.get(&message.cookie).filter(|socket| socket.ends() == message.ends).and_then(Socket::opener)
    }

    /// Takes a living socket. `told` is what it has sent and received; returns the last row of the connection that the socket
    /// had before, if it is another one by now.
    pub fn see(
        &mut self,
        message: &Message,
        counters: &Counters,
        told: (u64, u64),
        opener: Option<Opener>,
        netns: u32,
        now_ns: u64,
    ) -> Option<Row> {
        let mut before = None;
        let mut generation = 0;
        if let Some(socket) = self.known.get(&message.cookie)
            && (socket.ends() != message.ends || counters.sent < socket.tried || counters.received < socket.received)
        {
            generation = socket.row.generation + 1;
            before = Some(last_seen(socket.row, now_ns));
            self.known.remove(&message.cookie);
        }
        if !self.known.contains_key(&message.cookie) && self.known.len() >= SOCKETS_MAX {
            self.capped += 1;
            return before;
        }
        let socket = self.known.entry(message.cookie).or_insert_with(|| Socket {
            row: Row { generation, at_ns: now_ns, ..row_of(&message.ends, message.cookie, netns) },
            tried: 0,
            received: 0,
            inode: 0,
            looked_for: false,
            walk: 0,
            vanished_ns: 0,
        });
        let row = &mut socket.row;
        let (sent, recv) = (told.0.max(row.sent), told.1.max(row.recv));
        if (sent, recv, counters.retransmits) != (row.sent, row.recv, row.retransmits) {
            row.at_ns = now_ns;
        }
        (row.sent, row.recv, row.retransmits) = (sent, recv, counters.retransmits.max(row.retransmits));
        row.rtt_us = counters.rtt_us;
        row.state = message.state;
        if message.cgroup_id != 0 {
            row.origin.cgroup_id = message.cgroup_id;
        }
        if row.direction == 0 {
            set_opener(row, opener);
        }
        if message.inode != 0 && message.inode != socket.inode {
            socket.inode = message.inode;
            socket.looked_for = false;
        }
        (socket.tried, socket.received) = (counters.sent, counters.received);
        socket.walk = self.walk;
        socket.vanished_ns = 0;
        before
    }

    /// Takes a destroyed socket out.
    pub fn remove(&mut self, cookie: u64) -> Option<Socket> {
        self.known.remove(&cookie)
    }

    /// Whether the end of this socket was told without the kernel's word.
    pub fn was_told(&self, cookie: u64) -> bool {
        self.told.iter().any(|told| told.contains(&cookie))
    }

    /// Ends sockets that this walk did not meet and whose end will not be told: those in namespaces that are `deaf`
    /// (gone, or the kernel does not tell), those that vanished before ends were lost at `lost_ns`, and those that
    /// vanished long ago.
    pub fn give_up(&mut self, deaf: impl Fn(u32) -> bool, lost_ns: Option<u64>, now_ns: u64) -> Vec<Row> {
        let mut rows = Vec::new();
        for socket in self.known.values_mut().filter(|socket| socket.walk != self.walk) {
            if socket.vanished_ns == 0 {
                socket.vanished_ns = now_ns;
            }
            let lost =
                lost_ns.is_some_and(|lost| socket.vanished_ns < lost + LOST_AFTER_NS && now_ns > lost + LOST_AFTER_NS);
            if lost || deaf(socket.row.origin.netns) || now_ns - socket.vanished_ns > VANISHED_FOR_NS {
                rows.push(last_seen(socket.row, now_ns));
            }
        }
        for row in &rows {
            self.known.remove(&row.cookie);
            if self.told[0].len() >= TOLD_MAX {
                self.told.swap(0, 1);
                self.told[0].clear();
            }
            self.told[0].insert(row.cookie);
        }
        rows
    }

    /// Every row, ready to be told.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.known.values().map(|socket| &socket.row)
    }

    /// Inodes whose owner is looked for, with the pid that was told last.
    pub fn inodes(&self, which: Which) -> BTreeMap<u32, u32> {
        let held = self.known.values().filter(|socket| socket.inode != 0);
        held.filter(|socket| which == Which::All || !socket.looked_for)
            .map(|socket| (socket.inode, socket.row.origin.pid))
            .collect()
    }

    /// Gives sockets the owners that were found. One that nobody holds keeps the owner that it had.
    pub fn own(&mut self, owners: &BTreeMap<u32, Owner>) {
        for socket in self.known.values_mut().filter(|socket| socket.inode != 0) {
            socket.looked_for = true;
            if let Some(owner) = owners.get(&socket.inode) {
                give(&mut socket.row, owner);
            }
        }
    }
}

/// Which inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that were never looked for.
    New,
}

/// Writes an owner into a row.
pub fn give(row: &mut Row, owner: &Owner) {
    row.origin.pid = owner.pid;
    row.origin.process_start = owner.start_ns;
    row.origin.comm = owner.name;
}

/// The end of a connection whose last totals are lost.
pub fn last_seen(row: Row, now_ns: u64) -> Row {
    // Which state it ended in, and so why, is not known.
    Row { at_ns: now_ns, flags: row.flags | LAST_SEEN, state: 0, ..row }
}

/// What a living socket has received, told low where its state was not confirmed.
pub fn living(message: &Message, counters: &Counters, confirmed: bool) -> u64 {
    let recv = infer::received(counters, message.state);
    if confirmed || recv < counters.received { recv } else { recv.saturating_sub(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(cookie: u64, port: u16, state: u8) -> Message {
        let ends = Ends { family: 2, local_port: port, remote_port: 80, ..Ends::default() };
        Message { ends, cookie, state, inode: cookie as u32, ..Message::default() }
    }

    fn counters(sent: u64, received: u64) -> Counters {
        Counters { sent, received, ..Counters::default() }
    }

    fn see(sockets: &mut Sockets, message: &Message, counters: Counters, now: u64) -> Option<Row> {
        let recv = living(message, &counters, true);
        sockets.see(message, &counters, (counters.sent, recv), None, 1, now)
    }

    #[test]
    fn a_socket_that_is_used_again_is_another_connection() {
        let mut sockets = Sockets::default();
        sockets.begin_walk();
        assert_eq!(see(&mut sockets, &message(7, 1, state::ESTABLISHED), counters(10, 5), 1), None);
        assert_eq!(see(&mut sockets, &message(7, 1, state::ESTABLISHED), counters(10, 9), 2), None);
        let before = see(&mut sockets, &message(7, 1, state::ESTABLISHED), counters(3, 0), 3).unwrap();
        assert_eq!((before.sent, before.recv, before.generation, before.flags), (10, 9, 0, LAST_SEEN));
        let row = *sockets.rows().next().unwrap();
        assert_eq!((row.sent, row.generation), (3, 1));
    }

    #[test]
    fn a_total_that_was_told_never_falls_when_the_fin_comes() {
        let mut sockets = Sockets::default();
        sockets.begin_walk();
        see(&mut sockets, &message(7, 1, state::ESTABLISHED), counters(0, 9), 1);
        assert_eq!(see(&mut sockets, &message(7, 1, state::CLOSE_WAIT), counters(0, 9), 2), None);
        assert_eq!(sockets.rows().next().unwrap().recv, 9);
        see(&mut sockets, &message(7, 1, state::CLOSE_WAIT), counters(0, 12), 3);
        assert_eq!(sockets.rows().next().unwrap().recv, 11);
    }

    #[test]
    fn what_was_not_confirmed_is_told_low() {
        let message = message(7, 1, state::ESTABLISHED);
        assert_eq!(living(&message, &counters(0, 9), false), 8);
        assert_eq!(living(&message, &counters(0, 9), true), 9);
        assert_eq!(living(&Message { state: state::CLOSE_WAIT, ..message }, &counters(0, 9), false), 8);
    }

    #[test]
    fn a_vanished_socket_waits_for_its_end_unless_nobody_will_tell() {
        let mut sockets = Sockets::default();
        sockets.begin_walk();
        see(&mut sockets, &message(7, 1, state::ESTABLISHED), counters(1, 0), 1);
        sockets.begin_walk();
        assert!(sockets.give_up(|_| false, None, 10).is_empty());
        assert_eq!(sockets.len(), 1);
        assert!(sockets.give_up(|_| false, Some(9), 11).is_empty(), "it may still come");
        assert_eq!(sockets.give_up(|_| false, Some(9), 10 + LOST_AFTER_NS).len(), 1);
        assert!(sockets.was_told(7) && sockets.is_empty());
        see(&mut sockets, &message(8, 2, state::ESTABLISHED), counters(1, 0), 1);
        sockets.begin_walk();
        assert_eq!(sockets.give_up(|netns| netns == 1, None, 10).len(), 1);
    }
}
