//! Answers: what was asked, from one snapshot of state, pending rows and segments.
//!
//! [`params`] reads the question, [`selection`] loads what it is about and pairs it, [`naming`] says who is behind it,
//! [`ends`] what each grouping calls that, [`expand`] what of a grouping by namespace is opened, [`settled`] how that is kept for good,
//! [`edges`], [`records`] and [`dns`] build the rows, [`sums`] are what edges are summed up to, [`steps`] says how long those of a series are,
//! [`quality`] how well an edge did in each, [`health`] what that means against its past,
//! [`diff`] what is different between two spans, [`recent`] keeps what both read of the time before, [`completeness`] says how complete they are, [`status`] how the parts do.

pub(crate) mod completeness;
pub(crate) mod diff;
pub(crate) mod dns;
pub(crate) mod edges;
pub(crate) mod ends;
pub(crate) mod expand;
pub(crate) mod health;
pub(crate) mod naming;
pub(crate) mod params;
pub(crate) mod quality;
mod recent;
pub(crate) mod records;
pub(crate) mod selection;
pub(crate) mod settled;
pub(crate) mod status;
pub(crate) mod steps;
pub(crate) mod sums;

use crate::cluster::Cluster;
use crate::counts::Counts;
use crate::ingest::streams::Streams;
use crate::live::Live;
use crate::names::Names;
use std::sync::{Arc, Mutex, Weak};
use weir_daemon::clock::Clock;
use weir_model::{Certainty, UnixNanos};
use weir_store::StoreError;
use weir_store::embedded::Embedded;
use weir_store::embedded::log::Log;
use weir_store::shared::SharedState;
use weir_wire::api::{EdgeEnd, OTHER};

/// What every answer is made from.
pub(crate) struct Sources {
    pub(crate) store: Arc<Embedded>,
    /// What the applier writes to beside the folder, while it runs.
    pub(crate) shared: Option<Weak<dyn SharedState>>,
    pub(crate) live: Arc<Live>,
    pub(crate) names: Arc<Names>,
    pub(crate) log: Arc<Mutex<Log>>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) pasts: health::past::Pasts,
    /// What comparisons have read of the time before both spans.
    pub(crate) earliers: diff::Earliers,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// It asks for too much: in words, with how to ask for less.
    #[error("{0}")]
    Question(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An instant as every answer prints it: RFC 3339 with nanoseconds where it has them.
pub(crate) fn rfc3339(at: UnixNanos) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.0)).map_or_else(|_| String::new(), |at| at.to_string())
}

/// An end of the row that sums up all rows beyond the limit. `certainty`: the least sure of their ends'.
pub(crate) fn other(certainty: Certainty) -> EdgeEnd {
    let (kind, name) = (OTHER.to_owned(), OTHER.to_owned());
    EdgeEnd { kind, name, certainty: certainty.as_str().to_owned(), ..EdgeEnd::default() }
}

/// Cuts `items` to `limit`; answers how many were left out.
pub(crate) fn cut<T>(items: &mut Vec<T>, limit: usize) -> u64 {
    let omitted = items.len().saturating_sub(limit);
    items.truncate(limit);
    omitted as u64
}
