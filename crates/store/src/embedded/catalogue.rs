//! The catalogue: names of ends and edges, segments, and the watermark. The one place that says which files exist.

use super::pins::Pins;
use super::raw::RawRow;
use super::segment::{FileRow as _, SegmentKind, Writer, Written, file_name};
use super::writing::add_to_counter;
use crate::error::StoreError;
use crate::history::{HistoryRemoved, HistoryRow, HistorySummary, SegmentId, TierLimit, TierSummary};
use crate::report::Lsn;
use crate::settled::{Fate, SettledEdge, SettledEnd};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use weir_daemon::failpoint;
use weir_model::{Endpoint, Protocol, UnixNanos};

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
    let written = if rows.is_empty() {
        None
    } else {
        let edges = edge_ids(&mut lock(), rows)?;
        let mut sorted: Vec<RawRow> =
            rows.iter().zip(edges).map(|(row, edge)| RawRow { edge, counted: None, row: row.clone() }).collect();
        sorted.sort_by_key(RawRow::order);
        let mut writer = Writer::new(folder, id, SegmentKind::Received);
        for row in sorted {
            writer.push(row)?;
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

/// The dense ids of settled edges, each asked for once.
pub(super) fn settled_edge_ids(
    connection: &mut Connection,
    edges: &[(Arc<SettledEdge>, Protocol, Fate)],
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
                let id = found_or_added(
                    &step,
                    "SELECT id FROM ends WHERE content = ?1",
                    "INSERT INTO ends (content) VALUES (?1) RETURNING id",
                    params![content],
                )?;
                (endpoint_id(&step, &end.endpoint.endpoint())?, id)
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
        ids.push(edge_id(&step, ends.map(|end| end.0), *protocol as i64, edge.port, &settled)? as u64);
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

/// The dense id of each row's edge. New names are added; a name that no segment uses in the end does no harm.
pub(super) fn edge_ids<'a>(
    connection: &mut Connection,
    rows: impl IntoIterator<Item = &'a HistoryRow>,
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
                    None => endpoint_id(&step, endpoint)?,
                };
                endpoints.insert(endpoint, *end);
            }
            let id = edge_id(&step, ends, row.protocol as i64, row.server.port(), "")?;
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

fn edge_id(
    connection: &Connection,
    ends: [i64; 2],
    protocol: i64,
    port: u16,
    settled: &str,
) -> Result<i64, StoreError> {
    found_or_added(
        connection,
        "SELECT id FROM edges WHERE client = ?1 AND server = ?2 AND protocol = ?3 AND port = ?4 AND settled = ?5",
        "INSERT INTO edges (client, server, protocol, port, settled) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id",
        params![ends[0], ends[1], protocol, port, settled],
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
