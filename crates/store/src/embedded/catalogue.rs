//! The catalogue: names of ends and edges, segments, and the watermark. The one place that says which files exist.

use super::segment;
use crate::error::StoreError;
use crate::history::{HistoryRow, HistorySummary, SegmentId};
use crate::report::Lsn;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use weir_model::{Endpoint, UnixNanos};

/// The first tier: rows as they were received. Compaction will write the higher ones.
const TIER_RECEIVED: i64 = 0;

pub(super) fn watermark(connection: &Connection) -> Result<Lsn, StoreError> {
    connection
        .query_row("SELECT lsn FROM watermark", [], |row| row.get::<_, i64>(0))
        .map(|lsn| Lsn(lsn as u64))
        .map_err(StoreError::sql("read the watermark"))
}

/// Writes a segment (see the module above for the order). The lock is not held while the file is written.
pub(super) fn put_segment(
    writer: &Mutex<Connection>,
    folder: &Path,
    id: SegmentId,
    rows: &[HistoryRow],
) -> Result<(), StoreError> {
    let lock = || writer.lock().unwrap_or_else(PoisonError::into_inner);
    let held = watermark(&lock())?;
    if id.last <= held {
        return Ok(());
    }
    if id.first.0 != held.0 + 1 {
        return Err(StoreError::Corrupt {
            what: "history",
            text: format!("segment {}-{} does not follow the watermark {}", id.first.0, id.last.0, held.0),
        });
    }
    let bytes = if rows.is_empty() {
        0
    } else {
        let edges = edge_ids(&mut lock(), rows)?;
        segment::write(folder, id, rows, &edges)?
    };
    let connection = &mut *lock();
    // The log is cut behind this commit, so it is on disk before this function returns.
    let sql = || StoreError::sql("add a segment to the catalogue");
    connection.pragma_update(None, "synchronous", "FULL").map_err(sql())?;
    let added = add(connection, id, rows, bytes);
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(sql())?;
    added
}

fn add(connection: &mut Connection, id: SegmentId, rows: &[HistoryRow], bytes: u64) -> Result<(), StoreError> {
    let sql = || StoreError::sql("add a segment to the catalogue");
    let step = connection.transaction().map_err(sql())?;
    let ends = || rows.iter().map(|row| row.to.0);
    if let (Some(oldest), Some(newest)) = (ends().min(), ends().max()) {
        step.execute(
            "INSERT INTO segments (first_lsn, last_lsn, tier, oldest, newest, rows, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                id.first.0 as i64,
                id.last.0 as i64,
                TIER_RECEIVED,
                oldest,
                newest,
                rows.len() as i64,
                bytes as i64
            ],
        )
        .map_err(sql())?;
    }
    step.execute("UPDATE watermark SET lsn = ?1", [id.last.0 as i64]).map_err(sql())?;
    step.commit().map_err(sql())
}

/// The dense id of each row's edge. New names are added; a name that no segment uses in the end does no harm.
fn edge_ids(connection: &mut Connection, rows: &[HistoryRow]) -> Result<Vec<u64>, StoreError> {
    let sql = || StoreError::sql("name an edge");
    let step = connection.transaction().map_err(sql())?;
    let mut endpoints: HashMap<&Endpoint, i64> = HashMap::new();
    let mut edges = HashMap::new();
    let mut ids = Vec::with_capacity(rows.len());
    for row in rows {
        let key = (&*row.client_endpoint, &*row.server_endpoint, row.protocol, row.server.port());
        let id = if let Some(id) = edges.get(&key) {
            *id
        } else {
            let mut ends = [0; 2];
            for (end, endpoint) in ends.iter_mut().zip([key.0, key.1]) {
                *end = match endpoints.get(endpoint) {
                    Some(id) => *id,
                    None => endpoint_id(&step, endpoint)?,
                };
                endpoints.insert(endpoint, *end);
            }
            let id = edge_id(&step, ends, row.protocol as i64, row.server.port())?;
            edges.insert(key, id);
            id
        };
        ids.push(id as u64);
    }
    step.commit().map_err(sql())?;
    Ok(ids)
}

fn endpoint_id(connection: &Connection, endpoint: &Endpoint) -> Result<i64, StoreError> {
    let names = params![endpoint.kind, endpoint.namespace, endpoint.name];
    found_or_added(
        connection,
        "SELECT id FROM endpoints WHERE kind = ?1 AND namespace = ?2 AND name = ?3",
        "INSERT INTO endpoints (kind, namespace, name) VALUES (?1, ?2, ?3) RETURNING id",
        names,
    )
}

fn edge_id(connection: &Connection, ends: [i64; 2], protocol: i64, port: u16) -> Result<i64, StoreError> {
    found_or_added(
        connection,
        "SELECT id FROM edges WHERE client = ?1 AND server = ?2 AND protocol = ?3 AND port = ?4",
        "INSERT INTO edges (client, server, protocol, port) VALUES (?1, ?2, ?3, ?4) RETURNING id",
        params![ends[0], ends[1], protocol, port],
    )
}

fn found_or_added(
    connection: &Connection,
    find: &str,
    add: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<i64, StoreError> {
    let sql = || StoreError::sql("name an edge");
    let mut find = connection.prepare_cached(find).map_err(sql())?;
    if let Some(id) = find.query_row(values, |row| row.get(0)).optional().map_err(sql())? {
        return Ok(id);
    }
    let mut add = connection.prepare_cached(add).map_err(sql())?;
    add.query_row(values, |row| row.get(0)).map_err(sql())
}

/// The segments up to `as_of` that can hold rows of `[since, until)`.
pub(super) fn segments_between(
    connection: &Connection,
    since: UnixNanos,
    until: UnixNanos,
    as_of: Lsn,
) -> Result<Vec<SegmentId>, StoreError> {
    let sql = || StoreError::sql("list segments");
    let mut statement = connection
        .prepare_cached(
            "SELECT first_lsn, last_lsn FROM segments
             WHERE newest >= ?1 AND oldest < ?2 AND last_lsn <= ?3 ORDER BY first_lsn",
        )
        .map_err(sql())?;
    let rows = statement
        .query_map(params![since.0, until.0, as_of.0.min(i64::MAX as u64) as i64], segment_id)
        .map_err(sql())?;
    rows.collect::<Result<Vec<_>, _>>().map_err(sql())
}

fn segment_id(row: &rusqlite::Row<'_>) -> rusqlite::Result<SegmentId> {
    Ok(SegmentId { first: Lsn(row.get::<_, i64>(0)? as u64), last: Lsn(row.get::<_, i64>(1)? as u64) })
}

/// Out of the catalogue first, then from disk: a file that the catalogue does not name does not exist.
pub(super) fn forget_before(
    connection: &mut Connection,
    folder: &Path,
    horizon: UnixNanos,
) -> Result<(u64, u64), StoreError> {
    let sql = || StoreError::sql("forget old segments");
    let step = connection.transaction().map_err(sql())?;
    let gone: Vec<(SegmentId, i64)> = {
        let mut statement = step
            .prepare_cached("DELETE FROM segments WHERE newest < ?1 RETURNING first_lsn, last_lsn, rows")
            .map_err(sql())?;
        let rows = statement.query_map([horizon.0], |row| Ok((segment_id(row)?, row.get(2)?))).map_err(sql())?;
        rows.collect::<Result<_, _>>().map_err(sql())?
    };
    step.commit().map_err(sql())?;
    for (id, _) in &gone {
        let path = folder.join(segment::file_name(*id));
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "an old segment's file stays until the next start");
        }
    }
    Ok((gone.len() as u64, gone.iter().map(|(_, rows)| *rows as u64).sum()))
}

pub(super) fn summary(connection: &Connection) -> Result<HistorySummary, StoreError> {
    let watermark = watermark(connection)?;
    connection
        .query_row(
            "SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(bytes), 0), min(oldest) FROM segments",
            [],
            |row| {
                Ok(HistorySummary {
                    segments: row.get::<_, i64>(0)? as u64,
                    rows: row.get::<_, i64>(1)? as u64,
                    bytes: row.get::<_, i64>(2)? as u64,
                    watermark,
                    oldest: row.get::<_, Option<i64>>(3)?.map(UnixNanos),
                })
            },
        )
        .map_err(StoreError::sql("sum up the segments"))
}

/// Removes files that the catalogue does not name: a crash came between their rename and the catalogue's transaction,
/// or while they were written.
pub(super) fn remove_unnamed(connection: &Connection, folder: &Path) -> Result<u64, StoreError> {
    let named: std::collections::HashSet<_> =
        segments_between(connection, UnixNanos(i64::MIN), UnixNanos(i64::MAX), Lsn(u64::MAX))?
            .into_iter()
            .map(segment::file_name)
            .collect();
    let mut removed = 0;
    for entry in std::fs::read_dir(folder).map_err(StoreError::io("read", folder))? {
        let entry = entry.map_err(StoreError::io("read", folder))?;
        if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            std::fs::remove_file(entry.path()).map_err(StoreError::io("remove", entry.path()))?;
            removed += 1;
        }
    }
    Ok(removed)
}
