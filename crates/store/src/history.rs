//! The trait of history: rows of what moved, in immutable segments.
//!
//! A row is one record's deltas, oriented from the client. Rows come from the server's applier, go to a
//! [`HistoryStore`] in segments that are named by the range of the log that they hold, and come back by time.

use crate::error::StoreError;
use crate::report::Lsn;
use crate::rollup::{Resolution, RollupRow, Sums};
use crate::settled::{Fate, SettledEdge};
use std::net::SocketAddr;
use std::sync::Arc;
use weir_model::{ConnectionId, Deltas, Endpoint, Protocol, Side, UnixNanos, WINDOW, Window};

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
    /// It came after the lateness horizon: it is kept apart, in no sum.
    pub late: bool,
}

impl HistoryRow {
    /// The window that it belongs to.
    pub fn window(&self) -> Window {
        Window::of(self.to)
    }
}

/// What one tier holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierSummary {
    /// Segments.
    pub segments: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// The earliest row's end (its window's start in a roll-up).
    pub oldest: Option<UnixNanos>,
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
    /// Each tier: rows of 10 s, of a minute, of an hour.
    pub tiers: [TierSummary; 3],
}

/// What is due for compaction. Each instant must not be later than the one before it. Rows that came before their time
/// are taken as if they had ended when they were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Rows before it are settled: which of two views counts is decided for good. It lies at least the lateness horizon
    /// (1 h, R5) back.
    pub settled_before: UnixNanos,
    /// Settled rows before it become rows of a minute, and their connections are no longer told apart.
    pub minutes_before: UnixNanos,
    /// Rows of a minute before it become rows of an hour.
    pub hours_before: UnixNanos,
}

/// What a judge says of a row that is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The role of the row's own end.
    pub side: Side,
    /// Whether the row counts (R5), and if not, why.
    pub fate: Fate,
    /// What its ends are called for good. `None`: as the row calls them.
    pub edge: Option<Arc<SettledEdge>>,
}

/// Decides which of two views counts. Knows the connections; the store does not.
pub trait Judge {
    /// Which rows come next: those whose ends lie in `span`, both included (`None`: there are none), and those of `apart`.
    /// The latter came late, or before their time by a clock that is ahead, and may lie anywhere in time: a span that held
    /// them, too, could be as long as all of history.
    ///
    /// # Errors
    /// When what is needed cannot be read; then nothing is settled.
    fn prepare(&mut self, span: Option<(UnixNanos, UnixNanos)>, apart: &[&HistoryRow]) -> Result<(), StoreError>;

    /// What is so of a row.
    fn judge(&mut self, row: &HistoryRow) -> Judgement;
}

/// One step of compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that went in.
    pub segments: u64,
    /// Rows that went in.
    pub rows_in: u64,
    /// Rows that came out.
    pub rows_out: u64,
    /// Bytes that went in.
    pub bytes_in: u64,
    /// Bytes that came out.
    pub bytes_out: u64,
}

/// How much of a tier is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierLimit {
    /// Segments leave whose newest row is older, or that were received earlier.
    pub keep_from: UnixNanos,
    /// The oldest segments leave until no more bytes than this are left.
    pub bytes_max: u64,
}

/// What [`HistoryStore::retain_history`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryRemoved {
    /// Segments.
    pub segments: u64,
    /// Rows whose time had come.
    pub rows_expired: u64,
    /// Rows beyond the limit of bytes.
    pub rows_evicted: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What moved on an edge within a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeTotal {
    /// Who the client is.
    pub client: Arc<Endpoint>,
    /// Who the server is.
    pub server: Arc<Endpoint>,
    /// The protocol.
    pub protocol: Protocol,
    /// The server's port.
    pub port: u16,
    /// [`Fate::Counted`], or a loss that is told.
    pub fate: Fate,
    /// What its ends were called when it was settled; `None` in files of older builds.
    pub settled: Option<Arc<SettledEdge>>,
    /// The sums, the largest round-trip time left out.
    pub sums: Sums,
    /// The same by step, in order of time, where steps were asked for: a step's start and what is of it. They add up to
    /// `sums`.
    pub steps: Vec<(UnixNanos, Sums)>,
    /// The failures of those steps by their reason: a step's start, the reason, how many. They add up to the steps'.
    pub failed: Vec<(UnixNanos, Arc<str>, u64)>,
}

/// Sums by edge of everything in a span that is settled and counts, or is a told loss; and of views that do not count where
/// their end sent something again, or steps were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeTotals {
    /// Each edge once, in no particular order.
    pub edges: Vec<EdgeTotal>,
    /// Rows of the span that are not settled yet and are in no sum.
    pub unsettled_rows: u64,
    /// None of them ends before it.
    pub unsettled_from: Option<UnixNanos>,
}

/// How long the steps of a series are: nanoseconds, more than 0. Steps are aligned: their starts are multiples of it since
/// the epoch. A row is of the step that holds its end, a roll-up's row of the step that holds its window's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step(pub i64);

impl Step {
    /// The start of the step that holds `at`.
    #[must_use]
    pub fn floor(self, at: UnixNanos) -> UnixNanos {
        UnixNanos(at.0.div_euclid(self.0).saturating_mul(self.0))
    }

    /// How many windows of 10 s it has, at least one.
    #[must_use]
    pub fn windows(self) -> u64 {
        u64::try_from(self.0 / WINDOW).unwrap_or_default().max(1)
    }
}

/// How coarse the history of a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grain {
    /// The longest windows.
    pub resolution: Resolution,
    /// Where the span's sums begin: later than asked, if the span's start cuts a window, which belongs to the span before.
    pub from: UnixNanos,
    /// Where they end: later than asked, if its end cuts a window.
    pub to: UnixNanos,
}

/// History at one moment: compaction and retention do not change what it says.
pub trait HistoryView {
    /// Calls `visit` for every row of 10 s whose `to` lies in `[since, until)`, in no particular order, with whether it
    /// counts where that is settled.
    ///
    /// # Errors
    /// When a segment cannot be read.
    fn rows(
        &self,
        since: UnixNanos,
        until: UnixNanos,
        visit: &mut dyn FnMut(HistoryRow, Option<bool>),
    ) -> Result<(), StoreError>;

    /// Calls `visit` for every row of a minute or an hour whose window starts in `[since, until)`, in no particular
    /// order; equal keys may come more than once.
    ///
    /// # Errors
    /// When a segment cannot be read.
    fn rollups(&self, since: UnixNanos, until: UnixNanos, visit: &mut dyn FnMut(RollupRow)) -> Result<(), StoreError>;

    /// As [`HistoryView::rows`], only those that are not settled.
    ///
    /// # Errors
    /// When a segment cannot be read.
    fn unsettled(
        &self,
        since: UnixNanos,
        until: UnixNanos,
        visit: &mut dyn FnMut(HistoryRow),
    ) -> Result<(), StoreError>;

    /// How coarse a span is. `None`: rows of 10 s, or nothing.
    fn grain(&self, since: UnixNanos, until: UnixNanos) -> Option<Grain>;

    /// What moved by edge, from rows of every resolution, found as in [`HistoryView::rows`] and
    /// [`HistoryView::rollups`]; with `step`, also by step.
    ///
    /// # Errors
    /// When a segment cannot be read.
    fn edge_totals(&self, since: UnixNanos, until: UnixNanos, step: Option<Step>) -> Result<EdgeTotals, StoreError>;
}

/// History.
pub trait HistoryStore: Send + Sync {
    /// Stores a segment and moves the watermark to `id.last`, as one step. A segment at or below the watermark is
    /// already there: nothing happens. No rows: only the watermark moves. Its rows are those of all `groups`.
    ///
    /// `received`: by when the server had all of it, by its own clock. Rows that say that they ended later are of a clock
    /// that is ahead: they keep their times, but are settled and forgotten with the rows that came with them.
    ///
    /// # Errors
    /// When it cannot be stored; then it is not there, whole or in part.
    fn put_segment(&self, id: SegmentId, received: UnixNanos, groups: &[&[HistoryRow]]) -> Result<(), StoreError>;

    /// What is there now, from the segments up to `as_of`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn history(&self, as_of: Lsn) -> Result<Box<dyn HistoryView + '_>, StoreError>;

    /// Calls `visit` for every row of 10 s whose `to` lies in `[since, until)`, from the segments up to `as_of`, in no
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
    ) -> Result<(), StoreError> {
        self.history(as_of)?.rows(since, until, &mut |row, _| visit(row))
    }

    /// Does one step of what is due: some segments are replaced by one, as one step. `None`: nothing is due. One caller
    /// at a time.
    ///
    /// # Errors
    /// When it cannot be done, or too little room is free for it; then everything is as it was.
    fn compact(&self, due: &Due, judge: &mut dyn Judge) -> Result<Option<Compacted>, StoreError>;

    /// Forgets what is beyond the limits of each tier (rows of 10 s, of a minute, of an hour), adds the rows to the counters
    /// `history_rows_expired` and `history_rows_evicted`, and in time forgets the names that nothing has any more.
    ///
    /// # Errors
    /// When the catalogue cannot be changed.
    fn retain_history(&self, limits: &[TierLimit; 3]) -> Result<HistoryRemoved, StoreError>;

    /// What is there.
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    fn summary(&self) -> Result<HistorySummary, StoreError>;
}
