//! The one live inventory: who is who, as every fact that the state holds says.
//!
//! Filled at start from the store's facts, then by the applier, its only writer, as batches and the server's own
//! observations come. Answers read it: a question builds no names of its own. A fact is in it before its batch is in the
//! state, so that whoever sees a connection sees the names that came with it.

use ipnet::IpNet;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use weir_inventory::Inventory;
use weir_inventory::inventory::Limits;
use weir_model::{Fact, UnixNanos};
use weir_store::{StateView, StoreError};

/// The inventory behind a lock that is held for as long as a batch's facts are taken in, or some ends are named: never
/// while anything is read from disk, and never twice by one reader (a waiting writer would stand between).
#[derive(Debug, Default)]
pub(crate) struct Names {
    inventory: RwLock<Inventory>,
    /// The configured names of networks beyond the cluster.
    networks: Vec<(IpNet, String)>,
}

impl Names {
    /// Knows nobody yet.
    pub(crate) fn new(networks: Vec<(IpNet, String)>) -> Self {
        Self { inventory: RwLock::new(Inventory::new(Limits::default(), networks.clone())), networks }
    }

    /// Everything that the state knows.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub(crate) fn fill(&self, view: &dyn StateView) -> Result<(), StoreError> {
        let mut inventory = Inventory::new(Limits::default(), self.networks.clone());
        view.facts(&[], &mut |fact| inventory.learn(&fact))?;
        *self.inventory.write().unwrap_or_else(PoisonError::into_inner) = inventory;
        Ok(())
    }

    /// Takes facts in.
    pub(crate) fn learn(&self, facts: &[Fact]) {
        if facts.is_empty() {
            return;
        }
        let mut inventory = self.inventory.write().unwrap_or_else(PoisonError::into_inner);
        for fact in facts {
            inventory.learn(fact);
        }
    }

    /// Forgets what ended before an instant. Says how many facts it were.
    pub(crate) fn expire(&self, before: UnixNanos) -> usize {
        self.inventory.write().unwrap_or_else(PoisonError::into_inner).expire(before)
    }

    /// To name ends by.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Inventory> {
        self.inventory.read().unwrap_or_else(PoisonError::into_inner)
    }
}
