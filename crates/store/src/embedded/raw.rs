//! The rows of 10 s in a segment's file: the columns of [`HistoryRow`], the dense id of the edge, and, once it is
//! settled, whether the row counts. Sorted by edge, connection and time, so that equal values stand together.

use super::columns::{
    CLIENT, Column, Ends, SERVER, address_column, flag, number, port, shared, shared_column, small, text, time,
    view_name, view_of,
};
use super::segment::FileRow;
use crate::history::HistoryRow;
use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{TimestampNanosecondType, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use parquet::basic::Encoding;
use std::net::SocketAddr;
use std::sync::Arc;
use weir_model::{Bytes, ConnectionId, Deltas, Protocol, UnixNanos};

/// A row with its edge.
#[derive(Clone, Debug)]
pub(super) struct RawRow {
    pub(super) edge: u64,
    /// `None`: not settled.
    pub(super) counted: Option<bool>,
    pub(super) row: HistoryRow,
}

impl RawRow {
    /// [`FileRow::order`] of a row of this edge.
    pub(super) fn order_of(edge: u64, row: &HistoryRow) -> <Self as FileRow>::Order {
        (edge, row.connection, row.to)
    }
}

impl FileRow for RawRow {
    type Order = (u64, ConnectionId, UnixNanos);
    const ENCODED: &'static [(&'static str, Encoding)] = &[
        ("sent_bytes", Encoding::BYTE_STREAM_SPLIT),
        ("recv_bytes", Encoding::BYTE_STREAM_SPLIT),
        ("rtt_us", Encoding::BYTE_STREAM_SPLIT),
        // A node's polls, from each of its connections anew.
        ("from_time", Encoding::PLAIN),
        ("to_time", Encoding::PLAIN),
    ];

    fn order(&self) -> Self::Order {
        Self::order_of(self.edge, &self.row)
    }

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        let mut connections = FixedSizeBinaryBuilder::with_capacity(rows.len(), 16);
        for row in rows {
            connections.append_value(row.row.connection.0)?;
        }
        RecordBatch::try_from_iter_with_nullable([
            ("window_start", time(rows, |row| Some(row.row.window().start())), false),
            ("from_time", time(rows, |row| Some(row.row.from)), false),
            ("to_time", time(rows, |row| Some(row.row.to)), false),
            ("connection", Arc::new(connections.finish()) as ArrayRef, false),
            ("edge", number(rows, |row| row.edge), false),
            ("view", text(rows, |row| view_name(row.row.view)), false),
            ("node", shared(rows, |row| &row.row.node), false),
            ("protocol", text(rows, |row| row.row.protocol.as_str()), false),
            ("net_ns", small(rows, |row| Some(row.row.netns)), false),
            ("client_address", text(rows, |row| row.row.client.ip().to_string()), false),
            ("client_port", port(rows, |row| row.row.client.port()), false),
            ("client_kind", shared(rows, |row| &row.row.client_endpoint.kind), false),
            ("client_namespace", shared(rows, |row| &row.row.client_endpoint.namespace), false),
            ("client_name", shared(rows, |row| &row.row.client_endpoint.name), false),
            ("server_address", text(rows, |row| row.row.server.ip().to_string()), false),
            ("server_port", port(rows, |row| row.row.server.port()), false),
            ("server_kind", shared(rows, |row| &row.row.server_endpoint.kind), false),
            ("server_namespace", shared(rows, |row| &row.row.server_endpoint.namespace), false),
            ("server_name", shared(rows, |row| &row.row.server_endpoint.name), false),
            ("process", shared(rows, |row| &row.row.process), false),
            ("container_id", shared(rows, |row| &row.row.container_id), false),
            ("sent_bytes", number(rows, |row| row.row.deltas.sent.0), false),
            ("recv_bytes", number(rows, |row| row.row.deltas.recv.0), false),
            ("retransmits", number(rows, |row| row.row.deltas.retransmits), false),
            ("opened", flag(rows, |row| Some(row.row.opened)), false),
            ("closed", flag(rows, |row| Some(row.row.closed)), false),
            ("failure", shared(rows, |row| &row.row.failure), false),
            ("rtt_us", small(rows, |row| row.row.rtt_us), true),
            ("started", time(rows, |row| row.row.started), true),
            ("counted", flag(rows, |row| row.counted), true),
            ("late", flag(rows, |row| Some(row.row.late)), true),
        ])
    }

    fn from_batch(batch: &RecordBatch, visit: &mut dyn FnMut(Self)) -> Option<()> {
        let time = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<TimestampNanosecondType>();
        let number = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>();
        let small = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>();
        let port = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<UInt16Type>();
        let flag = |name: &str| batch.column_by_name(name)?.as_boolean_opt();
        let shared = |name: &str| shared_column(batch, name);

        let (from, to, started) = (time("from_time")?, time("to_time")?, time("started")?);
        let connection = batch.column_by_name("connection")?.as_fixed_size_binary_opt()?;
        let edge = number("edge")?;
        let view = Column::of(batch, "view", |text| Some(view_of(text)))?;
        let protocol = Column::of(batch, "protocol", Protocol::parse)?;
        let (node, process, container_id, failure) =
            (shared("node")?, shared("process")?, shared("container_id")?, shared("failure")?);
        let netns = small("net_ns")?;
        let (client, client_port) = (address_column(batch, "client_address")?, port("client_port")?);
        let (server, server_port) = (address_column(batch, "server_address")?, port("server_port")?);
        let (mut clients, mut servers) = (Ends::of(batch, CLIENT)?, Ends::of(batch, SERVER)?);
        let (sent, recv, retransmits) = (number("sent_bytes")?, number("recv_bytes")?, number("retransmits")?);
        let (opened, closed, rtt) = (flag("opened")?, flag("closed")?, small("rtt_us")?);
        // Files of older builds have no such columns.
        let (counted, late) = (flag("counted"), flag("late"));
        for row in 0..batch.num_rows() {
            visit(Self {
                edge: edge.value(row),
                counted: counted.filter(|column| !column.is_null(row)).map(|column| column.value(row)),
                row: HistoryRow {
                    from: UnixNanos(from.value(row)),
                    to: UnixNanos(to.value(row)),
                    connection: ConnectionId(connection.value(row).try_into().ok()?),
                    view: view.get(row)?,
                    node: node.get(row)?,
                    protocol: protocol.get(row)?,
                    netns: netns.value(row),
                    client: SocketAddr::new(client.get(row)?, client_port.value(row)),
                    server: SocketAddr::new(server.get(row)?, server_port.value(row)),
                    client_endpoint: clients.get(row)?,
                    server_endpoint: servers.get(row)?,
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
                    late: late.is_some_and(|column| !column.is_null(row) && column.value(row)),
                },
            });
        }
        Some(())
    }

    fn at(&self) -> UnixNanos {
        self.row.to
    }
}
