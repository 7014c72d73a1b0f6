//! The one live inventory: who is who, as every fact that the state holds says.
//!
//! Filled at start from the store's facts, then by the applier, its only writer, as batches and the server's own
//! observations come. Answers read it: a question builds no names of its own. A fact is in it before its batch is in the
//! state, so that whoever sees a connection sees the names that came with it.

use ipnet::IpNet;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use weir_inventory::Inventory;
use weir_inventory::inventory::Limits;
use weir_model::{Fact, NodeName, UnixNanos};
use weir_store::{MetadataState, StateView, StoreError};

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
        for stream in view.streams()? {
            vouch(&mut inventory, &stream.node, stream.first_covered, &stream.metadata);
        }
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

    /// Believes what a node's sources told until they were read last, in a stream that began at `since`.
    pub(crate) fn vouch(&self, node: &NodeName, since: UnixNanos, sources: &[MetadataState]) {
        if !sources.is_empty() {
            vouch(&mut self.inventory.write().unwrap_or_else(PoisonError::into_inner), node, since, sources);
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

fn vouch(inventory: &mut Inventory, node: &NodeName, since: UnixNanos, sources: &[MetadataState]) {
    for source in sources {
        if let Some(read) = source.read {
            inventory.vouch(&node.0, &source.source, since, read);
        }
    }
}
