//! The data folder: its lock and its version.

use crate::error::StoreError;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The folder's format. Raised only when an older build must not open it.
pub const FOLDER_VERSION: u32 = 1;

/// A data folder that this process holds until it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Folder {
    /// Creates the folder where it is missing (mode 0700: it holds who talks to whom), takes its lock, checks its
    /// version.
    ///
    /// # Errors
    /// [`StoreError::Held`] when another process holds it, [`StoreError::TooNew`] when a newer build wrote it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(StoreError::io("create folder", path))?;
        let lock = lock(path)?;
        check_version(path)?;
        for part in ["log", "segments"] {
            let part = path.join(part);
            std::fs::create_dir_all(&part).map_err(StoreError::io("create folder", &part))?;
        }
        sync_folder(path)?;
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// Takes the lock of a folder that is there, and makes nothing.
    ///
    /// # Errors
    /// As [`Folder::open`], and when it is no data folder.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        let state = path.join("state.db");
        std::fs::metadata(&state).map_err(StoreError::io("find the state of a data folder:", &state))?;
        Self::open(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log is.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the segments are.
    pub fn segments(&self) -> PathBuf {
        self.path.join("segments")
    }

    /// The note of which shared state the transactions and metadata are a copy.
    pub(super) fn copy_of(&self) -> PathBuf {
        self.path.join("COPY-OF")
    }

    /// Where the state and the catalogue are.
    pub fn database(&self) -> PathBuf {
        self.path.join("state.db")
    }
}

/// `flock(2)`, so that a dead holder's lock is gone with it. The file's text names the holder for the one that is refused.
fn lock(folder: &Path) -> Result<Flock<File>, StoreError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0)
                .and_then(|()| lock.rewind())
                .and_then(|()| writeln!(lock, "{}", std::process::id()))
                .map_err(StoreError::io("write", &path))?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            let holder = match file.read_to_string(&mut text) {
                Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
                _ => "unknown".to_owned(),
            };
            Err(StoreError::Held { folder: folder.to_path_buf(), holder })
        }
        Err((_, errno)) => Err(StoreError::io("lock", &path)(errno.into())),
    }
}

/// `VERSION` holds `weir-data N`. A folder without one is new, or a start died before it was written.
fn check_version(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join("VERSION");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let found = text.trim().strip_prefix("weir-data ").unwrap_or(text.trim()).to_owned();
            match found.parse::<u32>() {
                Ok(version) if version <= FOLDER_VERSION => Ok(()),
                _ => Err(StoreError::TooNew { path, found, known: FOLDER_VERSION }),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_durably(&path, format!("weir-data {FOLDER_VERSION}\n").as_bytes())
        }
        Err(source) => Err(StoreError::Io { action: "read", path, source }),
    }
}

/// Writes a whole file so that after a crash it is either the old one or the new one.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(StoreError::io("create", &temporary))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(StoreError::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(StoreError::io("rename", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync folder", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::open(folder.path()).unwrap();
        let error = Folder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("held by process {}", std::process::id())), "{error}");
        drop(held);
        Folder::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_of_a_newer_build_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("VERSION"), "weir-data 2\n").unwrap();
        assert!(matches!(Folder::open(folder.path()), Err(StoreError::TooNew { .. })));
    }
}
