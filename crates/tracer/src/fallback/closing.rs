//! From a destroyed socket to an ended row. What the kernel leaves open (one byte, or who opened) is settled by the
//! peer's own end, where it comes on the same machine within a moment.

use super::diag::{Ends, Message, state};
use super::ends::Heard;
use super::infer::{self, After, End, Opener, Seen};
use super::sockets::{Socket, Sockets, ends_of, last_seen, opener_of, row_of, set_opener};
use crate::probes::layout::{RECV_ONE_SHORT, Row};
use std::collections::HashMap;

/// How long a row waits for its peer's. Both ends of an orderly close on one machine come within some milliseconds.
const WAIT_NS: u64 = 300_000_000;
/// Rows that wait for their peer's: 0.3 s at 50,000 a second. Beyond, they do not wait.
const WAITING_MAX: usize = 16_384;

/// An end's place: its tuple, and its namespace where the tuple means nothing outside.
type Place = (Ends, u32);

/// One that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    row: Row,
    /// The kernel's count, with or without the peer's FIN.
    received: u64,
    sure: bool,
    /// What holds if no other connection ended with this tuple around that time; and the state before CLOSE then.
    alone: Option<(End, u8)>,
    until_ns: u64,
}

/// The ends under way.
#[derive(Debug, Default)]
pub struct Closing {
    waiting: HashMap<Place, Waiting>,
    /// What ended a moment ago, in two generations.
    recent: [HashMap<Place, (u64, Option<Opener>)>; 2],
    turned_ns: u64,
    /// Rows that are ready to be written.
    pub ready: Vec<Row>,
    /// Ends that are told with the totals that were seen last, and ends that may lack one received byte.
    inexact: (u64, u64),
}

impl Closing {
    /// Since this was last called: ends with the totals that were seen last, and ends that may lack one received byte.
    pub fn take_inexact(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.inexact)
    }

    /// How many wait for their peer's end.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Rows that have ended and are not written yet: as long as that is so they are told as living ones.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.waiting.values().map(|waiting| Row { flags: 0, ..waiting.row })
    }

    /// Takes an end that nobody will tell more of.
    pub fn give_up(&mut self, rows: Vec<Row>) {
        self.inexact.0 += rows.len() as u64;
        self.ready.extend(rows);
    }

    /// Takes a destroyed socket.
    pub fn take(&mut self, heard: &Heard, sockets: &mut Sockets, now_ns: u64) {
        let message = &heard.message;
        let known = sockets.remove(message.cookie);
        if sockets.was_told(message.cookie) {
            return;
        }
        let known = match known {
            // Nothing of the connection is left, or it is another one.
            Some(socket) if socket.ends() != message.ends => {
                self.give_up(vec![last_seen(socket.row, now_ns)]);
                Err(socket.row.generation + 1)
            }
            Some(socket) => Ok(socket),
            None => Err(0),
        };
        if message.ends.remote_port == 0 {
            return;
        }
        let Some(counters) = message.counters else { return };
        let mut seen = Seen { listening: heard.listener.is_some(), ..Seen::default() };
        if let Ok(socket) = &known {
            (seen.opener, seen.had_fin) = (socket.opener(), socket.had_fin());
        }
        let of = |after| infer::end(message, &counters, seen, after);
        let (end, alone) = match heard.after {
            // It was asked about while it lived: its remainder would have its cookie.
            After::FinWait2 | After::TimeWait if heard.other_cookie && known.is_ok() => (of(After::Unclear), None),
            After::FinWait2 | After::TimeWait if heard.other_cookie => {
                let alone = of(heard.after);
                (of(After::Unclear), Some((alone, state_before(message, &alone))))
            }
            after => (of(after), None),
        };
        let mut row = match known {
            Ok(Socket { row, .. }) => row,
            Err(generation) => Row { generation, ..row_of(&message.ends, message.cookie, heard.netns) },
        };
        // More than this was told already, so that it is payload.
        let sure = end.sure || row.recv == counters.received;
        row.sent = row.sent.max(end.sent);
        row.recv = row.recv.max(end.recv);
        row.retransmits = row.retransmits.max(counters.retransmits);
        if counters.rtt_us != 0 {
            row.rtt_us = counters.rtt_us;
        }
        row.at_ns = now_ns;
        row.state = state_before(message, &end);
        set_opener(&mut row, end.opener);
        if row.origin.cgroup_id == 0
            && end.opener == Some(Opener::Peer)
            && let Some(listener) = &heard.listener
        {
            // An accepted socket is in its listener's cgroup.
            row.origin.cgroup_id = listener.cgroup_id;
        }
        self.settle(Waiting { row, received: counters.received, sure, alone, until_ns: now_ns + WAIT_NS }, now_ns);
    }

    /// Lets go who has waited enough.
    pub fn turn(&mut self, now_ns: u64) {
        let over: Vec<Place> =
            self.waiting.iter().filter(|(_, waiting)| waiting.until_ns <= now_ns).map(|(place, _)| *place).collect();
        for place in over {
            if let Some(mut waiting) = self.waiting.remove(&place) {
                waiting.was_alone();
                self.finish(waiting);
            }
        }
        if now_ns.saturating_sub(self.turned_ns) >= WAIT_NS {
            self.turned_ns = now_ns;
            self.recent.swap(0, 1);
            self.recent[0].clear();
        }
    }

    fn settle(&mut self, mut waiting: Waiting, now_ns: u64) {
        let place = place(&waiting.row);
        let mirrored = (place.0.mirrored(), place.1);
        let sent = waiting.row.sent;
        if let Some(mut peer) = self.waiting.remove(&mirrored) {
            by_peer(&mut peer, sent, opener_of(&waiting.row));
            by_peer(&mut waiting, peer.row.sent, opener_of(&peer.row));
            self.finish(peer);
        } else if let Some((peer_sent, opener)) = self.recent.iter().find_map(|recent| recent.get(&mirrored).copied()) {
            by_peer(&mut waiting, peer_sent, opener);
        }
        if self.recent.iter().any(|recent| recent.contains_key(&place)) {
            waiting.alone = None;
        }
        if self.recent[0].len() < WAITING_MAX {
            self.recent[0].insert(place, (sent, opener_of(&waiting.row)));
        }
        let settled = waiting.sure && waiting.row.direction != 0;
        if settled || self.waiting.len() >= WAITING_MAX || waiting.until_ns <= now_ns {
            self.finish(waiting);
        } else if let Some(before) = self.waiting.insert(place, waiting) {
            self.finish(before);
        }
    }

    fn finish(&mut self, waiting: Waiting) {
        let mut row = waiting.row;
        if !waiting.sure {
            row.flags |= RECV_ONE_SHORT;
            self.inexact.1 += 1;
        }
        self.ready.push(row);
    }
}

impl Waiting {
    /// No other connection ended with its tuple: what remained was its own.
    fn was_alone(&mut self) {
        let Some((alone, state)) = self.alone.take() else { return };
        if !self.sure {
            self.row.recv = self.row.recv.max(alone.recv);
            self.sure = alone.sure;
        }
        if self.row.direction == 0 {
            set_opener(&mut self.row, alone.opener);
        }
        if self.row.state == 0 {
            self.row.state = state;
        }
    }
}

/// Settles what is open by what the peer sent, all in all, and by who opened as it sees it.
fn by_peer(waiting: &mut Waiting, peer_sent: u64, peer_opener: Option<Opener>) {
    // Anything else is another connection with the same tuple.
    if !waiting.sure && peer_sent + 1 >= waiting.received {
        waiting.row.recv = infer::settle(waiting.received, peer_sent);
        waiting.sure = true;
    }
    if waiting.row.direction == 0 {
        let opener = peer_opener.map(|opener| match opener {
            Opener::Peer => Opener::Self_,
            Opener::Self_ => Opener::Peer,
        });
        set_opener(&mut waiting.row, opener);
    }
}

fn place(row: &Row) -> Place {
    let netns = if row.local_address().is_loopback() { row.origin.netns } else { 0 };
    (ends_of(row), netns)
}

/// The state before CLOSE as far as it is known: an orderly end had our FIN acknowledged, 0 stands for the rest.
fn state_before(message: &Message, end: &End) -> u8 {
    match end.orderly {
        Some(true) if message.unread > 0 || end.opener == Some(Opener::Peer) => state::LAST_ACK,
        Some(true) => state::FIN_WAIT2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fallback::diag::Counters;
    use crate::fallback::infer::After;

    fn heard(cookie: u64, ends: Ends, counters: Counters, after: After) -> Heard {
        let message = Message { ends, cookie, counters: Some(counters), state: 7, ..Message::default() };
        Heard { netns: 1, message, after, other_cookie: false, listener: None }
    }

    fn ends() -> Ends {
        Ends { family: 2, local_port: 40_000, remote_port: 80, ..Ends::default() }
    }

    fn counters(sent: u64, received: u64, acked: u64) -> Counters {
        Counters { sent, received, acked, data_segments: 1, rtt_us: 5, ..Counters::default() }
    }

    #[test]
    fn the_peers_end_settles_what_is_open_in_either_order() {
        // The client closed first and its remainder had the FIN already; the server closed last, its listener before.
        let client = heard(1, ends(), counters(100, 7, 102), After::TimeWait);
        let server = heard(2, ends().mirrored(), counters(7, 101, 8), After::Nobody);
        for pair in [[client, server], [server, client]] {
            let mut closing = Closing::default();
            let mut sockets = Sockets::default();
            closing.take(&pair[0], &mut sockets, 1);
            assert!(closing.ready.is_empty());
            closing.take(&pair[1], &mut sockets, 2);
            closing.ready.sort_by_key(|row| row.cookie);
            let told: Vec<_> = closing.ready.iter().map(|row| (row.sent, row.recv, row.direction, row.flags)).collect();
            assert_eq!(told, [(100, 7, 2, 0), (7, 100, 1, 0)]);
        }
    }

    #[test]
    fn without_a_peer_it_is_told_low_and_says_so() {
        let mut closing = Closing::default();
        closing.take(&heard(1, ends(), counters(100, 7, 102), After::TimeWait), &mut Sockets::default(), 1);
        closing.turn(2);
        assert!(closing.ready.is_empty());
        assert_eq!(closing.rows().map(|row| row.flags).collect::<Vec<_>>(), [0]);
        closing.turn(1 + WAIT_NS);
        assert_eq!(closing.ready.iter().map(|row| (row.recv, row.flags)).collect::<Vec<_>>(), [(6, RECV_ONE_SHORT)]);
    }

    /// The server closed first, and the client more than a delayed acknowledgement later: FIN_WAIT2, no FIN among what
    /// was received. Nobody asked about the socket before, so that what is left of it has a cookie of its own.
    fn server_first(cookie: u64) -> Heard {
        Heard { other_cookie: true, ..heard(cookie, ends().mirrored(), counters(7, 100, 8), After::FinWait2) }
    }

    #[test]
    fn a_remainder_with_a_cookie_of_its_own_counts_as_its_sockets_if_no_other_ended_with_that_tuple() {
        let told = |heard: &[Heard]| {
            let mut closing = Closing::default();
            for (heard, at) in heard.iter().zip(1..) {
                closing.take(heard, &mut Sockets::default(), at);
            }
            closing.turn(9 + WAIT_NS);
            let row = |row: &Row| (row.recv, row.direction, row.flags, row.state != 0);
            closing.ready.iter().map(row).collect::<Vec<_>>()
        };
        assert_eq!(told(&[server_first(2)]), [(100, 1, 0, true)]);
        // Whose the remainder was is not known: told low, and so; nor how it ended.
        assert_eq!(told(&[server_first(2), server_first(3)]), [(99, 0, RECV_ONE_SHORT, false); 2]);
        // Its peer settles it at once.
        let client = heard(1, ends(), counters(100, 8, 102), After::Nobody);
        assert_eq!(told(&[server_first(2), client]), [(100, 1, 0, false), (7, 2, 0, true)]);
    }

    #[test]
    fn a_socket_that_was_asked_about_left_its_cookie() {
        let mut sockets = Sockets::default();
        let alive = Message {
            state: 1,
            counters: Some(counters(0, 0, 0)),
            cookie: 2,
            ends: ends().mirrored(),
            ..Message::default()
        };
        sockets.see(&alive, &counters(0, 0, 0), (0, 0), None, 1, 1);
        let mut closing = Closing::default();
        closing.take(&server_first(2), &mut sockets, 2);
        closing.turn(9 + WAIT_NS);
        assert_eq!(closing.ready.iter().map(|row| (row.recv, row.flags)).collect::<Vec<_>>(), [(99, RECV_ONE_SHORT)]);
    }

    #[test]
    fn a_socket_without_a_connection_has_no_end() {
        let mut closing = Closing::default();
        let unconnected = Ends { remote_port: 0, ..ends() };
        closing.take(&heard(1, unconnected, Counters::default(), After::Nobody), &mut Sockets::default(), 1);
        assert!(closing.ready.is_empty() && closing.waiting() == 0);
    }
}
