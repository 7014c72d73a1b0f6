//! What user space lost, counted in a kernel map so that the count outlives the process and only ever rises in a run.

use crate::kernel::sys;
use crate::probes::Descriptors;
use crate::probes::tcp::{descriptor, read_number};
use std::collections::BTreeMap;
use std::io;
use zerocopy::IntoBytes;

/// A reason; its number is its index in the map `user_losses` (16 elements).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// Ended connections that no client had acknowledged when the journal was full.
    ClosedRowsDropped = 0,
    /// `last_*` that could not be told because the client's table of baselines was full.
    ClientBaselinesCapped = 1,
    /// Clients that were forgotten because too many asked.
    ClientsEvicted = 2,
    /// Walks over the living connections that failed.
    WalksFailed = 3,
    /// Back-fills that failed.
    BackfillsFailed = 4,
    /// Ended connections that conntrack was not asked about, since too many ended at once.
    ConntrackOverBudget = 5,
    /// Questions that conntrack did not answer.
    ConntrackFailed = 6,
    /// Ended connections whose conntrack entry may have been a later connection's with the same tuple.
    ConntrackReused = 7,
    /// Ended connections that were asked about so late that their conntrack entry may have been gone.
    ConntrackLate = 8,
    /// Forwarded translations that had to go before every client had them.
    TranslationsDropped = 9,
}

const ALL: [(Loss, &str); 10] = [
    (Loss::ClosedRowsDropped, "closed_rows_dropped"),
    (Loss::ClientBaselinesCapped, "client_baselines_capped"),
    (Loss::ClientsEvicted, "clients_evicted"),
    (Loss::WalksFailed, "walks_failed"),
    (Loss::BackfillsFailed, "backfills_failed"),
    (Loss::ConntrackOverBudget, "conntrack_unresolved_over_budget"),
    (Loss::ConntrackFailed, "conntrack_unresolved_failed"),
    (Loss::ConntrackReused, "conntrack_unresolved_reused"),
    (Loss::ConntrackLate, "conntrack_unresolved_late"),
    (Loss::TranslationsDropped, "translations_dropped"),
];

impl Loss {
    /// As the feed names it.
    pub fn name(self) -> &'static str {
        ALL.into_iter().find(|(loss, _)| *loss == self).map_or("unnamed", |(_, name)| name)
    }
}

/// Adds to a loss. The tracer's engine is the map's only writer.
pub fn add(descriptors: &Descriptors, loss: Loss, count: u64) {
    if count == 0 {
        return;
    }
    let outcome = descriptor(descriptors, "user_losses").and_then(|map| {
        let index = loss as u32;
        let value = read_number(map, index)? + count;
        sys::update(map, index.as_bytes(), value.as_bytes())
    });
    if let Err(error) = outcome {
        tracing::error!(?loss, count, %error, "failed to count a loss");
    }
}

/// Every loss that happened.
pub fn read(descriptors: &Descriptors, into: &mut BTreeMap<String, u64>) -> io::Result<()> {
    let map = descriptor(descriptors, "user_losses")?;
    for (loss, name) in ALL {
        let value = read_number(map, loss as u32)?;
        if value > 0 {
            into.insert(name.to_owned(), value);
        }
    }
    Ok(())
}
