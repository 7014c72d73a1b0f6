//! Roll-ups: what moved on an edge in a minute or an hour, summed over its connections. Pure.
//!
//! Settled rows of history become one-minute rows, those become one-hour rows. Summing is associative and commutative,
//! so that any split and order of the same rows gives the same roll-ups. Connections, their ports and network namespaces
//! are no longer told apart; who the ends were, from which view it was told and whether that view counted is.

use crate::history::HistoryRow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use weir_model::{Endpoint, Protocol, Side, UnixNanos};

const SECOND_NS: i64 = 1_000_000_000;

/// How much time a roll-up's row sums up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// One minute.
    Minute,
    /// One hour.
    Hour,
}

impl Resolution {
    /// Its length, nanoseconds.
    pub fn nanos(self) -> i64 {
        match self {
            Self::Minute => 60 * SECOND_NS,
            Self::Hour => 3600 * SECOND_NS,
        }
    }

    /// The start of the window that holds `at`.
    #[must_use]
    pub fn floor(self, at: UnixNanos) -> UnixNanos {
        UnixNanos(at.0.div_euclid(self.nanos()).saturating_mul(self.nanos()))
    }
}

/// What rows must share to become one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RollupKey {
    /// The role that the view had when it was settled.
    pub view: Option<Side>,
    /// Whether these rows count: of both views of a flow one does (R5).
    pub counted: bool,
    /// The node that saw it.
    pub node: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The client's address; its port is not kept.
    pub client: IpAddr,
    /// The server's end.
    pub server: SocketAddr,
    /// Who the client was.
    pub client_endpoint: Arc<Endpoint>,
    /// Who the server was.
    pub server_endpoint: Arc<Endpoint>,
    /// The process of the view's own end, empty unknown.
    pub process: Arc<str>,
    /// Its container's id, empty none.
    pub container_id: Arc<str>,
    /// Why connections failed, empty where they did not.
    pub failure: Arc<str>,
    /// The window's start. Last, so that rows that differ only in time stand together.
    pub window: UnixNanos,
}

/// What is summed. Sums that would leave 64 bits stay at the largest number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Bytes that the client sent.
    pub sent: u64,
    /// Bytes that the client received.
    pub recv: u64,
    /// Segments sent again, the view's own.
    pub retransmits: u64,
    /// Rows of 10 s that went in.
    pub rows: u64,
    /// Connections whose first record is among them.
    pub opened: u64,
    /// Connections whose last record is.
    pub closed: u64,
    /// Rows that tell a failure.
    pub failures: u64,
    /// The smoothed round-trip times of the rows that have one, summed, microseconds.
    pub rtt_sum_us: u64,
    /// How many rows have one.
    pub rtt_rows: u64,
    /// The largest of them, 0 if none.
    pub rtt_max_us: u32,
}

impl Sums {
    /// One row's.
    pub fn of(row: &HistoryRow) -> Self {
        Self {
            sent: row.deltas.sent.0,
            recv: row.deltas.recv.0,
            retransmits: row.deltas.retransmits,
            rows: 1,
            opened: u64::from(row.opened),
            closed: u64::from(row.closed),
            failures: u64::from(!row.failure.is_empty()),
            rtt_sum_us: row.rtt_us.map_or(0, u64::from),
            rtt_rows: u64::from(row.rtt_us.is_some()),
            rtt_max_us: row.rtt_us.unwrap_or(0),
        }
    }

    /// Both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent.saturating_add(other.sent),
            recv: self.recv.saturating_add(other.recv),
            retransmits: self.retransmits.saturating_add(other.retransmits),
            rows: self.rows.saturating_add(other.rows),
            opened: self.opened.saturating_add(other.opened),
            closed: self.closed.saturating_add(other.closed),
            failures: self.failures.saturating_add(other.failures),
            rtt_sum_us: self.rtt_sum_us.saturating_add(other.rtt_sum_us),
            rtt_rows: self.rtt_rows.saturating_add(other.rtt_rows),
            rtt_max_us: self.rtt_max_us.max(other.rtt_max_us),
        }
    }
}

/// One row of a roll-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollupRow {
    /// How long its window is.
    pub resolution: Resolution,
    /// What it is the sum of.
    pub key: RollupKey,
    /// The sums.
    pub sums: Sums,
}

impl RollupRow {
    /// The one-minute row of a single row of history.
    pub fn of(row: &HistoryRow, counted: bool) -> Self {
        Self {
            resolution: Resolution::Minute,
            key: RollupKey {
                view: row.view,
                counted,
                node: Arc::clone(&row.node),
                protocol: row.protocol,
                client: row.client.ip(),
                server: row.server,
                client_endpoint: Arc::clone(&row.client_endpoint),
                server_endpoint: Arc::clone(&row.server_endpoint),
                process: Arc::clone(&row.process),
                container_id: Arc::clone(&row.container_id),
                failure: Arc::clone(&row.failure),
                window: Resolution::Minute.floor(row.to),
            },
            sums: Sums::of(row),
        }
    }

    /// The same in a window at least as long.
    #[must_use]
    pub fn widened(mut self, resolution: Resolution) -> Self {
        self.resolution = self.resolution.max(resolution);
        self.key.window = self.resolution.floor(self.key.window);
        self
    }
}

/// Rows on their way into a roll-up of one resolution.
#[derive(Debug)]
pub struct Rollup {
    resolution: Resolution,
    sums: BTreeMap<RollupKey, Sums>,
}

impl Rollup {
    /// An empty one.
    pub fn new(resolution: Resolution) -> Self {
        Self { resolution, sums: BTreeMap::new() }
    }

    /// Adds a row of this or a finer resolution.
    pub fn add(&mut self, row: RollupRow) {
        let row = row.widened(self.resolution);
        let sums = self.sums.entry(row.key).or_default();
        *sums = sums.plus(row.sums);
    }

    /// Takes the rows out, sorted.
    pub fn drain(&mut self) -> impl Iterator<Item = RollupRow> + use<> {
        let resolution = self.resolution;
        std::mem::take(&mut self.sums).into_iter().map(move |(key, sums)| RollupRow { resolution, key, sums })
    }
}
