//! The one live inventory: who is who, as every fact that the state holds says.
//!
//! Filled at start from the store's facts, then by the applier, its only writer, as batches and the server's own
//! observations come. Answers read it: a question builds no names of its own. A fact is in it before its batch is in the
//! state, so that whoever sees a connection sees the names that came with it.

use ipnet::IpNet;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use weir_inventory::Inventory;
use weir_inventory::inventory::{Expiry, Limits};
use weir_model::{Fact, NodeName, UnixNanos};
use weir_store::{MetadataState, StateView, StoreError};

/// Facts that are taken in, and things that are forgotten, while nobody reads: some milliseconds at the size of a large
/// cluster.
const STEP: usize = 1_000;
/// How long the writer lets readers in between two steps of forgetting: a lock that is taken again at once is not seen free
/// by who waits for it.
const BETWEEN: Duration = Duration::from_micros(200);

/// The inventory behind a lock that is held for as long as [`STEP`] facts are taken in, or some ends are named: never
/// while anything is read from disk, and never twice by one reader (a waiting writer would stand between). What is
/// forgotten is looked for by the one writer as a reader among others.
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
        let former = std::mem::replace(&mut *self.write(), inventory);
        // It takes a while, and nobody waits for it.
        drop(former);
        Ok(())
    }

    /// Takes facts in.
    pub(crate) fn learn(&self, facts: &[Fact]) {
        for some in facts.chunks(STEP) {
            let room = self.read().plan_room();
            if let Some(expiry) = room {
                self.forget(expiry);
            }
            let mut inventory = self.write();
            for fact in some {
                inventory.learn(fact);
            }
        }
    }

    /// Believes what a node's sources told until they were read last, in a stream that began at `since`.
    pub(crate) fn vouch(&self, node: &NodeName, since: UnixNanos, sources: &[MetadataState]) {
        if !sources.is_empty() {
            vouch(&mut self.write(), node, since, sources);
        }
    }

    /// Forgets what ended before an instant. Says how many facts it were.
    pub(crate) fn expire(&self, before: UnixNanos) -> usize {
        let expiry = self.read().plan_expiry(before, &[]);
        self.forget(expiry)
    }

    fn forget(&self, mut expiry: Expiry) -> usize {
        let mut forgotten = 0;
        loop {
            let some = self.write().expire_next(&mut expiry, STEP);
            let Some(some) = some else { break };
            forgotten += some;
            std::thread::park_timeout(BETWEEN);
        }
        let sweep = self.read().plan_sweep(forgotten);
        if let Some(mut sweep) = sweep {
            while self.write().sweep_next(&mut sweep, STEP) {
                std::thread::park_timeout(BETWEEN);
            }
        }
        forgotten
    }

    /// To name ends by.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Inventory> {
        self.inventory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inventory> {
        self.inventory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn vouch(inventory: &mut Inventory, node: &NodeName, since: UnixNanos, sources: &[MetadataState]) {
    for source in sources {
        if let Some(read) = source.read {
            inventory.vouch(&node.0, &source.source, since, read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use weir_inventory::RemoteEnd;

    fn pod(node: &str, number: i64, to: Option<i64>) -> Fact {
        Fact {
            node: NodeName(node.into()),
            source: "kubelet".into(),
            kind: "pod".into(),
            id: format!("{node}-{number}"),
            from: UnixNanos(0),
            said: UnixNanos(to.unwrap_or(5)),
            to: to.map(UnixNanos),
            name: format!("{node}-{number}"),
            namespace: "shop".into(),
            parent: String::new(),
            netns: 0,
            addresses: vec![format!("10.{}.{}.{}", node.len(), number / 256, number % 256)],
            attributes: std::collections::BTreeMap::new(),
        }
    }

    fn named(names: &Names, address: &str) -> String {
        let at = UnixNanos(3);
        let end = RemoteEnd { seen_on: "x", address: address.parse().unwrap(), began: Some(at), first_seen: at };
        names.read().remote(&end).name().into_owned()
    }

    #[test]
    fn readers_read_on_while_much_is_forgotten_and_see_what_stays() {
        let names = Names::new(Vec::new());
        names.learn(&(0..30_000).map(|number| pod("ended", number, Some(100))).collect::<Vec<_>>());
        names.learn(&[pod("living", 7, None)]);
        let done = AtomicBool::new(false);
        let forgotten = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(named(&names, "10.6.0.7"), "living-7");
                }
            });
            let forgotten = names.expire(UnixNanos(1_000));
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
            forgotten
        });
        assert_eq!((forgotten, names.read().facts()), (30_000, 1));
    }
}
