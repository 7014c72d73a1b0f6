//! The entrance for facts that the server observes itself: what the watch of the cluster says.
//!
//! ```text
//! watch ─FactSink─▶ applier: state (one change a group), inventory
//! ```
//!
//! These facts are in no agent's batch and not in the log: whoever observes them observes them again after a restart,
//! and learns from [`FactSink::standing`] what it had said before.

use crate::apply::Input;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use weir_model::{Fact, NodeName};
use weir_store::embedded::Embedded;
use weir_store::{StateStore as _, StoreError};

/// Facts that go to the applier at once, so that a reader waits at most for so many.
const FACTS_AT_ONCE: usize = 5_000;

/// Why facts were not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SinkError {
    /// The server is stopping.
    #[error("hand on facts: the server is stopping")]
    Stopping,
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Hands facts to the applier. Clones share its queue, which is bounded: a sender waits until there is room. The applier
/// ends when the last clone is gone, so whoever holds one drops it at shutdown.
#[derive(Clone)]
pub(crate) struct FactSink {
    applier: SyncSender<Input>,
    store: Arc<Embedded>,
}

impl FactSink {
    pub(crate) fn new(applier: SyncSender<Input>, store: Arc<Embedded>) -> Self {
        Self { applier, store }
    }

    /// Hands facts on, in their order, and returns when the applier's queue has them. A fact's key is (node, source,
    /// kind, id, from): the same key said later replaces what was said, and `to` ends it.
    ///
    /// # Errors
    /// [`SinkError::Stopping`].
    pub(crate) async fn put(&self, facts: Vec<Fact>) -> Result<(), SinkError> {
        let applier = self.applier.clone();
        let handed_on = tokio::task::spawn_blocking(move || {
            let mut facts = facts.into_iter();
            loop {
                let some: Vec<Fact> = facts.by_ref().take(FACTS_AT_ONCE).collect();
                if some.is_empty() {
                    return true;
                }
                if applier.send(Input::Facts(some)).is_err() {
                    return false;
                }
            }
        });
        if handed_on.await.unwrap_or(false) { Ok(()) } else { Err(SinkError::Stopping) }
    }

    /// Every fact of `source` and these kinds (of all kinds when none is named) that the server itself said and that has
    /// no end yet: what a watch that begins anew must end if it is gone.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub(crate) async fn standing(
        &self,
        source: &'static str,
        kinds: Vec<&'static str>,
    ) -> Result<Vec<Fact>, SinkError> {
        let store = Arc::clone(&self.store);
        let read = tokio::task::spawn_blocking(move || {
            let mut standing = Vec::new();
            store.view()?.facts(&kinds, &mut |fact| {
                if fact.to.is_none() && fact.source == source && fact.node == NodeName(String::new()) {
                    standing.push(fact);
                }
            })?;
            Ok(standing)
        });
        read.await.unwrap_or(Err(SinkError::Stopping))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use weir_model::UnixNanos;
    use weir_model::fact::{kind, source};
    use weir_store::StateChanges;

    fn fact(node: &str, number: usize, to: Option<i64>) -> Fact {
        Fact {
            node: NodeName(node.into()),
            source: source::API.into(),
            kind: kind::SERVICE.into(),
            id: format!("uid-{number}"),
            from: UnixNanos(1),
            said: UnixNanos(2),
            to: to.map(UnixNanos),
            name: format!("name-{number}"),
            namespace: "shop".into(),
            parent: String::new(),
            netns: 0,
            addresses: Vec::new(),
            attributes: BTreeMap::new(),
        }
    }

    fn store() -> (tempfile::TempDir, Arc<Embedded>) {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(folder.path()).unwrap());
        (folder, store)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn facts_are_handed_on_in_order_through_a_queue_of_one_and_a_stopping_server_says_so() {
        let (_folder, store) = store();
        let (sender, inputs) = std::sync::mpsc::sync_channel(1);
        let sink = FactSink::new(sender, store);
        let facts: Vec<Fact> = (0..=2 * FACTS_AT_ONCE).map(|number| fact("", number, None)).collect();
        let (put, taken) = tokio::join!(sink.put(facts.clone()), async {
            tokio::task::spawn_blocking(move || {
                let mut taken = Vec::new();
                while taken.len() <= 2 * FACTS_AT_ONCE {
                    match inputs.recv().unwrap() {
                        Input::Facts(some) => taken.extend(some),
                        Input::Batch(_) => unreachable!("nobody sends batches"),
                    }
                }
                taken
            })
            .await
            .unwrap()
        });
        put.unwrap();
        assert_eq!(taken, facts);
        assert!(matches!(sink.put(facts).await, Err(SinkError::Stopping)));
    }

    #[tokio::test]
    async fn what_a_watch_had_said_and_not_ended_is_standing() {
        let (_folder, store) = store();
        let facts = vec![fact("", 1, None), fact("", 2, Some(5)), fact("a", 3, None)];
        store.apply(&StateChanges { facts: facts.clone(), ..StateChanges::default() }).unwrap();
        let (sender, _inputs) = std::sync::mpsc::sync_channel(1);
        let sink = FactSink::new(sender, store);
        assert_eq!(sink.standing(source::API, vec![kind::SERVICE]).await.unwrap(), facts[..1]);
        assert_eq!(sink.standing(source::API, vec![kind::NODE]).await.unwrap(), []);
        assert_eq!(sink.standing(source::KUBELET, Vec::new()).await.unwrap(), []);
    }
}
