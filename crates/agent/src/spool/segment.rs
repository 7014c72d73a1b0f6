//! One segment file: written by appending, read as a whole when the spool opens, and record by record to export.

use super::SpoolError;
use super::folder::{at, sync_folder};
use super::format::{self, BatchRecord, CheckpointEnd, CountersRecord, HeaderRecord, Kind, Parsed, Position, Summary};
use crate::attribute::saved::SavedPart;
use prost::Message;
use prost::bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// zstd's fastest ordinary level: baselines are written every poll and read once a start.
const LEVEL: i32 = 1;
/// A part of more bytes is damage: 20,000 counters at about 200 B.
const MAX_PART: usize = 64 << 20;

/// A segment that can be read and appended to.
#[derive(Debug)]
pub(super) struct Segment {
    number: u64,
    path: PathBuf,
    file: File,
    length: u64,
    /// Where the checkpoint ends.
    checkpoint: u64,
}

/// A batch found by [`Segment::load`].
#[derive(Debug)]
pub(super) struct LoadedBatch {
    pub(super) sequence: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) summary: Summary,
    pub(super) dropped_to: u64,
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) segment: Segment,
    /// Compressed.
    pub(super) counters: Vec<Bytes>,
    pub(super) position: Position,
    pub(super) next_sequence: u64,
    pub(super) batches: Vec<LoadedBatch>,
    pub(super) torn_bytes: u64,
    pub(super) skipped: u64,
}

/// What to do with what cannot be read at the end of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Cut it off: it is an append that did not finish.
    Cut,
    /// Leave it: the segment is not written to any more.
    Skip,
}

/// The folder's segments by number.
pub(super) fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, SpoolError> {
    let entries = std::fs::read_dir(folder).map_err(at("list", folder))?;
    let mut segments: Vec<(u64, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let path = entry.path();
            let number = path.file_name()?.to_str()?.strip_suffix(".seg")?.parse().ok()?;
            Some((number, path))
        })
        .collect();
    segments.sort();
    Ok(segments)
}

/// A part as it is stored.
pub(super) fn compress(part: &SavedPart) -> Result<Bytes, SpoolError> {
    if part.counters.is_empty() && part.facts.is_empty() {
        return Ok(Bytes::new());
    }
    zstd::bulk::compress(&part.encode_to_vec(), LEVEL).map(Bytes::from).map_err(SpoolError::Compress)
}

/// The inverse of [`compress`]. The bytes are under the record's checksum, so `None` is a mistake of the writer.
pub(super) fn decompress(bytes: &[u8]) -> Option<SavedPart> {
    if bytes.is_empty() {
        return Some(SavedPart::default());
    }
    SavedPart::decode(zstd::bulk::decompress(bytes, MAX_PART).ok()?.as_slice()).ok()
}

impl Segment {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes behind the checkpoint.
    pub(super) fn batch_bytes(&self) -> u64 {
        self.length - self.checkpoint
    }

    /// A new segment with its checkpoint, durable. On an error no file is left.
    pub(super) fn create(
        folder: &Path,
        stream_id: &[u8; 16],
        number: u64,
        next_sequence: u64,
        parts: impl Iterator<Item = SavedPart>,
        position: &Position,
    ) -> Result<Self, SpoolError> {
        let path = folder.join(format!("{number:020}.seg"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(at("create", &path))?;
        let mut segment = Self { number, path, file, length: 0, checkpoint: 0 };
        let written = segment.write_checkpoint(stream_id, next_sequence, parts, position);
        if let Err(error) = written.and_then(|()| sync_folder(folder)) {
            // A leftover would be removed at the next start, for its checkpoint is not finished.
            let _ = std::fs::remove_file(&segment.path);
            return Err(error);
        }
        Ok(segment)
    }

    fn write_checkpoint(
        &mut self,
        stream_id: &[u8; 16],
        next_sequence: u64,
        parts: impl Iterator<Item = SavedPart>,
        position: &Position,
    ) -> Result<(), SpoolError> {
        let stream_id = Bytes::copy_from_slice(stream_id);
        self.write(Kind::Header, &HeaderRecord { format: format::FORMAT, stream_id, number: self.number })?;
        let mut count = 0;
        for part in parts {
            self.write(Kind::Counters, &CountersRecord { counters: compress(&part)? })?;
            count += 1;
        }
        let end = CheckpointEnd { parts: count, next_sequence, position: Some(position.clone()) };
        self.write(Kind::CheckpointEnd, &end)?;
        self.file.sync_all().map_err(at("sync", &self.path))?;
        self.checkpoint = self.length;
        Ok(())
    }

    /// Appends a record durably; answers where it lies. On an error the file is as it was.
    pub(super) fn append(&mut self, kind: Kind, message: &impl Message) -> Result<(u64, u64), SpoolError> {
        let offset = self.length;
        let written = self.write(kind, message).and_then(|()| self.file.sync_data().map_err(at("sync", &self.path)));
        if let Err(error) = written {
            // What was written of it would be cut off at the next start anyway.
            let _ = self.file.set_len(offset);
            self.length = offset;
            return Err(error);
        }
        Ok((offset, self.length - offset))
    }

    fn write(&mut self, kind: Kind, message: &impl Message) -> Result<(), SpoolError> {
        let bytes = format::encode(kind, message);
        self.file.write_all_at(&bytes, self.length).map_err(at("write", &self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// The batch in the record at `offset`; `None` when the record has been damaged since.
    pub(super) fn read_batch(&self, offset: u64, length: u64) -> Result<Option<Bytes>, SpoolError> {
        let mut bytes = vec![0; length as usize];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(at("read", &self.path)(error)),
        }
        let Parsed::Record(Kind::Batch, payload, _) = format::parse(&Bytes::from(bytes)) else { return Ok(None) };
        Ok(BatchRecord::decode(payload).ok().map(|record| record.batch))
    }

    /// Reads a segment. `None` when its checkpoint is not whole.
    pub(super) fn load(path: &Path, number: u64, tail: Tail) -> Result<Option<Loaded>, SpoolError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(at("open", path))?;
        let bytes = Bytes::from(std::fs::read(path).map_err(at("read", path))?);
        let segment = Self { number, path: path.into(), file, length: bytes.len() as u64, checkpoint: 0 };
        let mut loaded = Loaded {
            segment,
            counters: Vec::new(),
            position: Position::default(),
            next_sequence: 1,
            batches: Vec::new(),
            torn_bytes: 0,
            skipped: 0,
        };
        let mut offset = 0;
        while offset < bytes.len() {
            match format::parse(&bytes.slice(offset..)) {
                Parsed::Record(kind, payload, length) => {
                    if !loaded.take(kind, payload, offset, length)? {
                        loaded.skipped += 1;
                    }
                    offset += length;
                }
                Parsed::Short | Parsed::Damaged => {
                    let Some(next) = format::resync(&bytes, offset) else {
                        loaded.torn_bytes = (bytes.len() - offset) as u64;
                        break;
                    };
                    loaded.skipped += 1;
                    offset = next;
                }
            }
        }
        if loaded.segment.checkpoint == 0 {
            let Some(first) = loaded.batches.first() else { return Ok(None) };
            // The checkpoint is damaged, the batches are not: they still go to the server.
            loaded.segment.checkpoint = first.offset;
        }
        if loaded.torn_bytes > 0 && tail == Tail::Cut {
            loaded.segment.length = offset as u64;
            loaded.segment.file.set_len(offset as u64).map_err(at("cut", path))?;
            loaded.segment.file.sync_all().map_err(at("sync", path))?;
        }
        Ok(Some(loaded))
    }
}

impl Loaded {
    /// Takes a record; `false` when its payload is not what its kind says.
    fn take(&mut self, kind: Kind, payload: Bytes, offset: usize, length: usize) -> Result<bool, SpoolError> {
        match kind {
            Kind::Header => {
                let Ok(header) = HeaderRecord::decode(payload) else { return Ok(false) };
                if header.format != format::FORMAT {
                    return Err(SpoolError::Format { path: self.segment.path.clone(), format: header.format });
                }
            }
            Kind::Counters => {
                let Ok(record) = CountersRecord::decode(payload) else { return Ok(false) };
                self.counters.push(record.counters);
            }
            Kind::CheckpointEnd => {
                let Ok(end) = CheckpointEnd::decode(payload) else { return Ok(false) };
                if end.parts != self.counters.len() as u64 {
                    // A damaged part: its counters are at first sight again, which tells their bytes as "before".
                    self.skipped += end.parts.abs_diff(self.counters.len() as u64);
                }
                self.next_sequence = end.next_sequence;
                self.position = end.position.unwrap_or_default();
                self.segment.checkpoint = (offset + length) as u64;
            }
            Kind::Batch => {
                let Ok(record) = BatchRecord::decode(payload) else { return Ok(false) };
                if !record.counters.is_empty() {
                    self.counters.push(record.counters);
                }
                if let Some(position) = record.position {
                    self.position = position;
                }
                self.batches.push(LoadedBatch {
                    sequence: record.sequence,
                    offset: offset as u64,
                    length: length as u64,
                    summary: record.summary.unwrap_or_default(),
                    dropped_to: record.dropped_to,
                });
            }
        }
        Ok(true)
    }
}
