//! A segment's file: Parquet, zstd, readable by any tool; written whole or not at all, read row by row.
//!
//! The key-value metadata says `weir.segment.version` (this format's), `weir.segment.first` and `.last` (the log's
//! range), `weir.segment.kind` and `weir.build`. Columns are only ever added; a reader finds them by name. Texts are
//! dictionary-encoded, numbers that scatter split by their bytes. Rows are sorted by edge. What a row is, is in `raw` (10 s)
//! and `rolled` (a minute, an hour).

use super::folder::sync_folder;
use crate::error::StoreError;
use crate::history::SegmentId;
use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_daemon::failpoint;
use weir_model::UnixNanos;

/// The version of the file's format.
pub const SEGMENT_VERSION: u32 = 1;
const VERSION_KEY: &str = "weir.segment.version";

/// zstd's level: 3 is its own default; higher ones gained under 5 % here for twice the time.
const ZSTD_LEVEL: i32 = 3;
/// What is compressed, and read, at once of a column: zstd finds again what is up to 2 MB back.
const PAGE_BYTES: usize = 4 << 20;
/// Rows turned into columns, or read from them, at a time: about 2 MB.
const BATCH_ROWS: usize = 8192;

/// What a segment's file holds. The numbers are the catalogue's `tier` and `settled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentKind {
    /// Rows of 10 s as they were received; which of two views counts is still open.
    Received,
    /// Rows of 10 s, settled: they say whether they count.
    Settled,
    /// Rows of a minute.
    Minute,
    /// Rows of an hour.
    Hour,
}

impl SegmentKind {
    /// The tier: 0 rows of 10 s, 1 of a minute, 2 of an hour.
    pub fn tier(self) -> usize {
        match self {
            Self::Received | Self::Settled => 0,
            Self::Minute => 1,
            Self::Hour => 2,
        }
    }

    /// What stands before `.parquet`.
    fn suffix(self) -> &'static str {
        match self {
            Self::Received => "",
            Self::Settled => ".settled",
            Self::Minute => ".1m",
            Self::Hour => ".1h",
        }
    }

    /// `received`, `settled`, `1m` or `1h`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Settled => "settled",
            Self::Minute => "1m",
            Self::Hour => "1h",
        }
    }
}

pub(super) fn file_name(id: SegmentId, kind: SegmentKind) -> String {
    format!("{:020}-{:020}{}.parquet", id.first.0, id.last.0, kind.suffix())
}

/// A row of a segment's file.
pub(super) trait FileRow: Sized {
    /// The order in which rows stand in the file.
    type Order: Ord;
    /// Columns of which a dictionary is larger than they are, and how they are written instead: numbers that hardly repeat with
    /// their high bytes, which are alike, apart from their low ones; sequences that come again as they are.
    const ENCODED: &'static [(&'static str, Encoding)];
    fn order(&self) -> Self::Order;
    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError>;
    /// `None`: a column is missing or of another type.
    fn from_batch(batch: &RecordBatch, visit: &mut dyn FnMut(Self)) -> Option<()>;
    /// The instant by which it is found.
    fn at(&self) -> UnixNanos;
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) rows: u64,
    pub(super) oldest: UnixNanos,
    pub(super) newest: UnixNanos,
    pub(super) bytes: u64,
    /// CRC-32C of the file.
    pub(super) checksum: u32,
}

/// Sums up what goes through.
struct Summed {
    file: File,
    checksum: u32,
    bytes: u64,
}

impl Write for Summed {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// A file on its way: whole and durable under its name after [`Writer::finish`], gone when dropped before.
pub(super) struct Writer<R: FileRow> {
    folder: PathBuf,
    path: PathBuf,
    temporary: PathBuf,
    pairs: Vec<KeyValue>,
    file: Option<ArrowWriter<Summed>>,
    waiting: Vec<R>,
    rows: u64,
    oldest: UnixNanos,
    newest: UnixNanos,
    done: bool,
}

impl<R: FileRow> Writer<R> {
    pub(super) fn new(folder: &Path, id: SegmentId, kind: SegmentKind) -> Self {
        let path = folder.join(file_name(id, kind));
        Self {
            folder: folder.to_path_buf(),
            temporary: path.with_extension("tmp"),
            path,
            pairs: vec![
                KeyValue::new(VERSION_KEY.into(), SEGMENT_VERSION.to_string()),
                KeyValue::new("weir.segment.first".into(), id.first.0.to_string()),
                KeyValue::new("weir.segment.last".into(), id.last.0.to_string()),
                KeyValue::new("weir.segment.kind".into(), kind.as_str().to_owned()),
                KeyValue::new("weir.build".into(), env!("CARGO_PKG_VERSION").to_owned()),
            ],
            file: None,
            waiting: Vec::new(),
            rows: 0,
            oldest: UnixNanos(i64::MAX),
            newest: UnixNanos(i64::MIN),
            done: false,
        }
    }

    /// Adds a row; they come in their order.
    pub(super) fn push(&mut self, row: R) -> Result<(), StoreError> {
        self.oldest = self.oldest.min(row.at());
        self.newest = self.newest.max(row.at());
        self.rows += 1;
        self.waiting.push(row);
        if self.waiting.len() >= BATCH_ROWS { self.write_waiting() } else { Ok(()) }
    }

    fn write_waiting(&mut self) -> Result<(), StoreError> {
        let batch = R::to_batch(&self.waiting).map_err(StoreError::segment("write", &self.path))?;
        self.waiting.clear();
        let mut writer = match self.file.take() {
            Some(writer) => writer,
            None => self.begin(&batch)?,
        };
        writer.write(&batch).map_err(StoreError::segment("write", &self.path))?;
        self.file = Some(writer);
        failpoint::reach("segment-half-written");
        Ok(())
    }

    fn begin(&self, batch: &RecordBatch) -> Result<ArrowWriter<Summed>, StoreError> {
        let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(StoreError::segment("write", &self.path))?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_data_page_size_limit(PAGE_BYTES)
            .set_data_page_row_count_limit(usize::MAX)
            .set_key_value_metadata(Some(self.pairs.clone()));
        for (column, encoding) in R::ENCODED {
            properties = properties
                .set_column_dictionary_enabled((*column).into(), false)
                .set_column_encoding((*column).into(), *encoding);
        }
        let properties = properties.build();
        let file = File::create(&self.temporary).map_err(StoreError::io("create", &self.temporary))?;
        failpoint::reach("segment-created");
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        ArrowWriter::try_new_with_options(Summed { file, checksum: 0, bytes: 0 }, batch.schema(), options)
            .map_err(StoreError::segment("write", &self.path))
    }

    /// Makes it whole and durable: sync, rename, sync the folder.
    pub(super) fn finish(mut self) -> Result<Written, StoreError> {
        self.write_waiting()?;
        let Some(writer) = self.file.take() else {
            return Err(StoreError::Segment { action: "write", path: self.path.clone(), text: "it is empty".into() });
        };
        let summed = writer.into_inner().map_err(StoreError::segment("write", &self.path))?;
        summed.file.sync_all().map_err(StoreError::io("sync", &self.temporary))?;
        failpoint::reach("segment-synced");
        std::fs::rename(&self.temporary, &self.path).map_err(StoreError::io("rename", &self.path))?;
        self.done = true;
        failpoint::reach("segment-renamed");
        sync_folder(&self.folder)?;
        failpoint::reach("segment-durable");
        Ok(Written {
            rows: self.rows,
            oldest: self.oldest,
            newest: self.newest,
            bytes: summed.bytes,
            checksum: summed.checksum,
        })
    }
}

impl<R: FileRow> Drop for Writer<R> {
    fn drop(&mut self) {
        // A full disk must get its room back at once; what stays after a crash is removed at the next start.
        if !self.done && self.temporary.exists() {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// A file that is read from its first row to its last.
pub(super) struct Reader<R> {
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    read: VecDeque<R>,
}

impl<R: FileRow> Reader<R> {
    /// Opens a file and checks its version.
    pub(super) fn open(path: &Path, batch_rows: usize) -> Result<Self, StoreError> {
        let builder = open(path)?;
        let batches = builder.with_batch_size(batch_rows).build().map_err(StoreError::segment("read", path))?;
        Ok(Self { path: path.to_path_buf(), batches, read: VecDeque::new() })
    }

    /// The next row, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<R>, StoreError> {
        while self.read.is_empty() {
            let Some(batch) = self.batches.next() else { return Ok(None) };
            let batch = batch.map_err(StoreError::segment("read", &self.path))?;
            let read = &mut self.read;
            R::from_batch(&batch, &mut |row| read.push_back(row)).ok_or_else(|| missing_column(&self.path))?;
        }
        Ok(self.read.pop_front())
    }
}

pub(super) fn missing_column(path: &Path) -> StoreError {
    StoreError::Segment { action: "read", path: path.into(), text: "a column is missing or of another type".into() }
}

/// Opens a file of this version. Texts stay dictionaries, so that none is looked at once a row.
pub(super) fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, StoreError> {
    let failed = || StoreError::segment("read", path);
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let found = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(failed())?;
    let version = found
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == VERSION_KEY))
        .and_then(|pair| pair.value.clone())
        .unwrap_or_default();
    if version != SEGMENT_VERSION.to_string() {
        return Err(StoreError::TooNew { path: path.into(), found: version, known: SEGMENT_VERSION });
    }
    let fields = found.schema().fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => {
            let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
            field.as_ref().clone().with_data_type(text)
        }
        _ => field.as_ref().clone(),
    });
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields.collect::<Vec<Field>>())));
    let known = ArrowReaderMetadata::try_new(Arc::clone(found.metadata()), options).map_err(failed())?;
    Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(file, known))
}

/// Calls `visit` for every row that is found in `[since, until)`.
pub(super) fn read<R: FileRow>(
    path: &Path,
    since: UnixNanos,
    until: UnixNanos,
    visit: &mut dyn FnMut(R),
) -> Result<(), StoreError> {
    let batches = open(path)?.with_batch_size(BATCH_ROWS).build().map_err(StoreError::segment("read", path))?;
    for batch in batches {
        let batch = batch.map_err(StoreError::segment("read", path))?;
        R::from_batch(&batch, &mut |row: R| {
            if row.at() >= since && row.at() < until {
                visit(row);
            }
        })
        .ok_or_else(|| missing_column(path))?;
    }
    Ok(())
}
