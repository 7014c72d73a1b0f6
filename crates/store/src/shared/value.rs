//! What a shared backend keeps under one key: a row of one of three kinds, merged by its join.

use super::SharedRow;
use super::rows::{decode_fact, decode_transaction, encode_fact, encode_transaction};
use crate::error::StoreError;
use crate::transaction::Transaction;
use weir_model::Fact;

/// What kind of rows a key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Transactions,
    Metadata,
    Counters,
}

/// What lies under a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Transaction(Box<Transaction>),
    Fact(Box<Fact>),
    Counter(u64),
}

impl Value {
    /// Two versions of one row. Of two kinds, which one key never has, the first.
    pub(crate) fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::Transaction(a), Self::Transaction(b)) => Self::Transaction(Box::new(a.merge(*b))),
            (Self::Fact(a), Self::Fact(b)) => Self::Fact(Box::new(a.merge(*b))),
            (Self::Counter(a), Self::Counter(b)) => Self::Counter(a.max(b)),
            (value, _) => value,
        }
    }

    /// As it is written.
    ///
    /// # Errors
    /// Those of [`super::rows`].
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Transaction(row) => encode_transaction(row),
            Self::Fact(fact) => encode_fact(fact),
            Self::Counter(value) => Ok(value.to_string().into_bytes()),
        }
    }

    /// What was written.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is no such row.
    pub(crate) fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, StoreError> {
        match kind {
            Kind::Transactions => decode_transaction(bytes).map(|row| Self::Transaction(Box::new(row))),
            Kind::Metadata => decode_fact(bytes).map(|fact| Self::Fact(Box::new(fact))),
            Kind::Counters => {
                let text = String::from_utf8_lossy(bytes);
                text.parse().map(Self::Counter).map_err(|error| StoreError::Corrupt {
                    what: "a counter of the shared state",
                    text: format!("`{text}`: {error}"),
                })
            }
        }
    }

    /// As a reader takes it; `name` is a counter's.
    pub(crate) fn into_row(self, name: &str) -> SharedRow {
        match self {
            Self::Transaction(row) => SharedRow::Transaction(row),
            Self::Fact(fact) => SharedRow::Fact(fact),
            Self::Counter(value) => SharedRow::Counter(name.to_owned(), value),
        }
    }
}
