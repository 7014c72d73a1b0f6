//! The rows of a minute or an hour in a segment's file: the columns of [`RollupRow`] and the dense id of the edge.
//! Sorted by edge, then by who and how, then by time.

use super::columns::{
    CLIENT, Column, Ends, SERVER, address_column, flag, number, port, shared, shared_column, small, text, time,
    view_name, view_of,
};
use super::segment::FileRow;
use crate::rollup::{Resolution, RollupKey, RollupRow, Sums};
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{TimestampNanosecondType, UInt16Type, UInt32Type, UInt64Type};
use arrow_schema::ArrowError;
use parquet::basic::Encoding;
use std::net::SocketAddr;
use weir_model::{Protocol, UnixNanos};

/// A row with its edge.
#[derive(Clone, Debug)]
pub(super) struct RolledRow {
    pub(super) edge: u64,
    pub(super) row: RollupRow,
}

fn seconds(resolution: Resolution) -> u32 {
    (resolution.nanos() / 1_000_000_000) as u32
}

impl FileRow for RolledRow {
    /// Within an edge they are gathered, not merged.
    type Order = u64;
    const ENCODED: &'static [(&'static str, Encoding)] = &[
        ("sent_bytes", Encoding::BYTE_STREAM_SPLIT),
        ("recv_bytes", Encoding::BYTE_STREAM_SPLIT),
        ("rtt_us_sum", Encoding::BYTE_STREAM_SPLIT),
        ("rtt_us_max", Encoding::BYTE_STREAM_SPLIT),
    ];

    fn order(&self) -> Self::Order {
        self.edge
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_from_iter_with_nullable([
            ("window_start", time(rows, |row| Some(row.row.key.window)), false),
            ("window_seconds", small(rows, |row| Some(seconds(row.row.resolution))), false),
            ("edge", number(rows, |row| row.edge), false),
            ("view", text(rows, |row| view_name(row.row.key.view)), false),
            ("counted", flag(rows, |row| Some(row.row.key.counted)), false),
            ("node", shared(rows, |row| &row.row.key.node), false),
            ("protocol", text(rows, |row| row.row.key.protocol.as_str()), false),
            ("client_address", text(rows, |row| row.row.key.client.to_string()), false),
            ("client_kind", shared(rows, |row| &row.row.key.client_endpoint.kind), false),
            ("client_namespace", shared(rows, |row| &row.row.key.client_endpoint.namespace), false),
            ("client_name", shared(rows, |row| &row.row.key.client_endpoint.name), false),
            ("server_address", text(rows, |row| row.row.key.server.ip().to_string()), false),
            ("server_port", port(rows, |row| row.row.key.server.port()), false),
            ("server_kind", shared(rows, |row| &row.row.key.server_endpoint.kind), false),
            ("server_namespace", shared(rows, |row| &row.row.key.server_endpoint.namespace), false),
            ("server_name", shared(rows, |row| &row.row.key.server_endpoint.name), false),
            ("process", shared(rows, |row| &row.row.key.process), false),
            ("container_id", shared(rows, |row| &row.row.key.container_id), false),
            ("failure", shared(rows, |row| &row.row.key.failure), false),
            ("sent_bytes", number(rows, |row| row.row.sums.sent), false),
            ("recv_bytes", number(rows, |row| row.row.sums.recv), false),
            ("retransmits", number(rows, |row| row.row.sums.retransmits), false),
            ("rows", number(rows, |row| row.row.sums.rows), false),
            ("opened_count", number(rows, |row| row.row.sums.opened), false),
            ("closed_count", number(rows, |row| row.row.sums.closed), false),
            ("failure_count", number(rows, |row| row.row.sums.failures), false),
            ("rtt_us_sum", number(rows, |row| row.row.sums.rtt_sum_us), false),
            ("rtt_rows", number(rows, |row| row.row.sums.rtt_rows), false),
            ("rtt_us_max", small(rows, |row| Some(row.row.sums.rtt_max_us)), false),
        ])
    }

    fn from_batch(batch: &RecordBatch, visit: &mut dyn FnMut(Self)) -> Option<()> {
        let number = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>();
        let small = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>();
        let shared = |name: &str| shared_column(batch, name);
        let window = batch.column_by_name("window_start")?.as_primitive_opt::<TimestampNanosecondType>()?;
        let (length, edge) = (small("window_seconds")?, number("edge")?);
        let view = Column::of(batch, "view", |text| Some(view_of(text)))?;
        let counted = batch.column_by_name("counted")?.as_boolean_opt()?;
        let protocol = Column::of(batch, "protocol", Protocol::parse)?;
        let (node, process, container_id, failure) =
            (shared("node")?, shared("process")?, shared("container_id")?, shared("failure")?);
        let (client, server) = (address_column(batch, "client_address")?, address_column(batch, "server_address")?);
        let server_port = batch.column_by_name("server_port")?.as_primitive_opt::<UInt16Type>()?;
        let (mut clients, mut servers) = (Ends::of(batch, CLIENT)?, Ends::of(batch, SERVER)?);
        let (sent, recv, retransmits) = (number("sent_bytes")?, number("recv_bytes")?, number("retransmits")?);
        let (raw, opened, closed) = (number("rows")?, number("opened_count")?, number("closed_count")?);
        let (failures, rtt_sum, rtt_rows) = (number("failure_count")?, number("rtt_us_sum")?, number("rtt_rows")?);
        let rtt_max = small("rtt_us_max")?;
        for row in 0..batch.num_rows() {
            let resolution = [Resolution::Minute, Resolution::Hour]
                .into_iter()
                .find(|known| seconds(*known) == length.value(row))?;
            visit(Self {
                edge: edge.value(row),
                row: RollupRow {
                    resolution,
                    key: RollupKey {
                        view: view.get(row)?,
                        counted: counted.value(row),
                        node: node.get(row)?,
                        protocol: protocol.get(row)?,
                        client: client.get(row)?,
                        server: SocketAddr::new(server.get(row)?, server_port.value(row)),
                        client_endpoint: clients.get(row)?,
                        server_endpoint: servers.get(row)?,
                        process: process.get(row)?,
                        container_id: container_id.get(row)?,
                        failure: failure.get(row)?,
                        window: UnixNanos(window.value(row)),
                    },
                    sums: Sums {
                        sent: sent.value(row),
                        recv: recv.value(row),
                        retransmits: retransmits.value(row),
                        rows: raw.value(row),
                        opened: opened.value(row),
                        closed: closed.value(row),
                        failures: failures.value(row),
                        rtt_sum_us: rtt_sum.value(row),
                        rtt_rows: rtt_rows.value(row),
                        rtt_max_us: rtt_max.value(row),
                    },
                },
            });
        }
        Some(())
    }

    fn at(&self) -> UnixNanos {
        self.row.key.window
    }
}
