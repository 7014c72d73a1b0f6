//! What of a grouping by namespace is opened: namespaces to their workloads, workloads to their pods, nodes to what runs
//! on them beside pods. A map asks so: all of the cluster at a glance, and one part of it near.

use std::collections::BTreeSet;

/// What marks a node in an `expand`. No namespace and no workload has a colon in its name.
const NODE: &str = "node:";

/// What a value has to be.
pub(crate) const EXPANDED: &str =
    "write a namespace (shop), a workload in one (shop/cart), or what runs on a node beside pods (node:NAME)";

/// Everything that is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expand {
    namespaces: BTreeSet<String>,
    /// `NAMESPACE/NAME`.
    workloads: BTreeSet<String>,
    nodes: BTreeSet<String>,
}

impl Expand {
    /// Nothing.
    pub(crate) const NOTHING: Self =
        Self { namespaces: BTreeSet::new(), workloads: BTreeSet::new(), nodes: BTreeSet::new() };

    /// Opens one more; `None`: the text names nothing that can be opened.
    pub(crate) fn open(&mut self, text: &str) -> Option<()> {
        if let Some(node) = text.strip_prefix(NODE) {
            (!node.is_empty()).then(|| self.nodes.insert(node.to_owned()))?;
            return Some(());
        }
        match text.split_once('/') {
            Some((namespace, name)) => {
                (!namespace.is_empty() && !name.is_empty() && !name.contains('/'))
                    .then(|| self.workloads.insert(text.to_owned()))?;
            }
            None => {
                (!text.is_empty() && !text.contains(':')).then(|| self.namespaces.insert(text.to_owned()))?;
            }
        }
        Some(())
    }

    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    pub(crate) fn has_workload(&self, namespace: &str, name: &str) -> bool {
        !self.workloads.is_empty() && self.workloads.contains(&format!("{namespace}/{name}"))
    }

    pub(crate) fn has_node(&self, node: Option<&str>) -> bool {
        node.is_some_and(|node| self.nodes.contains(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_workloads_and_nodes_are_told_apart() {
        let mut expand = Expand::default();
        for text in ["shop", "pay/cart", "node:a"] {
            assert_eq!(expand.open(text), Some(()), "{text}");
        }
        assert!(expand.has_namespace("shop") && !expand.has_namespace("pay"));
        assert!(expand.has_workload("pay", "cart") && !expand.has_workload("shop", "cart"));
        assert!(expand.has_node(Some("a")) && !expand.has_node(Some("b")) && !expand.has_node(None));
        for text in ["", "/", "shop/", "/cart", "shop/cart/x", "node:", "pod:x"] {
            assert_eq!(expand.open(text), None, "{text}");
        }
    }
}
