//! The rows of one reply, compact, until it is known that the reply is whole.
//!
//! A row takes about 150 bytes here instead of 650 in the body. Its local end's text is kept once for all rows that
//! share it. Staging touches nothing that lasts: a reply that breaks off is forgotten with its stage.

use super::key::{Key, PackedTuple};
use super::words::Word;
use hashbrown::HashMap;
use hashbrown::hash_table::HashTable;
use std::hash::BuildHasher;
use weir_model::{Certainty, Direction, Protocol, Tuple};
use weir_wire::feed::decode::{ReplyTuple, Row, Translated};

/// A local end as a row describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RawEnd {
    /// The network namespace's inode, 0 unknown.
    pub netns: u32,
    /// The owner, 0 unknown.
    pub pid: u32,
    /// When the owner started, 0 unknown.
    pub process_start: u64,
    /// The cgroup at the socket's creation, 0 unknown.
    pub cgroup_id: u64,
    /// The owner's name, empty unknown.
    pub process_name: Box<str>,
    /// The cgroup's path, empty unknown.
    pub cgroup_path: Box<str>,
    /// The container in it, empty unknown.
    pub container_id: Box<str>,
}

/// The numbers of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Sent, received, sent again: since the counter began.
    Totals([u64; 3]),
    /// The same since the last fetch, from a source that has nothing else.
    Deltas([u64; 3]),
    /// The same, where the source's own count of them began with these.
    FirstDeltas([u64; 3]),
    /// What such a source has counted itself so far, from the first fetch of one of its clients.
    Baseline([u64; 3]),
}

impl Reading {
    /// The numbers.
    pub fn numbers(self) -> [u64; 3] {
        match self {
            Self::Totals(numbers) | Self::Deltas(numbers) | Self::FirstDeltas(numbers) | Self::Baseline(numbers) => {
                numbers
            }
        }
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct StagedRow {
    /// Its ends.
    pub tuple: PackedTuple,
    /// The socket cookie, 0 none.
    pub cookie: u64,
    /// Its numbers.
    pub reading: Reading,
    /// When it began, 0 unknown.
    pub start: u64,
    /// When it closed, 0 open.
    pub close: u64,
    /// When it last changed, 0 unknown.
    pub last_update: u64,
    /// Sent and received since the last fetch, beside totals: tells only whether those were counted from another begin
    /// (see [`super::table`]), and is never added.
    pub last: [u64; 2],
    /// The tracer's own count of the cookie's lives.
    pub tracer_generation: Option<u32>,
    /// errno, 0 none.
    pub errno: u32,
    /// 0 unknown.
    pub rtt_us: u32,
    /// 0 unknown.
    pub connect_latency_us: u32,
    /// Index in [`Stage::ends`].
    pub end: u32,
    /// Index in [`Stage::replies`] and 1, 0 where the row is not that of a translated connection's opener.
    pub reply: u32,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who opened it.
    pub direction: Option<Direction>,
    /// How sure that is.
    pub certainty: Certainty,
    /// The feed's `state`.
    pub state: Word,
    /// The feed's `close_reason`.
    pub close_reason: Word,
    /// It stands for every peer beyond the cap.
    pub other_peer: bool,
    /// A source of deltas says that it was established since the last fetch.
    pub begins: bool,
}

/// The rows of one reply.
#[derive(Debug, Default)]
pub struct Stage {
    /// Open connections, in the feed's order.
    pub open: Vec<StagedRow>,
    /// Closed ones.
    pub closed: Vec<StagedRow>,
    /// The local ends that the rows refer to.
    pub ends: Vec<RawEnd>,
    /// The translations that rows refer to.
    pub replies: Vec<ReplyTuple>,
    /// The translations of connections that were accepted here: how their openers know them.
    pub accepted: Vec<Translated>,
    /// Failed connects that stand in other rows of failed connects.
    pub failures_merged: u64,
    lookup: HashTable<u32>,
    hasher: hashbrown::DefaultHashBuilder,
    /// Which pid's row carries a tuple's retransmits, for feeds that repeat them on every pid's row.
    carriers: HashMap<(u32, PackedTuple), u32>,
}

impl Stage {
    /// Forgets every row. The memory is kept for the next reply, unless this one used only a small part of it.
    pub fn clear(&mut self) {
        self.open.shrink_to(4 * self.open.len());
        self.closed.shrink_to(4 * self.closed.len());
        self.open.clear();
        self.closed.clear();
        self.ends.clear();
        self.replies.clear();
        self.accepted.clear();
        self.failures_merged = 0;
        self.lookup.clear();
        self.carriers.clear();
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.open.len() + self.closed.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a row.
    pub fn push(&mut self, row: &Row<'_>) {
        let reading = if row.sent_total.is_some() || row.recv_total.is_some() {
            let retransmits = row.retransmits_total.unwrap_or(0);
            Reading::Totals([row.sent_total.unwrap_or(0), row.recv_total.unwrap_or(0), retransmits])
        } else {
            Reading::Deltas([row.sent_last, row.recv_last, row.retransmits_last])
        };
        self.push_as(row, reading, false);
    }

    /// Takes a row whose numbers mean `reading`, whatever fields they stand in. `begins`: see [`StagedRow::begins`].
    pub fn push_as(&mut self, row: &Row<'_>, reading: Reading, begins: bool) {
        let end = self.end(row);
        let reply = self.translation(row);
        let (direction, certainty) = role(row);
        let staged = StagedRow {
            tuple: PackedTuple::of(row.tuple),
            cookie: row.cookie.unwrap_or(0),
            reading,
            start: row.start.map_or(0, |start| start.0),
            close: row.close.map_or(0, |close| close.0.max(1)),
            last_update: row.last_update.0,
            last: [row.sent_last, row.recv_last],
            tracer_generation: row.generation,
            errno: row.errno,
            rtt_us: row.rtt_us,
            connect_latency_us: row.connect_latency_us,
            end,
            reply,
            protocol: row.protocol,
            direction,
            certainty,
            state: row.state.as_deref().map_or(Word::UNKNOWN, Word::of),
            close_reason: row.close_reason.as_deref().map_or(Word::UNKNOWN, Word::of),
            other_peer: row.other_peer,
            begins,
        };
        if staged.cookie == 0 && retransmits(staged.reading) > 0 {
            let carrier = self.carriers.entry((row.netns, staged.tuple)).or_insert(row.pid);
            *carrier = (*carrier).min(row.pid);
        }
        if staged.close == 0 { self.open.push(staged) } else { self.closed.push(staged) }
    }

    /// Keeps a row's translation. The opener's row refers to it; on the accepting end's row the own tuple is the one
    /// behind the translation already.
    fn translation(&mut self, row: &Row<'_>) -> u32 {
        let Some(reply) = row.reply else { return 0 };
        let behind = Tuple { local: reply.dest, remote: reply.source };
        match reply.original {
            Some(original) if behind == original => return 0,
            Some(original) if original != row.tuple => {
                if behind.reversed() == row.tuple {
                    self.accepted.push(Translated {
                        protocol: row.protocol,
                        original,
                        translated: behind,
                        seen: row.start.unwrap_or(row.last_update),
                        began: row.start.is_some(),
                    });
                }
                return 0;
            }
            None if behind == row.tuple => return 0,
            Some(_) | None => {}
        }
        self.replies.push(reply);
        self.replies.len() as u32
    }

    /// The counter that a row belongs to.
    pub fn key(&self, row: &StagedRow) -> Key {
        let (netns, pid) = self.ends.get(row.end as usize).map_or((0, 0), |end| (end.netns, end.pid));
        Key::of(row.protocol, (row.cookie != 0).then_some(row.cookie), netns, pid, row.tuple)
    }

    /// Whether a row's retransmits are its own. The 2019 tracer counts them without the pid and shows them on every
    /// pid's row of a tuple: the smallest pid's row carries them.
    pub fn carries_retransmits(&self, row: &StagedRow) -> bool {
        if row.cookie != 0 || retransmits(row.reading) == 0 {
            return true;
        }
        let Some(end) = self.ends.get(row.end as usize) else { return true };
        self.carriers.get(&(end.netns, row.tuple)).is_none_or(|carrier| *carrier == end.pid)
    }

    /// Puts closed rows into the order in which they closed: a socket used again closes its lives one after another.
    pub fn order(&mut self) {
        self.closed.sort_by_key(|row| row.close);
    }

    fn end(&mut self, row: &Row<'_>) -> u32 {
        let name = row.process_name.as_deref().unwrap_or("");
        let path = row.cgroup_path.as_deref().unwrap_or("");
        let container = row.container_id.as_deref().unwrap_or("");
        let hash_of = |end: &RawEnd| self.hasher.hash_one((end.pid, end.netns, end.process_start, end.cgroup_id));
        let hash = self.hasher.hash_one((row.pid, row.netns, row.process_start, row.cgroup_id));
        let ends = &self.ends;
        let same = |index: &u32| {
            let end = &ends[*index as usize];
            end.pid == row.pid
                && end.netns == row.netns
                && end.process_start == row.process_start
                && end.cgroup_id == row.cgroup_id
                && *end.process_name == *name
                && *end.cgroup_path == *path
                && *end.container_id == *container
        };
        if let Some(index) = self.lookup.find(hash, same) {
            return *index;
        }
        let index = self.ends.len() as u32;
        self.lookup.insert_unique(hash, index, |index| hash_of(&self.ends[*index as usize]));
        self.ends.push(RawEnd {
            netns: row.netns,
            pid: row.pid,
            process_start: row.process_start,
            cgroup_id: row.cgroup_id,
            process_name: name.into(),
            cgroup_path: path.into(),
            container_id: container.into(),
        });
        index
    }
}

/// Ports from which a kernel takes those of clients (`net.ipv4.ip_local_port_range`, its default).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Who opened a connection, and how sure that is.
///
/// A feed that does not say how sure it is guesses by its own node's addresses and listeners: it calls every pod's
/// connection outgoing, and before 2019-03-25 its numbers meant something else. Its word is not taken. The end with a
/// port that kernels give to clients is the client, where the other end has none; otherwise the server of weir finds
/// the roles by the other end's view (R5), or nobody knows.
fn role(row: &Row<'_>) -> (Option<Direction>, Certainty) {
    let told = match row.direction {
        1 => Some(Direction::Incoming),
        2 => Some(Direction::Outgoing),
        // 3 (local) tells no role: both ends' rows have it.
        _ => None,
    };
    match (told, row.direction_certainty.as_deref()) {
        (Some(_), Some(text)) => (told, Certainty::parse(text)),
        (None, Some(_)) => (None, Certainty::Unknown),
        (_, None) if row.cookie.is_some() => {
            (told, if told.is_some() { Certainty::Inferred } else { Certainty::Unknown })
        }
        (_, None) => {
            let is_client = |port| EPHEMERAL.contains(&port);
            match (is_client(row.tuple.local.port()), is_client(row.tuple.remote.port())) {
                (true, false) => (Some(Direction::Outgoing), Certainty::Inferred),
                (false, true) => (Some(Direction::Incoming), Certainty::Inferred),
                _ => (None, Certainty::Unknown),
            }
        }
    }
}

fn retransmits(reading: Reading) -> u64 {
    reading.numbers()[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(local: &str, remote: &str, reply: ReplyTuple) -> Row<'static> {
        let text = r#"{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2,"start_epoch":9}"#;
        let (row, _) = weir_wire::feed::decode::row::parse(text.as_bytes()).unwrap();
        Row { tuple: tuple(local, remote), reply: Some(reply), ..row }
    }

    fn tuple(local: &str, remote: &str) -> Tuple {
        Tuple { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    /// A pod asks for a Service; the node masquerades it and picks a backend.
    const CLIENT: &str = "10.244.0.7:40000";
    const SERVICE: &str = "10.96.0.9:80";
    const GATEWAY: &str = "10.244.0.1:50000";
    const BACKEND: &str = "10.244.0.8:8080";

    fn reply(original: Option<Tuple>) -> ReplyTuple {
        ReplyTuple { source: BACKEND.parse().unwrap(), dest: GATEWAY.parse().unwrap(), original }
    }

    #[test]
    fn only_the_openers_row_lies_before_the_translation() {
        let original = Some(tuple(CLIENT, SERVICE));
        let mut stage = Stage::default();
        stage.push(&row(CLIENT, SERVICE, reply(original)));
        stage.push(&row(BACKEND, GATEWAY, reply(original)));
        stage.push(&row("10.0.0.1:1", "10.0.0.2:2", reply(original)));
        assert_eq!(stage.open.iter().map(|row| row.reply).collect::<Vec<_>>(), [1, 0, 0]);
        let [accepted] = stage.accepted[..] else { panic!("{:?}", stage.accepted) };
        assert_eq!(
            (accepted.original, accepted.translated, accepted.seen.0, accepted.began),
            (tuple(CLIENT, SERVICE), tuple(GATEWAY, BACKEND), 9, true)
        );
    }

    #[test]
    fn a_feed_without_the_original_tells_of_the_openers_row() {
        let mut stage = Stage::default();
        stage.push(&row(CLIENT, SERVICE, reply(None)));
        stage.push(&row(GATEWAY, BACKEND, reply(None)));
        assert_eq!(stage.open.iter().map(|row| row.reply).collect::<Vec<_>>(), [1, 0]);
        assert!(stage.accepted.is_empty());
    }

    #[test]
    fn a_connection_that_is_tracked_and_not_translated_has_no_translation() {
        let plain = ReplyTuple {
            source: BACKEND.parse().unwrap(),
            dest: CLIENT.parse().unwrap(),
            original: Some(tuple(CLIENT, BACKEND)),
        };
        let mut stage = Stage::default();
        stage.push(&row(CLIENT, BACKEND, plain));
        stage.push(&row(BACKEND, CLIENT, plain));
        assert!(stage.open.iter().all(|row| row.reply == 0) && stage.accepted.is_empty());
    }

    /// A row of the 2019 feed.
    fn legacy(pid: u32, direction: u8, local: &str, remote: &str, retransmits: u64) -> Row<'static> {
        let text = r#"{"type":0,"source":"10.0.0.1","dest":"10.0.0.2","sport":1,"dport":2,"net_ns":9}"#;
        let (row, _) = weir_wire::feed::decode::row::parse(text.as_bytes()).unwrap();
        let totals = (Some(5), Some(retransmits));
        Row { pid, direction, tuple: tuple(local, remote), sent_total: totals.0, retransmits_total: totals.1, ..row }
    }

    #[test]
    fn the_2019_feeds_direction_is_not_believed_the_ports_are() {
        let mut stage = Stage::default();
        // Both ends of a connection between pods: the feed calls both outgoing.
        stage.push(&legacy(1, 2, "10.244.0.7:40000", "10.244.0.8:8080", 0));
        stage.push(&legacy(2, 2, "10.244.0.8:8080", "10.244.0.7:40000", 0));
        // Local, and a direction of before 2019-03-25.
        stage.push(&legacy(3, 3, "10.0.0.5:22", "10.0.0.6:51000", 0));
        stage.push(&legacy(4, 0, "10.0.0.5:51000", "10.0.0.6:443", 0));
        // Nothing tells who opened these.
        stage.push(&legacy(5, 2, "10.0.0.5:51000", "10.0.0.6:51001", 0));
        stage.push(&legacy(6, 1, "10.0.0.5:80", "10.0.0.6:8080", 0));
        let roles: Vec<_> = stage.open.iter().map(|row| (row.direction, row.certainty)).collect();
        let inferred = |direction| (Some(direction), Certainty::Inferred);
        let unknown = (None, Certainty::Unknown);
        assert_eq!(
            roles,
            [
                inferred(Direction::Outgoing),
                inferred(Direction::Incoming),
                inferred(Direction::Incoming),
                inferred(Direction::Outgoing),
                unknown,
                unknown
            ]
        );
    }

    #[test]
    fn retransmits_that_stand_on_every_pids_row_are_carried_by_one() {
        let mut stage = Stage::default();
        for pid in [30, 10, 20] {
            stage.push(&legacy(pid, 2, "10.0.0.1:40000", "10.0.0.2:80", 7));
        }
        stage.push(&legacy(40, 2, "10.0.0.1:40001", "10.0.0.2:80", 3));
        let carriers: Vec<bool> = stage.open.iter().map(|row| stage.carries_retransmits(row)).collect();
        assert_eq!(carriers, [false, true, false, true]);
    }
}
