//! The embedded backend: one folder, one server, nothing to install.
//!
//! ```text
//! DIR/
//!   lock        flock(2)ed by the one server; its text is the holder's process id
//!   VERSION     "weir-data 1": raised only when an older build must not open the folder
//!   COPY-OF     where there is one: the shared state of which transactions and metadata are a copy (see `shared`)
//!   log/        NNN.log: received batches byte for byte, from the watermark on      (format 1, see `log`)
//!   state.db    SQLite in WAL mode: transactions, translations, metadata, DNS, streams, coverage, losses, and the
//!               catalogue (endpoints, edges, segments, watermark); `user_version` is the schema's, the table
//!               `migrations` says which build raised it when                         (schema 9, see `schema`)
//!   segments/   immutable history, named by its range of the log                     (format 1, see `segment`)
//!               FIRST-LAST.parquet rows of 10 s as received, .settled.parquet those of which it is decided which of
//!               two views counts, .1m.parquet and .1h.parquet their sums of a minute and an hour (see `plan`)
//! ```
//!
//! The durable order (R8): a batch is appended to the log and synced, then acknowledged, then merged into `state.db`;
//! its history rows wait in the server until a flush writes them as one segment: temporary file, sync, rename, sync the
//! folder, then one catalogue transaction that adds the segment and moves the watermark. A file that the catalogue does
//! not name does not exist; it is removed at the next start. Compaction goes the same way: the one transaction that adds
//! the new segment takes the old ones out.
//!
//! `synchronous` is NORMAL for merges: a lost merge is replayed from the log. It is FULL for the catalogue's
//! transaction: the log is cut behind it. Both are in one WAL, so a durable watermark makes every earlier merge durable.

mod backup;
mod catalogue;
mod check;
mod columns;
mod compact;
mod dns;
mod edge_names;
mod export;
mod folder;
mod histories;
pub mod log;
mod numbers;
mod pins;
mod plan;
mod raw;
mod reading;
mod rolled;
mod room;
mod rows;
mod schema;
mod segment;
mod shared;
mod totals;
mod writing;

use crate::error::StoreError;
use crate::history::{
    Compacted, Due, HistoryRemoved, HistoryRow, HistoryStore, HistorySummary, HistoryView, Judge, SegmentId, TierLimit,
};
use crate::report::Lsn;
use crate::state::{Removed, Retention, StateChanges, StateStore, StateView};
pub use backup::{BackedUp, backup};
pub use check::{Checked, Finding, check};
pub use export::{Exported, Form, export};
pub use folder::{FOLDER_VERSION, Folder};
pub use room::RESERVE_BYTES;
use rusqlite::Connection;
pub use schema::SCHEMA_VERSION;
pub use segment::{SEGMENT_VERSION, SegmentKind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use weir_model::UnixNanos;

/// What the writer keeps of the database in memory: every window moves all that is open, 400 bytes each.
const WRITER_PAGES_KIB: u32 = 32 << 10;
/// Idle connections for readers that are kept. More readers than this open their own and close it.
const READERS_KEPT: usize = 4;

/// An open data folder.
#[derive(Debug)]
pub struct Embedded {
    folder: Folder,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    pins: pins::Pins,
    forgotten: catalogue::Forgotten,
    edge_names: edge_names::EdgeNames,
    /// Taken behind the writer.
    numbers: Mutex<numbers::Numbers>,
}

impl Embedded {
    /// Opens (or makes) a data folder: takes its lock, raises its schema, removes what the catalogue does not name.
    ///
    /// # Errors
    /// [`StoreError::Held`] when another server has it, [`StoreError::TooNew`] when a newer build wrote it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let folder = Folder::open(path)?;
        let mut writer = schema::connect(&folder.database())?;
        schema::keep_pages(&writer, WRITER_PAGES_KIB)?;
        schema::migrate(&mut writer, &folder.database())?;
        let unnamed = catalogue::unnamed(&writer, &folder.segments())?;
        for path in &unnamed {
            std::fs::remove_file(path).map_err(StoreError::io("remove", path))?;
        }
        if !unnamed.is_empty() {
            tracing::info!(files = unnamed.len(), "removed segment files that the catalogue does not name");
        }
        Ok(Self {
            folder,
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            pins: pins::Pins::default(),
            forgotten: catalogue::Forgotten::default(),
            edge_names: edge_names::EdgeNames::default(),
            numbers: Mutex::default(),
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The last log entry that is both in the state and in history.
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    pub fn watermark(&self) -> Result<Lsn, StoreError> {
        catalogue::watermark(&self.writer())
    }

    /// A panic while the lock is held leaves at worst an open SQLite transaction, which its guard has rolled back.
    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> Result<Connection, StoreError> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(|| schema::connect(&self.folder.database()), Ok)
    }

    fn give_back(&self, reader: Connection) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT {
            readers.push(reader);
        }
    }
}

impl StateStore for Embedded {
    fn apply(&self, changes: &StateChanges) -> Result<(), StoreError> {
        let mut writer = self.writer();
        writing::apply(&mut writer, &mut self.numbers.lock().unwrap_or_else(PoisonError::into_inner), changes)
    }

    fn retain(&self, retention: &Retention) -> Result<Removed, StoreError> {
        writing::retain(&mut self.writer(), retention, None)
    }

    fn view(&self) -> Result<Box<dyn StateView + '_>, StoreError> {
        Ok(Box::new(reading::View::begin(self)?))
    }
}

impl HistoryStore for Embedded {
    fn put_segment(&self, id: SegmentId, received: UnixNanos, groups: &[&[HistoryRow]]) -> Result<(), StoreError> {
        catalogue::put_segment(&self.writer, &self.folder.segments(), id, received, groups)
    }

    fn history(&self, as_of: Lsn) -> Result<Box<dyn HistoryView + '_>, StoreError> {
        Ok(Box::new(histories::View::begin(self, as_of)?))
    }

    fn compact(&self, due: &Due, judge: &mut dyn Judge) -> Result<Option<Compacted>, StoreError> {
        compact::step(self, due, judge)
    }

    fn retain_history(&self, limits: &[TierLimit; 3]) -> Result<HistoryRemoved, StoreError> {
        let removed = catalogue::retain(&self.writer, &self.folder.segments(), &self.pins, limits)?;
        catalogue::forget_names(&self.writer, &self.pins, &self.forgotten)?;
        Ok(removed)
    }

    fn summary(&self) -> Result<HistorySummary, StoreError> {
        let reader = self.reader()?;
        let summary = catalogue::summary(&reader);
        self.give_back(reader);
        summary
    }
}
