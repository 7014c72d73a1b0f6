//! What can go wrong in a store. One enum for every backend.

use std::path::PathBuf;

/// Why a store failed. Completes "failed to ...".
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another server holds the data folder.
    #[error(
        "open data folder {folder}: it is held by process {holder}; stop that server or name another folder with --data"
    )]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The holder's process id as it wrote it, or `unknown`.
        holder: String,
    },
    /// The folder was written by a newer weir.
    #[error(
        "open {path}: its format is {found}, this build knows up to {known}; use the weir that wrote it or a newer one"
    )]
    TooNew {
        /// The folder or file.
        path: PathBuf,
        /// Its format.
        found: String,
        /// The newest known.
        known: u32,
    },
    /// A file or folder could not be read or written.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried: `read`, `write`, `sync`, ...
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("{action}: {source}")]
    Sql {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: rusqlite::Error,
    },
    /// A Parquet segment could not be written or read.
    #[error("{action} segment {path}: {text}")]
    Segment {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        text: String,
    },
    /// Another server owns the shared state.
    #[error("own {place}: {holder} owns it; stop that server, or give this one a place of its own")]
    Owned {
        /// Where the shared state is.
        place: String,
        /// Who owns it.
        holder: String,
    },
    /// This process owned the shared state and does not any more.
    #[error(
        "write to {place}: this server was silent for longer than its lease, and {holder} owns it now; stop one of them"
    )]
    Lost {
        /// Where the shared state is.
        place: String,
        /// Who owns it.
        holder: String,
    },
    /// A shared state could not be read or written.
    #[error("{action} {place}: {text}")]
    Remote {
        /// What was tried: `read`, `write`, ...
        action: &'static str,
        /// Where.
        place: String,
        /// Why not, and how to mend it.
        text: String,
    },
    /// A stored value is not what its format says.
    #[error("read {what}: {text}; run `weir store check`")]
    Corrupt {
        /// Which table, column or file.
        what: &'static str,
        /// What is wrong with it.
        text: String,
    },
    /// Too little room is left on the folder's file system.
    #[error(
        "write to {path}: {free_bytes} bytes are free, {wanted_bytes} are kept in reserve; free some space or lower --retain-history"
    )]
    Full {
        /// The folder.
        path: PathBuf,
        /// What is free.
        free_bytes: u64,
        /// What is kept.
        wanted_bytes: u64,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn sql(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Sql { action, source }
    }

    pub(crate) fn segment<E: std::fmt::Display>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |error| Self::Segment { action, path, text: error.to_string() }
    }
}
