//! `weir store check`: whether a data folder is what its parts say of each other. Changes nothing.
//!
//! The state by SQLite's own check; every segment of the catalogue by size, checksum and every row; the folder for files
//! that nobody names; the log entry by entry, and against the watermark.

use super::catalogue::{self, Entry};
use super::raw::RawRow;
use super::rolled::RolledRow;
use super::segment::{FileRow, Reader, SegmentKind, file_name};
use super::{Folder, SCHEMA_VERSION, log, schema};
use crate::error::StoreError;
use crate::report::Lsn;
use rusqlite::Connection;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use weir_model::UnixNanos;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Segments of the catalogue.
    pub segments: u64,
    /// Rows in them, as read.
    pub rows: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Entries of the log.
    pub log_entries: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is odd and mends itself at the next start.
    pub notes: Vec<Finding>,
}

const RESTORE: &str = "restore a backup, or go on without what it held: `weir server` answers from the rest once the \
                       entry is gone";

/// Checks the data folder at `path`, whose server must be stopped.
///
/// # Errors
/// [`StoreError::Held`] when a server has it; when it is no data folder, or cannot be read at all.
pub fn check(path: &Path) -> Result<Checked, StoreError> {
    let folder = Folder::open_existing(path)?;
    let mut checked = Checked::default();
    let database = folder.database();
    let connection = schema::connect(&database)?;
    let version = schema::version(&connection)?;
    if version > SCHEMA_VERSION {
        return Err(StoreError::TooNew { path: database, found: version.to_string(), known: SCHEMA_VERSION });
    }
    check_state(&connection, &database, &mut checked)?;
    if version < SCHEMA_VERSION {
        checked.notes.push(Finding {
            path: database,
            what: format!("its schema is {version}, this build writes {SCHEMA_VERSION}; segments were not looked at"),
            mend: "the next start of `weir server` raises it; check again then".into(),
        });
        return Ok(checked);
    }
    for entry in catalogue::entries(&connection, None)? {
        check_segment(&connection, &folder, &entry, &mut checked);
    }
    for path in catalogue::unnamed(&connection, &folder.segments())? {
        checked.notes.push(Finding {
            path,
            what: "the catalogue does not name this file".into(),
            mend: "the next start of `weir server` removes it; to do it now, delete it".into(),
        });
    }
    check_log(&folder.log(), catalogue::watermark(&connection)?, &mut checked)?;
    Ok(checked)
}

fn check_state(connection: &Connection, path: &Path, checked: &mut Checked) -> Result<(), StoreError> {
    let sql = || StoreError::sql("check the state");
    for pragma in ["integrity_check", "foreign_key_check"] {
        let mut statement = connection.prepare(&format!("PRAGMA {pragma}")).map_err(sql())?;
        let columns = statement.column_count();
        let mut rows = statement.query([]).map_err(sql())?;
        while let Some(row) = rows.next().map_err(sql())? {
            let text: Vec<String> =
                (0..columns).map(|column| row.get_ref(column).map(text_of)).collect::<Result<_, _>>().map_err(sql())?;
            if text != ["ok"] {
                checked.findings.push(Finding {
                    path: path.into(),
                    what: format!("{pragma}: {}", text.join(" ")),
                    mend: "restore a backup; sqlite3's `.recover` may save what is left".into(),
                });
            }
        }
    }
    Ok(())
}

fn text_of(value: rusqlite::types::ValueRef<'_>) -> String {
    match value {
        rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        other => format!("{other:?}"),
    }
}

fn check_segment(connection: &Connection, folder: &Folder, entry: &Entry, checked: &mut Checked) {
    let path = folder.segments().join(file_name(entry.id, entry.kind));
    checked.segments += 1;
    match damage(connection, &path, entry) {
        Ok(None) => {
            checked.rows += entry.rows;
            checked.bytes += entry.bytes;
        }
        Ok(Some(what)) => checked.findings.push(Finding { path, what, mend: RESTORE.into() }),
        Err(error) => checked.findings.push(Finding { path, what: error.to_string(), mend: RESTORE.into() }),
    }
}

/// What is wrong with a segment, if anything is.
fn damage(connection: &Connection, path: &Path, entry: &Entry) -> Result<Option<String>, StoreError> {
    let (bytes, checksum) = match sum_up(path) {
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Some("the catalogue names this file, and it is not there".into()));
        }
        other => other?,
    };
    if bytes != entry.bytes {
        return Ok(Some(format!("it has {bytes} bytes, the catalogue says {}", entry.bytes)));
    }
    if entry.checksum.is_some_and(|expected| expected != checksum) {
        return Ok(Some("its bytes are not those that were written: the checksum differs".into()));
    }
    let read = match entry.kind {
        SegmentKind::Received | SegmentKind::Settled => summary::<RawRow>(path, |row| row.edge)?,
        SegmentKind::Minute | SegmentKind::Hour => summary::<RolledRow>(path, |row| row.edge)?,
    };
    if (read.rows, read.oldest, read.newest) != (entry.rows, entry.oldest, entry.newest) {
        return Ok(Some(format!(
            "it has {} rows from {} to {}, the catalogue says {} from {} to {} (nanoseconds since 1970)",
            read.rows, read.oldest.0, read.newest.0, entry.rows, entry.oldest.0, entry.newest.0
        )));
    }
    if !read.is_sorted {
        return Ok(Some("its rows are not in their order".into()));
    }
    let mut known =
        connection.prepare_cached("SELECT 1 FROM edges WHERE id = ?1").map_err(StoreError::sql("look up an edge"))?;
    for edge in read.edges {
        if !known.exists([edge as i64]).map_err(StoreError::sql("look up an edge"))? {
            return Ok(Some(format!("the catalogue has no name for its edge {edge}")));
        }
    }
    Ok(None)
}

fn sum_up(path: &Path) -> Result<(u64, u32), StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut buffer = vec![0; 1 << 20];
    let (mut bytes, mut checksum) = (0, 0);
    loop {
        let read = file.read(&mut buffer).map_err(StoreError::io("read", path))?;
        if read == 0 {
            return Ok((bytes, checksum));
        }
        bytes += read as u64;
        checksum = crc32c::crc32c_append(checksum, &buffer[..read]);
    }
}

struct Summary {
    rows: u64,
    oldest: UnixNanos,
    newest: UnixNanos,
    is_sorted: bool,
    edges: Vec<u64>,
}

fn summary<R: FileRow>(path: &Path, edge: impl Fn(&R) -> u64) -> Result<Summary, StoreError> {
    let mut rows = Reader::<R>::open(path, 1024)?;
    let mut summary = Summary {
        rows: 0,
        oldest: UnixNanos(i64::MAX),
        newest: UnixNanos(i64::MIN),
        is_sorted: true,
        edges: Vec::new(),
    };
    let mut before = None;
    while let Some(row) = rows.next()? {
        summary.rows += 1;
        summary.oldest = summary.oldest.min(row.at());
        summary.newest = summary.newest.max(row.at());
        let order = row.order();
        summary.is_sorted &= before.is_none_or(|before| before <= order);
        before = Some(order);
        if summary.edges.last() != Some(&edge(&row)) {
            summary.edges.push(edge(&row));
        }
    }
    Ok(summary)
}

fn check_log(folder: &Path, watermark: Lsn, checked: &mut Checked) -> Result<(), StoreError> {
    let mut expected: Option<Lsn> = None;
    let files = log::read_only(folder)?;
    let last = files.len().saturating_sub(1);
    for (index, file) in files.into_iter().enumerate() {
        checked.log_entries += file.entries;
        if file.torn_bytes > 0 {
            let torn = Finding {
                path: file.path.clone(),
                what: format!("its last {} bytes are no whole entry", file.torn_bytes),
                mend: "the next start of `weir server` cuts them".into(),
            };
            // A crash tears the end of the last file, where nothing is acknowledged yet.
            if index == last {
                checked.notes.push(torn);
            } else {
                let mend = "restore a backup, or start: what was in them is lost, and every answer misses it".into();
                checked.findings.push(Finding { mend, ..torn });
            }
        }
        let Some(first) = file.first else { continue };
        let follows = expected.unwrap_or(Lsn(watermark.0 + 1));
        let is_hole = if expected.is_some() { first != follows } else { first > follows };
        if is_hole {
            checked.findings.push(Finding {
                path: file.path,
                what: format!("it begins with entry {}, and entry {} is nowhere", first.0, follows.0),
                mend: "restore a backup; entries between them were acknowledged and are not in history".into(),
            });
        }
        expected = Some(Lsn(first.0 + file.entries));
    }
    Ok(())
}
