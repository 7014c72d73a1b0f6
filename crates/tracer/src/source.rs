//! Where rows come from: the one seam between the engine, which serves clients and keeps the journal, and the kernel.
//!
//! [`Ebpf`](crate::ebpf::Ebpf) counts in kernel programs, [`Fallback`](crate::fallback::Fallback) asks the kernel for its
//! own counts. What a source hands to [`Write`] is in the journal when the
//! call returns; until then it stays where it was.

use crate::engine::EngineError;
use crate::losses::Loss;
use crate::probes::layout::Row;
use crate::probes::udp::dns::Head;
use std::collections::BTreeMap;
use std::time::Duration;
use weir_wire::feed::{Degraded, Probe};

/// Writes ended connections into the journal.
pub type Write<'a> = &'a mut dyn FnMut(Vec<Row>) -> Result<(), EngineError>;

/// How far a drain came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything that had ended when it began is in the journal.
    Wholly,
    /// More ends wait than one drain takes.
    InPart,
}

/// What lives.
#[derive(Debug, Default)]
pub struct Walk {
    /// Every open connection that can be seen.
    pub rows: Vec<Row>,
    /// False when one of those that can be seen may be missing.
    pub complete: bool,
}

/// A source of rows; belongs to the engine's thread.
pub trait Source: Send {
    /// Moves what ended to `write`. On failure it stays where it is.
    ///
    /// # Errors
    /// The kernel's or `write`'s.
    fn drain(&mut self, now_ns: u64, write: Write<'_>) -> Result<Drained, EngineError>;

    /// Reads what lives. A connection that ends meanwhile is among the rows, or was written, or both: never neither.
    ///
    /// # Errors
    /// The kernel's or `write`'s.
    fn walk(&mut self, now_ns: u64, write: Write<'_>) -> Result<Walk, EngineError>;

    /// Looks up the owners of sockets.
    ///
    /// # Errors
    /// The kernel's.
    fn backfill(&mut self) -> std::io::Result<()>;

    /// Ends what was idle for `idle`.
    ///
    /// # Errors
    /// The kernel's or `write`'s.
    fn expire(&mut self, now_ns: u64, idle: Duration, write: Write<'_>) -> Result<(), EngineError>;

    /// Whether DNS is watched.
    fn watches_dns(&self) -> bool {
        false
    }

    /// Hands every DNS message since the last [`Source::taken_dns`] to `each`, oldest first.
    fn read_dns(&mut self, _each: &mut dyn FnMut(&Head, &[u8])) {}

    /// Lets go of the messages that were read; `held` queries are now in user space.
    ///
    /// # Errors
    /// The kernel's.
    fn taken_dns(&mut self, _held: u64) -> std::io::Result<()> {
        Ok(())
    }

    /// Counts a loss.
    fn count(&mut self, loss: Loss, count: u64);

    /// Every loss that happened in this run, by reason.
    ///
    /// # Errors
    /// The kernel's.
    fn losses(&self) -> Result<BTreeMap<String, u64>, EngineError>;

    /// How its parts do.
    fn probes(&self) -> Vec<Probe>;

    /// Why the kernel does not count what programs cost, though it was asked to.
    fn costs_refused(&self) -> Option<String> {
        None
    }

    /// Numbers that are no losses.
    ///
    /// # Errors
    /// The kernel's.
    fn gauges(&mut self) -> Result<BTreeMap<String, u64>, EngineError>;

    /// What it is instead of eBPF, why, and what it cannot see.
    fn degraded(&self) -> Option<Degraded> {
        None
    }

    /// Whether something that it should see is missing.
    fn is_degraded(&self) -> bool;
}
