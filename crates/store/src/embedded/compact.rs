//! One step of compaction: neighbours are read side by side, edge by edge, and written as one.
//!
//! ```text
//! settle   all rows in memory (bounded by the plan): judged, turned to face the client, sorted
//! merge    files of rows of 10 s, each sorted: the smallest row of all next
//! roll up  as merge, but the rows of one edge are summed before they are written
//! ```
//!
//! The new file is whole and durable under its name before one transaction puts it into the catalogue in place of the
//! old ones; only then are those removed.

use super::catalogue::{self, Entry};
use super::plan::{Job, plan};
use super::raw::RawRow;
use super::rolled::RolledRow;
use super::segment::{FileRow, Reader, SegmentKind, Writer, Written, file_name};
use super::{Embedded, room, segment};
use crate::error::StoreError;
use crate::history::{Compacted, Due, HistoryRow, Judge, Judgement, SegmentId};
use crate::report::Lsn;
use crate::rollup::{Resolution, Rollup, RollupRow};
use crate::settled::{Fate, SettledEdge};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_daemon::failpoint;
use weir_model::{Protocol, Side, UnixNanos};

/// Rows read at a time from each of the files that are merged.
const CURSOR_ROWS: usize = 256;

pub(super) fn step(store: &Embedded, due: &Due, judge: &mut dyn Judge) -> Result<Option<Compacted>, StoreError> {
    let _pin = store.pins.pin();
    let entries = catalogue::entries(&store.writer(), None)?;
    let Some(job) = plan(&entries, due) else { return Ok(None) };
    let folder = store.folder.segments();
    let bytes_in = job.inputs.iter().map(|entry| entry.bytes).sum();
    room::check(&folder, bytes_in)?;
    let id = job_id(&job);
    let written = match job.target {
        SegmentKind::Received | SegmentKind::Settled => {
            if job.inputs.iter().all(|entry| entry.kind == SegmentKind::Settled) {
                merge(&folder, &job, id)?
            } else {
                settle(store, &folder, &job, id, judge)?
            }
        }
        SegmentKind::Minute => roll_up(&folder, &job, id, Resolution::Minute)?,
        SegmentKind::Hour => roll_up(&folder, &job, id, Resolution::Hour)?,
    };
    failpoint::reach("compaction-durable");
    let replaced = catalogue::replace(&mut store.writer(), &job.inputs, id, job.target, &written);
    let path_of = |entry: &Entry| folder.join(file_name(entry.id, entry.kind));
    match replaced {
        Ok(true) => {}
        // Retention was quicker with one of them: the next step sees what is left.
        Ok(false) => {
            store.pins.doom([folder.join(file_name(id, job.target))]);
            return Ok(Some(Compacted { segments: 0, rows_in: 0, rows_out: 0, bytes_in: 0, bytes_out: 0 }));
        }
        Err(error) => {
            store.pins.doom([folder.join(file_name(id, job.target))]);
            return Err(error);
        }
    }
    failpoint::reach("compaction-catalogue-committed");
    store.pins.doom(job.inputs.iter().map(path_of));
    Ok(Some(Compacted {
        segments: job.inputs.len() as u64,
        rows_in: job.inputs.iter().map(|entry| entry.rows).sum(),
        rows_out: written.rows,
        bytes_in,
        bytes_out: written.bytes,
    }))
}

fn job_id(job: &Job) -> SegmentId {
    let first = job.inputs.first().map_or(Lsn(0), |entry| entry.id.first);
    SegmentId { first, last: job.inputs.last().map_or(first, |entry| entry.id.last) }
}

fn paths(folder: &Path, inputs: &[Entry]) -> Vec<PathBuf> {
    inputs.iter().map(|entry| folder.join(file_name(entry.id, entry.kind))).collect()
}

/// Judges every row. A row whose own end turns out to be on the other side is turned, and belongs to another edge then.
fn settle(
    store: &Embedded,
    folder: &Path,
    job: &Job,
    id: SegmentId,
    judge: &mut dyn Judge,
) -> Result<Written, StoreError> {
    let mut rows: Vec<RawRow> = Vec::new();
    for path in paths(folder, &job.inputs) {
        segment::read(&path, UnixNanos(i64::MIN), UnixNanos(i64::MAX), &mut |row: RawRow| rows.push(row))?;
        failpoint::reach("compaction-half-read");
    }
    prepare(judge, &rows, job.inputs.iter().map(|entry| entry.received).max().unwrap_or_default())?;
    let mut turned = Vec::new();
    let mut named = Vec::new();
    // Most rows are of few edges: each different one is asked for once.
    let mut places: HashMap<(*const SettledEdge, Protocol, Fate), usize> = HashMap::new();
    let mut asked = Vec::new();
    for (index, row) in rows.iter_mut().enumerate() {
        let Judgement { side, fate, edge } = judge.judge(&row.row);
        row.counted = Some(fate == Fate::Counted);
        let is_turned = turn(&mut row.row, side);
        match edge {
            Some(edge) => {
                call(&mut row.row, &edge);
                let place = *places.entry((Arc::as_ptr(&edge), row.row.protocol, fate)).or_insert_with(|| {
                    asked.push((edge, row.row.protocol, fate));
                    asked.len() - 1
                });
                named.push((index, place));
            }
            None if is_turned => turned.push(index),
            None => {}
        }
    }
    let ids = catalogue::settled_edge_ids(&mut store.writer(), &asked, id.last)?;
    for (index, place) in named {
        rows[index].edge = ids[place];
    }
    let edges = catalogue::edge_ids(&mut store.writer(), turned.iter().map(|&index| &rows[index].row), id.last)?;
    for (index, edge) in turned.into_iter().zip(edges) {
        rows[index].edge = edge;
    }
    rows.sort_by_key(FileRow::order);
    let mut writer = Writer::new(folder, id, SegmentKind::Settled);
    for row in rows {
        writer.push(row)?;
    }
    writer.finish()
}

/// One row of yesterday or of tomorrow must not make the judge read all of a day: only rows that came in their time make
/// the span.
fn prepare(judge: &mut dyn Judge, rows: &[RawRow], received: UnixNanos) -> Result<(), StoreError> {
    let (apart, timely): (Vec<&HistoryRow>, Vec<&HistoryRow>) =
        rows.iter().map(|row| &row.row).partition(|row| row.late || row.to > received);
    let ends = || timely.iter().map(|row| row.to);
    judge.prepare(ends().min().zip(ends().max()), &apart)
}

/// The names that a row has for good.
fn call(row: &mut HistoryRow, edge: &SettledEdge) {
    for (endpoint, end) in [(&mut row.client_endpoint, &edge.client), (&mut row.server_endpoint, &edge.server)] {
        let settled = &end.endpoint;
        if endpoint.kind != settled.kind || endpoint.namespace != settled.namespace || endpoint.name != settled.name {
            *endpoint = Arc::new(settled.endpoint());
        }
    }
}

/// Gives the row's own end its side; true if its ends changed places. Where no side was known, the own end stands in the
/// client's columns.
fn turn(row: &mut HistoryRow, side: Side) -> bool {
    let stood_as = row.view.unwrap_or(Side::Client);
    row.view = Some(side);
    if stood_as == side {
        return false;
    }
    std::mem::swap(&mut row.client, &mut row.server);
    std::mem::swap(&mut row.client_endpoint, &mut row.server_endpoint);
    std::mem::swap(&mut row.deltas.sent, &mut row.deltas.recv);
    true
}

/// Files side by side: always the smallest row next.
struct Merge<R: FileRow> {
    readers: Vec<Reader<R>>,
    heads: Vec<Option<R>>,
    order: BinaryHeap<Reverse<(R::Order, usize)>>,
}

impl<R: FileRow> Merge<R> {
    fn open(paths: &[PathBuf]) -> Result<Self, StoreError> {
        let readers = paths.iter().map(|path| Reader::open(path, CURSOR_ROWS)).collect::<Result<Vec<_>, _>>()?;
        let mut merge = Self { heads: Vec::new(), order: BinaryHeap::new(), readers };
        for index in 0..merge.readers.len() {
            merge.heads.push(None);
            merge.advance(index)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, index: usize) -> Result<Option<R>, StoreError> {
        let next = self.readers[index].next()?;
        if let Some(next) = &next {
            self.order.push(Reverse((next.order(), index)));
        }
        Ok(std::mem::replace(&mut self.heads[index], next))
    }

    fn next(&mut self) -> Result<Option<R>, StoreError> {
        let Some(Reverse((_, index))) = self.order.pop() else { return Ok(None) };
        self.advance(index)
    }
}

fn merge(folder: &Path, job: &Job, id: SegmentId) -> Result<Written, StoreError> {
    let mut rows = Merge::<RawRow>::open(&paths(folder, &job.inputs))?;
    let mut writer = Writer::new(folder, id, job.target);
    while let Some(row) = rows.next()? {
        writer.push(row)?;
    }
    writer.finish()
}

fn roll_up(folder: &Path, job: &Job, id: SegmentId, resolution: Resolution) -> Result<Written, StoreError> {
    let mut writer = Writer::new(folder, id, job.target);
    let paths = paths(folder, &job.inputs);
    if job.inputs.iter().all(|entry| entry.kind == SegmentKind::Settled) {
        let mut rows = Merge::<RawRow>::open(&paths)?;
        sum(&mut writer, resolution, || {
            let Some(raw) = rows.next()? else { return Ok(None) };
            let counted = raw.counted.ok_or(StoreError::Corrupt {
                what: "a settled segment",
                text: format!("one of {}-{} has a row that does not say whether it counts", id.first.0, id.last.0),
            })?;
            Ok(Some((raw.edge, RollupRow::of(&raw.row, counted))))
        })?;
    } else {
        let mut rows = Merge::<RolledRow>::open(&paths)?;
        sum(&mut writer, resolution, || Ok(rows.next()?.map(|rolled| (rolled.edge, rolled.row))))?;
    }
    writer.finish()
}

/// Rows come edge by edge: the sums of one edge are all that is in memory.
fn sum(
    writer: &mut Writer<RolledRow>,
    resolution: Resolution,
    mut next: impl FnMut() -> Result<Option<(u64, RollupRow)>, StoreError>,
) -> Result<(), StoreError> {
    let mut rollup = Rollup::new(resolution);
    let mut current = None;
    while let Some((edge, row)) = next()? {
        if let Some(before) = current.replace(edge)
            && before != edge
        {
            failpoint::reach("compaction-half-read");
            for row in rollup.drain() {
                writer.push(RolledRow { edge: before, row })?;
            }
        }
        rollup.add(row);
    }
    for row in rollup.drain() {
        writer.push(RolledRow { edge: current.unwrap_or(0), row })?;
    }
    Ok(())
}
