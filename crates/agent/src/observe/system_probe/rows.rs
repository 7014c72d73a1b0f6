//! A connection of system-probe as a row of the stage.

use super::message::{Connection, IpTranslation};
use super::session::Meaning;
use crate::attribute::Stage;
use crate::attribute::stage::Reading;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use weir_model::{MonotonicNanos, Protocol, Tuple};
use weir_wire::feed::decode::{ReplyTuple, Row};

/// Stages one connection of a reply that was asked for at `at`; false when it is not one.
///
/// A close is told by its count: the row then ends the connection, at `at` since the true time is not told. A failed
/// connect ends it, too. One row is one connection, also where several failures were merged into it.
pub fn stage(connection: &Connection, meaning: Meaning, at: u64, stage: &mut Stage) -> bool {
    let Some(tuple) = tuple(connection) else { return false };
    let Ok(pid) = u32::try_from(connection.pid) else { return false };
    let protocol = match connection.kind {
        0 => Protocol::Tcp,
        1 => Protocol::Udp,
        _ => return false,
    };
    let failure = connection
        .tcp_failures_by_err_code
        .iter()
        .filter(|(_, count)| **count > 0)
        .max_by_key(|(errno, count)| (**count, std::cmp::Reverse(**errno)))
        .map(|(errno, _)| *errno);
    let failures: u64 = connection.tcp_failures_by_err_code.values().map(|count| u64::from(*count)).sum();
    stage.failures_merged += failures.saturating_sub(1);
    let closes = protocol == Protocol::Tcp && (connection.last_tcp_closed > 0 || failure.is_some());
    let close_reason = closes.then(|| failure.map_or("closed", reason_of));
    // TCP's is taken from connect and accept; UDP's is guessed from bind, which clients do, too.
    let is_told = protocol == Protocol::Tcp && matches!(connection.direction, 1 | 2);
    let container = connection.laddr.as_ref().map(|addr| addr.container_id.as_str()).filter(|id| !id.is_empty());
    let row = Row {
        protocol,
        tuple,
        netns: connection.net_ns,
        pid,
        direction: u8::try_from(connection.direction).unwrap_or(0),
        sent_total: None,
        recv_total: None,
        retransmits_total: None,
        sent_last: connection.last_bytes_sent,
        recv_last: connection.last_bytes_received,
        retransmits_last: u64::from(connection.last_retransmits),
        last_update: MonotonicNanos(0),
        cookie: None,
        generation: None,
        start: None,
        close: closes.then_some(MonotonicNanos(at)),
        state: closes.then_some(Cow::Borrowed("closed")),
        close_reason: close_reason.map(Cow::Borrowed),
        errno: failure.unwrap_or(0),
        cgroup_id: 0,
        cgroup_path: None,
        container_id: container.map(Cow::Borrowed),
        reply: connection.ip_translation.as_ref().and_then(reply),
        rtt_us: connection.rtt,
        connect_latency_us: 0,
        direction_certainty: is_told.then_some(Cow::Borrowed("inferred")),
        process_name: None,
        process_start: 0,
        other_peer: false,
    };
    let numbers = [row.sent_last, row.recv_last, row.retransmits_last];
    let reading = match meaning {
        Meaning::Deltas => Reading::Deltas(numbers),
        Meaning::Restarted => Reading::FirstDeltas(numbers),
        Meaning::Baseline => Reading::Baseline(numbers),
    };
    let begins = protocol == Protocol::Tcp && connection.last_tcp_established > 0;
    stage.push_as(&row, reading, begins);
    true
}

fn tuple(connection: &Connection) -> Option<Tuple> {
    let end = |addr: Option<&super::message::Addr>| {
        let addr = addr?;
        end(&addr.ip, addr.port)
    };
    let (local, remote) = (end(connection.laddr.as_ref())?, end(connection.raddr.as_ref())?);
    Some(Tuple::new(local.ip(), local.port(), remote.ip(), remote.port()))
}

fn end(ip: &str, port: i32) -> Option<SocketAddr> {
    let ip: IpAddr = ip.parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), u16::try_from(port).ok()?))
}

/// A translation that is no tuple is left out: the connection itself is told without it.
fn reply(translation: &IpTranslation) -> Option<ReplyTuple> {
    Some(ReplyTuple {
        source: end(&translation.repl_src_ip, translation.repl_src_port)?,
        dest: end(&translation.repl_dst_ip, translation.repl_dst_port)?,
        original: None,
    })
}

/// The feed's word for an errno (`include/uapi/asm-generic/errno.h`).
fn reason_of(errno: u32) -> &'static str {
    match errno {
        104 => "reset",
        110 => "timed_out",
        111 => "refused",
        101 | 113 => "unreachable",
        _ => "aborted",
    }
}
