//! Facts as sources tell them, times in tenths of a second.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::net::IpAddr;
use weir_inventory::{Inventory, LocalEnd, RemoteEnd, Who};
use weir_model::{Fact, NodeName, UnixNanos};

/// A tenth of a second.
pub(crate) const TENTH: i64 = 100_000_000;

/// An instant.
pub(crate) fn at(tenths: i64) -> UnixNanos {
    UnixNanos(tenths * TENTH)
}

/// An address.
pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A container's id of one letter.
pub(crate) fn container_id(letter: char) -> String {
    letter.to_string().repeat(64)
}

/// A fact of node `a`, from 100 on, said at once.
pub(crate) fn fact(source: &str, kind: &str, id: &str) -> Fact {
    Fact {
        node: NodeName("a".into()),
        source: source.into(),
        kind: kind.into(),
        id: id.into(),
        from: at(100),
        said: at(100),
        to: None,
        name: String::new(),
        namespace: String::new(),
        parent: String::new(),
        netns: 0,
        addresses: Vec::new(),
        attributes: std::collections::BTreeMap::new(),
    }
}

/// A pod `shop/NAME` with the UID `NAME-uid`, by the kubelet.
pub(crate) fn pod(name: &str) -> Fact {
    fact("kubelet", "pod", &format!("{name}-uid")).called("shop", name)
}

/// A container of a pod.
pub(crate) fn container(letter: char, name: &str, pod: &str) -> Fact {
    fact("cri", "container", &container_id(letter)).called("shop", name).of(&format!("{pod}-uid"))
}

/// What the server watches.
pub(crate) fn watched(kind: &str, id: &str, namespace: &str, name: &str) -> Fact {
    fact("api", kind, id).on("").called(namespace, name)
}

/// A Service `shop/NAME` with an address.
pub(crate) fn service(name: &str, uid: &str, address: &str, ports: &str) -> Fact {
    watched("service", uid, "shop", name).at_addresses(&[address]).with("ports", ports)
}

/// An endpoint of a Service `shop/NAME`.
pub(crate) fn endpoint(service: &str, address: &str, ports: &str) -> Fact {
    watched("endpoint", &format!("{service}-slice/{address}"), "shop", service)
        .of(&format!("shop/{service}"))
        .at_addresses(&[address])
        .with("ports", ports)
}

/// Changes to a fact.
pub(crate) trait Told: Sized {
    fn called(self, namespace: &str, name: &str) -> Self;
    fn of(self, parent: &str) -> Self;
    fn on(self, node: &str) -> Self;
    fn in_netns(self, netns: u32) -> Self;
    fn at_addresses(self, addresses: &[&str]) -> Self;
    fn with(self, attribute: &str, value: &str) -> Self;
    fn from(self, tenths: i64) -> Self;
    fn to(self, tenths: i64) -> Self;
    fn owned_by(self, kind: &str, name: &str, uid: &str) -> Self;
}

impl Told for Fact {
    fn called(self, namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into(), ..self }
    }

    fn of(self, parent: &str) -> Self {
        Self { parent: parent.into(), ..self }
    }

    fn on(self, node: &str) -> Self {
        Self { node: NodeName(node.into()), ..self }
    }

    fn in_netns(self, netns: u32) -> Self {
        Self { netns, ..self }
    }

    fn at_addresses(self, addresses: &[&str]) -> Self {
        Self { addresses: addresses.iter().map(|address| (*address).to_owned()).collect(), ..self }
    }

    fn with(mut self, attribute: &str, value: &str) -> Self {
        self.attributes.insert(attribute.into(), value.into());
        self
    }

    fn from(self, tenths: i64) -> Self {
        Self { from: at(tenths), said: self.said.max(at(tenths)), ..self }
    }

    fn to(self, tenths: i64) -> Self {
        Self { to: Some(at(tenths)), said: self.said.max(at(tenths)), ..self }
    }

    fn owned_by(self, kind: &str, name: &str, uid: &str) -> Self {
        self.with("owner_kind", kind).with("owner_name", name).with("owner_uid", uid)
    }
}

/// An inventory of facts.
pub(crate) fn inventory<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Inventory {
    let mut inventory = Inventory::default();
    for fact in facts {
        inventory.learn(fact);
    }
    inventory
}

/// A socket of node `a` of which nothing is known but its address.
pub(crate) fn socket(own: &str) -> LocalEnd<'_> {
    LocalEnd {
        node: "a",
        process: "",
        pid: 0,
        process_start: 0,
        container_id: "",
        cgroup_path: "",
        netns: 0,
        address: address(own),
    }
}

/// Who held an address when a connection seen on node `a` began.
pub(crate) fn remote<'a>(inventory: &'a Inventory, remote: &str, began: i64) -> Who<'a> {
    inventory.remote(&RemoteEnd {
        seen_on: "a",
        address: address(remote),
        began: Some(at(began)),
        first_seen: at(began + 50),
    })
}

/// `KIND NAMESPACE/NAME`.
pub(crate) fn text(who: Who<'_>) -> String {
    format!("{} {}/{}", who.kind(), who.namespace(), who.name())
}
