//! Current state in a store that several machines reach: transactions and metadata, and nothing else.
//!
//! [`Joined`] joins such a store with the data folder of the server that owns it. The trait is small because every
//! value is a join (R1): a backend keeps rows, merges them under compare-and-swap, and forgets those that it is told.
//! [`rows`] is the one form in which backends write them.

mod joined;
pub mod rows;
mod value;

use crate::error::StoreError;
use crate::transaction::Transaction;
pub use joined::{Joined, TOO_LARGE};
use std::collections::BTreeMap;
pub(crate) use value::{Kind, Value};
use weir_model::{ConnectionId, Fact, NodeName, Tuple, UnixNanos};

/// What is merged into a shared state in one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SharedChanges {
    /// Readings.
    pub transactions: Vec<Transaction>,
    /// Facts.
    pub facts: Vec<Fact>,
    /// The owner's own counters, absolute: the larger of two stands.
    pub counters: BTreeMap<String, u64>,
}

impl SharedChanges {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.facts.is_empty() && self.counters.is_empty()
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.transactions.len() + self.facts.len() + self.counters.len()
    }
}

/// Names a transaction's row: by its tuple first, so that a person finds it, and by its counter's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionRow {
    /// [`Transaction::tuple`].
    pub tuple: Tuple,
    /// [`Transaction::id`].
    pub id: ConnectionId,
    /// Whose node says it.
    pub node: NodeName,
}

impl From<&Transaction> for TransactionRow {
    fn from(transaction: &Transaction) -> Self {
        Self { tuple: transaction.tuple, id: transaction.id(), node: transaction.key.node.clone() }
    }
}

/// Names a fact's row: by its first address (a pod's IP), then by the fact's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactRow {
    /// The first of [`Fact::addresses`], empty where it has none.
    pub address: String,
    /// [`Fact::node`].
    pub node: NodeName,
    /// [`Fact::source`].
    pub source: String,
    /// [`Fact::kind`].
    pub kind: String,
    /// [`Fact::id`].
    pub id: String,
    /// [`Fact::from`].
    pub from: UnixNanos,
}

impl From<&Fact> for FactRow {
    fn from(fact: &Fact) -> Self {
        Self {
            address: fact.addresses.first().cloned().unwrap_or_default(),
            node: fact.node.clone(),
            source: fact.source.clone(),
            kind: fact.kind.clone(),
            id: fact.id.clone(),
            from: fact.from,
        }
    }
}

/// Rows that leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Of transactions.
    pub transactions: Vec<TransactionRow>,
    /// Of metadata.
    pub facts: Vec<FactRow>,
}

impl Forgotten {
    /// Whether nothing leaves.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.facts.is_empty()
    }
}

/// A row that is read back.
#[derive(Clone, Debug, PartialEq)]
pub enum SharedRow {
    /// A transaction.
    Transaction(Box<Transaction>),
    /// A fact.
    Fact(Box<Fact>),
    /// A counter of the owner.
    Counter(String, u64),
}

/// Transactions and metadata where more than this machine can read them. Calls block; one owner writes, perhaps from
/// several threads, and a backend makes sure of both: a second owner is refused when it opens, a former one when it writes.
pub trait SharedState: Send + Sync + std::fmt::Debug {
    /// Where it is, as an error names it: `etcd at http://127.0.0.1:2379, prefix /weir`.
    fn place(&self) -> String;

    /// Merges `changes` into what is there, each row by its join: idempotent, and free of order. Rows are independent:
    /// after an error some may be stored, and the same call again completes it. Answers how many rows were left out
    /// because a single row is larger than the backend takes.
    ///
    /// # Errors
    /// [`StoreError::Lost`] when this process is no longer the owner: nothing was written after another became it.
    fn merge(&self, changes: &SharedChanges) -> Result<u64, StoreError>;

    /// Removes rows; one that is not there is removed already.
    ///
    /// # Errors
    /// As [`SharedState::merge`].
    fn forget(&self, rows: &Forgotten) -> Result<(), StoreError>;

    /// Calls `visit` for every row, as of one moment, page by page. A row may come more than once, and in older
    /// versions of itself too: whoever reads merges.
    ///
    /// # Errors
    /// When it cannot be read, or `visit` fails.
    fn read(&self, visit: &mut dyn FnMut(SharedRow) -> Result<(), StoreError>) -> Result<(), StoreError>;

    /// What a backend does for itself, about once a minute: give back room.
    ///
    /// # Errors
    /// When it could not; what is stored is as it was.
    fn tidy(&self) -> Result<(), StoreError>;

    /// The backend's own counts since it was opened, by name: conflicts, retries, ...
    fn counts(&self) -> BTreeMap<String, u64>;
}
