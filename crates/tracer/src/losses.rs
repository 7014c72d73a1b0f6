//! What user space lost, counted in a kernel map so that the count outlives the process and only ever rises in a run.

use crate::kernel::sys;
use crate::probes::Descriptors;
use crate::probes::tcp::{descriptor, read_number};
use std::collections::BTreeMap;
use std::io;
use weir_wire::losses::{self as reasons, BYTES, Reason};
use zerocopy::IntoBytes;

/// A reason that the engine counts; its number is its index in the map `user_losses` (32 elements).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Replies that a living connection may be missing from.
    WalksIncomplete = 10,
    /// Ended connections whose process was never known.
    OwnerUnknown = 11,
    /// Ended connections whose cgroup had no path any more.
    CgroupUnresolved = 12,
    /// Ended connections that a client came back for too late.
    ClosedRowsLetGo = 13,
    /// DNS queries whose name found no room: counted, under no name.
    DnsNamesCapped = 14,
    /// DNS queries that found no room under any name: not counted.
    DnsRowsDropped = 15,
    /// DNS queries that could not be waited for because too many were: not counted.
    DnsQueriesCapped = 16,
    /// DNS queries that a killed tracer had seen and no client had acknowledged.
    DnsLostInRestart = 17,
}

impl Loss {
    /// As the feed tells it.
    pub fn reason(self) -> &'static Reason {
        let [first, ..] = ALL;
        ALL.into_iter().find(|(loss, _)| *loss == self).map_or(first.1, |(_, reason)| reason)
    }
}

const ALL: [(Loss, &Reason); 18] = [
    (Loss::ClosedRowsDropped, reasons::CLOSED_ROWS_DROPPED),
    (Loss::ClientBaselinesCapped, reasons::CLIENT_BASELINES_CAPPED),
    (Loss::ClientsEvicted, reasons::CLIENTS_EVICTED),
    (Loss::WalksFailed, reasons::WALKS_FAILED),
    (Loss::BackfillsFailed, reasons::BACKFILLS_FAILED),
    (Loss::ConntrackOverBudget, reasons::CONNTRACK_UNRESOLVED_OVER_BUDGET),
    (Loss::ConntrackFailed, reasons::CONNTRACK_UNRESOLVED_FAILED),
    (Loss::ConntrackReused, reasons::CONNTRACK_UNRESOLVED_REUSED),
    (Loss::ConntrackLate, reasons::CONNTRACK_UNRESOLVED_LATE),
    (Loss::TranslationsDropped, reasons::TRANSLATIONS_DROPPED),
    (Loss::WalksIncomplete, reasons::WALKS_INCOMPLETE),
    (Loss::OwnerUnknown, reasons::OWNER_UNKNOWN),
    (Loss::CgroupUnresolved, reasons::CGROUP_UNRESOLVED),
    (Loss::ClosedRowsLetGo, reasons::CLOSED_ROWS_LET_GO),
    (Loss::DnsNamesCapped, reasons::DNS_NAMES_CAPPED),
    (Loss::DnsRowsDropped, reasons::DNS_ROWS_DROPPED),
    (Loss::DnsQueriesCapped, reasons::DNS_QUERIES_CAPPED),
    (Loss::DnsLostInRestart, reasons::DNS_LOST_IN_RESTART),
];

/// What was lost, as the feed tells it.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// Why.
    pub reason: &'static Reason,
    /// How many of what the reason counts.
    pub count: u64,
    /// Bytes in them, 0 where that is not known.
    pub bytes: u64,
}

impl Lost {
    /// So many, with bytes unknown.
    pub fn of(reason: &'static Reason, count: u64) -> Self {
        Self { reason, count, bytes: 0 }
    }

    /// Puts it among the feed's losses, unless nothing was lost.
    pub fn tell(self, into: &mut BTreeMap<String, u64>) {
        if self.count > 0 {
            into.insert(self.reason.word.to_owned(), self.count);
        }
        if self.bytes > 0 {
            into.insert(format!("{}{BYTES}", self.reason.word), self.bytes);
        }
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
    for (loss, reason) in ALL {
        Lost::of(reason, read_number(map, loss as u32)?).tell(into);
    }
    Ok(())
}
