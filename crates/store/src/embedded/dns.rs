//! DNS in SQLite: counts keyed by their batch, and the names that follow from their answers.

use super::writing::{add_to_counter, evict};
use crate::dns::{DnsClient, DnsCount, DnsName, client_key};
use crate::error::StoreError;
use crate::report::StreamId;
use crate::state::Retention;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction as Step, params};
use std::net::IpAddr;
use weir_model::connection::{address_bytes, address_from_bytes};
use weir_model::{NodeName, UnixNanos};

pub(super) const COUNT_COLUMNS: &str = "stream, sequence, number, node, pid, process_start, process, cgroup_path, \
    container_id, netns, server, name, query_type, rcode, count, latency_sum_us, latency_max_us, retransmits, \
    truncated, first, last, answers";
pub(super) const NAME_COLUMNS: &str = "node, client, address, name, from_ns, last, until_ns, netns";

const SECOND_NS: i64 = 1_000_000_000;

pub(super) fn count(row: &Row<'_>) -> rusqlite::Result<DnsCount> {
    let unsigned = |column: usize| row.get::<_, i64>(column).map(|value| value as u64);
    let answers: String = row.get(21)?;
    Ok(DnsCount {
        stream: StreamId(row.get(0)?),
        sequence: unsigned(1)?,
        number: row.get(2)?,
        node: NodeName(row.get(3)?),
        client: DnsClient {
            pid: row.get(4)?,
            process_start_ns: unsigned(5)?,
            process: row.get(6)?,
            cgroup_path: row.get(7)?,
            container_id: row.get(8)?,
            netns: row.get(9)?,
        },
        server: address_from_bytes(row.get(10)?),
        name: row.get(11)?,
        query_type: row.get(12)?,
        rcode: row.get(13)?,
        count: unsigned(14)?,
        latency_sum_us: unsigned(15)?,
        latency_max_us: unsigned(16)?,
        retransmits: unsigned(17)?,
        truncated: unsigned(18)?,
        first: UnixNanos(row.get(19)?),
        last: UnixNanos(row.get(20)?),
        answers: serde_json::from_str(&answers)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(21, Type::Text, Box::new(error)))?,
    })
}

pub(super) fn name(row: &Row<'_>) -> rusqlite::Result<DnsName> {
    Ok(DnsName {
        node: NodeName(row.get(0)?),
        client: row.get(1)?,
        address: address_from_bytes(row.get(2)?),
        name: row.get(3)?,
        from: UnixNanos(row.get(4)?),
        last: UnixNanos(row.get(5)?),
        until: UnixNanos(row.get(6)?),
        netns: row.get(7)?,
    })
}

pub(super) fn merge(step: &Step<'_>, counts: &[DnsCount]) -> Result<(), StoreError> {
    let sql = || StoreError::sql("store a count of DNS queries");
    let places = vec!["?"; 22].join(", ");
    let mut put = step
        .prepare_cached(&format!("INSERT OR REPLACE INTO dns ({COUNT_COLUMNS}) VALUES ({places})"))
        .map_err(sql())?;
    for row in counts {
        let answers = serde_json::to_string(&row.answers)
            .map_err(|error| StoreError::Corrupt { what: "a DNS answer", text: error.to_string() })?;
        put.execute(params![
            row.stream.0,
            row.sequence as i64,
            row.number,
            row.node.0,
            row.client.pid,
            row.client.process_start_ns as i64,
            row.client.process,
            row.client.cgroup_path,
            row.client.container_id,
            row.client.netns,
            address_bytes(row.server),
            row.name,
            row.query_type,
            row.rcode,
            row.count as i64,
            row.latency_sum_us as i64,
            row.latency_max_us as i64,
            row.retransmits as i64,
            row.truncated as i64,
            row.first.0,
            row.last.0,
            answers,
        ])
        .map_err(sql())?;
    }
    // In the order of their times: a batch's rows stand in no particular one.
    let mut answered: Vec<&DnsCount> = counts.iter().filter(|row| !row.answers.is_empty()).collect();
    answered.sort_by(|a, b| (a.stream, a.first, &a.name).cmp(&(b.stream, b.first, &b.name)));
    for row in answered {
        let client = &row.client;
        let Some(client) = client_key(&client.container_id, client.pid, client.process_start_ns) else { continue };
        for (address, ttl) in &row.answers {
            learn(step, row, &client, *address, *ttl)?;
        }
    }
    Ok(())
}

/// The span of the newest name before the answer is extended if it is of the same name; else another span begins.
fn learn(step: &Step<'_>, row: &DnsCount, client: &str, address: IpAddr, ttl: u32) -> Result<(), StoreError> {
    let sql = || StoreError::sql("store a DNS name");
    let until = row.last.0.saturating_add(i64::from(ttl) * SECOND_NS);
    let address = address_bytes(address);
    let held: Option<(i64, String)> = step
        .prepare_cached(
            "SELECT from_ns, name FROM dns_names WHERE stream = ?1 AND client = ?2 AND address = ?3 AND from_ns <= ?4
             ORDER BY from_ns DESC, name DESC LIMIT 1",
        )
        .and_then(|mut find| {
            find.query_row(params![row.stream.0, client, address, row.first.0], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
        .map_err(sql())?;
    let from = held.filter(|(_, name)| *name == row.name).map_or(row.first.0, |(from, _)| from);
    step.prepare_cached(
        "INSERT INTO dns_names (stream, client, address, from_ns, name, node, netns, last, until_ns)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT DO UPDATE SET last = max(last, excluded.last), until_ns = max(until_ns, excluded.until_ns)",
    )
    .and_then(|mut put| {
        put.execute(params![
            row.stream.0,
            client,
            address,
            from,
            row.name,
            row.node.0,
            row.client.netns,
            row.last.0,
            until
        ])
    })
    .map(|_| ())
    .map_err(sql())
}

/// Forgets what is past its time and beyond the cap; answers how many rows the cap took.
pub(super) fn retain(step: &Step<'_>, retention: &Retention) -> Result<u64, StoreError> {
    let sql = || StoreError::sql("forget DNS queries that are past their time");
    let horizon = retention.now.plus(-retention.reports_ns).0;
    step.execute("DELETE FROM dns WHERE last < ?1", [horizon]).map_err(sql())?;
    step.execute("DELETE FROM dns_names WHERE until_ns < ?1", [horizon]).map_err(sql())?;
    let counts = evict(
        step,
        "dns",
        retention.dns_max,
        "DELETE FROM dns WHERE (stream, sequence, number) IN
         (SELECT stream, sequence, number FROM dns ORDER BY last LIMIT ?1)",
    )?;
    let names = evict(
        step,
        "dns_names",
        retention.dns_names_max,
        "DELETE FROM dns_names WHERE (stream, client, address, from_ns, name) IN
         (SELECT stream, client, address, from_ns, name FROM dns_names ORDER BY until_ns LIMIT ?1)",
    )?;
    add_to_counter(step, "dns_evicted", counts)?;
    add_to_counter(step, "dns_names_evicted", names)?;
    Ok(counts + names)
}
