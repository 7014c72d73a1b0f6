//! Who an end is (R6), from what its node told of its owner, and the metadata facts.
//!
//! [`Inventory`] is an index over facts: containers by id, pods by uid, holders of addresses with their validity. A local
//! end is its pod, else its container, else its process; a remote end is the paired view's local end, else the one
//! holder of its address at that time, else `external` with the address as its name, or `unknown` for a loopback
//! address without a counterpart.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use weir_model::{Certainty, Endpoint, Fact, UnixNanos};

/// Facts that the index takes at most; beyond that new things stay unnamed.
const NAMES_MAX: usize = 200_000;
/// How far apart the clocks of nodes may be: so close to a change of holders an address names nobody.
const UNCERTAINTY_NS: i64 = 1_000_000_000;
/// The kinds of fact that name an end. Processes are not among them: a record carries its process's name.
pub const NAMING: [&str; 4] = ["node", "pod", "container", "service"];
/// Characters of a container's id where its name is not known, as container tools print it.
const SHORT_ID: usize = 12;

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
    /// The id of what it belongs to, empty none.
    pub parent: String,
    /// The node that it is on.
    pub node: String,
    /// Everything else.
    pub attributes: BTreeMap<String, String>,
    said: UnixNanos,
    from: UnixNanos,
    to: Option<UnixNanos>,
}

/// The index.
#[derive(Debug, Default)]
pub struct Inventory {
    containers: HashMap<String, Thing>,
    pods: HashMap<String, Thing>,
    nodes: HashMap<String, Thing>,
    holders: HashMap<IpAddr, Vec<Thing>>,
    entries: usize,
}

impl Inventory {
    /// Whether it takes no more.
    pub fn is_full(&self) -> bool {
        self.entries >= NAMES_MAX
    }

    /// Takes a fact in. The newest saying of a thing stands.
    pub fn learn(&mut self, fact: &Fact) {
        if self.is_full() {
            return;
        }
        let thing = Thing {
            kind: fact.kind.clone(),
            id: fact.id.clone(),
            name: fact.name.clone(),
            namespace: fact.namespace.clone(),
            parent: fact.parent.clone(),
            node: fact.node.0.clone(),
            attributes: fact.attributes.clone(),
            said: fact.said,
            from: fact.from,
            to: fact.to,
        };
        let table = match fact.kind.as_str() {
            "container" => Some(&mut self.containers),
            "pod" => Some(&mut self.pods),
            "node" => Some(&mut self.nodes),
            _ => None,
        };
        if let Some(table) = table {
            let key = if fact.kind == "node" { fact.node.0.clone() } else { fact.id.clone() };
            match table.get_mut(&key) {
                // A source that knows the name beats one that only knows that the thing exists.
                Some(held) if (!held.name.is_empty(), held.said) > (!thing.name.is_empty(), thing.said) => {}
                Some(held) => *held = thing.clone(),
                None => {
                    table.insert(key, thing.clone());
                    self.entries += 1;
                }
            }
        }
        if !NAMING.contains(&fact.kind.as_str()) {
            return;
        }
        for address in &fact.addresses {
            let Ok(address) = address.parse::<IpAddr>() else { continue };
            let address = address.to_canonical();
            if address.is_loopback() || address.is_unspecified() {
                continue;
            }
            let holders = self.holders.entry(address).or_default();
            let same = holders
                .iter_mut()
                .find(|held| held.kind == thing.kind && held.id == thing.id && held.from == thing.from);
            match same {
                Some(held) if held.said > thing.said => {}
                Some(held) => *held = thing.clone(),
                None => {
                    holders.push(thing.clone());
                    self.entries += 1;
                }
            }
        }
    }

    /// Who held an address at an instant: the one node, else the one pod, else the one container. Nobody when two of a
    /// kind claim it, or another one did so close by that the clocks cannot tell.
    pub fn holder(&self, address: IpAddr, at: UnixNanos) -> Option<&Thing> {
        let holders = self.holders.get(&address)?;
        let valid =
            |thing: &Thing, slack: i64| thing.from <= at.plus(slack) && thing.to.is_none_or(|to| at.plus(-slack) < to);
        // A host-network pod shares its node's address: the address then says only the node.
        ["node", "pod", "container"].into_iter().find_map(|kind| {
            let of_kind = || holders.iter().filter(|thing| thing.kind == kind);
            let found = of_kind().find(|thing| valid(thing, 0))?;
            // Several sources may speak of one thing.
            let alone = of_kind().filter(|thing| valid(thing, UNCERTAINTY_NS)).all(|thing| thing.id == found.id);
            alone.then_some(found)
        })
    }

    /// Whether an address is the cluster's own: a node, pod or container holds it, or has held it.
    pub fn is_held(&self, address: IpAddr) -> bool {
        let own = |thing: &Thing| matches!(thing.kind.as_str(), "node" | "pod" | "container");
        self.holders.get(&address).is_some_and(|holders| holders.iter().any(own))
    }

    /// The node that owns an address.
    pub fn node_of(&self, address: IpAddr, at: UnixNanos) -> Option<&str> {
        self.holder(address, at).map(|thing| thing.node.as_str())
    }

    /// A node's own facts.
    pub fn node(&self, node: &str) -> Option<&Thing> {
        self.nodes.get(node)
    }

    /// The container of an id, and its pod.
    pub fn container(&self, id: &str) -> (Option<&Thing>, Option<&Thing>) {
        let container = self.containers.get(id);
        let pod = container.and_then(|container| self.pods.get(&container.parent));
        (container, pod)
    }

    /// An end that a process or container holds.
    pub fn own(&self, process: &str, container_id: &str, address: IpAddr) -> Endpoint {
        if !container_id.is_empty() {
            let (container, pod) = self.container(container_id);
            if let Some(pod) = pod.filter(|pod| !pod.name.is_empty()) {
                return endpoint("pod", &pod.namespace, &pod.name);
            }
            return match container.filter(|container| !container.name.is_empty()) {
                Some(container) => endpoint("container", &container.namespace, &container.name),
                None => endpoint("container", "", container_id.get(..SHORT_ID).unwrap_or(container_id)),
            };
        }
        if !process.is_empty() {
            return endpoint("process", "", process);
        }
        endpoint("unknown", "", &address.to_string())
    }

    /// An end that only its address tells of, and how sure that is.
    pub fn by_address(&self, address: IpAddr, at: UnixNanos) -> (Endpoint, Certainty) {
        if address.is_loopback() || address.is_unspecified() {
            return (endpoint("unknown", "", &address.to_string()), Certainty::Unknown);
        }
        match self.holder(address, at) {
            Some(thing) if !thing.name.is_empty() => {
                (endpoint(&thing.kind, &thing.namespace, &thing.name), Certainty::Inferred)
            }
            _ => (endpoint("external", "", &address.to_string()), Certainty::Known),
        }
    }
}

fn endpoint(kind: &str, namespace: &str, name: &str) -> Endpoint {
    Endpoint { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::NodeName;

    const SECOND: i64 = 1_000_000_000;

    fn fact(kind: &str, id: &str, address: &str, from: i64, to: Option<i64>) -> Fact {
        Fact {
            node: NodeName("a".into()),
            source: "cri".into(),
            kind: kind.into(),
            id: id.into(),
            from: UnixNanos(from * SECOND),
            said: UnixNanos(from * SECOND),
            to: to.map(|to| UnixNanos(to * SECOND)),
            name: format!("{id}-name"),
            namespace: "shop".into(),
            parent: String::new(),
            netns: 0,
            addresses: vec![address.to_owned()],
            attributes: BTreeMap::new(),
        }
    }

    fn names(facts: &[Fact]) -> Inventory {
        let mut names = Inventory::default();
        for fact in facts {
            names.learn(fact);
        }
        names
    }

    #[test]
    fn a_reused_address_is_not_attributed_to_the_old_pod() {
        let names = names(&[fact("pod", "old", "10.0.0.1", 10, Some(20)), fact("pod", "new", "10.0.0.1", 30, None)]);
        let name = |at: i64| {
            let (endpoint, certainty) = names.by_address("10.0.0.1".parse().unwrap(), UnixNanos(at * SECOND / 10));
            (endpoint.name, certainty)
        };
        assert_eq!(name(150), ("old-name".into(), Certainty::Inferred));
        assert_eq!(name(250), ("10.0.0.1".into(), Certainty::Known), "between two holders it is only an address");
        assert_eq!(name(400), ("new-name".into(), Certainty::Inferred));
    }

    #[test]
    fn within_clock_uncertainty_of_a_change_and_between_two_claims_nobody_is_named() {
        let names = names(&[
            fact("pod", "old", "10.0.0.1", 10, Some(20)),
            fact("pod", "new", "10.0.0.1", 20, None),
            fact("pod", "one", "10.0.0.2", 10, None),
            fact("pod", "two", "10.0.0.2", 10, None),
        ]);
        let holder = |address: &str, tenths: i64| {
            names.holder(address.parse().unwrap(), UnixNanos(tenths * SECOND / 10)).map(|thing| thing.id.clone())
        };
        assert_eq!(holder("10.0.0.1", 185), Some("old".into()));
        assert_eq!(holder("10.0.0.1", 195), None);
        assert_eq!(holder("10.0.0.1", 205), None);
        assert_eq!(holder("10.0.0.1", 215), Some("new".into()));
        assert_eq!(holder("10.0.0.2", 150), None);
    }

    #[test]
    fn an_own_end_is_its_pod_else_its_container_else_its_process() {
        let mut container = fact("container", "c0ffee00c0ffee00", "10.0.0.1", 1, None);
        let own = |names: &Inventory| {
            let end = names.own("nginx", "c0ffee00c0ffee00", "10.0.0.1".parse().unwrap());
            format!("{} {}/{}", end.kind, end.namespace, end.name)
        };
        assert_eq!(own(&names(&[])), "container /c0ffee00c0ff");
        assert_eq!(own(&names(&[container.clone()])), "container shop/c0ffee00c0ffee00-name");
        container.parent = "uid".into();
        assert_eq!(own(&names(&[container, fact("pod", "uid", "10.0.0.1", 1, None)])), "pod shop/uid-name");
        let process = names(&[]).own("nginx", "", "10.0.0.1".parse().unwrap());
        assert_eq!((process.kind.as_str(), process.name.as_str()), ("process", "nginx"));
    }

    #[test]
    fn a_source_that_knows_the_name_beats_a_newer_one_that_does_not() {
        let named = fact("container", "c", "10.0.0.1", 1, None);
        let nameless =
            Fact { name: String::new(), source: "proc".into(), ..fact("container", "c", "10.0.0.1", 5, None) };
        for facts in [[named.clone(), nameless.clone()], [nameless, named]] {
            assert_eq!(names(&facts).container("c").0.unwrap().name, "c-name");
        }
    }

    #[test]
    fn loopback_names_nobody() {
        let names = names(&[fact("node", "a", "127.0.0.1", 1, None)]);
        let (endpoint, certainty) = names.by_address("127.0.0.1".parse().unwrap(), UnixNanos(5 * SECOND));
        assert_eq!((endpoint.kind.as_str(), certainty), ("unknown", Certainty::Unknown));
    }
}
