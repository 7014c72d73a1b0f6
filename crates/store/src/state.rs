//! The trait of current state: transactions, metadata, and what the batches reported.
//!
//! Writers are one: the server's applier. Readers take a [`StateView`], a snapshot that no writer moves. Calls block;
//! the server makes them on blocking threads.

use crate::dns::{DnsCount, DnsName};
use crate::error::StoreError;
use crate::report::{BatchReport, Coverage, Loss, StreamSummary};
use crate::transaction::Transaction;
use crate::translation::Translation;
use std::collections::BTreeMap;
use weir_model::{Fact, UnixNanos};

/// What a group of batches changes. Applied as one step, or not at all.
#[derive(Clone, Debug, Default)]
pub struct StateChanges {
    /// Readings, merged into what is stored.
    pub transactions: Vec<Transaction>,
    /// Facts, merged into what is stored.
    pub facts: Vec<Fact>,
    /// Translations; the same one again changes nothing.
    pub translations: Vec<Translation>,
    /// The batches' reports; applying one again changes nothing.
    pub reports: Vec<BatchReport>,
    /// What was asked of DNS servers; applying it again changes nothing.
    pub dns: Vec<DnsCount>,
}

/// What to forget.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Now.
    pub now: UnixNanos,
    /// Transactions leave so long after their close, nanoseconds.
    pub closed_ns: i64,
    /// At most so many transactions are kept; the oldest closed go first, then those that changed longest ago.
    pub transactions_max: u64,
    /// Ended facts leave so long after their end, nanoseconds.
    pub facts_ns: i64,
    /// At most so many facts are kept.
    pub facts_max: FactsMax,
    /// Translations leave so long after they were seen, nanoseconds.
    pub translations_ns: i64,
    /// At most so many translations are kept; those seen longest ago go first.
    pub translations_max: u64,
    /// Coverage and losses leave after so long, nanoseconds.
    pub reports_ns: i64,
    /// At most so many counts of DNS queries are kept; they leave with the reports.
    pub dns_max: u64,
    /// At most so many names of DNS answers are kept; they leave with the reports.
    pub dns_names_max: u64,
    /// Spans of coverage that ended so long ago and follow each other become one, nanoseconds.
    pub join_coverage_ns: i64,
}

/// How many facts are kept of each kind: many short-lived things of one kind take no place from another. Beyond a cap
/// those go first that ended longest ago, then those that nobody has said again for longest.
#[derive(Clone, Copy, Debug)]
pub struct FactsMax {
    /// By [`weir_model::fact::kind`].
    pub by_kind: &'static [(&'static str, u64)],
    /// Of all other kinds together.
    pub others: u64,
}

/// How many rows a [`StateStore::retain`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Transactions whose time had come.
    pub transactions_expired: u64,
    /// Transactions beyond the cap.
    pub transactions_evicted: u64,
    /// Facts whose time had come.
    pub facts_expired: u64,
    /// Facts beyond the caps.
    pub facts_evicted: u64,
    /// Translations beyond the cap.
    pub translations_evicted: u64,
    /// Counts of DNS queries, and names, beyond the cap.
    pub dns_evicted: u64,
}

/// Which transactions to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct TransactionSpan {
    /// Only those that were open at or after this instant (or changed then).
    pub since: Option<UnixNanos>,
    /// Only those that began before this instant.
    pub until: Option<UnixNanos>,
}

/// Current state.
pub trait StateStore: Send + Sync {
    /// Merges `changes` into the state, all or nothing. Idempotent, and free of order.
    ///
    /// # Errors
    /// When they cannot be stored; then nothing of them is.
    fn apply(&self, changes: &StateChanges) -> Result<(), StoreError>;

    /// Forgets what `retention` says, and adds what was evicted to the counters `transactions_evicted`, `facts_evicted`
    /// (and for each kind with a cap `facts_evicted_KIND`), `translations_evicted`, `dns_evicted` and
    /// `dns_names_evicted`.
    ///
    /// # Errors
    /// When the state cannot be changed.
    fn retain(&self, retention: &Retention) -> Result<Removed, StoreError>;

    /// A snapshot to read.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn view(&self) -> Result<Box<dyn StateView + '_>, StoreError>;
}

/// A snapshot of the state.
pub trait StateView {
    /// Calls `visit` for every transaction in the span, in no particular order.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn transactions(&self, span: TransactionSpan, visit: &mut dyn FnMut(Transaction)) -> Result<(), StoreError>;

    /// Every transaction in one of these buckets ([`Transaction::link`]).
    ///
    /// # Errors
    /// When the state cannot be read.
    fn linked(&self, links: &[i64], visit: &mut dyn FnMut(Transaction)) -> Result<(), StoreError>;

    /// Every translation from or to one of these buckets ([`Translation::links`]); one may come twice.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn translations(&self, links: &[i64], visit: &mut dyn FnMut(Translation)) -> Result<(), StoreError>;

    /// Every fact of one of these kinds; of every kind when none is named.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn facts(&self, kinds: &[&str], visit: &mut dyn FnMut(Fact)) -> Result<(), StoreError>;

    /// Every stream.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn streams(&self) -> Result<Vec<StreamSummary>, StoreError>;

    /// Every span that ends after `since` and starts before `until`.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn coverage(&self, since: UnixNanos, until: UnixNanos) -> Result<Vec<Coverage>, StoreError>;

    /// Every loss whose span ends after `since` and starts before `until`.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn losses(&self, since: UnixNanos, until: UnixNanos) -> Result<Vec<Loss>, StoreError>;

    /// Every count of DNS queries whose last query was over in `[since, until)`, in no particular order.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn dns(&self, since: UnixNanos, until: UnixNanos, visit: &mut dyn FnMut(DnsCount)) -> Result<(), StoreError>;

    /// Every name whose answers may have been kept at or after `since` and whose first answer came before `until`.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn dns_names(&self, since: UnixNanos, until: UnixNanos, visit: &mut dyn FnMut(DnsName)) -> Result<(), StoreError>;

    /// The store's own counters and sizes by name: `transactions`, `facts`, `transactions_evicted`, ...
    ///
    /// # Errors
    /// When the state cannot be read.
    fn counters(&self) -> Result<BTreeMap<String, u64>, StoreError>;
}
