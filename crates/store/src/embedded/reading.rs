//! A snapshot of the state: one read transaction on a connection of its own, which the writer does not disturb.

use super::rows::{
    FACT_COLUMNS, STREAM_COLUMNS, TRANSACTION_COLUMNS, TRANSLATION_COLUMNS, fact, stream_summary, transaction,
    translation,
};
use super::{Embedded, dns};
use crate::dns::{DnsCount, DnsName};
use crate::error::StoreError;
use crate::report::{Coverage, Loss, StreamSummary};
use crate::state::{StateView, TransactionSpan};
use crate::transaction::Transaction;
use crate::translation::Translation;
use rusqlite::{Connection, Params, params};
use std::collections::BTreeMap;
use weir_model::{Fact, UnixNanos};

pub(super) struct View<'a> {
    store: &'a Embedded,
    connection: Option<Connection>,
}

impl<'a> View<'a> {
    /// The snapshot is that of this moment: SQLite takes it with the transaction's first read.
    pub(super) fn begin(store: &'a Embedded) -> Result<Self, StoreError> {
        let connection = store.reader()?;
        connection.execute_batch("BEGIN; SELECT lsn FROM watermark;").map_err(StoreError::sql("read the state"))?;
        Ok(Self { store, connection: Some(connection) })
    }

    fn connection(&self) -> Result<&Connection, StoreError> {
        self.connection
            .as_ref()
            .ok_or(StoreError::Corrupt { what: "the state", text: "its snapshot is already closed".into() })
    }

    fn each<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
        visit: &mut dyn FnMut(T),
    ) -> Result<(), StoreError> {
        let failed = || StoreError::sql("read the state");
        let mut statement = self.connection()?.prepare_cached(sql).map_err(failed())?;
        let mut rows = statement.query(parameters).map_err(failed())?;
        while let Some(row) = rows.next().map_err(failed())? {
            visit(read(row).map_err(failed())?);
        }
        Ok(())
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && connection.execute_batch("COMMIT").is_ok()
        {
            self.store.give_back(connection);
        }
    }
}

impl StateView for View<'_> {
    fn transactions(&self, span: TransactionSpan, visit: &mut dyn FnMut(Transaction)) -> Result<(), StoreError> {
        let since = span.since.map_or(i64::MIN, |at| at.0);
        let until = span.until.map_or(i64::MAX, |at| at.0);
        // Two reads, so that each uses its end of the index: the open ones, and those that closed late enough.
        for condition in ["closed IS NULL AND ?1 = ?1", "closed IS NOT NULL AND max(closed, last) >= ?1"] {
            let sql = format!(
                "SELECT {TRANSACTION_COLUMNS} FROM transactions
                 WHERE {condition} AND (first < ?2 OR started < ?2)"
            );
            self.each(&sql, params![since, until], transaction, visit)?;
        }
        Ok(())
    }

    fn linked(&self, links: &[i64], visit: &mut dyn FnMut(Transaction)) -> Result<(), StoreError> {
        let sql = format!("SELECT {TRANSACTION_COLUMNS} FROM transactions WHERE link = ?1");
        for link in links {
            self.each(&sql, params![link], transaction, visit)?;
        }
        Ok(())
    }

    fn translations(&self, links: &[i64], visit: &mut dyn FnMut(Translation)) -> Result<(), StoreError> {
        // Most clusters have none, and a question may have many buckets.
        let mut some = false;
        self.each("SELECT 1 FROM translations LIMIT 1", [], |_| Ok(()), &mut |()| some = true)?;
        if !some {
            return Ok(());
        }
        for column in ["original_link", "translated_link"] {
            let sql = format!("SELECT {TRANSLATION_COLUMNS} FROM translations WHERE {column} = ?1");
            for link in links {
                self.each(&sql, params![link], translation, visit)?;
            }
        }
        Ok(())
    }

    fn facts(&self, kinds: &[&str], visit: &mut dyn FnMut(Fact)) -> Result<(), StoreError> {
        let all = kinds.is_empty();
        let places = vec!["?"; kinds.len()].join(", ");
        let wanted = if all { String::new() } else { format!(" WHERE kind IN ({places})") };
        let sql = format!("SELECT {FACT_COLUMNS} FROM metadata{wanted}");
        self.each(&sql, rusqlite::params_from_iter(kinds), fact, visit)
    }

    fn streams(&self) -> Result<Vec<StreamSummary>, StoreError> {
        let mut rows = Vec::new();
        let sql = format!("SELECT {STREAM_COLUMNS} FROM streams ORDER BY node, stream");
        self.each(&sql, [], stream_summary, &mut |row| rows.push(row))?;
        Ok(rows)
    }

    fn coverage(&self, since: UnixNanos, until: UnixNanos) -> Result<Vec<Coverage>, StoreError> {
        let mut rows = Vec::new();
        self.each(
            "SELECT node, from_ns, to_ns, covered, reason FROM coverage
             WHERE to_ns > ?1 AND from_ns < ?2 ORDER BY node, to_ns",
            params![since.0, until.0],
            |row| {
                Ok(Coverage {
                    node: row.get(0)?,
                    from: UnixNanos(row.get(1)?),
                    to: UnixNanos(row.get(2)?),
                    covered: row.get(3)?,
                    gap_reason: row.get(4)?,
                })
            },
            &mut |row| rows.push(row),
        )?;
        Ok(rows)
    }

    fn losses(&self, since: UnixNanos, until: UnixNanos) -> Result<Vec<Loss>, StoreError> {
        let mut rows = Vec::new();
        self.each(
            "SELECT node, from_ns, to_ns, place, reason, count, bytes, connections, intended FROM losses
             WHERE to_ns > ?1 AND from_ns < ?2",
            params![since.0, until.0],
            |row| {
                Ok(Loss {
                    node: row.get(0)?,
                    from: UnixNanos(row.get(1)?),
                    to: UnixNanos(row.get(2)?),
                    place: row.get(3)?,
                    reason: row.get(4)?,
                    count: row.get::<_, i64>(5)? as u64,
                    bytes: row.get::<_, i64>(6)? as u64,
                    connections: row.get::<_, i64>(7)? as u64,
                    intended: row.get(8)?,
                })
            },
            &mut |row| rows.push(row),
        )?;
        Ok(rows)
    }

    fn dns(&self, since: UnixNanos, until: UnixNanos, visit: &mut dyn FnMut(DnsCount)) -> Result<(), StoreError> {
        let sql = format!("SELECT {} FROM dns WHERE last >= ?1 AND last < ?2", dns::COUNT_COLUMNS);
        self.each(&sql, params![since.0, until.0], dns::count, visit)
    }

    fn dns_names(&self, since: UnixNanos, until: UnixNanos, visit: &mut dyn FnMut(DnsName)) -> Result<(), StoreError> {
        let sql = format!("SELECT {} FROM dns_names WHERE until_ns >= ?1 AND from_ns < ?2", dns::NAME_COLUMNS);
        self.each(&sql, params![since.0, until.0], dns::name, visit)
    }

    fn counters(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut counters = BTreeMap::new();
        self.each(
            "SELECT name, value FROM counters
             UNION ALL SELECT 'transactions', count(*) FROM transactions
             UNION ALL SELECT 'facts', count(*) FROM metadata
             UNION ALL SELECT 'translations', count(*) FROM translations
             UNION ALL SELECT 'dns', count(*) FROM dns
             UNION ALL SELECT 'dns_names', count(*) FROM dns_names",
            [],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)? as u64)),
            &mut |(name, value)| {
                counters.insert(name, value);
            },
        )?;
        Ok(counters)
    }
}
