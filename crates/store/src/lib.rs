//! Current state and history, behind two traits.
//!
//! - [`StateStore`]: transactions (the merged state of every counter), metadata, DNS, and what the batches reported.
//! - [`HistoryStore`]: rows of what moved, in immutable segments that are named by their range of the log.
//! - [`embedded`]: the backend in one folder, with the log that makes acknowledged batches durable (R8).
//! - [`etcd`]: a shared state in etcd.
//! - [`configmap`]: a shared state in ConfigMaps.
//! - [`shared`]: transactions and metadata where several machines reach them, joined with one server's folder.
//!
//! One contract suite (`tests/contract`) holds every backend to the same promises.

pub mod configmap;
mod dns;
pub mod embedded;
mod error;
pub mod etcd;
mod history;
mod report;
pub mod rollup;
mod settled;
pub mod shared;
mod state;
pub mod transaction;
mod translation;

pub use dns::{DnsClient, DnsCount, DnsName, client_key};
pub use error::StoreError;
pub use history::{
    Compacted, Due, EdgeTotal, EdgeTotals, Grain, HistoryRemoved, HistoryRow, HistoryStore, HistorySummary,
    HistoryView, Judge, Judgement, SegmentId, Step, TierLimit, TierSummary,
};
pub use report::{BATCHES_LOST, BatchReport, Coverage, Loss, Lsn, MetadataState, SourceState, StreamId, StreamSummary};
pub use settled::{Fate, SettledEdge, SettledEnd, SettledName};
pub use state::{FactsMax, Removed, Retention, StateChanges, StateStore, StateView, TransactionSpan};
pub use transaction::{Before, Claim, Condition, Owner, Rtt, Transaction};
pub use translation::Translation;
