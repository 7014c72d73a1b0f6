//! A kernel row becomes a row of the feed.

use crate::conntrack::Translation;
use crate::places::Place;
use crate::probes::layout::{IDLE, INET6, LAST_SEEN, OTHER_PEER, RECV_ONE_SHORT, Row, TCP};
use nix::libc;
use weir_wire::feed::Connection;

/// What came since the client's last fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// Payload bytes.
    pub sent: u64,
    /// Payload bytes.
    pub recv: u64,
    /// Segments.
    pub retransmits: u64,
}

/// Whether a row lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It was open when it was read.
    Open,
    /// It has ended.
    Ended,
}

/// The feed's row.
pub fn to_feed(
    row: &Row,
    place: Option<&Place>,
    translation: Option<&Translation>,
    last: Last,
    life: Life,
) -> Connection {
    let known = |value: u64| (value > 0).then_some(value);
    let known_short = |value: u32| (value > 0).then_some(value);
    let tcp = row.protocol == TCP;
    let ended = life == Life::Ended;
    Connection {
        pid: row.origin.pid,
        kind: u8::from(!tcp),
        family: u8::from(row.family == INET6),
        net_ns: row.origin.netns,
        source: row.local_address().to_string(),
        dest: row.remote_address().to_string(),
        sport: row.local_port,
        dport: row.remote_port,
        direction: row.direction,
        monotonic_sent_bytes: Some(row.sent),
        last_sent_bytes: last.sent,
        monotonic_recv_bytes: Some(row.recv),
        last_recv_bytes: last.recv,
        monotonic_retransmits: u64::from(row.retransmits),
        last_retransmits: last.retransmits,
        last_update_epoch: row.at_ns,
        cookie: known(row.cookie),
        generation: tcp.then_some(row.generation),
        start_epoch: known(row.start_ns),
        state: Some(if ended { "closed" } else { state(row) }.to_owned()),
        close_epoch: ended.then_some(row.at_ns),
        close_reason: ended.then(|| close_reason(row)).flatten().map(str::to_owned),
        errno: (ended && row.error > 0).then_some(u32::from(row.error)),
        cgroup_id: known(row.origin.cgroup_id),
        cgroup_path: place.map(|place| place.path.clone()),
        container_id: place.and_then(|place| place.container_id.clone()),
        conntrack: translation.map(Translation::to_feed),
        rtt_us: known_short(row.rtt_us),
        rtt_var_us: known_short(row.rtt_var_us),
        lost: known_short(row.lost),
        connect_latency_us: known_short(row.connect_latency_us),
        direction_certainty: match row.certainty {
            1 => Some("known".to_owned()),
            2 => Some("inferred".to_owned()),
            _ => None,
        },
        process_name: row.origin.name(),
        process_start: known(row.origin.process_start),
        other_peer: (row.flags & OTHER_PEER != 0).then_some(true),
        totals_certainty: match row.flags & (LAST_SEEN | RECV_ONE_SHORT) {
            0 => None,
            flags if flags & LAST_SEEN != 0 => Some("last_seen".to_owned()),
            _ => Some("recv_one_short".to_owned()),
        },
    }
}

/// `include/net/tcp_states.h`.
fn state(row: &Row) -> &'static str {
    if row.protocol != TCP {
        return "active";
    }
    match row.state {
        1 => "established",
        SYN_SENT => "syn_sent",
        3 => "syn_recv",
        FIN_WAIT1 => "fin_wait1",
        FIN_WAIT2 => "fin_wait2",
        TIME_WAIT => "time_wait",
        7 => "close",
        8 => "close_wait",
        LAST_ACK => "last_ack",
        10 => "listen",
        CLOSING => "closing",
        _ => "unknown",
    }
}

const SYN_SENT: u8 = 2;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;
/// `SHUTDOWN_MASK`: close(2) shuts both ways before it ends the connection, connect(2) to `AF_UNSPEC` does not.
const SHUT_BOTH: u8 = 3;

/// Why it ended. An error says it; without one, the state before the end does: past our FIN it was orderly, from
/// `established`, `close_wait` or `syn_sent` straight to the end it was this side's own reset (SO_LINGER 0, unread data,
/// a connect given up): `aborted`, or `disconnected` when the socket was not being closed.
/// State 0 stands for one that is not known, and without an error leaves the reason unknown.
fn close_reason(row: &Row) -> Option<&'static str> {
    if row.protocol != TCP {
        return Some(if row.flags & IDLE != 0 { "idle" } else { "closed" });
    }
    let reason = match i32::from(row.error) {
        0 => match row.state {
            0 => return None,
            FIN_WAIT1 | FIN_WAIT2 | TIME_WAIT | LAST_ACK | CLOSING => "closed",
            SYN_SENT => "aborted",
            _ if row.shutdown & SHUT_BOTH == SHUT_BOTH => "aborted",
            _ => "disconnected",
        },
        libc::ECONNREFUSED if row.state == SYN_SENT => "refused",
        libc::ECONNRESET | libc::EPIPE | libc::ECONNREFUSED => "reset",
        libc::ETIMEDOUT => "timed_out",
        libc::EHOSTUNREACH | libc::ENETUNREACH => "unreachable",
        _ => "aborted",
    };
    Some(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(state: u8, error: i32, shutdown: u8) -> Row {
        Row { protocol: TCP, state, error: error as u16, shutdown, ..Row::default() }
    }

    #[test]
    fn the_reason_follows_the_error_then_the_state() {
        assert_eq!(close_reason(&ended(LAST_ACK, 0, 3)), Some("closed"));
        assert_eq!(close_reason(&ended(1, 0, 3)), Some("aborted"));
        assert_eq!(close_reason(&ended(1, 0, 0)), Some("disconnected"));
        assert_eq!(close_reason(&ended(SYN_SENT, 0, 3)), Some("aborted"));
        assert_eq!(close_reason(&ended(SYN_SENT, libc::ECONNREFUSED, 3)), Some("refused"));
        assert_eq!(close_reason(&ended(SYN_SENT, libc::ETIMEDOUT, 3)), Some("timed_out"));
        assert_eq!(close_reason(&ended(1, libc::ECONNRESET, 3)), Some("reset"));
        assert_eq!(close_reason(&ended(8, libc::EPIPE, 3)), Some("reset"));
        assert_eq!(close_reason(&ended(SYN_SENT, libc::EHOSTUNREACH, 3)), Some("unreachable"));
        assert_eq!(close_reason(&ended(1, libc::ECONNABORTED, 3)), Some("aborted"));
    }

    #[test]
    fn unknown_is_absent_and_zero_bytes_are_told() {
        let row = Row { protocol: TCP, state: 1, cookie: 7, ..Row::default() };
        let json = serde_json::to_value(to_feed(&row, None, None, Last::default(), Life::Open)).unwrap();
        assert_eq!(json["monotonic_sent_bytes"], 0);
        for absent in
            ["start_epoch", "close_epoch", "rtt_us", "process_name", "cgroup_id", "direction_certainty", "errno"]
        {
            assert!(json.get(absent).is_none(), "{absent}");
        }
        assert_eq!(json["state"], "established");
    }
}
