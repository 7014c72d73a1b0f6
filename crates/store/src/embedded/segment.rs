//! A segment's file: Parquet, zstd, readable by any tool; its columns are the rows of [`HistoryRow`].
//!
//! The key-value metadata says `weir.segment.version` (this format's), `weir.segment.first` and `.last` (the log's
//! range) and `weir.build`. Columns are only ever added; a reader finds them by name. Texts are dictionary-encoded.
//! Rows are sorted by edge and connection, so that equal values stand together.

use super::folder::sync_folder;
use crate::error::StoreError;
use crate::history::{HistoryRow, SegmentId};
use arrow_array::builder::{
    BooleanBuilder, FixedSizeBinaryBuilder, StringDictionaryBuilder, TimestampNanosecondBuilder, UInt16Builder,
    UInt32Builder, UInt64Builder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use weir_model::{Bytes, ConnectionId, Deltas, Endpoint, Protocol, Side, UnixNanos};

/// The version of the file's format.
pub const SEGMENT_VERSION: u32 = 1;
const VERSION_KEY: &str = "weir.segment.version";

/// zstd's level: 3 is its own default; higher ones gained under 5 % here for twice the time.
const ZSTD_LEVEL: i32 = 3;

pub(super) fn file_name(id: SegmentId) -> String {
    format!("{:020}-{:020}.parquet", id.first.0, id.last.0)
}

/// Writes the file so that it is whole and durable under its name, or not there; answers its size in bytes.
pub(super) fn write(folder: &Path, id: SegmentId, rows: &[HistoryRow], edges: &[u64]) -> Result<u64, StoreError> {
    let path = folder.join(file_name(id));
    let temporary = path.with_extension("tmp");
    let batch = to_batch(rows, edges).map_err(StoreError::segment("write", &path))?;
    let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(StoreError::segment("write", &path))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(vec![
            KeyValue::new(VERSION_KEY.into(), SEGMENT_VERSION.to_string()),
            KeyValue::new("weir.segment.first".into(), id.first.0.to_string()),
            KeyValue::new("weir.segment.last".into(), id.last.0.to_string()),
            KeyValue::new("weir.build".into(), env!("CARGO_PKG_VERSION").to_owned()),
        ]))
        .build();
    let file = File::create(&temporary).map_err(StoreError::io("create", &temporary))?;
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(file, batch.schema(), options)
        .map_err(StoreError::segment("write", &path))?;
    writer.write(&batch).map_err(StoreError::segment("write", &path))?;
    let file = writer.into_inner().map_err(StoreError::segment("write", &path))?;
    let bytes = file.sync_all().and_then(|()| file.metadata()).map_err(StoreError::io("sync", &temporary))?.len();
    std::fs::rename(&temporary, &path).map_err(StoreError::io("rename", &path))?;
    sync_folder(folder)?;
    Ok(bytes)
}

type Texts = StringDictionaryBuilder<Int32Type>;

fn to_batch(rows: &[HistoryRow], edges: &[u64]) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&index| (edges[index], rows[index].connection, rows[index].to));
    let sorted = || order.iter().map(|&index| &rows[index]);

    let time = |pick: &dyn Fn(&HistoryRow) -> Option<UnixNanos>| -> ArrayRef {
        let mut builder = TimestampNanosecondBuilder::with_capacity(rows.len()).with_timezone("UTC");
        sorted().for_each(|row| builder.append_option(pick(row).map(|at| at.0)));
        Arc::new(builder.finish())
    };
    let text = |pick: &dyn Fn(&HistoryRow) -> String| -> ArrayRef {
        let mut builder = Texts::new();
        sorted().for_each(|row| builder.append_value(pick(row)));
        Arc::new(builder.finish())
    };
    let shared = |pick: &dyn Fn(&HistoryRow) -> &str| -> ArrayRef {
        let mut builder = Texts::new();
        sorted().for_each(|row| builder.append_value(pick(row)));
        Arc::new(builder.finish())
    };
    let number = |pick: &dyn Fn(&HistoryRow) -> u64| -> ArrayRef {
        let mut builder = UInt64Builder::with_capacity(rows.len());
        sorted().for_each(|row| builder.append_value(pick(row)));
        Arc::new(builder.finish())
    };
    let port = |pick: &dyn Fn(&HistoryRow) -> u16| -> ArrayRef {
        let mut builder = UInt16Builder::with_capacity(rows.len());
        sorted().for_each(|row| builder.append_value(pick(row)));
        Arc::new(builder.finish())
    };
    let small = |pick: &dyn Fn(&HistoryRow) -> Option<u32>| -> ArrayRef {
        let mut builder = UInt32Builder::with_capacity(rows.len());
        sorted().for_each(|row| builder.append_option(pick(row)));
        Arc::new(builder.finish())
    };
    let flag = |pick: &dyn Fn(&HistoryRow) -> bool| -> ArrayRef {
        let mut builder = BooleanBuilder::with_capacity(rows.len());
        sorted().for_each(|row| builder.append_value(pick(row)));
        Arc::new(builder.finish())
    };
    let mut connections = FixedSizeBinaryBuilder::with_capacity(rows.len(), 16);
    for row in sorted() {
        connections.append_value(row.connection.0)?;
    }
    let mut edge = UInt64Builder::with_capacity(rows.len());
    for &index in &order {
        edge.append_value(edges[index]);
    }

    RecordBatch::try_from_iter_with_nullable([
        ("window_start", time(&|row| Some(row.window().start())), false),
        ("from_time", time(&|row| Some(row.from)), false),
        ("to_time", time(&|row| Some(row.to)), false),
        ("connection", Arc::new(connections.finish()) as ArrayRef, false),
        ("edge", Arc::new(edge.finish()) as ArrayRef, false),
        ("view", shared(&|row| row.view.map_or("unknown", Side::as_str)), false),
        ("node", shared(&|row| &row.node), false),
        ("protocol", shared(&|row| row.protocol.as_str()), false),
        ("net_ns", small(&|row| Some(row.netns)), false),
        ("client_address", text(&|row| row.client.ip().to_string()), false),
        ("client_port", port(&|row| row.client.port()), false),
        ("client_kind", shared(&|row| &row.client_endpoint.kind), false),
        ("client_namespace", shared(&|row| &row.client_endpoint.namespace), false),
        ("client_name", shared(&|row| &row.client_endpoint.name), false),
        ("server_address", text(&|row| row.server.ip().to_string()), false),
        ("server_port", port(&|row| row.server.port()), false),
        ("server_kind", shared(&|row| &row.server_endpoint.kind), false),
        ("server_namespace", shared(&|row| &row.server_endpoint.namespace), false),
        ("server_name", shared(&|row| &row.server_endpoint.name), false),
        ("process", shared(&|row| &row.process), false),
        ("container_id", shared(&|row| &row.container_id), false),
        ("sent_bytes", number(&|row| row.deltas.sent.0), false),
        ("recv_bytes", number(&|row| row.deltas.recv.0), false),
        ("retransmits", number(&|row| row.deltas.retransmits), false),
        ("opened", flag(&|row| row.opened), false),
        ("closed", flag(&|row| row.closed), false),
        ("failure", shared(&|row| &row.failure), false),
        ("rtt_us", small(&|row| row.rtt_us), true),
        ("started", time(&|row| row.started), true),
    ])
}

/// Calls `visit` for every row whose end lies in `[since, until)`. A file that is gone was forgotten meanwhile.
pub(super) fn read(
    folder: &Path,
    id: SegmentId,
    since: UnixNanos,
    until: UnixNanos,
    visit: &mut dyn FnMut(HistoryRow),
) -> Result<(), StoreError> {
    let path = folder.join(file_name(id));
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(StoreError::Io { action: "open", path, source }),
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(StoreError::segment("read", &path))?;
    let version = builder
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == VERSION_KEY))
        .and_then(|pair| pair.value.clone())
        .unwrap_or_default();
    if version != SEGMENT_VERSION.to_string() {
        return Err(StoreError::TooNew { path, found: version, known: SEGMENT_VERSION });
    }
    for batch in builder.build().map_err(StoreError::segment("read", &path))? {
        let batch = batch.map_err(StoreError::segment("read", &path))?;
        from_batch(&batch, since, until, visit).ok_or_else(|| StoreError::Segment {
            action: "read",
            path: path.clone(),
            text: "a column is missing or of another type".into(),
        })?;
    }
    Ok(())
}

/// A text column with its values already turned into `T`, so that a text is read once, not once a row. The file's reader
/// gives plain texts; equal ones mostly stand together, since rows are sorted.
struct Column<T> {
    keys: Vec<usize>,
    values: Vec<T>,
}

impl<T: Clone> Column<T> {
    fn of(batch: &RecordBatch, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<Self> {
        let texts: &StringArray = batch.column_by_name(name)?.as_string_opt::<i32>()?;
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut column = Self { keys: Vec::with_capacity(texts.len()), values: Vec::new() };
        let mut before = None;
        for text in texts {
            let text = text.unwrap_or_default();
            let key = match before {
                Some((same, key)) if same == text => key,
                _ => {
                    if let Some(key) = known.get(text) {
                        *key
                    } else {
                        column.values.push(read(text)?);
                        known.insert(text, column.values.len() - 1);
                        column.values.len() - 1
                    }
                }
            };
            before = Some((text, key));
            column.keys.push(key);
        }
        Some(column)
    }

    fn get(&self, row: usize) -> Option<T> {
        self.values.get(*self.keys.get(row)?).cloned()
    }
}

fn from_batch(
    batch: &RecordBatch,
    since: UnixNanos,
    until: UnixNanos,
    visit: &mut dyn FnMut(HistoryRow),
) -> Option<()> {
    let shared = |name: &str| Column::of(batch, name, |text| Some(Arc::<str>::from(text)));
    let address = |name: &str| Column::of(batch, name, |text| text.parse::<std::net::IpAddr>().ok());
    let time = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<TimestampNanosecondType>();
    let number = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>();
    let small = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>();
    let port = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt16Type>();
    let flag = |name: &str| batch.column_by_name(name)?.as_boolean_opt();

    let (from, to, started) = (time("from_time")?, time("to_time")?, time("started")?);
    let connection = batch.column_by_name("connection")?.as_fixed_size_binary_opt()?;
    let view = Column::of(batch, "view", |text| {
        Some(match text {
            "client" => Some(Side::Client),
            "server" => Some(Side::Server),
            _ => None,
        })
    })?;
    let protocol = Column::of(batch, "protocol", Protocol::parse)?;
    let (node, process, container_id, failure) =
        (shared("node")?, shared("process")?, shared("container_id")?, shared("failure")?);
    let netns = small("net_ns")?;
    let ends = [("client_address", "client_port"), ("server_address", "server_port")];
    let [client, server] = ends.map(|(ip, number)| Some((address(ip)?, port(number)?)));
    let (client, server) = (client?, server?);
    let names =
        [["client_kind", "client_namespace", "client_name"], ["server_kind", "server_namespace", "server_name"]];
    let [client_names, server_names] =
        names.map(|[kind, space, name]| Some([shared(kind)?, shared(space)?, shared(name)?]));
    let (client_names, server_names) = (client_names?, server_names?);
    let (sent, recv, retransmits) = (number("sent_bytes")?, number("recv_bytes")?, number("retransmits")?);
    let (opened, closed, rtt) = (flag("opened")?, flag("closed")?, small("rtt_us")?);

    // Rows are sorted by edge: the endpoints of a row are mostly those of the row before.
    let mut client_endpoint = Arc::new(Endpoint::default());
    let mut server_endpoint = Arc::new(Endpoint::default());
    for row in 0..batch.num_rows() {
        let end = UnixNanos(to.value(row));
        if end < since || end >= until {
            continue;
        }
        for (endpoint, columns) in [(&mut client_endpoint, &client_names), (&mut server_endpoint, &server_names)] {
            let [kind, namespace, name] = [columns[0].get(row)?, columns[1].get(row)?, columns[2].get(row)?];
            if endpoint.kind != *kind || endpoint.namespace != *namespace || endpoint.name != *name {
                *endpoint = Arc::new(Endpoint {
                    kind: kind.to_string(),
                    namespace: namespace.to_string(),
                    name: name.to_string(),
                });
            }
        }
        visit(HistoryRow {
            from: UnixNanos(from.value(row)),
            to: end,
            connection: ConnectionId(connection.value(row).try_into().ok()?),
            view: view.get(row)?,
            node: node.get(row)?,
            protocol: protocol.get(row)?,
            netns: netns.value(row),
            client: SocketAddr::new(client.0.get(row)?, client.1.value(row)),
            server: SocketAddr::new(server.0.get(row)?, server.1.value(row)),
            client_endpoint: Arc::clone(&client_endpoint),
            server_endpoint: Arc::clone(&server_endpoint),
            process: process.get(row)?,
            container_id: container_id.get(row)?,
            deltas: Deltas {
                sent: Bytes(sent.value(row)),
                recv: Bytes(recv.value(row)),
                retransmits: retransmits.value(row),
            },
            opened: opened.value(row),
            closed: closed.value(row),
            failure: failure.get(row)?,
            rtt_us: (!rtt.is_null(row)).then(|| rtt.value(row)),
            started: (!started.is_null(row)).then(|| UnixNanos(started.value(row))),
        });
    }
    Some(())
}
