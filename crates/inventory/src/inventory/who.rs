//! The answer: who an end is, how that was found, and everything that belongs to it. A handle into the inventory; texts
//! are looked up when they are asked for.

use super::Inventory;
use super::strings::Symbol;
use super::things::{Kind, NONE};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use weir_model::{Certainty, Endpoint, UnixNanos};

/// Characters of a container's id where its name is not known, as container tools print it.
const SHORT_ID: usize = 12;

/// How an end was named (R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The cgroup that the socket was created in.
    Cgroup,
    /// The only pod or container in the socket's network namespace.
    Netns,
    /// The owner, by pid and start.
    Process,
    /// Its address, at that time.
    Address,
    /// The name of a configured network.
    Network,
    /// Nothing.
    Nothing,
}

/// Something with a name and a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// Its id, unique within its kind.
    pub id: &'a str,
    /// Its Kubernetes namespace, empty none.
    pub namespace: &'a str,
    /// Its name, empty unknown.
    pub name: &'a str,
}

/// What a person deployed: the end of an owner chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload<'a> {
    /// `deployment`, `stateful_set`, `daemon_set`, `cron_job`, `job`, `replica_set`, `pod` (bare and static ones), or
    /// another controller's kind in snake_case.
    pub kind: &'a str,
    /// The Kubernetes namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// `unknown`: what is said here owns the pod, and may have an owner itself that no source told of yet.
    pub certainty: Certainty,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    Symbol(Symbol),
    Text(&'a str),
    Address(IpAddr),
}

/// Who an end is.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) kind: &'static str,
    pub(super) namespace: Symbol,
    pub(super) name: Name<'a>,
    pub(super) node: Name<'a>,
    pub(super) pod: u32,
    pub(super) container: u32,
    pub(super) service: u32,
    pub(super) container_id: &'a str,
    pub(super) at: i64,
    /// How sure the naming is.
    pub certainty: Certainty,
    /// How it was found.
    pub basis: Basis,
}

impl<'a> Who<'a> {
    /// `process`, `container`, `pod`, `node`, `service`, `external` or `unknown`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Its Kubernetes namespace, empty none.
    pub fn namespace(&self) -> &'a str {
        self.inventory.strings.text(self.namespace)
    }

    /// Its name; the address of what has none.
    pub fn name(&self) -> Cow<'a, str> {
        match self.name {
            Name::Symbol(symbol) => self.inventory.strings.text(symbol).into(),
            Name::Text(text) => text.into(),
            Name::Address(address) => address.to_string().into(),
        }
    }

    /// Kind, namespace and name as stored facts have them.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { kind: self.kind.to_owned(), namespace: self.namespace().to_owned(), name: self.name().into_owned() }
    }

    /// The node that it is on, empty unknown.
    pub fn node(&self) -> &'a str {
        match self.node {
            Name::Symbol(symbol) => self.inventory.strings.text(symbol),
            Name::Text(text) => text,
            Name::Address(_) => "",
        }
    }

    /// Its node's zone.
    pub fn zone(&self) -> Option<&'a str> {
        let node = self.node_thing()?;
        self.inventory.attribute_of(node, self.inventory.words.zone)
    }

    /// Its pod, also where no source gave it a name yet.
    pub fn pod(&self) -> Option<Named<'a>> {
        (self.pod != NONE).then(|| self.inventory.named(self.pod))
    }

    /// Its container; the name is empty where no source gave it one.
    pub fn container(&self) -> Option<Named<'a>> {
        if self.container != NONE {
            return Some(self.inventory.named(self.container));
        }
        (!self.container_id.is_empty()).then_some(Named { id: self.container_id, namespace: "", name: "" })
    }

    /// The Service whose address it is.
    pub fn service(&self) -> Option<Named<'a>> {
        (self.service != NONE).then(|| self.inventory.named(self.service))
    }

    /// What its pod belongs to; `None` without a named pod.
    pub fn workload(&self) -> Option<Workload<'a>> {
        let named = self.pod != NONE && !self.inventory.things.get(self.pod).name.is_empty();
        named.then(|| self.inventory.workload(self.pod))
    }

    /// What was collected about its container, pod, owner (its ReplicaSet or Job), Service, node or namespace, by the
    /// thing's kind (one of [`weir_model::fact::kind`]) and the attribute's name.
    pub fn attribute(&self, kind: &str, name: &str) -> Option<&'a str> {
        let thing = self.thing(Kind::parse(kind)?)?;
        self.inventory.attribute_of(thing, self.inventory.strings.find(name)?)
    }

    /// All of those of one kind, by name, but for the pids of its processes.
    pub fn attributes(&self, kind: &str) -> BTreeMap<&'a str, &'a str> {
        let Some(thing) = Kind::parse(kind).and_then(|kind| self.thing(kind)) else { return BTreeMap::new() };
        self.inventory.attributes_of(thing)
    }

    fn thing(&self, kind: Kind) -> Option<u32> {
        let inventory = self.inventory;
        let thing = match kind {
            Kind::Container => self.container,
            Kind::Pod => self.pod,
            Kind::Service => self.service,
            wanted @ (Kind::ReplicaSet | Kind::Job) => {
                let owner = inventory.things.resolve(inventory.existing(self.pod)?.owner);
                inventory.existing(owner).filter(|owner| owner.kind == wanted).map_or(NONE, |_| owner)
            }
            Kind::Node => self.node_thing().unwrap_or(NONE),
            Kind::Namespace => {
                let namespace = inventory.existing(self.pod).map_or(self.namespace, |pod| pod.namespace);
                inventory.thing_by_name(Kind::Namespace, Symbol::EMPTY, namespace, self.at).unwrap_or(NONE)
            }
            Kind::Process | Kind::Endpoint => NONE,
        };
        inventory.existing(thing).map(|_| thing)
    }

    fn node_thing(&self) -> Option<u32> {
        match self.node {
            Name::Symbol(node) if !node.is_empty() => self.inventory.things.find(Kind::Node, Symbol::EMPTY, node),
            Name::Text(node) => self.inventory.node_thing(node),
            Name::Symbol(_) | Name::Address(_) => None,
        }
    }

    pub(super) fn unknown(inventory: &'a Inventory, address: IpAddr, at: UnixNanos) -> Self {
        Self {
            inventory,
            kind: "unknown",
            namespace: Symbol::EMPTY,
            name: Name::Address(address),
            node: Name::Text(""),
            pod: NONE,
            container: NONE,
            service: NONE,
            container_id: "",
            at: at.0,
            certainty: Certainty::Unknown,
            basis: Basis::Nothing,
        }
    }

    /// Names it after a pod or container, the pod first.
    pub(super) fn call(mut self, pod: u32, container: u32, container_id: &'a str) -> Self {
        let inventory = self.inventory;
        (self.pod, self.container, self.container_id) = (pod, container, container_id);
        if let Some(named) = inventory.existing(pod).filter(|pod| !pod.name.is_empty()) {
            (self.kind, self.namespace, self.name) = ("pod", named.namespace, Name::Symbol(named.name));
            return self;
        }
        if let Some(known) = inventory.existing(container) {
            self.container_id = inventory.strings.text(known.uid);
            self.kind = "container";
            self.namespace = known.namespace;
            if !known.name.is_empty() {
                self.name = Name::Symbol(known.name);
                return self;
            }
        }
        if self.container_id.is_empty() {
            // A pod without a name and a container: nothing to call it by but its UID.
            self.kind = "pod";
            self.name = inventory.existing(pod).map_or(self.name, |pod| Name::Symbol(pod.uid));
        } else {
            self.kind = "container";
            self.name = Name::Text(self.container_id.get(..SHORT_ID).unwrap_or(self.container_id));
        }
        self
    }
}

impl fmt::Debug for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{} ({}, {:?})", self.kind, self.namespace(), self.name(), self.certainty, self.basis)
    }
}

impl Inventory {
    /// A node's zone.
    pub fn zone(&self, node: &str) -> Option<&str> {
        self.attribute_of(self.node_thing(node)?, self.words.zone)
    }

    pub(super) fn node_thing(&self, node: &str) -> Option<u32> {
        self.things.find(Kind::Node, Symbol::EMPTY, self.strings.find(node).filter(|node| !node.is_empty())?)
    }

    pub(super) fn existing(&self, thing: u32) -> Option<&super::things::Thing> {
        (thing != NONE).then(|| self.things.get(thing))
    }

    pub(super) fn named(&self, thing: u32) -> Named<'_> {
        let thing = self.things.get(thing);
        let text = |symbol| self.strings.text(symbol);
        Named { id: text(thing.uid), namespace: text(thing.namespace), name: text(thing.name) }
    }
}
