//! Sums by edge, from the few columns that they take: the dense id stands for the ends' names, which the catalogue has.

use super::catalogue::Entry;
use super::segment::{self, SegmentKind, missing_column};
use crate::error::StoreError;
use crate::history::{EdgeTotal, EdgeTotals};
use crate::rollup::Sums;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt64Type};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use rusqlite::Connection;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use weir_model::{Endpoint, Protocol, UnixNanos};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 32_768;

const RAW: &[&str] =
    &["edge", "counted", "sent_bytes", "recv_bytes", "retransmits", "opened", "closed", "failure", "to_time"];
const ROLLED: &[&str] = &[
    "edge",
    "counted",
    "sent_bytes",
    "recv_bytes",
    "retransmits",
    "rows",
    "opened_count",
    "closed_count",
    "failure_count",
    "window_start",
];

#[derive(Debug, Default)]
pub(super) struct Totals {
    sums: HashMap<u64, Sums>,
    unsettled_rows: u64,
}

impl Totals {
    pub(super) fn add(
        &mut self,
        entry: &Entry,
        path: &Path,
        since: UnixNanos,
        until: UnixNanos,
    ) -> Result<(), StoreError> {
        let whole = entry.oldest >= since && entry.newest < until;
        let rolled = entry.kind.tier() > 0;
        let columns = match (entry.kind, rolled) {
            (SegmentKind::Received, _) if whole => {
                self.unsettled_rows += entry.rows;
                return Ok(());
            }
            (SegmentKind::Received, _) => &RAW[RAW.len() - 1..],
            (_, true) => ROLLED,
            (_, false) => RAW,
        };
        // The instant is the last column, and only of use where not all rows are asked for.
        let columns = if whole { &columns[..columns.len() - 1] } else { columns };
        for batch in open(path, columns)? {
            let batch = batch.map_err(StoreError::segment("read", path))?;
            let span = (!whole).then_some((since, until));
            let added = match entry.kind {
                SegmentKind::Received => self.count_unsettled(&batch, since, until),
                SegmentKind::Settled => self.add_raw(&batch, span),
                SegmentKind::Minute | SegmentKind::Hour => self.add_rolled(&batch, span),
            };
            added.ok_or_else(|| missing_column(path))?;
        }
        Ok(())
    }

    fn count_unsettled(&mut self, batch: &RecordBatch, since: UnixNanos, until: UnixNanos) -> Option<()> {
        let to = batch.column_by_name("to_time")?.as_primitive_opt::<TimestampNanosecondType>()?;
        self.unsettled_rows += to.values().iter().filter(|at| (since.0..until.0).contains(at)).count() as u64;
        Some(())
    }

    fn add_raw(&mut self, batch: &RecordBatch, span: Option<(UnixNanos, UnixNanos)>) -> Option<()> {
        let number = |name: &str| Some(batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>()?.values());
        let flag = |name: &str| batch.column_by_name(name)?.as_boolean_opt();
        let (edge, sent, recv, retransmits) =
            (number("edge")?, number("sent_bytes")?, number("recv_bytes")?, number("retransmits")?);
        let (counted, opened, closed) = (flag("counted")?, flag("opened")?, flag("closed")?);
        let failure = batch.column_by_name("failure")?.as_dictionary_opt::<Int32Type>()?;
        let reasons = failure.values().as_string_opt::<i32>()?;
        let failed: Vec<bool> = reasons.iter().map(|reason| reason.is_some_and(|text| !text.is_empty())).collect();
        let keys = failure.keys().values();
        self.runs(batch, span, "to_time", edge, |row| {
            counted.value(row).then(|| Sums {
                sent: sent[row],
                recv: recv[row],
                retransmits: retransmits[row],
                rows: 1,
                opened: u64::from(opened.value(row)),
                closed: u64::from(closed.value(row)),
                failures: u64::from(failed.get(keys[row] as usize).copied().unwrap_or_default()),
                ..Sums::default()
            })
        })
    }

    fn add_rolled(&mut self, batch: &RecordBatch, span: Option<(UnixNanos, UnixNanos)>) -> Option<()> {
        let number = |name: &str| Some(batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>()?.values());
        let (edge, sent, recv, retransmits) =
            (number("edge")?, number("sent_bytes")?, number("recv_bytes")?, number("retransmits")?);
        let (rows, opened, closed, failures) =
            (number("rows")?, number("opened_count")?, number("closed_count")?, number("failure_count")?);
        let counted = batch.column_by_name("counted")?.as_boolean_opt()?;
        self.runs(batch, span, "window_start", edge, |row| {
            counted.value(row).then(|| Sums {
                sent: sent[row],
                recv: recv[row],
                retransmits: retransmits[row],
                rows: rows[row],
                opened: opened[row],
                closed: closed[row],
                failures: failures[row],
                ..Sums::default()
            })
        })
    }

    /// Rows are sorted by edge: one look-up for all rows of one that stand together.
    fn runs(
        &mut self,
        batch: &RecordBatch,
        span: Option<(UnixNanos, UnixNanos)>,
        instant: &str,
        edges: &[u64],
        of: impl Fn(usize) -> Option<Sums>,
    ) -> Option<()> {
        let at = match span {
            Some(_) => Some(batch.column_by_name(instant)?.as_primitive_opt::<TimestampNanosecondType>()?.values()),
            None => None,
        };
        let inside = |row: usize| match (span, at) {
            (Some((since, until)), Some(at)) => (since.0..until.0).contains(&at[row]),
            _ => true,
        };
        let mut begin = 0;
        while begin < edges.len() {
            let edge = edges[begin];
            let length = edges[begin..].iter().take_while(|other| **other == edge).count();
            let mut sum = Sums::default();
            for row in begin..begin + length {
                if inside(row)
                    && let Some(sums) = of(row)
                {
                    sum = sum.plus(sums);
                }
            }
            begin += length;
            if sum.rows > 0 {
                let held = self.sums.entry(edge).or_default();
                *held = held.plus(sum);
            }
        }
        Some(())
    }

    /// With the catalogue's names.
    pub(super) fn named(self, connection: &Connection) -> Result<EdgeTotals, StoreError> {
        let sql = || StoreError::sql("name the edges");
        let mut statement = connection
            .prepare_cached(
                "SELECT c.kind, c.namespace, c.name, s.kind, s.namespace, s.name, e.protocol, e.port FROM edges e
                 JOIN endpoints c ON c.id = e.client JOIN endpoints s ON s.id = e.server WHERE e.id = ?1",
            )
            .map_err(sql())?;
        let mut edges = Vec::with_capacity(self.sums.len());
        for (edge, sums) in self.sums {
            let total = statement.query_row([edge as i64], |row| {
                let end = |at: usize| -> rusqlite::Result<Endpoint> {
                    Ok(Endpoint { kind: row.get(at)?, namespace: row.get(at + 1)?, name: row.get(at + 2)? })
                };
                let protocol = if row.get::<_, i64>(6)? == 0 { Protocol::Tcp } else { Protocol::Udp };
                Ok(EdgeTotal { client: end(0)?, server: end(3)?, protocol, port: row.get(7)?, sums })
            });
            edges.push(total.map_err(sql())?);
        }
        Ok(EdgeTotals { edges, unsettled_rows: self.unsettled_rows })
    }
}

/// Reads only these columns; texts stay dictionaries, so that none is looked at once a row.
fn open(path: &Path, columns: &[&str]) -> Result<parquet::arrow::arrow_reader::ParquetRecordBatchReader, StoreError> {
    let builder = segment::open(path)?;
    let fields: Vec<Field> = builder
        .schema()
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8 => {
                let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
                field.as_ref().clone().with_data_type(text)
            }
            _ => field.as_ref().clone(),
        })
        .collect();
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(StoreError::segment("read", path))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(StoreError::segment("read", path))
}
