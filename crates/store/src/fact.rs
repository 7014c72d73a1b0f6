//! Metadata: what one source said about one thing, and from when to when it was so (R6).

use std::collections::BTreeMap;
use weir_model::{NodeName, UnixNanos};

/// One source's fact. Its key is (node, source, kind, id, from).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// The node that said it.
    pub node: NodeName,
    /// `proc`, `tracer`, `kubelet`, `cri`, `docker` or `api`.
    pub source: String,
    /// `node`, `process`, `container`, `pod` or `service`.
    pub kind: String,
    /// Unique within node, source and kind.
    pub id: String,
    /// From when it was so.
    pub from: UnixNanos,
    /// When it was said: the end of the batch's span. The newest saying of a key stands.
    pub said: UnixNanos,
    /// Until when; `None` while it is.
    pub to: Option<UnixNanos>,
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace, empty none.
    pub namespace: String,
    /// The id of the thing that it belongs to, empty none.
    pub parent: String,
    /// The network namespace's inode, 0 unknown.
    pub netns: u32,
    /// Every address that it holds, as text.
    pub addresses: Vec<String>,
    /// Everything else that was collected.
    pub attributes: BTreeMap<String, String>,
}

impl Fact {
    /// Two sayings under one key, in any order: the newer one, by content on a tie.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        self.max(other)
    }
}
