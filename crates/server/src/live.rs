//! What is in the state but not yet in history: rows that wait for the next segment, and the one moment at which a
//! reader sees state, pending rows and segments agree.

use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;
use weir_store::{HistoryRow, Lsn, StateChanges, StateStore, StateView, StoreError};

/// Pending rows, in the groups in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// The watermark below them: what is in segments.
    pub(crate) watermark: Lsn,
    /// The last log entry whose rows are among them.
    pub(crate) last: Lsn,
    /// The rows.
    pub(crate) groups: Vec<Arc<Vec<HistoryRow>>>,
    /// How many rows those are.
    pub(crate) rows: usize,
}

/// The applier writes, queries read.
#[derive(Debug)]
pub(crate) struct Live {
    pending: RwLock<Pending>,
    /// Rises with everything that is applied.
    changes: watch::Sender<u64>,
}

impl Live {
    pub(crate) fn new(watermark: Lsn) -> Self {
        let pending = RwLock::new(Pending { watermark, last: watermark, ..Pending::default() });
        Self { pending, changes: watch::Sender::new(0) }
    }

    /// Merges `changes` and adds `rows` as one step for readers.
    pub(crate) fn apply(
        &self,
        store: &dyn StateStore,
        changes: &StateChanges,
        rows: &Arc<Vec<HistoryRow>>,
        last: Lsn,
    ) -> Result<(), StoreError> {
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        store.apply(changes)?;
        pending.last = pending.last.max(last);
        pending.rows += rows.len();
        if !rows.is_empty() {
            pending.groups.push(Arc::clone(rows));
        }
        drop(pending);
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
        Ok(())
    }

    /// Tells whenever something was applied. How many times is not told: whoever waits sees the newest.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Everything that is pending now.
    pub(crate) fn pending(&self) -> Pending {
        self.pending.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many rows those are.
    pub(crate) fn pending_rows(&self) -> usize {
        self.pending.read().unwrap_or_else(PoisonError::into_inner).rows
    }

    /// Drops what a segment now holds: the `groups` first groups.
    pub(crate) fn flushed(&self, flushed: &Pending) {
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        pending.groups.drain(..flushed.groups.len());
        pending.rows -= flushed.rows;
        pending.watermark = flushed.last;
    }

    /// A snapshot of the state and the pending rows that belong to it. Segments up to `Pending::watermark` hold the rest.
    pub(crate) fn read<'a>(&self, store: &'a dyn StateStore) -> Result<(Box<dyn StateView + 'a>, Pending), StoreError> {
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        let view = store.view()?;
        Ok((view, pending.clone()))
    }
}
