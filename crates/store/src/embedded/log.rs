//! The log: every received batch, byte for byte, durable before it is acknowledged (R8).
//!
//! Batches come from the server's one writer, which appends a group and syncs once for all of it. They are read once,
//! at start, from the watermark on. A file of the log, little-endian:
//!
//! ```text
//! header   "WEIRLOG\n"  version u32 = 1  reserved u32 = 0  first position u64   (24 bytes)
//! entry    length u32   crc32c u32 of all that follows   then `length` bytes:
//!          kind u8  encoding u8  reserved u16  position u64  stream 16 B  sequence u64  received i64 (unix ns)  payload
//! ```
//!
//! Files are named by their first position (`00000000000000000001.log`). A file that cannot be read to its end is cut
//! where the last whole entry ends: after a crash that is the unacknowledged tail. What is cut is counted.

use super::folder::sync_folder;
use super::room;
use crate::error::StoreError;
use crate::report::{Lsn, StreamId};
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use weir_model::UnixNanos;

const MAGIC: &[u8; 8] = b"WEIRLOG\n";
/// The version of the file's format.
pub const LOG_VERSION: u32 = 1;
const HEADER_BYTES: u64 = 24;
/// Length and checksum.
const PREFIX_BYTES: u64 = 8;
/// Everything of an entry between its checksum and its payload.
const FIXED_BYTES: usize = 44;
/// The largest payload: 64 MiB, the largest frame that the ingest takes, and some room for a later kind.
const PAYLOAD_BYTES_MAX: u32 = 80 << 20;
/// A file is ended when it is larger: small enough that truncation frees space soon, large enough that files stay few.
const FILE_BYTES: u64 = 64 << 20;
/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A batch.
    Batch = 1,
    /// The agent no longer has the sequences up to `sequence`: a told gap. The payload is the first of them, u64.
    Gap = 2,
}

/// An entry without its position, as it is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// What it is.
    pub kind: EntryKind,
    /// How the payload is encoded: the frame's `encoding`.
    pub encoding: u8,
    /// The agent's stream.
    pub stream: StreamId,
    /// The batch's sequence; the last one of a tombstone or gap.
    pub sequence: u64,
    /// When the server received it.
    pub received: UnixNanos,
    /// The batch as it came.
    pub payload: Bytes,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position: dense, from 1.
    pub lsn: Lsn,
    /// What it holds.
    pub entry: NewEntry,
}

/// What opening the log found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes cut from the end of files that ended in a torn or damaged entry.
    pub cut_bytes: u64,
    /// Files that were cut.
    pub cut_files: u64,
}

#[derive(Debug)]
struct LogFile {
    first: Lsn,
    path: PathBuf,
    bytes: u64,
}

/// The log of one data folder.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    /// Oldest first; the last one is written to.
    files: Vec<LogFile>,
    active: Option<File>,
    next: Lsn,
    file_bytes_max: u64,
}

impl Log {
    /// Opens the log, calls `replay` for every entry after `watermark` in order, and drops the files that hold none.
    ///
    /// # Errors
    /// When the folder or a file cannot be read, or `replay` fails.
    pub fn open(
        folder: &Path,
        watermark: Lsn,
        replay: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(Self, Recovery), StoreError> {
        let mut recovery = Recovery::default();
        let mut next = Lsn(watermark.0 + 1);
        let mut files = Vec::new();
        for path in log_files(folder)? {
            let read = read_file(&path, &mut |entry| {
                let lsn = entry.lsn;
                if lsn > watermark {
                    replay(entry)?;
                }
                next = next.max(Lsn(lsn.0 + 1));
                Ok(())
            })?;
            if read.torn_bytes > 0 {
                tracing::warn!(path = %path.display(), bytes = read.torn_bytes, "cut the torn end of a log file");
                cut(&path, read.good_bytes)?;
                recovery.cut_bytes += read.torn_bytes;
                recovery.cut_files += 1;
            }
            match read.first {
                Some(first) => files.push(LogFile { first, path, bytes: read.good_bytes }),
                // Not even its header is whole: it was being created when the machine stopped.
                None => std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?,
            }
        }
        let log = Self { folder: folder.to_path_buf(), files, active: None, next, file_bytes_max: FILE_BYTES };
        Ok((log, recovery))
    }

    /// The position that the next entry gets.
    pub fn next(&self) -> Lsn {
        self.next
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Appends `entries` and returns when all of them are durable; answers the first one's position.
    ///
    /// # Errors
    /// When the disk is full or fails; then none of the entries is in the log.
    pub fn append(&mut self, entries: &[NewEntry]) -> Result<Lsn, StoreError> {
        let first = self.next;
        // What is appended lies twice on the disk until its segment is written and the log is cut.
        room::check(&self.folder, 0)?;
        let mut block = Vec::with_capacity(entries.iter().map(|entry| entry.payload.len() + 64).sum());
        for (entry, lsn) in entries.iter().zip(first.0..) {
            encode(&mut block, entry, Lsn(lsn));
        }
        let (mut file, index) = self.writable()?;
        let LogFile { path, bytes, .. } = &mut self.files[index];
        let written =
            file.seek(SeekFrom::Start(*bytes)).and_then(|_| file.write_all(&block)).and_then(|()| file.sync_data());
        match written {
            Ok(()) => {
                *bytes += block.len() as u64;
                self.active = Some(file);
                self.next = Lsn(first.0 + entries.len() as u64);
                Ok(first)
            }
            Err(source) => {
                // What reached the file must not come back at the next start: it was never acknowledged, and its
                // positions will be given again. A failed fsync leaves the file's pages in doubt, so it is closed.
                let error = StoreError::Io { action: "append to", path: path.clone(), source };
                cut(path, *bytes)?;
                Err(error)
            }
        }
    }

    /// Drops the files whose entries all lie at or below `watermark`.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn truncate(&mut self, watermark: Lsn) -> Result<(), StoreError> {
        while let [oldest, rest @ ..] = self.files.as_slice() {
            let last = rest.first().map_or(self.next, |newer| newer.first).0 - 1;
            // The active file goes too once it is all below the watermark and holds something.
            if last > watermark.0 || (rest.is_empty() && oldest.bytes <= HEADER_BYTES) {
                break;
            }
            std::fs::remove_file(&oldest.path).map_err(StoreError::io("remove", &oldest.path))?;
            if rest.is_empty() {
                self.active = None;
            }
            self.files.remove(0);
        }
        Ok(())
    }

    /// The file to write to, taken out of `self`: it is put back only when the write succeeded.
    fn writable(&mut self) -> Result<(File, usize), StoreError> {
        if let (Some(last), Some(file)) = (self.files.last(), self.active.take())
            && last.bytes < self.file_bytes_max
        {
            return Ok((file, self.files.len() - 1));
        }
        let path = self.folder.join(format!("{:020}.log", self.next.0));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        let mut header = Vec::with_capacity(HEADER_BYTES as usize);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&LOG_VERSION.to_le_bytes());
        header.extend_from_slice(&0_u32.to_le_bytes());
        header.extend_from_slice(&self.next.0.to_le_bytes());
        file.write_all(&header).map_err(StoreError::io("write", &path))?;
        sync_folder(&self.folder)?;
        // The same position can already have a file: one that failed before its first entry was whole.
        self.files.retain(|file| file.path != path);
        self.files.push(LogFile { first: self.next, path, bytes: HEADER_BYTES });
        Ok((file, self.files.len() - 1))
    }
}

fn encode(block: &mut Vec<u8>, entry: &NewEntry, lsn: Lsn) {
    let start = block.len();
    block.extend_from_slice(&((FIXED_BYTES + entry.payload.len()) as u32).to_le_bytes());
    block.extend_from_slice(&[0; 4]);
    block.extend_from_slice(&[entry.kind as u8, entry.encoding, 0, 0]);
    block.extend_from_slice(&lsn.0.to_le_bytes());
    block.extend_from_slice(&entry.stream.0);
    block.extend_from_slice(&entry.sequence.to_le_bytes());
    block.extend_from_slice(&entry.received.0.to_le_bytes());
    block.extend_from_slice(&entry.payload);
    let checksum = crc32c::crc32c(&block[start + 8..]);
    block[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

fn decode(body: Vec<u8>) -> Option<Entry> {
    let body = Bytes::from(body);
    let kind = match body.first()? {
        1 => EntryKind::Batch,
        2 => EntryKind::Gap,
        _ => return None,
    };
    Some(Entry {
        lsn: Lsn(u64::from_le_bytes(body.get(4..12)?.try_into().ok()?)),
        entry: NewEntry {
            kind,
            encoding: *body.get(1)?,
            stream: StreamId(body.get(12..28)?.try_into().ok()?),
            sequence: u64::from_le_bytes(body.get(28..36)?.try_into().ok()?),
            received: UnixNanos(i64::from_le_bytes(body.get(36..44)?.try_into().ok()?)),
            payload: body.slice(FIXED_BYTES..),
        },
    })
}

struct ReadFile {
    first: Option<Lsn>,
    good_bytes: u64,
    torn_bytes: u64,
}

fn read_file(path: &Path, visit: &mut dyn FnMut(Entry) -> Result<(), StoreError>) -> Result<ReadFile, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let length = file.metadata().map_err(StoreError::io("read", path))?.len();
    let mut reader = std::io::BufReader::with_capacity(1 << 20, file);
    let mut header = [0_u8; HEADER_BYTES as usize];
    if length < HEADER_BYTES {
        return Ok(ReadFile { first: None, good_bytes: 0, torn_bytes: length });
    }
    reader.read_exact(&mut header).map_err(StoreError::io("read", path))?;
    let version = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if &header[..8] != MAGIC {
        return Err(StoreError::Corrupt { what: "log", text: format!("{} is not a log file", path.display()) });
    }
    if version != LOG_VERSION {
        return Err(StoreError::TooNew { path: path.into(), found: version.to_string(), known: LOG_VERSION });
    }
    let mut position = [0; 8];
    position.copy_from_slice(&header[16..24]);
    let first = Lsn(u64::from_le_bytes(position));
    let mut good_bytes = HEADER_BYTES;
    let mut expected = first;
    while length - good_bytes >= PREFIX_BYTES + FIXED_BYTES as u64 {
        let mut prefix = [0_u8; PREFIX_BYTES as usize];
        reader.read_exact(&mut prefix).map_err(StoreError::io("read", path))?;
        let size = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
        let checksum = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
        let whole = size as usize >= FIXED_BYTES
            && size <= PAYLOAD_BYTES_MAX
            && u64::from(size) <= length - good_bytes - PREFIX_BYTES;
        if !whole {
            break;
        }
        let mut body = vec![0_u8; size as usize];
        reader.read_exact(&mut body).map_err(StoreError::io("read", path))?;
        if crc32c::crc32c(&body) != checksum {
            break;
        }
        let Some(entry) = decode(body).filter(|entry| entry.lsn == expected) else { break };
        visit(entry)?;
        expected = Lsn(expected.0 + 1);
        good_bytes += PREFIX_BYTES + u64::from(size);
    }
    Ok(ReadFile { first: Some(first), good_bytes, torn_bytes: length - good_bytes })
}

pub(super) fn cut(path: &Path, length: u64) -> Result<(), StoreError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(length).and_then(|()| file.sync_all()))
        .map_err(StoreError::io("cut", path))
}

/// A file of the log as it is.
pub(super) struct FileState {
    pub(super) path: PathBuf,
    /// `None`: not even its header is whole.
    pub(super) first: Option<Lsn>,
    pub(super) entries: u64,
    pub(super) good_bytes: u64,
    pub(super) torn_bytes: u64,
}

/// Reads every file and changes none.
pub(super) fn read_only(folder: &Path) -> Result<Vec<FileState>, StoreError> {
    let mut states = Vec::new();
    for path in log_files(folder)? {
        let mut entries = 0;
        let ReadFile { first, good_bytes, torn_bytes } = read_file(&path, &mut |_| {
            entries += 1;
            Ok(())
        })?;
        states.push(FileState { path, first, entries, good_bytes, torn_bytes });
    }
    Ok(states)
}

fn log_files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(StoreError::io("read", folder))? {
        let path = entry.map_err(StoreError::io("read", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
