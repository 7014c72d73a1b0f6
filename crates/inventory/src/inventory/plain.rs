//! Things as plain values: what a thing is called and what else was collected about it.

use super::Inventory;
use super::things::NONE;
use super::{RemoteEnd, things::Kind};
use crate::inventory::{LocalEnd, strings::Symbol};
use std::collections::BTreeMap;
use std::net::IpAddr;
use weir_model::{Certainty, Endpoint, UnixNanos};

/// What a thing is called, and what else was collected about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thing {
    /// One of [`weir_model::fact::kind`].
    pub kind: String,
    /// Unique within its kind.
    pub id: String,
    /// Its name, empty unknown.
    pub name: String,
    /// Its Kubernetes namespace, empty none.
    pub namespace: String,
    /// The node that it is on.
    pub node: String,
    /// Everything else.
    pub attributes: BTreeMap<String, String>,
}

impl Inventory {
    /// Who held an address at an instant: the one node, pod or container.
    pub fn holder(&self, address: IpAddr, at: UnixNanos) -> Option<Thing> {
        let end = RemoteEnd { seen_on: "", address, began: Some(at), first_seen: at };
        let who = self.remote(&end);
        match who.kind() {
            "node" => self.node(who.node()),
            "pod" => Some(self.thing(who.pod)),
            "container" => Some(self.thing(who.container)),
            _ => None,
        }
    }

    /// The node that owns an address.
    pub fn node_of(&self, address: IpAddr, at: UnixNanos) -> Option<&str> {
        let who = self.remote(&RemoteEnd { seen_on: "", address, began: Some(at), first_seen: at });
        Some(who.node()).filter(|node| !node.is_empty())
    }

    /// A node's own facts.
    pub fn node(&self, node: &str) -> Option<Thing> {
        Some(self.thing(self.node_thing(node)?))
    }

    /// The container of an id, and its pod.
    pub fn container(&self, id: &str) -> (Option<Thing>, Option<Thing>) {
        let container = self.strings.find(id).and_then(|id| self.things.find(Kind::Container, Symbol::EMPTY, id));
        let told = |thing: u32| (thing != NONE && self.things.get(thing).first != NONE).then(|| self.thing(thing));
        let pod = container.map(|container| self.things.resolve(self.things.get(container).parent));
        (container.and_then(told), pod.and_then(told))
    }

    /// An end that a process or container holds.
    pub fn own(&self, process: &str, container_id: &str, address: IpAddr) -> Endpoint {
        let end =
            LocalEnd { node: "", process, pid: 0, process_start: 0, container_id, cgroup_path: "", netns: 0, address };
        self.local(&end, UnixNanos(0)).endpoint()
    }

    /// An end that only its address tells of, and how sure that is.
    pub fn by_address(&self, address: IpAddr, at: UnixNanos) -> (Endpoint, Certainty) {
        let who = self.remote(&RemoteEnd { seen_on: "", address, began: Some(at), first_seen: at });
        (who.endpoint(), who.certainty)
    }

    fn thing(&self, thing: u32) -> Thing {
        let text = |symbol: Symbol| self.strings.text(symbol).to_owned();
        let names: std::collections::BTreeSet<Symbol> =
            self.things.sayings(thing).flat_map(|saying| saying.attributes.iter().map(|(name, _)| *name)).collect();
        let attributes = names
            .into_iter()
            .filter_map(|name| Some((text(name), self.attribute_of(thing, name)?.to_owned())))
            .collect();
        let thing = self.things.get(thing);
        Thing {
            kind: thing.kind.as_str().to_owned(),
            id: text(thing.uid),
            name: text(thing.name),
            namespace: text(thing.namespace),
            node: text(thing.node),
            attributes,
        }
    }
}
