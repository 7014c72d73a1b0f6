//! What the kernel's counters say, and what they leave open. Pure.
//!
//! `tcp_info` counts flags beside payload: `bytes_acked` our SYN (on the side that opened) and our FIN, `bytes_received`
//! the peer's FIN. On a socket that lives, its state says which of them came. Of one that was destroyed the state is
//! CLOSE whatever it was before; there the question is put to what the connection left behind ([`After`]).

use super::diag::{Counters, Message, state};

/// Who opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// The other side.
    Peer,
    /// This side.
    Self_,
}

/// Whom the kernel would give the connection's next segment to, asked just after its socket was destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nobody.
    Nobody,
    /// A listener: this side did not open the connection.
    Listener,
    /// Its own remainder, the peer's FIN still to come: it was not among the counters.
    FinWait2,
    /// Its own remainder, the peer's FIN came: to the socket or to the remainder.
    TimeWait,
}

/// What is known of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Payload received, or one byte less.
    pub recv: u64,
    /// Whether it may be one byte more.
    pub sure: bool,
    /// Who opened.
    pub opener: Option<Opener>,
    /// Our FIN was acknowledged: an orderly close.
    pub orderly: Option<bool>,
}

/// Payload that a living socket has received.
pub fn received(counters: &Counters, state: u8) -> u64 {
    let fin = matches!(state, state::CLOSE_WAIT | state::CLOSING | state::LAST_ACK | state::TIME_WAIT);
    counters.received.saturating_sub(u64::from(fin))
}

/// Who opened a living connection, where its counters are at rest. `None`: look again later.
pub fn opener(counters: &Counters, state: u8) -> Option<Opener> {
    if state == state::SYN_SENT {
        return Some(Opener::Self_);
    }
    if counters.unacked != 0 || counters.unsent != 0 {
        return None;
    }
    let fin = u64::from(state == state::FIN_WAIT2);
    match counters.acked.checked_sub(counters.sent + fin)? {
        0 => Some(Opener::Peer),
        1 => Some(Opener::Self_),
        _ => None,
    }
}

/// Who opened a living connection whose counters move while they are read: likely, not certain.
pub fn moving(message: &Message, counters: &Counters) -> Option<Opener> {
    let in_flight = u64::from(message.unsettled.saturating_sub(counters.unsent));
    match (counters.acked + in_flight).checked_sub(counters.sent)? {
        0 => Some(Opener::Peer),
        1 if matches!(message.state, state::ESTABLISHED | state::CLOSE_WAIT) => Some(Opener::Self_),
        _ => None,
    }
}

/// What a destroyed socket was. `opener` and `had_fin` are what was seen of it while it lived.
pub fn end(message: &Message, counters: &Counters, opener: Option<Opener>, had_fin: bool, after: After) -> End {
    let in_flight = u64::from(message.unsettled.saturating_sub(counters.unsent));
    let remains = matches!(after, After::FinWait2 | After::TimeWait);
    // Our SYN and our FIN.
    let flags = (counters.acked + in_flight).checked_sub(counters.sent);
    let never_answered = counters.rtt_us == 0 && counters.sent == 0 && counters.received == 0;
    let opener = opener.or(match (flags, after) {
        (Some(2), _) => Some(Opener::Self_),
        (Some(0), After::Listener) => Some(Opener::Peer),
        // A connect that failed: its SYN was never acknowledged.
        (Some(0), _) if never_answered => Some(Opener::Self_),
        (Some(0), _) | (Some(1), After::Listener) => Some(Opener::Peer),
        // What remains has had its FIN acknowledged.
        (Some(1), _) if remains => Some(Opener::Peer),
        _ => None,
    });
    let fin = opener.zip(flags).map(|(opener, flags)| flags == if opener == Opener::Self_ { 2 } else { 1 });
    let orderly = if remains { Some(true) } else { fin.map(|fin| fin && message.unsettled == 0) };
    let without = counters.received.saturating_sub(1);
    // The peer's FIN is at most one of what was received, and no segment with payload.
    let (recv, sure) = if counters.data_segments == 0 || counters.received == 0 {
        (0, true)
    } else if had_fin || counters.received == 1 {
        (if had_fin { without } else { 1 }, true)
    } else {
        match after {
            After::FinWait2 => (counters.received, true),
            // Nobody reads a socket after close(2): the FIN came to it and was not read. Without it, it came later.
            After::TimeWait => (without, message.unread > 0),
            // Without a remainder an orderly close ended in LAST_ACK, after the peer's FIN.
            After::Nobody | After::Listener => (without, orderly == Some(true)),
        }
    };
    End { recv, sure, opener, orderly }
}

/// Settles whether `received` has a FIN by what the peer, seen on the same machine, has sent in all.
pub fn settle(received: u64, peer_sent: u64) -> u64 {
    received.min(peer_sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(sent: u64, received: u64, acked: u64) -> Counters {
        Counters { sent, received, acked, data_segments: 1, rtt_us: 9, ..Counters::default() }
    }

    #[test]
    fn the_side_that_opened_has_its_syn_acknowledged() {
        assert_eq!(opener(&counters(10, 0, 11), state::ESTABLISHED), Some(Opener::Self_));
        assert_eq!(opener(&counters(10, 0, 10), state::ESTABLISHED), Some(Opener::Peer));
        assert_eq!(opener(&counters(10, 0, 12), state::FIN_WAIT2), Some(Opener::Self_));
        assert_eq!(opener(&counters(10, 0, 11), state::FIN_WAIT2), Some(Opener::Peer));
        assert_eq!(opener(&counters(0, 0, 0), state::SYN_SENT), Some(Opener::Self_));
        let moving = Counters { unacked: 1, ..counters(10, 0, 10) };
        assert_eq!(opener(&moving, state::ESTABLISHED), None);
    }

    #[test]
    fn the_peers_fin_is_no_byte() {
        assert_eq!(received(&counters(0, 8, 0), state::ESTABLISHED), 8);
        assert_eq!(received(&counters(0, 8, 0), state::FIN_WAIT2), 8);
        assert_eq!(received(&counters(0, 8, 0), state::CLOSE_WAIT), 7);
        assert_eq!(received(&counters(0, 8, 0), state::LAST_ACK), 7);
    }

    /// The ends that were tried on a kernel: (sent, received, acked, unread), what is left, and what must come out.
    #[test]
    fn an_orderly_end_is_told_with_its_opener_and_its_bytes() {
        let cases = [
            // The client closed first, the peer's FIN came to what was left of it.
            ((100, 7, 102, 0), After::FinWait2, (7, true, Some(Opener::Self_))),
            ((100, 7, 102, 0), After::TimeWait, (6, false, Some(Opener::Self_))),
            // Both FINs came to the socket; the peer's was not read.
            ((100, 8, 102, 1), After::TimeWait, (7, true, Some(Opener::Self_))),
            // The server closed last, with and without having read the FIN.
            ((7, 101, 8, 1), After::Listener, (100, true, Some(Opener::Peer))),
            ((7, 101, 8, 0), After::Listener, (100, true, Some(Opener::Peer))),
            // The server closed first.
            ((7, 101, 8, 1), After::TimeWait, (100, true, Some(Opener::Peer))),
            ((7, 100, 8, 0), After::FinWait2, (100, true, Some(Opener::Peer))),
            // The client closed last.
            ((100, 8, 102, 0), After::Nobody, (7, true, Some(Opener::Self_))),
            // The server closed last, and its listener before: nothing says who opened.
            ((7, 101, 8, 0), After::Nobody, (100, false, None)),
        ];
        for ((sent, received, acked, unread), after, expected) in cases {
            let message = Message { unread, ..Message::default() };
            let end = end(&message, &counters(sent, received, acked), None, false, after);
            assert_eq!((end.recv, end.sure, end.opener), expected, "{sent} {received} {acked} {unread} {after:?}");
        }
    }

    #[test]
    fn an_abort_is_not_taken_for_a_close() {
        let aborted = end(&Message::default(), &counters(100, 50, 101), Some(Opener::Self_), false, After::Nobody);
        assert_eq!((aborted.recv, aborted.sure, aborted.orderly), (49, false, Some(false)));
        // A byte was on its way when the reset came.
        let message = Message { unsettled: 1, ..Message::default() };
        let aborted = end(&message, &counters(1, 0, 1), None, false, After::Nobody);
        assert_eq!((aborted.recv, aborted.sure, aborted.opener), (0, true, None));
        let failed = Counters { rtt_us: 0, data_segments: 0, ..Counters::default() };
        assert_eq!(end(&Message::default(), &failed, None, false, After::Nobody).opener, Some(Opener::Self_));
    }

    #[test]
    fn what_brought_no_payload_received_none() {
        let fin = Counters { data_segments: 0, ..counters(100, 1, 102) };
        let end = end(&Message::default(), &fin, None, false, After::TimeWait);
        assert_eq!((end.recv, end.sure), (0, true));
    }

    #[test]
    fn the_peers_total_settles_it() {
        assert_eq!((settle(8, 7), settle(7, 7)), (7, 7));
    }
}
