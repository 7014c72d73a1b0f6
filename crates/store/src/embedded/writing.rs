//! What the one writer does to the state: merge, and forget.

use super::numbers::Numbers;
use super::rows::{
    FACT_COLUMNS, INDEXED_TRANSACTION_COLUMNS, STREAM_COLUMNS, TRANSACTION_COLUMN_COUNT, TRANSACTION_COLUMNS,
    TRANSLATION_COLUMN_COUNT, TRANSLATION_COLUMNS, bind_fact, bind_transaction, bind_translation, fact, metadata_text,
    stream_summary, transaction,
};
use super::shared::{TRANSACTION_ROW, fact_row, transaction_row};
use crate::error::StoreError;
use crate::report::{BATCHES_LOST, BatchReport, StreamSummary};
use crate::shared::Forgotten;
use crate::state::{FactsMax, Removed, Retention, StateChanges};
use crate::transaction::Transaction;
use rusqlite::{Connection, OptionalExtension, Row, Transaction as Step, TransactionBehavior, params};
use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use weir_model::ConnectionId;
use weir_model::connection::address_bytes;

pub(super) fn apply(
    connection: &mut Connection,
    numbers: &mut Numbers,
    changes: &StateChanges,
) -> Result<(), StoreError> {
    let step = begin(connection)?;
    merge_transactions(&step, numbers, changes)?;
    merge_facts(&step, changes)?;
    add_translations(&step, changes)?;
    super::dns::merge(&step, &changes.dns)?;
    for report in &changes.reports {
        add_report(&step, report)?;
    }
    weir_daemon::failpoint::reach("state-begun");
    step.commit().map_err(StoreError::sql("merge into the state"))
}

fn begin(connection: &mut Connection) -> Result<Step<'_>, StoreError> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::sql("change the state"))
}

fn merge_transactions(step: &Step<'_>, numbers: &mut Numbers, changes: &StateChanges) -> Result<(), StoreError> {
    let sql = || StoreError::sql("merge a transaction");
    let prepare = |text: &str| step.prepare_cached(text).map_err(sql());
    let mut find = prepare(&format!("SELECT {TRANSACTION_COLUMNS}, number FROM transactions WHERE id = ?1"))?;
    let mut look =
        prepare(&format!("SELECT {TRANSACTION_COLUMNS}, number FROM transactions WHERE number = ?2 AND id = ?1"))?;
    let places = vec!["?"; TRANSACTION_COLUMN_COUNT].join(", ");
    let mut add = prepare(&format!("INSERT INTO transactions ({TRANSACTION_COLUMNS}) VALUES ({places})"))?;
    let mut change = prepare(&update_transaction(|_| true))?;
    // SQLite moves the entry of an index where a statement names its column, be the value the same or not.
    let mut move_on = prepare(&update_transaction(|column| !INDEXED_TRANSACTION_COLUMNS.contains(&column)))?;
    // Merged per key first: one read and one write a key. In the order in which they came, in which they lie.
    let mut order: HashMap<ConnectionId, usize> = HashMap::with_capacity(changes.transactions.len());
    let mut readings: Vec<(ConnectionId, Cow<'_, Transaction>)> = Vec::with_capacity(changes.transactions.len());
    for reading in &changes.transactions {
        match order.entry(reading.id()) {
            Entry::Occupied(place) => {
                readings[*place.get()].1.to_mut().absorb(reading);
            }
            Entry::Vacant(place) => {
                readings.push((*place.key(), Cow::Borrowed(reading)));
                place.insert(readings.len() - 1);
            }
        }
    }
    for (id, reading) in readings {
        let read = |row: &Row<'_>| Ok((transaction(row)?, row.get::<_, i64>(TRANSACTION_COLUMN_COUNT)?));
        let mut stored = None;
        if let Some(number) = numbers.get(id) {
            stored = look.query_row(params![id.0, number], read).optional().map_err(sql())?;
        }
        if stored.is_none() {
            stored = find.query_row(params![id.0], read).optional().map_err(sql())?;
        }
        let Some((mut stored, number)) = stored else {
            bind_transaction(&mut add, &reading).map_err(sql())?;
            add.raw_execute().map_err(sql())?;
            numbers.put(id, step.last_insert_rowid());
            continue;
        };
        numbers.put(id, number);
        let indexed = |row: &Transaction| (row.tuple, row.translated, row.closed());
        let before = indexed(&stored);
        if stored.absorb(&reading) {
            let put = if indexed(&stored) == before { &mut move_on } else { &mut change };
            bind_transaction(put, &stored).map_err(sql())?;
            put.raw_bind_parameter(TRANSACTION_COLUMN_COUNT + 1, number).map_err(sql())?;
            put.raw_execute().map_err(sql())?;
        }
    }
    Ok(())
}

/// Sets the wanted columns of the row whose number is the parameter behind them all; parameters as [`bind_transaction`]
/// numbers them.
fn update_transaction(wanted: impl Fn(&str) -> bool) -> String {
    let columns = TRANSACTION_COLUMNS.split(", ").zip(1..).filter(|(column, _)| wanted(column));
    let set: Vec<String> = columns.map(|(column, parameter)| format!("{column} = ?{parameter}")).collect();
    format!("UPDATE transactions SET {} WHERE number = ?{}", set.join(", "), TRANSACTION_COLUMN_COUNT + 1)
}

fn merge_facts(step: &Step<'_>, changes: &StateChanges) -> Result<(), StoreError> {
    let sql = || StoreError::sql("merge a metadata fact");
    let mut find = step
        .prepare_cached(&format!(
            "SELECT {FACT_COLUMNS} FROM metadata
             WHERE node = ?1 AND source = ?2 AND kind = ?3 AND id = ?4 AND valid_from = ?5"
        ))
        .map_err(sql())?;
    let mut put = step
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO metadata ({FACT_COLUMNS}) VALUES ({})",
            vec!["?"; 13].join(", ")
        ))
        .map_err(sql())?;
    for said in &changes.facts {
        let stored = find
            .query_row(params![said.node.0, said.source, said.kind, said.id, said.from.0], fact)
            .optional()
            .map_err(sql())?;
        let merged = match stored.clone() {
            Some(stored) => said.clone().merge(stored),
            None => said.clone(),
        };
        if stored.as_ref() != Some(&merged) {
            bind_fact(&mut put, &merged)?;
            put.raw_execute().map_err(sql())?;
        }
    }
    Ok(())
}

/// A translation is its own key; only whether it was seen to begin is learnt later.
fn add_translations(step: &Step<'_>, changes: &StateChanges) -> Result<(), StoreError> {
    if changes.translations.is_empty() {
        return Ok(());
    }
    let sql = || StoreError::sql("store a translation");
    let places = vec!["?"; TRANSLATION_COLUMN_COUNT].join(", ");
    let mut put = step
        .prepare_cached(&format!(
            "INSERT INTO translations ({TRANSLATION_COLUMNS}) VALUES ({places})
             ON CONFLICT DO UPDATE SET began = max(began, excluded.began)"
        ))
        .map_err(sql())?;
    for translation in &changes.translations {
        bind_translation(&mut put, translation).map_err(sql())?;
        put.raw_execute().map_err(sql())?;
    }
    Ok(())
}

/// Coverage and losses are keyed by the batch. The stream's counters add up, so a batch that the stream has behind it
/// adds nothing: within a stream batches are applied in sequence.
fn add_report(step: &Step<'_>, report: &BatchReport) -> Result<(), StoreError> {
    let sql = || StoreError::sql("store a batch's report");
    let (stream, sequence) = (report.stream.0, report.sequence as i64);
    if let Some(coverage) = &report.coverage {
        step.prepare_cached("INSERT OR REPLACE INTO coverage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
            .and_then(|mut put| {
                put.execute(params![
                    stream,
                    sequence,
                    coverage.node,
                    coverage.from.0,
                    coverage.to.0,
                    coverage.covered,
                    coverage.gap_reason,
                ])
            })
            .map_err(sql())?;
    }
    if let Some((first, last)) = report.dropped {
        step.prepare_cached("DELETE FROM losses WHERE stream = ?1 AND sequence BETWEEN ?2 AND ?3 AND reason = ?4")
            .and_then(|mut delete| delete.execute(params![stream, first as i64, last as i64, BATCHES_LOST]))
            .map_err(sql())?;
    }
    let mut put_loss = step
        .prepare_cached("INSERT OR REPLACE INTO losses VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)")
        .map_err(sql())?;
    for (number, loss) in report.losses.iter().enumerate() {
        put_loss
            .execute(params![
                stream,
                sequence,
                number as i64,
                loss.node,
                loss.from.0,
                loss.to.0,
                loss.place,
                loss.reason,
                loss.count as i64,
                loss.bytes as i64,
                loss.connections as i64,
                loss.intended,
            ])
            .map_err(sql())?;
    }
    let stored = step
        .prepare_cached(&format!("SELECT {STREAM_COLUMNS} FROM streams WHERE stream = ?1"))
        .and_then(|mut find| find.query_row(params![stream], stream_summary).optional())
        .map_err(sql())?;
    if stored.as_ref().is_some_and(|stored| stored.applied_sequence >= report.sequence) {
        return Ok(());
    }
    put_stream(step, &StreamSummary::after(stored, report))
}

fn put_stream(step: &Step<'_>, stream: &StreamSummary) -> Result<(), StoreError> {
    let counts = serde_json::to_string(&stream.counts)
        .map_err(|error| StoreError::Corrupt { what: "a stream's counters", text: error.to_string() })?;
    let metadata = metadata_text(&stream.metadata)
        .map_err(|error| StoreError::Corrupt { what: "a stream's sources", text: error.to_string() })?;
    let places = vec!["?"; 19].join(", ");
    step.prepare_cached(&format!("INSERT OR REPLACE INTO streams ({STREAM_COLUMNS}) VALUES ({places})"))
        .and_then(|mut put| {
            put.execute(params![
                stream.stream.0,
                stream.node.0,
                stream.boot,
                stream.agent_run,
                stream.version,
                stream.applied_sequence as i64,
                stream.received.0,
                stream.first_covered.0,
                stream.newest.from.0,
                stream.newest.to.0,
                stream.newest.covered,
                stream.newest.gap_reason,
                stream.clock_offset_ns,
                stream.source.kind,
                stream.source.state,
                stream.source.detail,
                stream.source.version,
                counts,
                metadata,
            ])
        })
        .map(|_| ())
        .map_err(StoreError::sql("store a batch's report"))
}

/// Told the rows that leave, before they have.
pub(super) type Tell<'a> = &'a mut dyn FnMut(&Forgotten) -> Result<(), StoreError>;

pub(super) fn retain(
    connection: &mut Connection,
    retention: &Retention,
    tell: Option<Tell<'_>>,
) -> Result<Removed, StoreError> {
    let sql = || StoreError::sql("forget what is past its time");
    let step = begin(connection)?;
    let mut left = Forgotten::default();
    let mut removed = Removed {
        transactions_expired: delete_transactions(
            &step,
            "closed < ?1",
            retention.now.plus(-retention.closed_ns).0,
            &mut left,
        )?,
        facts_expired: delete_facts(&step, "valid_to < ?1", retention.now.plus(-retention.facts_ns).0, &mut left)?,
        ..Removed::default()
    };
    let seen_before = retention.now.plus(retention.translations_ns.saturating_neg()).0;
    step.execute("DELETE FROM translations WHERE seen < ?1", [seen_before]).map_err(sql())?;
    let horizon = retention.now.plus(-retention.reports_ns).0;
    step.execute("DELETE FROM coverage WHERE to_ns < ?1", [horizon]).map_err(sql())?;
    step.execute("UPDATE coverage SET from_ns = ?1 WHERE from_ns < ?1", [horizon]).map_err(sql())?;
    join_coverage(&step, retention.now.plus(-retention.join_coverage_ns).0)?;
    step.execute("DELETE FROM losses WHERE to_ns < ?1", [horizon]).map_err(sql())?;
    let beyond = beyond(&step, "transactions", retention.transactions_max)?;
    if beyond > 0 {
        let oldest = "id IN (SELECT id FROM transactions ORDER BY closed IS NULL, closed, last LIMIT ?1)";
        removed.transactions_evicted = delete_transactions(&step, oldest, beyond as i64, &mut left)?;
    }
    removed.facts_evicted = evict_facts(&step, retention.facts_max, &mut left)?;
    removed.dns_evicted = super::dns::retain(&step, retention)?;
    removed.translations_evicted = evict(
        &step,
        "translations",
        retention.translations_max,
        "DELETE FROM translations WHERE (original_link, translated_link, node, protocol, seen, original_source_ip,
             original_source_port, original_dest_ip, original_dest_port, translated_source_ip, translated_source_port,
             translated_dest_ip, translated_dest_port) IN
         (SELECT original_link, translated_link, node, protocol, seen, original_source_ip, original_source_port,
             original_dest_ip, original_dest_port, translated_source_ip, translated_source_port, translated_dest_ip,
             translated_dest_port FROM translations ORDER BY seen LIMIT ?1)",
    )?;
    for (name, count) in [
        ("transactions_evicted", removed.transactions_evicted),
        ("facts_evicted", removed.facts_evicted),
        ("translations_evicted", removed.translations_evicted),
    ] {
        add_to_counter(&step, name, count)?;
    }
    if let Some(tell) = tell
        && !left.is_empty()
    {
        tell(&left)?;
    }
    step.commit().map_err(sql())?;
    Ok(removed)
}

fn delete_transactions(step: &Step<'_>, wanted: &str, parameter: i64, left: &mut Forgotten) -> Result<u64, StoreError> {
    let sql = || StoreError::sql("forget transactions");
    let before = left.transactions.len();
    let mut delete = step
        .prepare_cached(&format!("DELETE FROM transactions WHERE {wanted} RETURNING {TRANSACTION_ROW}"))
        .map_err(sql())?;
    for row in delete.query_map([parameter], transaction_row).map_err(sql())? {
        left.transactions.push(row.map_err(sql())?);
    }
    Ok((left.transactions.len() - before) as u64)
}

fn delete_facts(step: &Step<'_>, wanted: &str, parameter: i64, left: &mut Forgotten) -> Result<u64, StoreError> {
    let sql = || StoreError::sql("forget facts");
    let before = left.facts.len();
    let mut delete =
        step.prepare_cached(&format!("DELETE FROM metadata WHERE {wanted} RETURNING {FACT_COLUMNS}")).map_err(sql())?;
    for row in delete.query_map([parameter], fact_row).map_err(sql())? {
        left.facts.push(row.map_err(sql())?);
    }
    Ok((left.facts.len() - before) as u64)
}

fn evict_facts(step: &Step<'_>, caps: FactsMax, left: &mut Forgotten) -> Result<u64, StoreError> {
    let sql = || StoreError::sql("forget what is past its time");
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    {
        let mut count = step.prepare_cached("SELECT kind, count(*) FROM metadata GROUP BY kind").map_err(sql())?;
        let mut rows = count.query([]).map_err(sql())?;
        while let Some(row) = rows.next().map_err(sql())? {
            counts.insert(row.get(0).map_err(sql())?, row.get::<_, i64>(1).map_err(sql())? as u64);
        }
    }
    // The kinds with a cap are the program's own words, so they may stand in the statement.
    let mut delete = |wanted: &str, beyond: u64| {
        let oldest = format!(
            "(node, source, kind, id, valid_from) IN
             (SELECT node, source, kind, id, valid_from FROM metadata WHERE {wanted}
              ORDER BY valid_to IS NULL, valid_to, said LIMIT ?1)"
        );
        delete_facts(step, &oldest, beyond as i64, left)
    };
    let mut evicted = 0;
    for (kind, max) in caps.by_kind {
        let beyond = counts.remove(*kind).unwrap_or(0).saturating_sub(*max);
        if beyond > 0 {
            let removed = delete(&format!("kind = '{kind}'"), beyond)?;
            add_to_counter(step, &format!("facts_evicted_{kind}"), removed)?;
            evicted += removed;
        }
    }
    let beyond = counts.into_values().sum::<u64>().saturating_sub(caps.others);
    if beyond > 0 {
        let named: Vec<String> = caps.by_kind.iter().map(|(kind, _)| format!("'{kind}'")).collect();
        evicted += delete(&format!("kind NOT IN ({})", named.join(", ")), beyond)?;
    }
    Ok(evicted)
}

/// Removes these rows.
pub(super) fn forget(connection: &mut Connection, rows: &Forgotten) -> Result<(), StoreError> {
    let sql = || StoreError::sql("forget rows");
    let step = begin(connection)?;
    for row in &rows.transactions {
        let (local, remote) = (row.tuple.local, row.tuple.remote);
        step.prepare_cached(
            "DELETE FROM transactions WHERE id = ?1 AND local_ip = ?2 AND local_port = ?3 AND remote_ip = ?4
             AND remote_port = ?5",
        )
        .and_then(|mut delete| {
            delete.execute(params![
                row.id.0,
                address_bytes(local.ip()),
                local.port(),
                address_bytes(remote.ip()),
                remote.port()
            ])
        })
        .map_err(sql())?;
    }
    for row in &rows.facts {
        step.prepare_cached(
            "DELETE FROM metadata WHERE node = ?1 AND source = ?2 AND kind = ?3 AND id = ?4 AND valid_from = ?5
             AND coalesce(json_extract(addresses, '$[0]'), '') = ?6",
        )
        .and_then(|mut delete| {
            delete.execute(params![row.node.0, row.source, row.kind, row.id, row.from.0, row.address])
        })
        .map_err(sql())?;
    }
    step.commit().map_err(sql())
}

/// Raises counters to at least these values.
pub(super) fn raise_counters(connection: &mut Connection, counters: &BTreeMap<String, u64>) -> Result<(), StoreError> {
    let step = begin(connection)?;
    for (name, value) in counters {
        step.execute(
            "INSERT INTO counters VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            params![name, *value as i64],
        )
        .map_err(StoreError::sql("count"))?;
    }
    step.commit().map_err(StoreError::sql("count"))
}

/// Adds to one counter.
pub(super) fn count(connection: &mut Connection, name: &str, count: u64) -> Result<(), StoreError> {
    let step = begin(connection)?;
    add_to_counter(&step, name, count)?;
    step.commit().map_err(StoreError::sql("count"))
}

/// A poll a second for a week would be 600,000 rows a node; joined, a node without gaps has one, and what is recent.
fn join_coverage(step: &Step<'_>, before: i64) -> Result<(), StoreError> {
    type Span = ([u8; 16], i64, i64, i64, bool, String);
    let sql = || StoreError::sql("join spans of coverage");
    let spans: Vec<Span> = {
        let mut find = step
            .prepare_cached(
                "SELECT stream, sequence, from_ns, to_ns, covered, reason FROM coverage
                 WHERE to_ns < ?1 ORDER BY stream, sequence",
            )
            .map_err(sql())?;
        let rows = find
            .query_map([before], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
            })
            .map_err(sql())?;
        rows.collect::<Result<_, _>>().map_err(sql())?
    };
    let mut delete = step.prepare_cached("DELETE FROM coverage WHERE stream = ?1 AND sequence = ?2").map_err(sql())?;
    let mut widen =
        step.prepare_cached("UPDATE coverage SET from_ns = ?3 WHERE stream = ?1 AND sequence = ?2").map_err(sql())?;
    let mut held: Option<Span> = None;
    for mut span in spans {
        if let Some(before) = held.take()
            && (before.0, before.3, before.4, &before.5) == (span.0, span.2, span.4, &span.5)
        {
            delete.execute(params![before.0, before.1]).map_err(sql())?;
            span.2 = before.2;
            widen.execute(params![span.0, span.1, span.2]).map_err(sql())?;
        }
        held = Some(span);
    }
    Ok(())
}

pub(super) fn evict(step: &Step<'_>, table: &str, rows_max: u64, delete: &str) -> Result<u64, StoreError> {
    let beyond = beyond(step, table, rows_max)?;
    if beyond == 0 {
        return Ok(0);
    }
    step.execute(delete, [beyond as i64])
        .map(|removed| removed as u64)
        .map_err(StoreError::sql("forget what is beyond the cap"))
}

fn beyond(step: &Step<'_>, table: &str, rows_max: u64) -> Result<u64, StoreError> {
    step.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
        .map(|rows| (rows as u64).saturating_sub(rows_max))
        .map_err(StoreError::sql("forget what is beyond the cap"))
}

pub(super) fn add_to_counter(step: &Step<'_>, name: &str, count: u64) -> Result<(), StoreError> {
    if count == 0 {
        return Ok(());
    }
    step.execute(
        "INSERT INTO counters VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        params![name, count as i64],
    )
    .map(|_| ())
    .map_err(StoreError::sql("count"))
}
