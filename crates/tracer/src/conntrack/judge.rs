//! What an answer of the kernel says of a row. Pure.
//!
//! Only an entry of this very connection says anything: the table knows connections by their tuple, and tuples are used
//! again.

use super::asker::Answer;
use super::entry::{Ends, Translation};
use crate::probes::layout::Row;
use nix::libc;
use std::collections::HashMap;
use std::net::SocketAddr;

/// How far an entry's start may lie after its connection's end: the system's clock is stepped by less in practice.
const START_SLACK_NS: i64 = 10_000_000;

/// States of a TCP entry (`enum tcp_conntrack`).
pub(super) const ESTABLISHED: u8 = 3;
pub(super) const TIME_WAIT: u8 = 7;
pub(super) const CLOSE: u8 = 8;

/// What rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    pub(super) netns: u32,
    pub(super) protocol: u8,
    pub(super) end: SocketAddr,
}

/// What an answer says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Translated(Translation),
    Plain,
    Missing,
    Failed,
    /// The entry is that of an earlier or later connection.
    Other,
}

/// Whether a row lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    Ended,
}

/// TCP states of a row (`include/net/tcp_states.h`).
pub(super) const SYN_SENT: u8 = 2;

/// A row's own packets.
pub(super) fn ends(row: &Row) -> Ends {
    Ends {
        source: SocketAddr::new(row.local_address(), row.local_port),
        dest: SocketAddr::new(row.remote_address(), row.remote_port),
    }
}

/// The end that rules for this row are about: what was opened asks for its remote end. What was accepted may come by any
/// rule, except over loopback.
pub(super) fn destination(row: &Row) -> Option<Destination> {
    let Ends { source, dest } = ends(row);
    let end = match row.direction {
        2 => dest,
        1 if source.ip().is_loopback() && dest.ip().is_loopback() => source,
        _ => return None,
    };
    Some(Destination { netns: row.origin.netns, protocol: row.protocol, end })
}

/// Of several connections that ended one after another with the same tuple, an entry can only be the last one's.
pub(super) fn leave_last_of_each_tuple(wanted: &mut Vec<usize>, rows: &[Row]) {
    let key = |row: &Row| (row.origin.netns, row.protocol, ends(row));
    let last: HashMap<_, usize> = rows.iter().enumerate().map(|(index, row)| (key(row), index)).collect();
    wanted.retain(|&index| last.get(&key(&rows[index])) == Some(&index));
}

/// What an answer says of a row: only an entry of this very connection says anything.
pub(super) fn judge(row: &Row, life: Life, answer: &Answer, wall_offset: i64) -> Verdict {
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
