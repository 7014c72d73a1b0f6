//! The spool's folder: whose it is, and that it has one writer.
//!
//! ```text
//! stream                     who the spool's batches come from: made once, with the folder
//! lock                       held with flock while an agent runs; holds its pid
//! acknowledged               the sequence up to which the server has everything; written lazily, old values do no harm
//! reserve                    space kept back, so that a full disk still takes a checkpoint
//! 00000000000000000001.seg   segments, see `format`
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A file cannot be used.
    #[error("failed to {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent has it.
    #[error("spool {folder} is in use by process {holder}: stop that agent, or give this one its own --spool")]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The holder's pid as it wrote it.
        holder: String,
    },
    /// The file `stream` is not what it should be.
    #[error("{path} is not a spool's identity ({what}); move the folder away to begin a new stream")]
    Stream {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A segment of a format that this build does not know.
    #[error("{path} has spool format {format}, this build knows 1: use the version of weir-agent that wrote it")]
    Format {
        /// The segment.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// Compression failed.
    #[error("failed to compress: {0}")]
    Compress(#[source] io::Error),
}

impl SpoolError {
    /// Whether the disk, or this user's share of it, is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// Makes an [`SpoolError::Io`] of an error of the standard library.
pub fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SpoolError + 'a {
    move |source| SpoolError::Io { action, path: path.into(), source }
}

/// Who the spool's batches come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// 16 random bytes.
    pub id: [u8; 16],
    /// What the tracer knows this agent by.
    pub client_id: String,
    /// The boot in which the stream began.
    pub boot_id: [u8; 16],
    /// When in that boot, `CLOCK_MONOTONIC` nanoseconds.
    pub began: u64,
}

/// The first line of the file.
const TITLE: &str = "weir-spool 1";

impl Stream {
    /// The folder's stream; a new one where there is none.
    pub(super) fn open(folder: &Path, boot_id: [u8; 16], now: u64) -> Result<Self, SpoolError> {
        let path = folder.join("stream");
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|what| SpoolError::Stream { path, what }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = random();
                let client: [u8; 8] = random();
                let stream = Self { id, client_id: format!("weir-agent-{}", hex(&client)), boot_id, began: now };
                replace(folder, "stream", stream.to_text().as_bytes(), Sync::Yes)?;
                Ok(stream)
            }
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    fn to_text(&self) -> String {
        format!(
            "{TITLE}\nstream_id {}\nclient_id {}\nboot_id {}\nbegan_monotonic_ns {}\n",
            hex(&self.id),
            self.client_id,
            hex(&self.boot_id),
            self.began
        )
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(format!("it does not begin with `{TITLE}`"));
        }
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.map(str::to_owned).ok_or(format!("it has no {name}"))
        };
        let bytes = |name: &str| {
            let text = value(name)?;
            weir_discovery::node::parse_boot_id(&text).ok_or(format!("its {name} is not 32 hexadecimal digits"))
        };
        Ok(Self {
            id: bytes("stream_id")?,
            client_id: value("client_id")?,
            boot_id: bytes("boot_id")?,
            began: value("began_monotonic_ns")?.parse().map_err(|error| format!("its began_monotonic_ns: {error}"))?,
        })
    }
}

/// Holds the folder until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the folder, which is made if it is not there.
    pub(super) fn take(folder: &Path) -> Result<Self, SpoolError> {
        std::fs::create_dir_all(folder).map_err(at("create", folder))?;
        let path = folder.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "unknown" } else { holder.trim() };
                return Err(SpoolError::Held { folder: folder.into(), holder: holder.into() });
            }
            Err(TryLockError::Error(error)) => return Err(at("lock", &path)(error)),
        }
        // The pid only helps people: a full disk is no reason not to start.
        let _ = file.set_len(0);
        let _ = file.rewind();
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Self { _file: file })
    }
}

/// Whether a file must survive a power cut as soon as the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// It must.
    Yes,
    /// An older content does no harm.
    No,
}

/// Replaces a file of the folder in one step.
pub(super) fn replace(folder: &Path, name: &str, content: &[u8], sync: Sync) -> Result<(), SpoolError> {
    let temporary = folder.join(format!("{name}.tmp"));
    let path = folder.join(name);
    let mut file = File::create(&temporary).map_err(at("create", &temporary))?;
    file.write_all(content).map_err(at("write", &temporary))?;
    if sync == Sync::Yes {
        file.sync_all().map_err(at("sync", &temporary))?;
    }
    std::fs::rename(&temporary, &path).map_err(at("rename", &temporary))?;
    if sync == Sync::Yes { sync_folder(folder) } else { Ok(()) }
}

/// Space kept back for a checkpoint on a full disk: that of about 50,000 counters.
pub const RESERVE: usize = 2 << 20;

/// Keeps the reserve back. Where there is no room for it now, the next start tries again.
pub(super) fn reserve(folder: &Path) {
    let path = folder.join("reserve");
    if path.metadata().is_ok_and(|found| found.len() == RESERVE as u64) {
        return;
    }
    // Real bytes: a file system that compresses or leaves holes would keep nothing back.
    let mut bytes = vec![0; RESERVE];
    if getrandom::fill(&mut bytes).is_err() || std::fs::write(&path, &bytes).is_err() {
        let _ = std::fs::remove_file(&path);
    }
}

/// Gives the reserve's space back to the disk.
pub(super) fn give_up_reserve(folder: &Path) -> Result<(), SpoolError> {
    let path = folder.join("reserve");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &path)(error)),
        _ => Ok(()),
    }
}

/// Makes the folder's entries durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), SpoolError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at("sync", folder))
}

/// Random bytes. Without a source of them the process cannot go on: streams must differ.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if getrandom::fill(&mut bytes).is_err() {
        std::process::abort();
    }
    bytes
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_made_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let made = Stream::open(folder.path(), [7; 16], 42).unwrap();
        assert_eq!(Stream::open(folder.path(), [8; 16], 43).unwrap(), made);
        std::fs::write(folder.path().join("stream"), "something else").unwrap();
        assert!(matches!(Stream::open(folder.path(), [8; 16], 43), Err(SpoolError::Stream { .. })));
    }

    #[test]
    fn a_second_writer_is_refused_and_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        let error = Lock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        Lock::take(folder.path()).unwrap();
    }
}
