//! The catalogue: names of ends and edges, segments, and the watermark. The one place that says which files exist.
//!
//! A name is used for entries of the log: for the last of those whose rows are written with it. Whatever becomes of these
//! rows, the segment that holds them holds that entry, too. So a name that was last used for an entry before those of all
//! segments is in none of them, and is forgotten.

use super::pins::Pins;
use super::raw::RawRow;
use super::segment::{SegmentKind, Writer, Written, file_name};
use super::writing::add_to_counter;
use crate::error::StoreError;
use crate::history::{HistoryRemoved, HistoryRow, HistorySummary, SegmentId, TierLimit, TierSummary};
use crate::report::Lsn;
use crate::settled::{Fate, SettledEdge, SettledEnd};
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use weir_daemon::failpoint;
use weir_model::{Endpoint, Protocol, UnixNanos};

/// How many entries of the log the mark of a name's last use may be too old, so that what moves all the time is not written
/// with every segment: a day of one agent, 8 minutes of 200.
const USE_STRIDE: i64 = 10_000;
/// Names of a kind that are forgotten at once, so that others can write: a second or so.
const FORGOTTEN_AT_ONCE: usize = 50_000;

/// A segment as the catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: SegmentId,
    pub(super) kind: SegmentKind,
    /// The rows' smallest instant ([`super::segment::FileRow::at`]).
    pub(super) oldest: UnixNanos,
    /// Their largest.
    pub(super) newest: UnixNanos,
    /// By when all of them were received, by the server's clock.
    pub(super) received: UnixNanos,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// CRC-32C of the file; files of the first builds have none.
    pub(super) checksum: Option<u32>,
}

impl Entry {
    /// By when all of its rows had ended. What a clock that is ahead says of tomorrow must not keep everybody's rows
    /// waiting until then: nothing is received before it is over.
    pub(super) fn ended(&self) -> UnixNanos {
        self.newest.min(self.received)
    }

    fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let kind = match (row.get::<_, i64>(2)?, row.get::<_, bool>(3)?) {
            (0, false) => SegmentKind::Received,
            (0, true) => SegmentKind::Settled,
            (1, _) => SegmentKind::Minute,
            (2, _) => SegmentKind::Hour,
            (tier, _) => return Err(rusqlite::Error::IntegralValueOutOfRange(2, tier)),
        };
        Ok(Self {
            id: SegmentId { first: Lsn(row.get::<_, i64>(0)? as u64), last: Lsn(row.get::<_, i64>(1)? as u64) },
            kind,
            oldest: UnixNanos(row.get(4)?),
            newest: UnixNanos(row.get(5)?),
            rows: row.get::<_, i64>(6)? as u64,
            bytes: row.get::<_, i64>(7)? as u64,
            checksum: row.get(8)?,
            received: UnixNanos(row.get(9)?),
        })
    }
}

const ENTRY_COLUMNS: &str = "first_lsn, last_lsn, tier, settled, oldest, newest, rows, bytes, checksum, received";

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
    received: UnixNanos,
    groups: &[&[HistoryRow]],
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
    let rows = || groups.iter().copied().flatten();
    let written = if rows().next().is_none() {
        None
    } else {
        let edges = edge_ids(&mut lock(), rows(), id.last)?;
        let mut sorted: Vec<(u64, &HistoryRow)> = edges.into_iter().zip(rows()).collect();
        sorted.sort_by_key(|(edge, row)| RawRow::order_of(*edge, row));
        let mut writer = Writer::new(folder, id, SegmentKind::Received);
        for (edge, row) in sorted {
            writer.push(RawRow { edge, counted: None, row: row.clone() })?;
        }
        Some(writer.finish()?)
    };
    durably(&mut lock(), "add a segment to the catalogue", |step| {
        if let Some(written) = &written {
            // A server's clock that was set back makes nothing old: the log's order is that of reception.
            let received = received.max(newest_received(step)?);
            add(step, id, SegmentKind::Received, written, received)?;
        }
        step.execute("UPDATE watermark SET lsn = ?1", [id.last.0 as i64])
            .map_err(StoreError::sql("move the watermark"))?;
        failpoint::reach("catalogue-begun");
        Ok(())
    })?;
    failpoint::reach("catalogue-committed");
    Ok(())
}

/// One transaction that is on disk before this function returns: what follows it cannot be undone.
fn durably<T>(
    connection: &mut Connection,
    action: &'static str,
    change: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let sql = || StoreError::sql(action);
    connection.pragma_update(None, "synchronous", "FULL").map_err(sql())?;
    let changed = || {
        let step = connection.transaction().map_err(sql())?;
        let answer = change(&step)?;
        step.commit().map_err(sql())?;
        Ok(answer)
    };
    let answer = changed();
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(sql())?;
    answer
}

/// By when the segment before the next one was received.
fn newest_received(connection: &Connection) -> Result<UnixNanos, StoreError> {
    connection
        .query_row("SELECT received FROM segments ORDER BY first_lsn DESC LIMIT 1", [], |row| row.get(0))
        .optional()
        .map(|received| UnixNanos(received.unwrap_or(i64::MIN)))
        .map_err(StoreError::sql("read the newest segment"))
}

fn add(
    step: &Connection,
    id: SegmentId,
    kind: SegmentKind,
    written: &Written,
    received: UnixNanos,
) -> Result<(), StoreError> {
    let places = "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10";
    step.execute(
        &format!("INSERT INTO segments ({ENTRY_COLUMNS}) VALUES ({places})"),
        params![
            id.first.0 as i64,
            id.last.0 as i64,
            kind.tier() as i64,
            kind == SegmentKind::Settled,
            written.oldest.0,
            written.newest.0,
            written.rows as i64,
            written.bytes as i64,
            written.checksum,
            received.0
        ],
    )
    .map(|_| ())
    .map_err(StoreError::sql("add a segment to the catalogue"))
}

/// Puts one segment in the place of others, as one step. False: one of them is no longer there, and nothing changed.
pub(super) fn replace(
    connection: &mut Connection,
    inputs: &[Entry],
    id: SegmentId,
    kind: SegmentKind,
    written: &Written,
) -> Result<bool, StoreError> {
    let sql = || StoreError::sql("replace segments in the catalogue");
    let there = |connection: &Connection| -> Result<bool, StoreError> {
        let held = entries(connection, Some((id.first, id.last)))?;
        Ok(held == inputs)
    };
    if !there(connection)? {
        return Ok(false);
    }
    durably(connection, "replace segments in the catalogue", |step| {
        step.execute(
            "DELETE FROM segments WHERE first_lsn >= ?1 AND last_lsn <= ?2",
            [id.first.0 as i64, id.last.0 as i64],
        )
        .map_err(sql())?;
        let received = inputs.iter().map(|entry| entry.received).max().unwrap_or_default();
        add(step, id, kind, written, received)?;
        failpoint::reach("compaction-catalogue-begun");
        Ok(true)
    })
}

/// What an edge has beside its endpoints once its rows are settled, as the catalogue writes it.
#[derive(serde::Serialize, serde::Deserialize)]
struct SettledText {
    client: i64,
    server: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service_certainty: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    candidates: Vec<String>,
    certainty: String,
    #[serde(default)]
    fate: Fate,
}

/// The dense ids of settled edges, each asked for once. Used for the entries up to `used`.
pub(super) fn settled_edge_ids(
    connection: &mut Connection,
    edges: &[(Arc<SettledEdge>, Protocol, Fate)],
    used: Lsn,
) -> Result<Vec<u64>, StoreError> {
    let sql = || StoreError::sql("name a settled edge");
    let json = |error: serde_json::Error| StoreError::Corrupt { what: "a settled edge", text: error.to_string() };
    let step = connection.transaction().map_err(sql())?;
    let mut known: HashMap<*const SettledEnd, (i64, i64)> = HashMap::new();
    let mut ids = Vec::with_capacity(edges.len());
    for (edge, protocol, fate) in edges {
        let mut ends = [(0, 0); 2];
        for (ids, end) in ends.iter_mut().zip([&edge.client, &edge.server]) {
            *ids = if let Some(ids) = known.get(&Arc::as_ptr(end)) {
                *ids
            } else {
                let content = serde_json::to_string(&**end).map_err(json)?;
                let id = ENDS.id(&step, params![content], used)?;
                (endpoint_id(&step, &end.endpoint.endpoint(), used)?, id)
            };
            known.insert(Arc::as_ptr(end), *ids);
        }
        let settled = SettledText {
            client: ends[0].1,
            server: ends[1].1,
            service: edge.service.clone(),
            service_certainty: edge.service_certainty.clone(),
            candidates: edge.service_candidates.clone(),
            certainty: edge.certainty.clone(),
            fate: *fate,
        };
        let settled = serde_json::to_string(&settled).map_err(json)?;
        let [client, server] = ends.map(|end| end.0);
        ids.push(EDGES.id(&step, params![client, server, *protocol as i64, edge.port, settled], used)? as u64);
    }
    step.commit().map_err(sql())?;
    Ok(ids)
}

/// Reads settled edges back, each end once.
#[derive(Default)]
pub(super) struct SettledEdges {
    ends: HashMap<i64, Arc<SettledEnd>>,
}

impl SettledEdges {
    /// What the catalogue's text says; `None` where the edge is not settled.
    pub(super) fn read(
        &mut self,
        connection: &Connection,
        text: &str,
        port: u16,
    ) -> Result<Option<(Arc<SettledEdge>, Fate)>, StoreError> {
        if text.is_empty() {
            return Ok(None);
        }
        let json = |error: serde_json::Error| StoreError::Corrupt { what: "a settled edge", text: error.to_string() };
        let settled: SettledText = serde_json::from_str(text).map_err(json)?;
        let mut ends = [settled.client, settled.server].into_iter().map(|id| {
            if let Some(end) = self.ends.get(&id) {
                return Ok(Arc::clone(end));
            }
            let mut find = connection
                .prepare_cached("SELECT content FROM ends WHERE id = ?1")
                .map_err(StoreError::sql("name an end"))?;
            let content: String = find.query_row([id], |row| row.get(0)).map_err(StoreError::sql("name an end"))?;
            let end = Arc::new(serde_json::from_str::<SettledEnd>(&content).map_err(json)?);
            self.ends.insert(id, Arc::clone(&end));
            Ok::<_, StoreError>(end)
        });
        let (client, server) =
            (ends.next().transpose()?.unwrap_or_default(), ends.next().transpose()?.unwrap_or_default());
        let edge = SettledEdge {
            client,
            server,
            port,
            service: settled.service,
            service_certainty: settled.service_certainty,
            service_candidates: settled.candidates,
            certainty: settled.certainty,
        };
        Ok(Some((Arc::new(edge), settled.fate)))
    }
}

/// The dense id of each row's edge, used for the entries up to `used`. New names are added; a name that no segment uses in
/// the end does no harm.
pub(super) fn edge_ids<'a>(
    connection: &mut Connection,
    rows: impl IntoIterator<Item = &'a HistoryRow>,
    used: Lsn,
) -> Result<Vec<u64>, StoreError> {
    let sql = || StoreError::sql("name an edge");
    let step = connection.transaction().map_err(sql())?;
    let mut endpoints: HashMap<&Endpoint, i64> = HashMap::new();
    let mut edges = HashMap::new();
    let mut ids = Vec::new();
    for row in rows {
        let key = (&*row.client_endpoint, &*row.server_endpoint, row.protocol, row.server.port());
        let id = if let Some(id) = edges.get(&key) {
            *id
        } else {
            let mut ends = [0; 2];
            for (end, endpoint) in ends.iter_mut().zip([key.0, key.1]) {
                *end = match endpoints.get(endpoint) {
                    Some(id) => *id,
                    None => endpoint_id(&step, endpoint, used)?,
                };
                endpoints.insert(endpoint, *end);
            }
            let edge = params![ends[0], ends[1], row.protocol as i64, row.server.port(), ""];
            let id = EDGES.id(&step, edge, used)?;
            edges.insert(key, id);
            id
        };
        ids.push(id as u64);
    }
    step.commit().map_err(sql())?;
    Ok(ids)
}

fn endpoint_id(connection: &Connection, endpoint: &Endpoint, used: Lsn) -> Result<i64, StoreError> {
    ENDPOINTS.id(connection, params![endpoint.kind, endpoint.namespace, endpoint.name], used)
}

/// A table of names, each with its number and the entry of the log for which it was last used.
struct Names {
    /// The number and the mark of a name.
    find: &'static str,
    /// Adds a name with its mark, the last parameter.
    add: &'static str,
    /// Moves the mark of the first parameter's name.
    mark: &'static str,
    /// Forgets names whose mark lies before the first parameter, at most as many as the second.
    forget: &'static str,
    /// An edge that is kept has ends whose marks may be older than its own: they are used when it is, but each mark is
    /// moved in its own time.
    strides: i64,
}

const EDGES: Names = Names {
    find: "SELECT id, used FROM edges
           WHERE client = ?1 AND server = ?2 AND protocol = ?3 AND port = ?4 AND settled = ?5",
    add: "INSERT INTO edges (client, server, protocol, port, settled, used) VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id",
    mark: "UPDATE edges SET used = ?2 WHERE id = ?1",
    forget: "DELETE FROM edges WHERE id IN (SELECT id FROM edges WHERE used < ?1 LIMIT ?2)",
    strides: 1,
};
const ENDS: Names = Names {
    find: "SELECT id, used FROM ends WHERE content = ?1",
    add: "INSERT INTO ends (content, used) VALUES (?1, ?2) RETURNING id",
    mark: "UPDATE ends SET used = ?2 WHERE id = ?1",
    forget: "DELETE FROM ends WHERE id IN (SELECT id FROM ends WHERE used < ?1 LIMIT ?2)",
    strides: 2,
};
const ENDPOINTS: Names = Names {
    find: "SELECT id, used FROM endpoints WHERE kind = ?1 AND namespace = ?2 AND name = ?3",
    add: "INSERT INTO endpoints (kind, namespace, name, used) VALUES (?1, ?2, ?3, ?4) RETURNING id",
    mark: "UPDATE endpoints SET used = ?2 WHERE id = ?1",
    forget: "DELETE FROM endpoints WHERE id IN (SELECT id FROM endpoints WHERE used < ?1 LIMIT ?2)",
    strides: 2,
};

impl Names {
    /// A name's number; a new one if it has none.
    fn id(&self, connection: &Connection, values: &[&dyn ToSql], used: Lsn) -> Result<i64, StoreError> {
        let sql = || StoreError::sql("name an edge");
        let used = used.0 as i64;
        let mut find = connection.prepare_cached(self.find).map_err(sql())?;
        let found = find.query_row(values, |row| Ok((row.get(0)?, row.get::<_, i64>(1)?))).optional().map_err(sql())?;
        if let Some((id, mark)) = found {
            if mark < used - USE_STRIDE {
                connection.prepare_cached(self.mark).and_then(|mut mark| mark.execute([id, used])).map_err(sql())?;
            }
            return Ok(id);
        }
        let mut add = connection.prepare_cached(self.add).map_err(sql())?;
        add.query_row(&*[values, &[&used]].concat(), |row| row.get(0)).map_err(sql())
    }

    /// Forgets what is in no segment from entry `kept` on. False: some are left.
    fn forget(&self, step: &Connection, kept: i64) -> Result<bool, StoreError> {
        let before = kept - self.strides * USE_STRIDE;
        let forgotten = step
            .prepare_cached(self.forget)
            .and_then(|mut forget| forget.execute([before, FORGOTTEN_AT_ONCE as i64]))
            .map_err(StoreError::sql("forget names"))?;
        Ok(forgotten < FORGOTTEN_AT_ONCE)
    }
}

/// Up to which entry of the log names have been forgotten since the start: looking for more takes reading all of them.
#[derive(Debug, Default)]
pub(super) struct Forgotten(AtomicU64);

/// Forgets names that no segment has any more. What is left over is forgotten the next time.
pub(super) fn forget_names(writer: &Mutex<Connection>, pins: &Pins, forgotten: &Forgotten) -> Result<(), StoreError> {
    let sql = || StoreError::sql("forget names");
    let connection = &mut *writer.lock().unwrap_or_else(PoisonError::into_inner);
    let first = connection
        .query_row("SELECT min(first_lsn) FROM segments", [], |row| row.get::<_, Option<i64>>(0))
        .map_err(sql())?;
    let kept = first.unwrap_or(watermark(connection)?.0 as i64 + 1);
    // Readers name what they have read of segments that have left.
    if kept < forgotten.0.load(Ordering::Relaxed) as i64 + USE_STRIDE || !pins.have_no_doomed() {
        return Ok(());
    }
    let step = connection.transaction().map_err(sql())?;
    // The edges first, and all of them: they have the ends.
    let is_done = EDGES.forget(&step, kept)? && ENDS.forget(&step, kept)? && ENDPOINTS.forget(&step, kept)?;
    step.commit().map_err(sql())?;
    if is_done {
        forgotten.0.store(kept as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Every segment, or those within a range of the log, in its order.
pub(super) fn entries(connection: &Connection, within: Option<(Lsn, Lsn)>) -> Result<Vec<Entry>, StoreError> {
    let sql = || StoreError::sql("list segments");
    let (first, last) = within.unwrap_or((Lsn(0), Lsn(u64::MAX)));
    let signed = |lsn: Lsn| lsn.0.min(i64::MAX as u64) as i64;
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT {ENTRY_COLUMNS} FROM segments WHERE first_lsn >= ?1 AND last_lsn <= ?2 ORDER BY first_lsn"
        ))
        .map_err(sql())?;
    let rows = statement.query_map([signed(first), signed(last)], Entry::of).map_err(sql())?;
    rows.collect::<Result<Vec<_>, _>>().map_err(sql())
}

/// Out of the catalogue first, then from disk: a file that the catalogue does not name does not exist.
pub(super) fn retain(
    writer: &Mutex<Connection>,
    folder: &Path,
    pins: &Pins,
    limits: &[TierLimit; 3],
) -> Result<HistoryRemoved, StoreError> {
    let connection = &mut *writer.lock().unwrap_or_else(PoisonError::into_inner);
    let mut removed = HistoryRemoved::default();
    let mut gone = Vec::new();
    let mut held = entries(connection, None)?;
    held.sort_by_key(|entry| std::cmp::Reverse(entry.ended()));
    let mut bytes = [0_u64; 3];
    // The newest first: what no longer fits is the oldest.
    for entry in held {
        let tier = entry.kind.tier();
        let limit = &limits[tier];
        if entry.ended() < limit.keep_from {
            removed.rows_expired += entry.rows;
        } else if bytes[tier].saturating_add(entry.bytes) > limit.bytes_max {
            // Once one is too much, so is every older one: what is left has no hole.
            bytes[tier] = u64::MAX;
            removed.rows_evicted += entry.rows;
        } else {
            bytes[tier] += entry.bytes;
            continue;
        }
        removed.segments += 1;
        removed.bytes += entry.bytes;
        gone.push(entry);
    }
    if gone.is_empty() {
        return Ok(removed);
    }
    durably(connection, "forget old segments", |step| {
        for entry in &gone {
            step.execute("DELETE FROM segments WHERE first_lsn = ?1", [entry.id.first.0 as i64])
                .map_err(StoreError::sql("forget old segments"))?;
        }
        add_to_counter(step, "history_rows_expired", removed.rows_expired)?;
        add_to_counter(step, "history_rows_evicted", removed.rows_evicted)
    })?;
    pins.doom(gone.iter().map(|entry| folder.join(file_name(entry.id, entry.kind))));
    Ok(removed)
}

pub(super) fn summary(connection: &Connection) -> Result<HistorySummary, StoreError> {
    let mut summary = HistorySummary { watermark: watermark(connection)?, ..HistorySummary::default() };
    for entry in entries(connection, None)? {
        let tier = &mut summary.tiers[entry.kind.tier()];
        *tier = TierSummary {
            segments: tier.segments + 1,
            rows: tier.rows + entry.rows,
            bytes: tier.bytes + entry.bytes,
            oldest: Some(tier.oldest.map_or(entry.oldest, |oldest| oldest.min(entry.oldest))),
        };
        summary.segments += 1;
        summary.rows += entry.rows;
        summary.bytes += entry.bytes;
        summary.oldest = Some(summary.oldest.map_or(entry.oldest, |oldest| oldest.min(entry.oldest)));
    }
    Ok(summary)
}

/// Files that the catalogue does not name: a crash came between their rename and the catalogue's transaction, or while
/// they were written, or before a replaced one was removed.
pub(super) fn unnamed(connection: &Connection, folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let named: HashSet<String> =
        entries(connection, None)?.into_iter().map(|entry| file_name(entry.id, entry.kind)).collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(StoreError::io("read", folder))? {
        let entry = entry.map_err(StoreError::io("read", folder))?;
        if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
