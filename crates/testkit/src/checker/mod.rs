//! Compares what was really exchanged with what weir says: to the byte, to the connection, to the direction, to the
//! owner, and that nothing else is said.
//!
//! [`ends`] is the truth, [`rows`] what the feed and the transactions say of it, [`edges`] what the edges do;
//! [`watcher`] reads the feed as an agent does; [`table`] writes it all down. Everything but the watcher is pure.

pub mod edges;
pub mod ends;
pub mod fault;
pub mod rows;
pub mod table;
pub mod watcher;

pub use ends::{End, Watch};
pub use fault::{Fault, Kind, View};

use crate::traffic::Truth;
use weir_wire::api::{Edge, Transaction};

/// What the transactions get wrong about `truth`, a line each; empty when all is exact.
pub fn transactions_differ(truth: &[Truth], transactions: &[Transaction]) -> String {
    let ends = ends::of(truth);
    let rows: Vec<_> = transactions.iter().map(rows::Row::from).collect();
    let verdict = rows::check(View::Transactions, &ends, &rows, &Watch::of(&ends));
    fault::told(&verdict.faults)
}

/// What the edges get wrong about `truth`, a line each; empty when all is exact.
pub fn edges_differ(truth: &[Truth], edges: &[Edge]) -> String {
    let ends = ends::of(truth);
    let verdict = edges::check(&ends, edges, &Watch::of(&ends));
    fault::told(&verdict.faults)
}

#[cfg(test)]
mod tests;
