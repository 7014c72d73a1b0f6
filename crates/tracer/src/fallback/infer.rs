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
    /// Nobody, or a listener.
    Nobody,
    /// Its own remainder, the peer's FIN still to come: it was not among the counters.
    FinWait2,
    /// Its own remainder, the peer's FIN came: to the socket or to the remainder.
    TimeWait,
    /// Another connection, or there was no answer: what this one left behind is not known.
    Unclear,
}

/// What is known of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Payload sent.
    pub sent: u64,
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

/// Payload that a living socket has sent: what left at least once is how far the sequence numbers came, less the SYN of
/// the side that opened and the FIN. `bytes_sent - bytes_retrans` is the same, but where the host's own firewall or
/// queue refused segments: those count at every try. While segments are in flight it is at most too low.
pub fn sent(message: &Message, counters: &Counters, opener: Option<Opener>) -> u64 {
    let Some(opener) = opener.filter(|_| message.state != state::SYN_SENT) else { return counters.sent };
    let sequence = counters.acked + in_flight(message, counters);
    counters.sent.min(sequence.saturating_sub(u64::from(opener == Opener::Self_) + fin(message.state, counters)))
}

/// What was sent and is not acknowledged. Read before the rest of the counters, so exact only on a socket that is no
/// more, or where nothing is.
fn in_flight(message: &Message, counters: &Counters) -> u64 {
    if message.state != state::CLOSE && counters.unacked == 0 {
        return 0;
    }
    u64::from(message.unsettled.saturating_sub(counters.unsent))
}

/// Whether our FIN has left a living socket.
fn fin(state: u8, counters: &Counters) -> u64 {
    match state {
        state::FIN_WAIT2 => 1,
        state::FIN_WAIT1 | state::CLOSING | state::LAST_ACK => u64::from(counters.unsent == 0),
        _ => 0,
    }
}

/// Who opened a living connection, where nothing of it is in flight. `None`: its counters do not say it.
pub fn opener(message: &Message, counters: &Counters) -> Option<Opener> {
    if message.state == state::SYN_SENT {
        return Some(Opener::Self_);
    }
    if counters.unacked != 0 {
        return None;
    }
    match counters.acked.checked_sub(counters.sent + fin(message.state, counters))? {
        0 => Some(Opener::Peer),
        1 => Some(Opener::Self_),
        _ => None,
    }
}

/// Who opened a living connection whose counters move while they are read: likely, not certain.
pub fn moving(message: &Message, counters: &Counters) -> Option<Opener> {
    match (counters.acked + in_flight(message, counters)).checked_sub(counters.sent)? {
        0 => Some(Opener::Peer),
        1 if matches!(message.state, state::ESTABLISHED | state::CLOSE_WAIT) => Some(Opener::Self_),
        _ => None,
    }
}

/// What was seen of a socket beside its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Who opened, seen while it lived.
    pub opener: Option<Opener>,
    /// The peer's FIN was there while it lived.
    pub had_fin: bool,
    /// There is a listener at its local end.
    pub listening: bool,
}

/// What a destroyed socket was.
pub fn end(message: &Message, counters: &Counters, seen: Seen, after: After) -> End {
    let Seen { opener, had_fin, listening } = seen;
    let remains = matches!(after, After::FinWait2 | After::TimeWait);
    // Our SYN and our FIN.
    let sequence = counters.acked + in_flight(message, counters);
    let flags = sequence.checked_sub(counters.sent);
    let never_answered = counters.rtt_us == 0 && counters.sent == 0 && counters.received == 0;
    let opener = opener.or(match flags {
        Some(2) => Some(Opener::Self_),
        // A connect that failed: its SYN was never acknowledged.
        Some(0) if never_answered && !listening => Some(Opener::Self_),
        Some(0) => Some(Opener::Peer),
        // What remains has had its FIN acknowledged.
        Some(1) if listening || remains => Some(Opener::Peer),
        _ => None,
    });
    let fin = opener.zip(flags).map(|(opener, flags)| flags == if opener == Opener::Self_ { 2 } else { 1 });
    let orderly = if remains { Some(true) } else { fin.map(|fin| fin && message.unsettled == 0) };
    // Beyond two flags is nothing; fewer are there where segments were refused, and then a FIN may be among them.
    let syn = u64::from(opener == Some(Opener::Self_));
    let refused = flags.is_none_or(|flags| flags < syn);
    let sent = counters.sent.min(sequence.saturating_sub(syn + u64::from(refused)));
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
            After::Nobody => (without, orderly == Some(true)),
            // As after TIME_WAIT; after an abort it would be data that was not read.
            After::Unclear => (without, message.unread > 0 && orderly == Some(true)),
        }
    };
    End { sent, recv, sure, opener, orderly }
}

/// Settles whether `received` has a FIN by what the peer, seen on the same machine, has sent in all.
pub fn settle(received: u64, peer_sent: u64) -> u64 {
    received.min(peer_sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Seen = Seen { opener: Some(Opener::Self_), had_fin: false, listening: false };

    fn counters(sent: u64, received: u64, acked: u64) -> Counters {
        Counters { sent, received, acked, data_segments: 1, rtt_us: 9, ..Counters::default() }
    }

    #[test]
    fn the_side_that_opened_has_its_syn_acknowledged() {
        let of = |state, counters: Counters| opener(&Message { state, ..Message::default() }, &counters);
        assert_eq!(of(state::ESTABLISHED, counters(10, 0, 11)), Some(Opener::Self_));
        assert_eq!(of(state::ESTABLISHED, counters(10, 0, 10)), Some(Opener::Peer));
        assert_eq!(of(state::FIN_WAIT2, counters(10, 0, 12)), Some(Opener::Self_));
        assert_eq!(of(state::FIN_WAIT2, counters(10, 0, 11)), Some(Opener::Peer));
        assert_eq!(of(state::SYN_SENT, counters(0, 0, 0)), Some(Opener::Self_));
        assert_eq!(of(state::ESTABLISHED, Counters { unacked: 1, ..counters(10, 0, 10) }), None);
        assert_eq!(of(state::ESTABLISHED, counters(1_100, 0, 101)), None, "refused segments");
    }

    #[test]
    fn refused_segments_were_never_sent() {
        let message = Message { state: state::ESTABLISHED, unsettled: 1_000, ..Message::default() };
        let refused = Counters { unsent: 1_000, ..counters(3_100, 0, 101) };
        assert_eq!(sent(&message, &refused, Some(Opener::Self_)), 100);
        assert_eq!(sent(&message, &refused, None), 3_100);
        let flying = Counters { unacked: 2, ..counters(1_100, 0, 101) };
        assert_eq!(sent(&message, &flying, Some(Opener::Self_)), 1_100);
        let done = Message { state: state::CLOSE, ..Message::default() };
        let end = end(&done, &counters(3_100, 0, 102), OURS, After::Nobody);
        assert_eq!(end.sent, 100);
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
            ((100, 7, 102, 0), (After::FinWait2, false), (7, true, Some(Opener::Self_))),
            ((100, 7, 102, 0), (After::TimeWait, false), (6, false, Some(Opener::Self_))),
            // Both FINs came to the socket; the peer's was not read.
            ((100, 8, 102, 1), (After::TimeWait, false), (7, true, Some(Opener::Self_))),
            // The server closed last, with and without having read the FIN.
            ((7, 101, 8, 1), (After::Nobody, true), (100, true, Some(Opener::Peer))),
            ((7, 101, 8, 0), (After::Nobody, true), (100, true, Some(Opener::Peer))),
            // The server closed first.
            ((7, 101, 8, 1), (After::TimeWait, true), (100, true, Some(Opener::Peer))),
            ((7, 100, 8, 0), (After::FinWait2, true), (100, true, Some(Opener::Peer))),
            // The same, its tuple another connection's by the time of the question: with and without the FIN.
            ((7, 101, 8, 1), (After::Unclear, true), (100, true, Some(Opener::Peer))),
            ((7, 100, 8, 0), (After::Unclear, true), (99, false, Some(Opener::Peer))),
            // The client closed last.
            ((100, 8, 102, 0), (After::Nobody, false), (7, true, Some(Opener::Self_))),
            // The server closed last, and its listener before: nothing says who opened.
            ((7, 101, 8, 0), (After::Nobody, false), (100, false, None)),
        ];
        for ((sent, received, acked, unread), (after, listening), expected) in cases {
            let message = Message { unread, ..Message::default() };
            let end = end(&message, &counters(sent, received, acked), Seen { listening, ..Seen::default() }, after);
            assert_eq!((end.recv, end.sure, end.opener), expected, "{sent} {received} {acked} {unread} {after:?}");
        }
    }

    #[test]
    fn an_abort_is_not_taken_for_a_close() {
        let aborted = end(&Message::default(), &counters(100, 50, 101), OURS, After::Nobody);
        assert_eq!((aborted.recv, aborted.sure, aborted.orderly), (49, false, Some(false)));
        // A byte was on its way when the reset came.
        let message = Message { unsettled: 1, state: state::CLOSE, ..Message::default() };
        let aborted = end(&message, &counters(1, 0, 1), Seen::default(), After::Nobody);
        assert_eq!((aborted.recv, aborted.sure, aborted.opener), (0, true, None));
        let failed = Counters { rtt_us: 0, data_segments: 0, ..Counters::default() };
        assert_eq!(end(&Message::default(), &failed, Seen::default(), After::Nobody).opener, Some(Opener::Self_));
    }

    #[test]
    fn what_brought_no_payload_received_none() {
        let fin = Counters { data_segments: 0, ..counters(100, 1, 102) };
        let end = end(&Message::default(), &fin, Seen::default(), After::TimeWait);
        assert_eq!((end.recv, end.sure), (0, true));
    }

    #[test]
    fn the_peers_total_settles_it() {
        assert_eq!((settle(8, 7), settle(7, 7)), (7, 7));
    }
}
