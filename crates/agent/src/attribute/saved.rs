//! Baselines, and the metadata that holds, as they lie in the spool: protobuf, whose fields are only ever added.

use super::key::{Key, PackedTuple};
use super::life::{Anchor, Entry, Life, Older};
use super::words::Word;
use prost::Message;
use weir_model::Protocol;
use weir_wire::agent::MetadataFact;

/// Some counters, and some facts of metadata.
#[derive(Clone, PartialEq, Message)]
pub struct SavedPart {
    /// In no order.
    #[prost(message, repeated, tag = "1")]
    pub counters: Vec<SavedCounter>,
    /// What was told of metadata, in order: one with an end takes the one without back.
    #[prost(message, repeated, tag = "2")]
    pub facts: Vec<MetadataFact>,
}

/// The facts that were told in `parts` and have no end.
pub fn open_facts(parts: impl Iterator<Item = SavedPart>) -> Vec<MetadataFact> {
    let mut open = std::collections::BTreeMap::new();
    for fact in parts.flat_map(|part| part.facts) {
        let key = (fact.source.clone(), fact.kind.clone(), fact.id.clone(), fact.from_unix_ns);
        if fact.to_unix_ns == 0 {
            open.insert(key, fact)
        } else {
            open.remove(&key)
        };
    }
    open.into_values().collect()
}

/// [`Key`] and [`Entry`].
#[derive(Clone, PartialEq, Message)]
pub struct SavedCounter {
    /// 1 socket, 2 peer, 3 tuple.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// The socket cookie.
    #[prost(uint64, tag = "2")]
    pub cookie: u64,
    /// 0 TCP, 1 UDP.
    #[prost(uint32, tag = "3")]
    pub protocol: u32,
    /// The network namespace's inode.
    #[prost(uint32, tag = "4")]
    pub netns: u32,
    /// The owner.
    #[prost(uint32, tag = "5")]
    pub pid: u32,
    /// The present or last life.
    #[prost(message, optional, tag = "6")]
    pub life: Option<SavedLife>,
    /// [`Entry::next_generation`].
    #[prost(uint32, tag = "7")]
    pub next_generation: u32,
    /// [`Entry::close`].
    #[prost(uint64, tag = "8")]
    pub close: u64,
    /// [`Entry::closed_until`].
    #[prost(uint64, tag = "9")]
    pub closed_until: u64,
    /// [`Entry::disconnected`].
    #[prost(bool, tag = "10")]
    pub disconnected: bool,
    /// [`Entry::older`].
    #[prost(message, repeated, tag = "11")]
    pub older: Vec<SavedLife>,
}

/// [`Life`].
#[derive(Clone, PartialEq, Message)]
pub struct SavedLife {
    /// [`PackedTuple::to_bytes`].
    #[prost(bytes = "vec", tag = "1")]
    pub tuple: Vec<u8>,
    /// Bytes sent.
    #[prost(uint64, tag = "2")]
    pub sent: u64,
    /// Bytes received.
    #[prost(uint64, tag = "3")]
    pub recv: u64,
    /// Segments sent again.
    #[prost(uint64, tag = "4")]
    pub retransmits: u64,
    /// Bytes sent before the first sight.
    #[prost(uint64, tag = "5")]
    pub sent_before: u64,
    /// Bytes received before the first sight.
    #[prost(uint64, tag = "6")]
    pub recv_before: u64,
    /// When it began, `CLOCK_MONOTONIC` nanoseconds, 0 unknown.
    #[prost(uint64, tag = "7")]
    pub start: u64,
    /// The run of the tracer's maps.
    #[prost(fixed64, tag = "8")]
    pub run: u64,
    /// The generation.
    #[prost(uint32, tag = "9")]
    pub generation: u32,
    /// The tracer's own generation.
    #[prost(uint32, optional, tag = "10")]
    pub tracer_generation: Option<u32>,
    /// [`Word::index`] of the state.
    #[prost(uint32, tag = "11")]
    pub state: u32,
    /// [`Anchor::run`], 0 without an anchor.
    #[prost(fixed64, tag = "12")]
    pub anchor_run: u64,
    /// [`Anchor::base`].
    #[prost(fixed64, repeated, tag = "13")]
    pub anchor_base: Vec<u64>,
}

impl SavedCounter {
    /// The saved form of a counter.
    pub fn of(key: &Key, entry: &Entry) -> Self {
        let (kind, cookie, netns, pid) = match *key {
            Key::Socket { cookie } => (1, cookie, 0, 0),
            Key::Peer { cookie, .. } => (2, cookie, 0, 0),
            Key::Tuple { netns, pid, .. } => (3, 0, netns, pid),
        };
        Self {
            kind,
            cookie,
            protocol: key.protocol() as u32,
            netns,
            pid,
            life: Some(SavedLife::of(&entry.life)),
            next_generation: entry.next_generation,
            close: entry.close,
            closed_until: entry.closed_until,
            disconnected: entry.disconnected,
            older: entry.older.iter().flat_map(|older| &older.lives).map(SavedLife::of).collect(),
        }
    }

    /// The counter, `None` when the saved form is not one.
    pub fn counter(&self) -> Option<(Key, Entry)> {
        let life = self.life.as_ref()?.life()?;
        let protocol = if self.protocol == 0 { Protocol::Tcp } else { Protocol::Udp };
        let key = match self.kind {
            1 => Key::Socket { cookie: self.cookie },
            2 => Key::Peer { cookie: self.cookie, tuple: life.tuple },
            3 => Key::Tuple { protocol, netns: self.netns, pid: self.pid, tuple: life.tuple },
            _ => return None,
        };
        let lives: Vec<Life> = self.older.iter().filter_map(SavedLife::life).collect();
        let entry = Entry {
            life,
            next_generation: self.next_generation,
            seen: 0,
            close: self.close,
            closed_until: self.closed_until,
            disconnected: self.disconnected,
            older: (!lives.is_empty()).then(|| Box::new(Older { lives })),
        };
        Some((key, entry))
    }
}

impl SavedLife {
    fn of(life: &Life) -> Self {
        Self {
            tuple: life.tuple.to_bytes().to_vec(),
            sent: life.totals[0],
            recv: life.totals[1],
            retransmits: life.totals[2],
            sent_before: life.before[0],
            recv_before: life.before[1],
            start: life.start,
            run: life.run,
            generation: life.generation,
            tracer_generation: life.tracer_generation,
            state: life.state.index(),
            anchor_run: life.anchor.as_ref().map_or(0, |anchor| anchor.run),
            anchor_base: life.anchor.as_ref().map(|anchor| anchor.base.to_vec()).unwrap_or_default(),
        }
    }

    fn life(&self) -> Option<Life> {
        Some(Life {
            tuple: PackedTuple::from_bytes(&self.tuple)?,
            totals: [self.sent, self.recv, self.retransmits],
            before: [self.sent_before, self.recv_before],
            start: self.start,
            run: self.run,
            generation: self.generation,
            tracer_generation: self.tracer_generation,
            state: Word::from_index(self.state),
            anchor: <[u64; 3]>::try_from(self.anchor_base.as_slice())
                .ok()
                .and_then(|base| Anchor::of(self.anchor_run, base)),
        })
    }
}
