//! The one live inventory: who is who, as every fact that the state holds says.
//!
//! Filled at start from the store's facts, then by the applier, its only writer, as batches and the server's own
//! observations come. Answers read it: a question builds no names of its own. A fact is in it before its batch is in the
//! state, so that whoever sees a connection sees the names that came with it.

use ipnet::IpNet;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
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
    /// By node. The writer's alone.
    vouched: Mutex<HashMap<String, Vouched>>,
}

/// What a node's agent answers for: in what it said since `since` it has told everything that changed until `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vouched {
    run: [u8; 16],
    since: UnixNanos,
    until: UnixNanos,
}

impl Names {
    /// Knows nobody yet.
    pub(crate) fn new(networks: Vec<(IpNet, String)>) -> Self {
        Self {
            inventory: RwLock::new(Inventory::new(Limits::default(), networks.clone())),
            networks,
            ..Self::default()
        }
    }

    /// Everything that the state knows.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub(crate) fn fill(&self, view: &dyn StateView) -> Result<(), StoreError> {
        let mut inventory = Inventory::new(Limits::default(), self.networks.clone());
        view.facts(&[], &mut |fact| inventory.learn(&fact))?;
        for (node, vouched) in self.vouched.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            inventory.vouch(node, vouched.since, vouched.until);
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

    /// What is open of a node's things is believed until then, and not beyond: who holds an address after it is not known
    /// before the agent has looked again. `run`: the agent's, which tells everything anew from `began` on.
    pub(crate) fn vouch(&self, node: &str, run: [u8; 16], began: UnixNanos, until: UnixNanos) {
        let mut all = self.vouched.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match all.get(node) {
            Some(held) if held.run == run => Vouched { until: held.until.max(until), ..*held },
            Some(held) => Vouched { run, since: held.since.max(began), until: held.until.max(until) },
            None => Vouched { run, since: began, until },
        };
        if all.insert(node.to_owned(), next) != Some(next) {
            let mut inventory = self.inventory.write().unwrap_or_else(PoisonError::into_inner);
            inventory.vouch(node, next.since, next.until);
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
