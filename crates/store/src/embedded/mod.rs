//! The embedded backend: one folder, one server, nothing to install.
//!
//! ```text
//! DIR/
//!   lock        flock(2)ed by the one server; its text is the holder's process id
//!   VERSION     "weir-data 1": raised only when an older build must not open the folder
//!   log/        NNN.log: received batches byte for byte, from the watermark on      (format 1, see `log`)
//!   state.db    SQLite in WAL mode: transactions, translations, metadata, DNS, streams, coverage, losses, and the
//!               catalogue (endpoints, edges, segments, watermark); `user_version` is the schema's, the table
//!               `migrations` says which build raised it when                         (schema 3, see `schema`)
//!   segments/   FIRST-LAST.parquet: immutable history, named by its range of the log (format 1, see `segment`)
//! ```
//!
//! The durable order (R8): a batch is appended to the log and synced, then acknowledged, then merged into `state.db`;
//! its history rows wait in the server until a flush writes them as one segment: temporary file, sync, rename, sync the
//! folder, then one catalogue transaction that adds the segment and moves the watermark. A file that the catalogue does
//! not name does not exist; it is removed at the next start.
//!
//! `synchronous` is NORMAL for merges: a lost merge is replayed from the log. It is FULL for the catalogue's
//! transaction: the log is cut behind it. Both are in one WAL, so a durable watermark makes every earlier merge durable.

mod catalogue;
mod dns;
mod folder;
pub mod log;
mod reading;
mod rows;
mod schema;
mod segment;
mod writing;

use crate::error::StoreError;
use crate::history::{HistoryRow, HistoryStore, HistorySummary, SegmentId};
use crate::report::Lsn;
use crate::state::{Removed, Retention, StateChanges, StateStore, StateView};
pub use folder::{FOLDER_VERSION, Folder};
use rusqlite::Connection;
pub use schema::SCHEMA_VERSION;
pub use segment::SEGMENT_VERSION;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use weir_model::UnixNanos;

/// Idle connections for readers that are kept. More readers than this open their own and close it.
const READERS_KEPT: usize = 4;

/// An open data folder.
#[derive(Debug)]
pub struct Embedded {
    folder: Folder,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Embedded {
    /// Opens (or makes) a data folder: takes its lock, raises its schema, removes what the catalogue does not name.
    ///
    /// # Errors
    /// [`StoreError::Held`] when another server has it, [`StoreError::TooNew`] when a newer build wrote it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let folder = Folder::open(path)?;
        let mut writer = schema::connect(&folder.database())?;
        schema::migrate(&mut writer, &folder.database())?;
        let removed = catalogue::remove_unnamed(&writer, &folder.segments())?;
        if removed > 0 {
            tracing::info!(files = removed, "removed segment files that the catalogue does not name");
        }
        Ok(Self { folder, writer: Mutex::new(writer), readers: Mutex::new(Vec::new()) })
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
        writing::apply(&mut self.writer(), changes)
    }

    fn retain(&self, retention: &Retention) -> Result<Removed, StoreError> {
        writing::retain(&mut self.writer(), retention)
    }

    fn view(&self) -> Result<Box<dyn StateView + '_>, StoreError> {
        Ok(Box::new(reading::View::begin(self)?))
    }
}

impl HistoryStore for Embedded {
    fn put_segment(&self, id: SegmentId, rows: &[HistoryRow]) -> Result<(), StoreError> {
        catalogue::put_segment(&self.writer, &self.folder.segments(), id, rows)
    }

    fn scan(
        &self,
        since: UnixNanos,
        until: UnixNanos,
        as_of: Lsn,
        visit: &mut dyn FnMut(HistoryRow),
    ) -> Result<(), StoreError> {
        let reader = self.reader()?;
        let segments = catalogue::segments_between(&reader, since, until, as_of);
        self.give_back(reader);
        for id in segments? {
            segment::read(&self.folder.segments(), id, since, until, visit)?;
        }
        Ok(())
    }

    fn forget_before(&self, horizon: UnixNanos) -> Result<(u64, u64), StoreError> {
        catalogue::forget_before(&mut self.writer(), &self.folder.segments(), horizon)
    }

    fn summary(&self) -> Result<HistorySummary, StoreError> {
        let reader = self.reader()?;
        let summary = catalogue::summary(&reader);
        self.give_back(reader);
        summary
    }
}
