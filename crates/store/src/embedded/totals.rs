//! Sums by edge, from the few columns that they take: the dense id stands for the ends' names, which the catalogue has.

use super::catalogue::Entry;
use super::edge_names::EdgeNames;
use super::segment::{self, SegmentKind, missing_column};
use crate::error::StoreError;
use crate::history::{EdgeTotal, EdgeTotals, Step};
use crate::rollup::Sums;
use crate::settled::Fate;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampNanosecondType, UInt32Type, UInt64Type};
use arrow_array::{Array as _, DictionaryArray, RecordBatch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use rusqlite::Connection;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use weir_model::UnixNanos;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 32_768;
/// Fewer rows are read sooner than a thread is worth it: some 20 ms.
const ROWS_OF_ONE_THREAD: u64 = 300_000;
/// Of an answer: other questions and the writer want processors, too.
const THREADS_MAX: usize = 4;

const RAW: &[&str] =
    &["edge", "counted", "sent_bytes", "recv_bytes", "retransmits", "opened", "closed", "failure", "rtt_us", "to_time"];
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
    "rtt_us_sum",
    "rtt_rows",
    "window_start",
];

/// Failures by the step's start and their reason.
type ByReason = BTreeMap<(UnixNanos, Arc<str>), u64>;

#[derive(Debug, Default)]
pub(super) struct Totals {
    /// By edge, and whether the rows count.
    sums: HashMap<(u64, bool), Sums>,
    step: Option<Step>,
    /// The same by the step's start, where steps are asked for.
    steps: HashMap<(u64, bool), BTreeMap<UnixNanos, Sums>>,
    /// And its failures by their reason.
    failed: HashMap<(u64, bool), ByReason>,
    unsettled_rows: u64,
    unsettled_from: Option<UnixNanos>,
}

impl Totals {
    /// Of the files' rows in the span. Many rows are read by several threads, each of which takes the next file.
    pub(super) fn of(
        files: &[(&Entry, PathBuf)],
        since: UnixNanos,
        until: UnixNanos,
        step: Option<Step>,
    ) -> Result<Self, StoreError> {
        let next = AtomicUsize::new(0);
        let share = || {
            let mut sums = Self { step, ..Self::default() };
            while let Some((entry, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                sums.add(entry, path, since, until)?;
            }
            Ok(sums)
        };
        let rows: u64 = files.iter().map(|(entry, _)| entry.rows).sum();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let others = if rows < ROWS_OF_ONE_THREAD { 0 } else { threads - 1 };
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..others).map(|_| scope.spawn(share)).collect();
            let mut sums: Self = share()?;
            for other in others {
                sums.merge(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(sums)
        })
    }

    fn merge(&mut self, other: Self) {
        let Self { sums, step: _, steps, failed, unsettled_rows, unsettled_from } = other;
        for (edge, sum) in sums {
            let held = self.sums.entry(edge).or_default();
            *held = held.plus(sum);
        }
        for (edge, steps) in steps {
            let held = self.steps.entry(edge).or_default();
            for (at, sum) in steps {
                let held = held.entry(at).or_default();
                *held = held.plus(sum);
            }
        }
        for (edge, failed) in failed {
            let held = self.failed.entry(edge).or_default();
            for (at, count) in failed {
                *held.entry(at).or_default() += count;
            }
        }
        self.unsettled_rows += unsettled_rows;
        self.unsettled_from = self.unsettled_from.into_iter().chain(unsettled_from).min();
    }

    fn add(&mut self, entry: &Entry, path: &Path, since: UnixNanos, until: UnixNanos) -> Result<(), StoreError> {
        if entry.kind == SegmentKind::Received {
            let from = entry.oldest.max(since);
            self.unsettled_from = Some(self.unsettled_from.map_or(from, |held| held.min(from)));
        }
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
        // The instant is the last column, and only of use where not all rows are asked for, or all by their time.
        let timeless = whole && self.step.is_none();
        let columns = if timeless { &columns[..columns.len() - 1] } else { columns };
        // Why connections failed is told by step only.
        let why: &[&str] = if rolled && self.step.is_some() { &["failure"] } else { &[] };
        for batch in open(path, &[columns, why].concat())? {
            let batch = batch.map_err(StoreError::segment("read", path))?;
            let span = (!timeless).then_some((since, until));
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
        let why = Some(failure).filter(|_| self.step.is_some());
        let rtt = batch.column_by_name("rtt_us")?.as_primitive_opt::<UInt32Type>()?;
        self.runs(batch, (span, "to_time"), why, edge, |row| {
            let rtt_us = (!rtt.is_null(row)).then(|| rtt.value(row));
            let sums = Sums {
                sent: sent[row],
                recv: recv[row],
                retransmits: retransmits[row],
                rows: 1,
                opened: u64::from(opened.value(row)),
                closed: u64::from(closed.value(row)),
                failures: u64::from(failed.get(keys[row] as usize).copied().unwrap_or_default()),
                rtt_sum_us: rtt_us.map_or(0, u64::from),
                rtt_rows: u64::from(rtt_us.is_some()),
                ..Sums::default()
            };
            (counted.value(row), sums)
        })
    }

    fn add_rolled(&mut self, batch: &RecordBatch, span: Option<(UnixNanos, UnixNanos)>) -> Option<()> {
        let number = |name: &str| Some(batch.column_by_name(name)?.as_primitive_opt::<UInt64Type>()?.values());
        let (edge, sent, recv, retransmits) =
            (number("edge")?, number("sent_bytes")?, number("recv_bytes")?, number("retransmits")?);
        let (rows, opened, closed, failures) =
            (number("rows")?, number("opened_count")?, number("closed_count")?, number("failure_count")?);
        let (rtt_sum, rtt_rows) = (number("rtt_us_sum")?, number("rtt_rows")?);
        let counted = batch.column_by_name("counted")?.as_boolean_opt()?;
        let why = batch.column_by_name("failure").and_then(|column| column.as_dictionary_opt::<Int32Type>());
        self.runs(batch, (span, "window_start"), why, edge, |row| {
            let sums = Sums {
                sent: sent[row],
                recv: recv[row],
                retransmits: retransmits[row],
                rows: rows[row],
                opened: opened[row],
                closed: closed[row],
                failures: failures[row],
                rtt_sum_us: rtt_sum[row],
                rtt_rows: rtt_rows[row],
                ..Sums::default()
            };
            (counted.value(row), sums)
        })
    }

    /// Rows are sorted by edge: one look-up for all rows of one that stand together.
    fn runs(
        &mut self,
        batch: &RecordBatch,
        (span, instant): (Option<(UnixNanos, UnixNanos)>, &str),
        why: Option<&DictionaryArray<Int32Type>>,
        edges: &[u64],
        of: impl Fn(usize) -> (bool, Sums),
    ) -> Option<()> {
        let at = match span {
            Some(_) => Some(batch.column_by_name(instant)?.as_primitive_opt::<TimestampNanosecondType>()?.values()),
            None => None,
        };
        let reasons: Vec<Arc<str>> = match why {
            Some(why) => why.values().as_string_opt::<i32>()?.iter().map(|text| text.unwrap_or("").into()).collect(),
            None => Vec::new(),
        };
        let reason = |row: usize| why.and_then(|why| reasons.get(why.keys().values()[row] as usize));
        let inside = |row: usize| match (span, at) {
            (Some((since, until)), Some(at)) => (since.0..until.0).contains(&at[row]),
            _ => true,
        };
        let mut begin = 0;
        while begin < edges.len() {
            let edge = edges[begin];
            let length = edges[begin..].iter().take_while(|other| **other == edge).count();
            let mut run = [Sums::default(); 2];
            for row in (begin..begin + length).filter(|row| inside(*row)) {
                let (counted, sums) = of(row);
                let sum = &mut run[usize::from(counted)];
                *sum = sum.plus(sums);
                if let (Some(step), Some(at)) = (self.step, at) {
                    let steps = self.steps.entry((edge, counted)).or_default();
                    let held = steps.entry(step.floor(UnixNanos(at[row]))).or_default();
                    *held = held.plus(sums);
                    if let Some(reason) = reason(row).filter(|_| sums.failures > 0) {
                        let failed = self.failed.entry((edge, counted)).or_default();
                        *failed.entry((step.floor(UnixNanos(at[row])), Arc::clone(reason))).or_default() +=
                            sums.failures;
                    }
                }
            }
            begin += length;
            for (counted, sum) in [false, true].into_iter().zip(run).filter(|(_, sum)| sum.rows > 0) {
                let held = self.sums.entry((edge, counted)).or_default();
                *held = held.plus(sum);
            }
        }
        Some(())
    }

    /// With the catalogue's names.
    pub(super) fn named(mut self, names: &EdgeNames, connection: &Connection) -> Result<EdgeTotals, StoreError> {
        let (keys, sums): (Vec<(u64, bool)>, Vec<Sums>) = std::mem::take(&mut self.sums).into_iter().unzip();
        let ids: Vec<u64> = keys.iter().map(|(edge, _)| *edge).collect();
        let names = names.of(connection, &ids)?;
        let mut edges = Vec::with_capacity(keys.len());
        for ((key, sums), name) in keys.into_iter().zip(sums).zip(names) {
            let steps = self.steps.remove(&key).unwrap_or_default().into_iter().collect();
            let failed = self.failed.remove(&key).unwrap_or_default();
            let failed = failed.into_iter().map(|((at, reason), count)| (at, reason, count)).collect();
            let (settled, fate) = name.settled.clone().unzip();
            let fate = if key.1 { Fate::Counted } else { fate.unwrap_or(Fate::OtherView) };
            // Of a view that does not count, what its end sent again is told nowhere else; by step also how much it sent.
            if fate == Fate::OtherView && sums.retransmits == 0 && self.step.is_none() {
                continue;
            }
            let (client, server) = (Arc::clone(&name.client), Arc::clone(&name.server));
            let (protocol, port) = (name.protocol, name.port);
            edges.push(EdgeTotal { client, server, protocol, port, fate, settled, sums, steps, failed });
        }
        let unsettled_from = self.unsettled_from.filter(|_| self.unsettled_rows > 0);
        Ok(EdgeTotals { edges, unsettled_rows: self.unsettled_rows, unsettled_from })
    }
}

/// Reads only these columns.
fn open(path: &Path, columns: &[&str]) -> Result<ParquetRecordBatchReader, StoreError> {
    let builder = segment::open(path)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(StoreError::segment("read", path))
}
