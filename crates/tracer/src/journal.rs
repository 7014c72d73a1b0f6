//! The journal of ended connections: from the kernel's ring to the clients, across the tracer's death.
//!
//! A record is in the file before the kernel gets its room in the ring back, so a killed tracer finds every ended
//! connection in one or the other; the page cache outlives a process, so nothing is synced. A record has a sequence
//! number, the feed's cursor. The file belongs to one run (one life of the kernel's maps) and begins anew with the next.
//!
//! ```text
//! header  magic "WEIRCJ03" | run id u64 | first sequence u64 | crc32c u32 | zero u32
//! record  length u32 (of what follows the sequence) | crc32c u32 (of all that follows it) | sequence u64 | row 160 B |
//!         path | where the connection was translated: a zero byte, translation 72 B
//! ```
//! Little endian on every machine weir runs on. A torn tail is cut off: its connections are still in the ring.

use crate::conntrack::Translation;
use crate::places::{PATH_LENGTH_MAX, Place};
use crate::probes::layout::Row;
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// A row waits for two polls: one that tells it and the next one, which acknowledges it. At 10 s a poll and 10,000
/// connections a second with both ends on the node that is 400,000 rows; and half as many for a poll that comes late.
pub const ROWS_MAX: usize = 600_000;
/// 600,000 rows with the longest usual paths (a Kubernetes pod's is under 300 bytes) and room.
pub const BYTES_MAX: u64 = 384 << 20;

const MAGIC: [u8; 8] = *b"WEIRCJ03";
const HEADER: u64 = 32;
const PREFIX: usize = 16;
const ROW: usize = size_of::<Row>();
/// Of a record behind its sequence.
const LENGTH_MAX: usize = ROW + PATH_LENGTH_MAX + 1 + Translation::LENGTH;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step} the journal of ended connections {path}: {source}")]
pub struct JournalError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The journal, open for its one writer.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Arc<File>,
    run_id: u64,
    /// The sequence of the first record in the file, or of the next one when there is none.
    first: u64,
    /// Where each record begins.
    offsets: VecDeque<u64>,
    end: u64,
    torn_tails: u64,
    rows_max: usize,
    /// The last sequence that had to go because there was no room.
    forced: u64,
    /// What a killed tracer may have written without giving the ring its room back. Only until the first drain.
    already: HashSet<Identity>,
}

type Identity = (u64, u64, [u8; 16], u16, u16);

fn identity(row: &Row) -> Identity {
    (row.cookie, row.at_ns, row.remote, row.remote_port, row.local_port)
}

/// An ended connection.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The row.
    pub row: Row,
    /// Where its owner lived.
    pub place: Option<Arc<Place>>,
    /// How it was translated.
    pub translation: Option<Translation>,
}

/// An ended connection as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its sequence number.
    pub sequence: u64,
    /// The row.
    pub row: Row,
    /// The path of its owner's cgroup.
    pub path: Option<String>,
    /// How it was translated.
    pub translation: Option<Translation>,
}

impl Journal {
    /// Opens the journal of `run_id`; another run's is thrown away, and `first` is then the first sequence number.
    pub fn open(path: &Path, run_id: u64, first: u64) -> Result<Self, JournalError> {
        let failed = |step| move |source| JournalError { step, path: path.into(), source };
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed("open"))?;
        let mut journal = Self {
            path: path.into(),
            file: Arc::new(file),
            run_id,
            first,
            offsets: VecDeque::new(),
            end: HEADER,
            torn_tails: 0,
            rows_max: ROWS_MAX,
            forced: 0,
            already: HashSet::new(),
        };
        if !journal.load().map_err(failed("read"))? {
            journal.begin().map_err(failed("begin"))?;
        }
        Ok(journal)
    }

    /// The same for at most so many rows.
    #[must_use]
    pub fn with_rows_max(mut self, rows_max: usize) -> Self {
        self.rows_max = rows_max;
        self
    }

    /// Rows that it holds at most.
    pub fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// The last sequence that had to go because there was no room, 0 when none had; those before it did, too.
    pub fn forced(&self) -> u64 {
        self.forced
    }

    /// Takes over what the tracer before this one answered to [`Journal::forced`].
    pub fn set_forced(&mut self, forced: u64) {
        self.forced = forced.min(self.floor());
    }

    /// The sequence before the first record: what a client that has seen nothing has seen.
    pub fn floor(&self) -> u64 {
        self.first - 1
    }

    /// The last record's sequence.
    pub fn head(&self) -> u64 {
        self.first + self.offsets.len() as u64 - 1
    }

    /// Records in the file.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The file's size.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Torn tails that were cut off when the file was opened.
    pub fn torn_tails(&self) -> u64 {
        self.torn_tails
    }

    /// Whether a killed tracer had written this row already.
    pub fn has(&self, row: &Row) -> bool {
        !self.already.is_empty() && self.already.contains(&identity(row))
    }

    /// The ring was drained to its end: nothing in it can be in the file already.
    pub fn forget_already(&mut self) {
        self.already = HashSet::new();
    }

    /// Appends; all or, when it fails, none. When there is no room, what is `settled` goes first: everybody has it.
    /// Returns how many others had to go.
    pub fn append(&mut self, ended: &[Ended], settled: u64) -> Result<u64, JournalError> {
        let mut bytes = Vec::with_capacity(ended.len() * (PREFIX + ROW + 64));
        let mut offsets = Vec::with_capacity(ended.len());
        for (sequence, ended) in (self.head() + 1..).zip(ended) {
            offsets.push(self.end + bytes.len() as u64);
            encode(&mut bytes, sequence, ended);
        }
        let failed = |source| JournalError { step: "write to", path: self.path.clone(), source };
        if let Err(error) = self.file.write_all_at(&bytes, self.end) {
            // What was written of it is no record: the next append goes to the same place, a restart cuts it off.
            return Err(failed(error));
        }
        self.end += bytes.len() as u64;
        self.offsets.extend(offsets);
        if !self.is_full() {
            return Ok(0);
        }
        self.drop_until(settled)?;
        if !self.is_full() {
            return Ok(0);
        }
        // A tenth at once, so that a full journal is not rewritten at every append.
        let keep = (self.rows_max - self.rows_max / 10).min(self.offsets.len() - self.offsets.len() / 10);
        let dropped = (self.offsets.len() - keep) as u64;
        self.drop_until(self.floor() + dropped)?;
        self.forced = self.floor();
        Ok(dropped)
    }

    fn is_full(&self) -> bool {
        self.offsets.len() > self.rows_max || self.end > BYTES_MAX
    }

    /// Drops every record up to `sequence`. A reader that is under way keeps its file.
    pub fn drop_until(&mut self, sequence: u64) -> Result<(), JournalError> {
        let count = sequence.min(self.head()).saturating_sub(self.floor()) as usize;
        if count == 0 {
            return Ok(());
        }
        let path = self.path.clone();
        let failed = |step| move |source| JournalError { step, path, source };
        let from = self.offsets.get(count).copied().unwrap_or(self.end);
        let outcome = (|| {
            let next = self.path.with_extension("next");
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&next)?;
            file.write_all_at(&header(self.run_id, self.first + count as u64), 0)?;
            let mut buffer = vec![0; 1 << 16];
            let mut at = from;
            while at < self.end {
                let length = (self.end - at).min(buffer.len() as u64) as usize;
                self.file.read_exact_at(&mut buffer[..length], at)?;
                file.write_all_at(&buffer[..length], HEADER + (at - from))?;
                at += length as u64;
            }
            std::fs::rename(&next, &self.path)?;
            Ok(file)
        })();
        self.file = Arc::new(outcome.map_err(failed("compact"))?);
        self.first += count as u64;
        self.offsets.drain(..count);
        for offset in &mut self.offsets {
            *offset -= from - HEADER;
        }
        self.end -= from - HEADER;
        Ok(())
    }

    /// The records after `after`, as they are now.
    pub fn reader(&self, after: u64) -> Reader {
        let index = after.saturating_sub(self.floor()) as usize;
        let at = self.offsets.get(index).copied().unwrap_or(self.end);
        Reader { file: Arc::clone(&self.file), at, end: self.end, buffer: Vec::new(), used: 0 }
    }

    fn begin(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(&header(self.run_id, self.first), 0)
    }

    /// Reads what is there; `false` when it is not this run's.
    fn load(&mut self) -> io::Result<bool> {
        let size = self.file.metadata()?.len();
        let mut bytes = [0; HEADER as usize];
        if size < HEADER {
            return Ok(false);
        }
        self.file.read_exact_at(&mut bytes, 0)?;
        let Some((run_id, first)) = parse_header(&bytes) else { return Ok(false) };
        if run_id != self.run_id {
            return Ok(false);
        }
        self.first = first;
        let mut reader = BufReader::with_capacity(1 << 16, AtOffset { file: &self.file, at: HEADER });
        let mut record = Vec::new();
        while read_record(&mut reader, &mut record)? {
            let Some(found) = decode(&record) else { break };
            if found.sequence != self.head() + 1 {
                break;
            }
            self.already.insert(identity(&found.row));
            self.offsets.push_back(self.end);
            self.end += record.len() as u64;
        }
        if self.end < size {
            self.torn_tails += 1;
            self.file.set_len(self.end)?;
        }
        Ok(true)
    }
}

/// Some of the journal's records, in order. Holds the file, not the journal.
#[derive(Debug)]
pub struct Reader {
    file: Arc<File>,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Reader {
    /// The next record.
    pub fn read(&mut self) -> io::Result<Option<Record>> {
        let left = self.buffer.len() - self.used;
        if left < PREFIX + LENGTH_MAX && self.at < self.end {
            self.buffer.drain(..self.used);
            self.used = 0;
            let length = (self.end - self.at).min(1 << 16) as usize;
            self.buffer.resize(left + length, 0);
            self.file.read_exact_at(&mut self.buffer[left..], self.at)?;
            self.at += length as u64;
        }
        let rest = &self.buffer[self.used..];
        if rest.is_empty() {
            return Ok(None);
        }
        let record = record_length(rest).and_then(|length| rest.get(..length));
        let Some((length, record)) = record.and_then(|record| Some((record.len(), decode(record)?))) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a record of the journal of ended connections is damaged",
            ));
        };
        self.used += length;
        Ok(Some(record))
    }
}

struct AtOffset<'a> {
    file: &'a File,
    at: u64,
}

impl Read for AtOffset<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn header(run_id: u64, first: u64) -> [u8; HEADER as usize] {
    let mut bytes = [0; HEADER as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&run_id.to_le_bytes());
    bytes[16..24].copy_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn parse_header(bytes: &[u8; HEADER as usize]) -> Option<(u64, u64)> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (run_id, rest) = rest.split_first_chunk::<8>()?;
    let (first, rest) = rest.split_first_chunk::<8>()?;
    let (crc, _) = rest.split_first_chunk::<4>()?;
    let first = u64::from_le_bytes(*first);
    let intact = *magic == MAGIC && u32::from_le_bytes(*crc) == crc32c::crc32c(&bytes[..24]) && first > 0;
    intact.then(|| (u64::from_le_bytes(*run_id), first))
}

fn encode(into: &mut Vec<u8>, sequence: u64, ended: &Ended) {
    let path = ended.place.as_ref().map_or("", |place| place.path.as_str());
    let path = &path.as_bytes()[..path.len().min(PATH_LENGTH_MAX)];
    let start = into.len();
    let tail = ended.translation.map(|translation| translation.to_bytes());
    let length = ROW + path.len() + tail.map_or(0, |tail| 1 + tail.len());
    into.extend_from_slice(&(length as u32).to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&sequence.to_le_bytes());
    into.extend_from_slice(ended.row.as_bytes());
    into.extend_from_slice(path);
    if let Some(tail) = tail {
        // No path has a zero byte in it.
        into.push(0);
        into.extend_from_slice(&tail);
    }
    let crc = crc32c::crc32c(&into[start + 8..]);
    into[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// The whole length of the record that begins here, if the length can be one.
fn record_length(bytes: &[u8]) -> Option<usize> {
    let (length, _) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    (ROW..=LENGTH_MAX).contains(&length).then_some(PREFIX + length)
}

fn decode(record: &[u8]) -> Option<Record> {
    let (_, rest) = record.split_first_chunk::<4>()?;
    let (crc, checked) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(checked) {
        return None;
    }
    let (sequence, rest) = checked.split_first_chunk::<8>()?;
    let (row, rest) = Row::read_from_prefix(rest).ok()?;
    let (path, translation) = match rest.iter().position(|byte| *byte == 0) {
        Some(end) => (&rest[..end], Some(Translation::from_bytes(&rest[end + 1..])?)),
        None => (rest, None),
    };
    // A path that was cut within a letter is shortened to the last whole one.
    let path = std::str::from_utf8(path)
        .unwrap_or_else(|error| std::str::from_utf8(&path[..error.valid_up_to()]).unwrap_or_default());
    Some(Record {
        sequence: u64::from_le_bytes(*sequence),
        row,
        path: (!path.is_empty()).then(|| path.to_owned()),
        translation,
    })
}

/// Fills `record` with the next one; `false` at the end, torn or not.
fn read_record(reader: &mut impl Read, record: &mut Vec<u8>) -> io::Result<bool> {
    record.clear();
    record.resize(4, 0);
    if !read_fully(reader, record)? {
        return Ok(false);
    }
    let Some(length) = record_length(record) else { return Ok(false) };
    record.resize(length, 0);
    read_fully(reader, &mut record[4..])
}

fn read_fully(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
