//! Window: a change becomes a record with its real span [from, to) in wall time (R2, R7), and records become batches.
//!
//! Kernel times are converted here, once, with the offset that the clock fixed when the agent started. A record belongs
//! to the window that holds its `to`; nothing is smeared over windows.

use crate::attribute::stage::{RawEnd, Stage, StagedRow};
use crate::attribute::{Change, Key};
use hashbrown::HashMap;
use prost::bytes::{Bytes, BytesMut};
use std::net::{IpAddr, SocketAddr};
use weir_daemon::clock::Clock;
use weir_inventory::{Processes, SocketView};
use weir_model::{Certainty, Direction, MonotonicNanos};
use weir_wire::agent::record::InstanceKind;
use weir_wire::agent::{Address, Dns, LocalEnd, Record};

/// Records of one batch: about 4 MiB encoded, a quarter of that compressed, well under a server's limit.
pub const MAX_RECORDS: usize = 20_000;

/// The span of a poll, wall time in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The last successful poll, 0 when there was none.
    pub from: i64,
    /// This poll's snapshot.
    pub to: i64,
}

/// The records of one batch in the making.
#[derive(Debug)]
pub struct Part {
    /// Finished records.
    pub records: Vec<Record>,
    /// The local ends that they refer to.
    pub local_ends: Vec<LocalEnd>,
    /// What was asked of DNS servers ([`crate::dns`]).
    pub dns: Vec<Dns>,
    /// Sums of the deltas.
    pub sent_bytes: u64,
    /// Sums of the deltas.
    pub recv_bytes: u64,
    /// Records that open a connection.
    pub connections: u64,
    /// A row's end, with the owner's start as it was resolved, to the local end's index.
    known: HashMap<(u32, u64), u32>,
    /// The bytes of addresses, shared by many records of one allocation.
    addresses: BytesMut,
}

/// What turns changes into records.
pub struct Window<'a> {
    /// Converts kernel time.
    pub clock: &'a dyn Clock,
    /// Names local ends.
    pub processes: &'a Processes,
    /// The rows that the changes come from.
    pub stage: &'a Stage,
    /// The poll's span.
    pub span: Span,
    /// When the snapshot began, for rows that do not say when they changed.
    pub at: MonotonicNanos,
}

impl Default for Part {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            local_ends: Vec::new(),
            dns: Vec::new(),
            sent_bytes: 0,
            recv_bytes: 0,
            connections: 0,
            known: HashMap::new(),
            addresses: BytesMut::new(),
        }
    }
}

impl Part {
    /// Whether the batch is large enough.
    pub fn is_full(&self) -> bool {
        self.records.len() >= MAX_RECORDS
    }

    fn address(&mut self, end: SocketAddr) -> Address {
        let ip = match end.ip() {
            IpAddr::V4(v4) => self.address_bytes(&v4.octets()),
            IpAddr::V6(v6) => self.address_bytes(&v6.octets()),
        };
        Address { ip, port: u32::from(end.port()) }
    }

    fn address_bytes(&mut self, octets: &[u8]) -> Bytes {
        if self.addresses.capacity() < octets.len() {
            self.addresses.reserve(64 << 10);
        }
        self.addresses.extend_from_slice(octets);
        self.addresses.split().freeze()
    }
}

impl Window<'_> {
    /// Adds the record of one change.
    pub fn add(&self, part: &mut Part, key: Key, row: &StagedRow, change: &Change) {
        let life = &change.life;
        let local_end = self.local_end(part, row);
        let (instance_kind, cookie) = match key {
            Key::Socket { cookie } => (InstanceKind::Socket, cookie),
            Key::Peer { cookie, .. } => (InstanceKind::Peer, cookie),
            Key::Tuple { .. } => (InstanceKind::Tuple, 0),
        };
        let start = self.wall(life.start);
        let local = part.address(life.tuple.local.end());
        let remote = part.address(life.tuple.remote.end());
        let (mut translated_local, mut translated_remote) = (None, None);
        if let Some(reply) = row.reply.checked_sub(1).and_then(|index| self.stage.replies.get(index as usize)) {
            translated_local = Some(part.address(reply.dest));
            translated_remote = Some(part.address(reply.source));
        }
        part.sent_bytes = part.sent_bytes.saturating_add(change.delta[0]);
        part.recv_bytes = part.recv_bytes.saturating_add(change.delta[1]);
        part.connections += u64::from(change.opened);
        part.records.push(Record {
            instance_kind: instance_kind as i32,
            cookie,
            generation: life.generation,
            generation_run: life.run,
            protocol: key.protocol() as u32,
            local: Some(local),
            remote: Some(remote),
            direction: match row.direction {
                None => 0,
                Some(Direction::Incoming) => 1,
                Some(Direction::Outgoing) => 2,
            },
            direction_certainty: match row.certainty {
                Certainty::Unknown => 0,
                Certainty::Inferred => 1,
                Certainty::Known => 2,
            },
            local_end,
            sent_total: life.totals[0],
            recv_total: life.totals[1],
            retransmits_total: life.totals[2],
            sent_delta: change.delta[0],
            recv_delta: change.delta[1],
            retransmits_delta: change.delta[2],
            sent_before: life.before[0],
            recv_before: life.before[1],
            from_unix_ns: self.from(change, start),
            to_unix_ns: self.span.to,
            start_unix_ns: start,
            closed_unix_ns: self.wall(row.close),
            opened: change.opened,
            state: life.state.as_str().into(),
            close_reason: row.close_reason.as_str().into(),
            error: row.errno,
            rtt_us: row.rtt_us,
            connect_latency_us: row.connect_latency_us,
            other_peer: row.other_peer,
            translated_local,
            translated_remote,
        });
    }

    /// The span's begin: the last successful poll, or the connection's own start where that is later. A first sight
    /// without either has an empty span: nothing of it lies in a window.
    fn from(&self, change: &Change, start: i64) -> i64 {
        let poll = match self.span.from {
            0 if change.whole && start != 0 => start,
            0 => self.span.to,
            from => from,
        };
        if change.opened { poll.max(start).min(self.span.to) } else { poll.min(self.span.to) }
    }

    /// A kernel time as wall time, 0 for unknown. What a lying tracer puts into the future happened now at the latest.
    pub(crate) fn wall(&self, monotonic: u64) -> i64 {
        if monotonic == 0 {
            return 0;
        }
        self.clock.to_wall(MonotonicNanos(monotonic)).0.min(self.clock.wall().0).max(1)
    }

    fn local_end(&self, part: &mut Part, row: &StagedRow) -> u32 {
        let Some(raw) = self.stage.ends.get(row.end as usize) else { return 0 };
        if raw.process_start != 0 || raw.pid == 0 {
            if let Some(index) = part.known.get(&(row.end, raw.process_start)) {
                return *index;
            }
            let end = self.resolve(raw, self.at);
            return remember(part, (row.end, raw.process_start), end);
        }
        // Without the owner's start the pid alone names it only at the time of the row's last change.
        let at = if row.last_update == 0 { self.at } else { MonotonicNanos(row.last_update) };
        let end = self.resolve(raw, at);
        match part.known.get(&(row.end, end.process_start_ns)) {
            Some(index) => *index,
            None => remember(part, (row.end, end.process_start_ns), end),
        }
    }

    pub(crate) fn resolve(&self, raw: &RawEnd, at: MonotonicNanos) -> LocalEnd {
        let text = |text: &'_ str| (!text.is_empty()).then_some(text.to_owned());
        let view = SocketView {
            pid: raw.pid,
            process_start: raw.process_start,
            netns: raw.netns,
            cgroup_path: Some(&*raw.cgroup_path).filter(|path| !path.is_empty()),
            container_id: Some(&*raw.container_id).filter(|id| !id.is_empty()),
            at,
        };
        let identity = self.processes.local_end(&view);
        let process = identity.process.as_ref();
        let known_start = process.map_or(0, |process| process.id.start.0);
        LocalEnd {
            netns: raw.netns,
            pid: raw.pid,
            process_start_ns: if raw.process_start == 0 { known_start } else { raw.process_start },
            process_name: text(&raw.process_name)
                .or(process.map(|process| process.name.to_string()))
                .unwrap_or_default(),
            cgroup_id: raw.cgroup_id,
            cgroup_path: text(&raw.cgroup_path)
                .or(process.map(|process| process.cgroup_path.to_string()))
                .unwrap_or_default(),
            container_id: identity.container.map(|id| id.to_string()).unwrap_or_default(),
        }
    }
}

fn remember(part: &mut Part, key: (u32, u64), end: LocalEnd) -> u32 {
    let index = part.local_ends.len() as u32;
    part.local_ends.push(end);
    part.known.insert(key, index);
    index
}
