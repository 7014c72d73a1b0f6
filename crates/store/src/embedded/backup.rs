//! `weir store backup`: a data folder's copy of one moment, taken while its server runs. It is a data folder itself:
//! restoring is copying it to where the server looks.
//!
//! ```text
//! 1 open every file of the log, so that it stays readable when the server cuts it
//! 2 link every segment (they never change); copy where the folders are on different file systems
//! 3 copy the state with `VACUUM INTO`: SQLite's own snapshot of one moment
//! 4 open what the log has got since, link what the copied catalogue names and is not there yet
//! 5 copy the log; it must reach from the copied watermark on without a hole, else all begins anew
//! ```
//!
//! What was acknowledged before 3 is in the copied state or in the copied log; what came later may be.

use super::folder::sync_folder;
use super::segment::file_name;
use super::{catalogue, log, schema};
use crate::error::StoreError;
use crate::report::Lsn;
use rusqlite::Connection;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Seek as _;
use std::path::{Path, PathBuf};

/// A server writes a segment every 10 s and compacts once a minute: one try nearly always does.
const TRIES: u32 = 10;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackedUp {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Bytes of the state.
    pub state_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
}

/// Copies the data folder at `from` to `to`, which must not exist. A server may run on `from`.
///
/// # Errors
/// When `from` is no data folder of this build's schema, `to` exists, or something cannot be read or written.
pub fn backup(from: &Path, to: &Path) -> Result<BackedUp, StoreError> {
    let database = from.join("state.db");
    let connection = schema::connect_existing(&database)?;
    if to.exists() {
        let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(StoreError::Io { action: "create folder", path: to.into(), source });
    }
    let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = to.with_file_name(format!("{name}.tmp"));
    // What a try that was ended has left.
    if temporary.exists() {
        std::fs::remove_dir_all(&temporary).map_err(StoreError::io("remove", &temporary))?;
    }
    create_private(&temporary)?;
    let copied = copy(&connection, from, &temporary).inspect_err(|_| {
        let _ = std::fs::remove_dir_all(&temporary);
    })?;
    drop(connection);
    give_to_owner(from, &temporary)?;
    std::fs::rename(&temporary, to).map_err(StoreError::io("rename", to))?;
    sync_folder(to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    Ok(copied)
}

/// What root made belongs to the folder's owner: the copy, so that a server can run on it, and what SQLite may have made
/// beside a state that no server has open.
fn give_to_owner(from: &Path, copy: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(from).map_err(StoreError::io("read", from))?;
    if !nix::unistd::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let mut paths = vec![copy.to_path_buf()];
    for folder in [copy.to_path_buf(), copy.join("log"), copy.join("segments")] {
        paths.extend(files(&folder)?);
    }
    paths.extend(["state.db-wal", "state.db-shm"].map(|name| from.join(name)).into_iter().filter(|path| path.exists()));
    for path in paths {
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).map_err(StoreError::io("own", &path))?;
    }
    Ok(())
}

/// It holds who talks to whom.
fn create_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(path).map_err(StoreError::io("create folder", path))
}

fn copy(connection: &Connection, from: &Path, to: &Path) -> Result<BackedUp, StoreError> {
    for part in ["log", "segments"] {
        create_private(&to.join(part))?;
    }
    let mut tries = 0;
    let (entries, logs) = loop {
        tries += 1;
        let mut logs = BTreeMap::new();
        open_logs(&from.join("log"), &mut logs)?;
        link_all(&from.join("segments"), &to.join("segments"))?;
        let state = to.join("state.db");
        if state.exists() {
            std::fs::remove_file(&state).map_err(StoreError::io("remove", &state))?;
        }
        connection.execute("VACUUM INTO ?1", [state.to_string_lossy()]).map_err(StoreError::sql("copy the state"))?;
        open_logs(&from.join("log"), &mut logs)?;
        link_all(&from.join("segments"), &to.join("segments"))?;
        let (entries, watermark) = {
            let copied = schema::connect_existing(&state)?;
            (catalogue::entries(&copied, None)?, catalogue::watermark(&copied)?)
        };
        let names: Vec<String> = entries.iter().map(|entry| file_name(entry.id, entry.kind)).collect();
        let is_whole = names.iter().all(|name| to.join("segments").join(name).exists())
            && copy_logs(&mut logs, &to.join("log"), watermark)?;
        if is_whole {
            break (entries, logs);
        }
        if tries == TRIES {
            return Err(StoreError::Corrupt {
                what: "the data folder",
                text: "the catalogue names a segment that is not there, or the log has a hole".into(),
            });
        }
    };
    drop(logs);
    let names: HashSet<String> = entries.iter().map(|entry| file_name(entry.id, entry.kind)).collect();
    for path in files(&to.join("segments"))? {
        if !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(name)) {
            std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
    }
    let version = to.join("VERSION");
    std::fs::copy(from.join("VERSION"), &version).map_err(StoreError::io("copy", &version))?;
    let mut log_bytes = 0;
    for path in files(&to.join("log"))? {
        log_bytes += size(&path)?;
    }
    for path in [&version, &to.join("state.db")] {
        File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", path))?;
    }
    for folder in [&to.join("segments"), &to.join("log"), to] {
        sync_folder(folder)?;
    }
    Ok(BackedUp {
        segments: entries.len() as u64,
        segment_bytes: entries.iter().map(|entry| entry.bytes).sum(),
        state_bytes: size(&to.join("state.db"))?,
        log_bytes,
    })
}

fn size(path: &Path) -> Result<u64, StoreError> {
    std::fs::metadata(path).map(|metadata| metadata.len()).map_err(StoreError::io("read", path))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = std::fs::read_dir(folder).map_err(StoreError::io("read", folder))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(StoreError::io("read", folder))).collect()
}

/// An open file can be read to its end after it was removed.
fn open_logs(folder: &Path, logs: &mut BTreeMap<PathBuf, File>) -> Result<(), StoreError> {
    for path in files(folder)? {
        if path.extension().is_none_or(|extension| extension != "log") || logs.contains_key(&path) {
            continue;
        }
        match File::open(&path) {
            Ok(file) => {
                logs.insert(path, file);
            }
            // Cut since it was listed: its entries are below the watermark.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::Io { action: "open", path, source }),
        }
    }
    Ok(())
}

/// Segments never change: a link is a copy.
fn link_all(from: &Path, to: &Path) -> Result<(), StoreError> {
    for path in files(from)? {
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        if path.extension().is_none_or(|extension| extension != "parquet") || target.exists() {
            continue;
        }
        let copied = std::fs::hard_link(&path, &target).or_else(|_| {
            // Another file system, or one without links.
            std::fs::copy(&path, &target)
                .and_then(|_| File::open(&target)?.sync_all())
                .inspect_err(|_| drop(std::fs::remove_file(&target)))
        });
        match copied {
            // Replaced since it was listed; the catalogue, copied later, will tell.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(StoreError::io("copy", &path))?,
        }
    }
    Ok(())
}

/// False: entries after the watermark are missing.
fn copy_logs(logs: &mut BTreeMap<PathBuf, File>, to: &Path, watermark: Lsn) -> Result<bool, StoreError> {
    for path in files(to)? {
        std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
    }
    for (path, file) in logs.iter_mut() {
        let target = to.join(path.file_name().unwrap_or_default());
        file.rewind()
            .and_then(|()| {
                let mut copied = File::create(&target)?;
                std::io::copy(file, &mut copied)?;
                copied.sync_all()
            })
            .map_err(StoreError::io("copy", path))?;
    }
    let mut next = watermark.0 + 1;
    for file in log::read_only(to)? {
        if file.torn_bytes > 0 {
            // Being appended to: not acknowledged yet.
            log::cut(&file.path, file.good_bytes)?;
        }
        let Some(first) = file.first else {
            std::fs::remove_file(&file.path).map_err(StoreError::io("remove", &file.path))?;
            continue;
        };
        if first.0 > next {
            return Ok(false);
        }
        next = next.max(first.0 + file.entries);
    }
    Ok(true)
}
