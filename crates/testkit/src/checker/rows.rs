//! What weir says of single ends: the feed's rows and the transactions, in one form, against the truth.

use super::ends::{End, Watch, close_reason};
use super::fault::{Fault, Kind, View};
use crate::traffic::{Protocol, Role, Word};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use weir_wire::api::Transaction;
use weir_wire::feed::Connection;

/// One end of a connection, as weir says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The local end.
    pub local: SocketAddr,
    /// The remote end.
    pub remote: SocketAddr,
    /// The network namespace's inode.
    pub net_ns: u32,
    /// Its totals.
    pub moved: Word,
    /// What of sent plus received lies before weir's first sight; `None` where the view does not say.
    pub before: Option<u64>,
    /// The role of the local end.
    pub role: Option<Role>,
    /// The owner.
    pub pid: u32,
    /// Its name.
    pub process: Option<String>,
    /// Whether it stands for the peers beyond the cap (R9).
    pub other_peer: bool,
    /// Why it ended; `None` while it lives.
    pub close_reason: Option<String>,
}

fn end(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])), port)
}

impl From<&Connection> for Row {
    fn from(row: &Connection) -> Self {
        Self {
            protocol: if row.kind == 0 { Protocol::Tcp } else { Protocol::Udp },
            local: end(&row.source, row.sport),
            remote: end(&row.dest, row.dport),
            net_ns: row.net_ns,
            moved: Word {
                sent: row.monotonic_sent_bytes.unwrap_or(u64::MAX),
                recv: row.monotonic_recv_bytes.unwrap_or(u64::MAX),
            },
            before: None,
            role: match row.direction {
                1 => Some(Role::Server),
                2 => Some(Role::Client),
                _ => None,
            },
            pid: row.pid,
            process: row.process_name.clone(),
            other_peer: row.other_peer == Some(true),
            close_reason: row.close_reason.clone(),
        }
    }
}

impl From<&Transaction> for Row {
    fn from(row: &Transaction) -> Self {
        Self {
            protocol: if row.protocol == "udp" { Protocol::Udp } else { Protocol::Tcp },
            local: end(&row.source, row.source_port),
            remote: end(&row.dest, row.dest_port),
            net_ns: row.net_ns,
            moved: Word { sent: row.monotonic_sent_bytes, recv: row.monotonic_recv_bytes },
            before: Some(row.bytes_before),
            role: match row.direction.as_str() {
                "incoming" => Some(Role::Server),
                "outgoing" => Some(Role::Client),
                _ => None,
            },
            pid: row.pid,
            process: row.process.clone(),
            other_peer: row.other_peer,
            close_reason: row.close_reason.clone(),
        }
    }
}

/// Connections and bytes (sent and received) of a scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Ends of connections; connections in an edge.
    pub connections: u64,
    /// Sent plus received.
    pub bytes: u64,
}

impl Sum {
    /// Adds one.
    pub fn add(&mut self, moved: Word) {
        self.connections += 1;
        self.bytes += moved.sent + moved.recv;
    }
}

/// How far two counts of one thing differ.
pub(super) fn apart(truth: Word, weir: Word) -> u64 {
    truth.sent.abs_diff(weir.sent) + truth.recv.abs_diff(weir.recv)
}

/// What a view says, by scenario, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What was found.
    pub found: BTreeMap<usize, Sum>,
    /// Connections and bytes too many or too few, connection by connection.
    pub off: BTreeMap<usize, u64>,
    /// TCP ends whose direction is right, and all.
    pub direction: BTreeMap<usize, (u64, u64)>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

type Key = (Protocol, u32, SocketAddr, SocketAddr);

/// Compares the rows of a view with the truth. Every end needs one row of its own, every row of the traffic an end.
pub fn check(view: View, ends: &[End], rows: &[Row], watch: &Watch) -> Verdict {
    let mut verdict = Verdict::default();
    let mut expected: BTreeMap<Key, Vec<&End>> = BTreeMap::new();
    for end in ends.iter().filter(|end| end.is_seen) {
        let truth = &end.truth;
        expected.entry((truth.protocol, truth.net_ns, truth.local, truth.remote)).or_default().push(end);
    }
    let mut found: BTreeMap<Key, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let key = (row.protocol, row.net_ns, row.local, row.remote);
        if expected.contains_key(&key) || watch.covers(row.protocol, row.net_ns, row.local, row.remote) {
            found.entry(key).or_default().push(row);
        }
    }
    let keys: BTreeSet<Key> = expected.keys().chain(found.keys()).copied().collect();
    for key in keys {
        let mut ends = expected.remove(&key).unwrap_or_default();
        let mut rows = found.remove(&key).unwrap_or_default();
        // One four-tuple may have been used several times: what fits goes together, then what nearly fits, then what is
        // left, in order.
        let mut pairs = Vec::new();
        for fits in [|truth: Word, told: Word| truth == told, is_one_short] {
            ends.retain(|end| {
                let Some(fitting) = rows.iter().position(|row| fits(end.moved(), row.moved)) else { return true };
                pairs.push((*end, rows.remove(fitting)));
                false
            });
        }
        let rest = ends.len().min(rows.len());
        pairs.extend(ends.drain(..rest).zip(rows.drain(..rest)));
        for (end, row) in pairs {
            compare(view, end, row, &mut verdict);
        }
        for end in ends {
            *verdict.off.entry(end.scenario).or_default() += 1 + apart(end.moved(), Word::default());
            let detail = format!("no row for {}", words(end));
            verdict.faults.push(Fault { view, kind: Kind::Missing, scenario: Some(end.scenario), detail });
        }
        for row in rows {
            let server = if row.role == Some(Role::Server) { row.local } else { row.remote };
            let scenario = watch.scenario_of(row.protocol, Some(server.ip()), server.port());
            if let Some(scenario) = scenario {
                verdict.found.entry(scenario).or_default().add(row.moved);
                *verdict.off.entry(scenario).or_default() += 1 + apart(row.moved, Word::default());
            }
            let detail = format!("a row that nobody played: {row:?}");
            verdict.faults.push(Fault { view, kind: Kind::Extra, scenario, detail });
        }
    }
    verdict
}

fn is_one_short(truth: Word, told: Word) -> bool {
    told.sent == truth.sent && told.recv.checked_add(1) == Some(truth.recv)
}

fn words(end: &End) -> String {
    let truth = &end.truth;
    format!(
        "{} {:?} {} to {} ({:?}, {:?}), pid {}",
        truth.protocol,
        truth.role,
        truth.local,
        truth.remote,
        truth.outcome,
        end.moved(),
        truth.pid
    )
}

fn compare(view: View, end: &End, row: &Row, verdict: &mut Verdict) {
    let mut faults = Vec::new();
    let mut wrong = |kind, detail: String| {
        let detail = format!("{detail}: {}", words(end));
        faults.push(Fault { view, kind, scenario: Some(end.scenario), detail });
    };
    verdict.found.entry(end.scenario).or_default().add(row.moved);
    *verdict.off.entry(end.scenario).or_default() += apart(end.moved(), row.moved);
    if row.moved != end.moved() {
        let kind = if is_one_short(end.moved(), row.moved) { Kind::OneShort } else { Kind::Bytes };
        wrong(kind, format!("{:?}", row.moved));
    }
    let before = end.before.sent + end.before.recv;
    if row.before.is_some_and(|told| told != before) {
        wrong(Kind::Bytes, format!("{:?} bytes before instead of {before}", row.before));
    }
    if end.truth.protocol == Protocol::Tcp {
        let (right, all) = verdict.direction.entry(end.scenario).or_default();
        *all += 1;
        *right += u64::from(row.role == Some(end.truth.role));
    }
    if row.role != Some(end.truth.role) {
        let kind = if row.role.is_none() { Kind::Undirected } else { Kind::Direction };
        wrong(kind, format!("{:?}", row.role));
    }
    let is_owner = row.pid == end.truth.pid && row.process.as_deref() == Some(&end.truth.process);
    if !is_owner {
        let kind = if row.pid == 0 && row.process.is_none() { Kind::Ownerless } else { Kind::Owner };
        wrong(kind, format!("pid {} {:?} instead of {:?}", row.pid, row.process, end.truth.process));
    }
    if let (Some(expected), Some(told)) = (close_reason(&end.truth), row.close_reason.as_deref())
        && expected != told
    {
        wrong(Kind::Ending, format!("ended by {told:?}"));
    }
    verdict.faults.append(&mut faults);
}
