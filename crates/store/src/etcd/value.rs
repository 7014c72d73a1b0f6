//! Rows as keys and values of etcd, both ways.

use super::ROW_BYTES_MAX;
use super::messages::KeyValue;
use crate::error::StoreError;
use crate::shared::{FactRow, Forgotten, Kind, SharedChanges, SharedRow, TransactionRow, Value};
use std::collections::BTreeMap;

const TRANSACTIONS: &str = "/transactions/";
const METADATA: &str = "/metadata/";
const COUNTERS: &str = "/counters/";

/// A row that is to be written.
pub(super) struct Row {
    pub(super) key: Vec<u8>,
    pub(super) value: Value,
    /// Of the value.
    pub(super) bytes: usize,
}

/// What lies under a key.
pub(super) fn decode(prefix: &str, stored: &KeyValue) -> Result<Value, StoreError> {
    let part = stored.key.strip_prefix(prefix.as_bytes()).unwrap_or_default();
    let kind = if part.starts_with(TRANSACTIONS.as_bytes()) {
        Kind::Transactions
    } else if part.starts_with(METADATA.as_bytes()) {
        Kind::Metadata
    } else {
        Kind::Counters
    };
    Value::decode(kind, &stored.value)
}

/// The row under a key.
pub(super) fn row(prefix: &str, stored: &KeyValue) -> Result<SharedRow, StoreError> {
    let value = decode(prefix, stored)?;
    let name = stored.key.get(prefix.len() + COUNTERS.len()..).filter(|_| matches!(value, Value::Counter(_)));
    let name = std::str::from_utf8(name.unwrap_or_default()).map_err(|error| StoreError::Corrupt {
        what: "a counter's name in the shared state",
        text: error.to_string(),
    })?;
    Ok(value.into_row(name))
}

/// Whether a key is a row's, and not the store's own.
pub(super) fn is_row(prefix: &str, key: &[u8]) -> bool {
    let part = key.strip_prefix(prefix.as_bytes()).unwrap_or_default();
    [TRANSACTIONS, METADATA, COUNTERS].iter().any(|kind| part.starts_with(kind.as_bytes()))
}

/// Every row of `changes` by its key, sorted, one a key; and how many are left out as too large.
pub(super) fn rows(prefix: &str, changes: &SharedChanges) -> Result<(Vec<Row>, u64), StoreError> {
    let mut merged: BTreeMap<Vec<u8>, Value> = BTreeMap::new();
    let mut add = |key: Vec<u8>, value: Value| {
        let value = match merged.remove(&key) {
            Some(earlier) => value.merge(earlier),
            None => value,
        };
        merged.insert(key, value);
    };
    for row in &changes.transactions {
        add(transaction_key(prefix, &row.into()), Value::Transaction(Box::new(row.clone())));
    }
    for fact in &changes.facts {
        add(fact_key(prefix, &fact.into()), Value::Fact(Box::new(fact.clone())));
    }
    for (name, value) in &changes.counters {
        add(format!("{prefix}{COUNTERS}{name}").into_bytes(), Value::Counter(*value));
    }
    let (mut rows, mut too_large) = (Vec::with_capacity(merged.len()), 0);
    for (key, value) in merged {
        let bytes = value.encode()?.len();
        if bytes + key.len() > ROW_BYTES_MAX {
            too_large += 1;
        } else {
            rows.push(Row { key, value, bytes });
        }
    }
    Ok((rows, too_large))
}

/// The keys of rows that leave.
pub(super) fn keys(prefix: &str, rows: &Forgotten) -> impl Iterator<Item = Vec<u8>> {
    let transactions = rows.transactions.iter().map(move |row| transaction_key(prefix, row));
    transactions.chain(rows.facts.iter().map(move |row| fact_key(prefix, row)))
}

fn transaction_key(prefix: &str, row: &TransactionRow) -> Vec<u8> {
    format!("{prefix}{TRANSACTIONS}{}/{}", row.tuple.transaction_key(), row.id.to_hex()).into_bytes()
}

fn fact_key(prefix: &str, row: &FactRow) -> Vec<u8> {
    let address = if row.address.is_empty() { "-" } else { &row.address };
    let mut key = format!("{prefix}{METADATA}{}", escaped(address));
    for part in [&row.node.0, &row.source, &row.kind, &row.id] {
        key.push('/');
        key.push_str(&escaped(part));
    }
    format!("{key}/{}", row.from.0).into_bytes()
}

/// Without slashes, so that no two rows have one key.
fn escaped(part: &str) -> String {
    part.replace('%', "%25").replace('/', "%2F")
}
