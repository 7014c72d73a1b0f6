//! One server's state: its data folder, and the shared state that it owns.
//!
//! ```text
//! applier ─share──▶ shared state (durable, compare-and-swap, fenced)
//!         ─apply──▶ folder: a copy of the same rows, and all that is not shared ─▶ readers
//! start   ◀─read──  shared state
//! ```
//!
//! What is shared is written there first and to the folder after, so that the folder never knows more. Readers ask the
//! folder alone: an answer needs indexes and a snapshot, and takes no longer when the shared state is slow. At start the
//! folder's copy is thrown away and read anew; the log then brings what was acknowledged and not yet merged.

use super::{Forgotten, SharedChanges, SharedRow, SharedState};
use crate::embedded::Embedded;
use crate::error::StoreError;
use crate::state::{Removed, Retention, StateChanges, StateStore, StateView};
use std::sync::Arc;

/// Rows that are merged into the folder at once while the shared state is read: about 5 MB.
const COPY_ROWS: usize = 5_000;

/// Rows too large for the shared state, in [`StateView::counters`]: this folder has them, the next will not.
pub const TOO_LARGE: &str = "shared_rows_too_large";

/// A data folder, joined with a shared state where one is configured.
#[derive(Clone, Debug)]
pub struct Joined {
    folder: Arc<Embedded>,
    shared: Option<Arc<dyn SharedState>>,
}

impl Joined {
    /// The folder alone: what it holds is its own from here on.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn alone(folder: Arc<Embedded>) -> Result<Self, StoreError> {
        folder.be_copy_of(None)?;
        Ok(Self { folder, shared: None })
    }

    /// Joins the two. A folder that was joined with this shared state before is a copy of it and read anew; what any other
    /// folder holds is merged into the shared state first.
    ///
    /// # Errors
    /// When either cannot be read or written.
    pub fn open(folder: Arc<Embedded>, shared: Arc<dyn SharedState>) -> Result<Self, StoreError> {
        let place = shared.place();
        if folder.copy_of()?.as_deref() != Some(&place) {
            let rows = seed(&folder, &*shared)?;
            folder.be_copy_of(Some(&place))?;
            tracing::info!(rows, place, "gave this folder's state to the shared state");
        }
        folder.forget_shared()?;
        let rows = load(&*shared, &folder)?;
        tracing::info!(rows, place, "read the shared state");
        Ok(Self { folder, shared: Some(shared) })
    }

    /// The folder.
    pub fn folder(&self) -> &Arc<Embedded> {
        &self.folder
    }

    /// The shared state, where there is one.
    pub fn shared(&self) -> Option<&Arc<dyn SharedState>> {
        self.shared.as_ref()
    }

    /// Writes what is shared of `changes` to the shared state. [`StateStore::apply`] does this itself; a caller that holds a
    /// lock while it applies calls this before, and [`Embedded`]'s `apply` under the lock.
    ///
    /// # Errors
    /// When it cannot be written; the folder is as it was.
    pub fn share(&self, changes: &StateChanges) -> Result<(), StoreError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let (news, moved) = self.folder.news(changes)?;
        if news.is_empty() {
            return Ok(());
        }
        let too_large = shared.merge(&news)?;
        if too_large > 0 {
            tracing::warn!(rows = too_large, place = shared.place(), "rows are too large for the shared state");
            self.folder.add_to_counter(TOO_LARGE, too_large)?;
        }
        if moved.is_empty() { Ok(()) } else { shared.forget(&moved) }
    }
}

impl StateStore for Joined {
    fn apply(&self, changes: &StateChanges) -> Result<(), StoreError> {
        self.share(changes)?;
        self.folder.apply(changes)
    }

    /// What leaves the folder leaves the shared state before the folder's step is final.
    fn retain(&self, retention: &Retention) -> Result<Removed, StoreError> {
        let Some(shared) = &self.shared else { return self.folder.retain(retention) };
        let removed = self.folder.retain_telling(retention, &mut |forgotten| shared.forget(forgotten))?;
        let counters = self.folder.own_counters()?;
        shared.merge(&SharedChanges { counters, ..SharedChanges::default() })?;
        shared.tidy()?;
        Ok(removed)
    }

    fn view(&self) -> Result<Box<dyn StateView + '_>, StoreError> {
        self.folder.view()
    }
}

/// Gives every row of the folder to a shared state. Says how many.
fn seed(folder: &Embedded, shared: &dyn SharedState) -> Result<u64, StoreError> {
    let mut give = |waiting: SharedChanges| shared.merge(&waiting).map(|_too_large| ());
    in_chunks(folder, &mut give)
}

/// Takes every row of a shared state into the folder. Says how many. Rows that a crash left where another version of the
/// same thing lies elsewhere leave the shared state.
fn load(shared: &dyn SharedState, folder: &Embedded) -> Result<u64, StoreError> {
    let mut superseded = Forgotten::default();
    let rows = in_chunks(shared, &mut |waiting| {
        let changes =
            StateChanges { transactions: waiting.transactions, facts: waiting.facts, ..StateChanges::default() };
        let (news, old) = folder.news(&changes)?;
        superseded.transactions.extend(old.transactions);
        superseded.facts.extend(old.facts);
        SharedState::merge(folder, &SharedChanges { counters: waiting.counters, ..news }).map(|_| ())
    })?;
    if !superseded.is_empty() {
        shared.forget(&superseded)?;
    }
    Ok(rows)
}

fn in_chunks(
    from: &dyn SharedState,
    take: &mut dyn FnMut(SharedChanges) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let mut waiting = SharedChanges::default();
    let mut rows = 0;
    from.read(&mut |row| {
        rows += 1;
        match row {
            SharedRow::Transaction(transaction) => waiting.transactions.push(*transaction),
            SharedRow::Fact(fact) => waiting.facts.push(*fact),
            SharedRow::Counter(name, value) => {
                waiting.counters.insert(name, value);
            }
        }
        if waiting.len() >= COPY_ROWS { take(std::mem::take(&mut waiting)) } else { Ok(()) }
    })?;
    if !waiting.is_empty() {
        take(waiting)?;
    }
    Ok(rows)
}
