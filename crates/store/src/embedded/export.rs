//! `weir store export`: the rows of a span as Parquet, CSV or lines of JSON, for tools that do not know the folder.
//!
//! Rows of 10 s and roll-ups have different columns and are exported apart. The columns are those of the segments.

use super::raw::RawRow;
use super::rolled::RolledRow;
use super::segment::{FileRow, SegmentKind, file_name, read};
use super::{Folder, catalogue, schema};
use crate::error::StoreError;
use crate::report::Lsn;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::io::Write;
use std::path::{Path, PathBuf};
use weir_model::UnixNanos;

/// Rows turned into columns at a time.
const BATCH_ROWS: usize = 8192;

/// Which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    /// Of 10 s.
    Rows,
    /// Of a minute.
    Minutes,
    /// Of an hour.
    Hours,
}

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One Parquet file.
    Parquet,
    /// RFC 4180 with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// Writes the rows of `[since, until)` of the folder at `path`, whose server must be stopped; answers how many.
///
/// # Errors
/// [`StoreError::Held`] when a server has the folder (export from a backup then); when something cannot be read or
/// written.
pub fn export(
    path: &Path,
    which: Exported,
    since: UnixNanos,
    until: UnixNanos,
    form: Form,
    out: &mut (dyn Write + Send),
) -> Result<u64, StoreError> {
    let folder = Folder::open_existing(path)?;
    let connection = schema::connect_existing(&folder.database())?;
    let kinds: &[SegmentKind] = match which {
        Exported::Rows => &[SegmentKind::Received, SegmentKind::Settled],
        Exported::Minutes => &[SegmentKind::Minute],
        Exported::Hours => &[SegmentKind::Hour],
    };
    let paths: Vec<PathBuf> = catalogue::entries(&connection, Some((Lsn(0), Lsn(u64::MAX))))?
        .into_iter()
        .filter(|entry| kinds.contains(&entry.kind) && entry.newest >= since && entry.oldest < until)
        .map(|entry| folder.segments().join(file_name(entry.id, entry.kind)))
        .collect();
    match which {
        Exported::Rows => export_rows::<RawRow>(&paths, since, until, form, out),
        Exported::Minutes | Exported::Hours => export_rows::<RolledRow>(&paths, since, until, form, out),
    }
}

fn export_rows<R: FileRow>(
    paths: &[PathBuf],
    since: UnixNanos,
    until: UnixNanos,
    form: Form,
    out: &mut (dyn Write + Send),
) -> Result<u64, StoreError> {
    let mut sink = Sink::new(form, out, &R::to_batch(&[]).map_err(StoreError::segment("write", "the export"))?)?;
    let mut rows: Vec<R> = Vec::new();
    let mut count = 0;
    for path in paths {
        let mut failed = Ok(());
        read(path, since, until, &mut |row: R| {
            count += 1;
            rows.push(row);
            if rows.len() >= BATCH_ROWS && failed.is_ok() {
                failed = put(&mut sink, &mut rows);
            }
        })?;
        failed?;
    }
    put(&mut sink, &mut rows)?;
    sink.finish()?;
    Ok(count)
}

fn put<R: FileRow>(sink: &mut Sink<'_>, rows: &mut Vec<R>) -> Result<(), StoreError> {
    let batch = R::to_batch(rows).map_err(StoreError::segment("write", "the export"))?;
    rows.clear();
    sink.write(&batch)
}

enum Sink<'a> {
    Parquet(Box<ArrowWriter<&'a mut (dyn Write + Send)>>),
    Csv(&'a mut (dyn Write + Send)),
    Jsonl(&'a mut (dyn Write + Send)),
}

impl<'a> Sink<'a> {
    fn new(form: Form, out: &'a mut (dyn Write + Send), empty: &RecordBatch) -> Result<Self, StoreError> {
        let failed = || StoreError::segment("write", "the export");
        Ok(match form {
            Form::Parquet => {
                let level = ZstdLevel::try_new(3).map_err(failed())?;
                let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
                let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
                Self::Parquet(Box::new(
                    ArrowWriter::try_new_with_options(out, empty.schema(), options).map_err(failed())?,
                ))
            }
            Form::Csv => {
                let names: Vec<String> = empty.schema().fields().iter().map(|field| field.name().clone()).collect();
                out.write_all(format!("{}\r\n", names.join(",")).as_bytes()).map_err(write_failed())?;
                Self::Csv(out)
            }
            Form::Jsonl => Self::Jsonl(out),
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        let mut text = String::new();
        match self {
            Self::Parquet(writer) => return writer.write(batch).map_err(StoreError::segment("write", "the export")),
            Self::Csv(out) => {
                for row in 0..batch.num_rows() {
                    let cells: Vec<String> =
                        batch.columns().iter().map(|column| csv_cell(&value(column.as_ref(), row))).collect();
                    text.push_str(&cells.join(","));
                    text.push_str("\r\n");
                }
                out.write_all(text.as_bytes())
            }
            Self::Jsonl(out) => {
                let schema = batch.schema();
                for row in 0..batch.num_rows() {
                    let object: serde_json::Map<String, serde_json::Value> = schema
                        .fields()
                        .iter()
                        .zip(batch.columns())
                        .map(|(field, column)| (field.name().clone(), value(column.as_ref(), row)))
                        .collect();
                    text.push_str(&serde_json::Value::Object(object).to_string());
                    text.push('\n');
                }
                out.write_all(text.as_bytes())
            }
        }
        .map_err(write_failed())
    }

    fn finish(self) -> Result<(), StoreError> {
        match self {
            Self::Parquet(writer) => writer.close().map(|_| ()).map_err(StoreError::segment("write", "the export")),
            Self::Csv(out) | Self::Jsonl(out) => out.flush().map_err(write_failed()),
        }
    }
}

fn write_failed() -> impl FnOnce(std::io::Error) -> StoreError {
    StoreError::io("write", "the export")
}

/// A cell as JSON: times as RFC 3339, ids in hexadecimal, what is not known as null.
fn value(column: &dyn Array, row: usize) -> serde_json::Value {
    if column.is_null(row) {
        return serde_json::Value::Null;
    }
    match column.data_type() {
        DataType::Timestamp(..) => column
            .as_primitive::<TimestampNanosecondType>()
            .value_as_datetime(row)
            .map_or(serde_json::Value::Null, |at| at.format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string().into()),
        DataType::FixedSizeBinary(_) => {
            let bytes = column.as_fixed_size_binary().value(row);
            let mut text = String::with_capacity(2 * bytes.len());
            for byte in bytes {
                for digit in [byte >> 4, byte & 15] {
                    text.extend(char::from_digit(u32::from(digit), 16));
                }
            }
            text.into()
        }
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        _ => {
            let texts = column.as_dictionary::<Int32Type>();
            texts.key(row).map_or(serde_json::Value::Null, |key| texts.values().as_string::<i32>().value(key).into())
        }
    }
}

fn csv_cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => {
            // What a process calls itself must not run in a spreadsheet.
            let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
            let text = if formula { format!("'{text}") } else { text.clone() };
            if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
        }
        other => other.to_string(),
    }
}
