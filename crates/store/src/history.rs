//! The trait of history: rows of what moved, in immutable segments.
//!
//! A row is one record's deltas, oriented from the client. Rows come from the server's applier, go to a
//! [`HistoryStore`] in segments that are named by the range of the log that they hold, and come back by time.

use crate::error::StoreError;
use crate::report::Lsn;
use std::net::SocketAddr;
use std::sync::Arc;
use weir_model::{ConnectionId, Deltas, Endpoint, Protocol, Side, UnixNanos, Window};

/// A segment's name: the log entries whose rows it holds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The first entry.
    pub first: Lsn,
    /// The last entry.
    pub last: Lsn,
}

/// One record's deltas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// The polls' real span: its start.
    pub from: UnixNanos,
    /// Its end. The row belongs to the window that holds it (R2).
    pub to: UnixNanos,
    /// The connection's counter.
    pub connection: ConnectionId,
    /// The role that the view claims. `None`: not known, the view's own end stands in the client's columns.
    pub view: Option<Side>,
    /// The node that saw it.
    pub node: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The network namespace's inode, 0 unknown.
    pub netns: u32,
    /// The client's end.
    pub client: SocketAddr,
    /// The server's end.
    pub server: SocketAddr,
    /// Who the client is.
    pub client_endpoint: Arc<Endpoint>,
    /// Who the server is.
    pub server_endpoint: Arc<Endpoint>,
    /// The process of the view's own end, empty unknown.
    pub process: Arc<str>,
    /// Its container's id, empty none.
    pub container_id: Arc<str>,
    /// What moved, from the client's side: `sent` is what the client sent. Retransmits are the view's own.
    pub deltas: Deltas,
    /// The first record of its connection.
    pub opened: bool,
    /// The last.
    pub closed: bool,
    /// Why it failed to open or broke, empty if it did not.
    pub failure: Arc<str>,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: Option<u32>,
    /// When the connection began, where that is known.
    pub started: Option<UnixNanos>,
}

impl HistoryRow {
    /// The window that it belongs to.
    pub fn window(&self) -> Window {
        Window::of(self.to)
    }
}

/// What history holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistorySummary {
    /// Segments.
    pub segments: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// The last log entry whose rows are in a segment, or that has none.
    pub watermark: Lsn,
    /// The earliest row's end.
    pub oldest: Option<UnixNanos>,
}

/// History.
pub trait HistoryStore: Send + Sync {
    /// Stores a segment and moves the watermark to `id.last`, as one step. A segment at or below the watermark is
    /// already there: nothing happens. No rows: only the watermark moves.
    ///
    /// # Errors
    /// When it cannot be stored; then it is not there, whole or in part.
    fn put_segment(&self, id: SegmentId, rows: &[HistoryRow]) -> Result<(), StoreError>;

    /// Calls `visit` for every row whose `to` lies in `[since, until)`, from the segments up to `as_of`, in no
    /// particular order.
    ///
    /// # Errors
    /// When a segment cannot be read.
    fn scan(
        &self,
        since: UnixNanos,
        until: UnixNanos,
        as_of: Lsn,
        visit: &mut dyn FnMut(HistoryRow),
    ) -> Result<(), StoreError>;

    /// Removes every segment whose newest row ends before `horizon`; answers how many segments and rows that were.
    ///
    /// # Errors
    /// When the catalogue cannot be changed.
    fn forget_before(&self, horizon: UnixNanos) -> Result<(u64, u64), StoreError>;

    /// What is there.
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    fn summary(&self) -> Result<HistorySummary, StoreError>;
}
